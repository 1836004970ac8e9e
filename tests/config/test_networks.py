"""Addresses have one form, however they are written; networks have their own bits only."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.config.networks import MAX_ADDRESS_CHARS, is_in, read_address, read_network


@given(number=st.integers(0, 2**32 - 1), port=st.integers(0, 65535))
def test_an_ipv4_address_is_one_whatever_is_around_it(number: int, port: int) -> None:
    plain = str(IPv4Address(number))
    mapped = IPv6Address((0xFFFF << 32) + number)
    for written in (
        plain,
        f"{plain}:{port}",
        f"::ffff:{plain}",
        f"[::ffff:{plain}]",
        f"[::FFFF:{plain}]:{port}",
        str(mapped),
        mapped.exploded,
    ):
        assert read_address(written) == plain


@given(number=st.integers(2**49, 2**128 - 1), port=st.integers(0, 65535))
def test_an_ipv6_address_is_one_whatever_is_around_it(number: int, port: int) -> None:
    address = IPv6Address(number)
    plain = str(address)
    for written in (
        plain,
        plain.upper(),
        address.exploded,
        f"[{plain}]",
        f"[{plain}]:{port}",
        f"{plain}%eth0",
        f"[{plain}%eth0]:{port}",
    ):
        assert read_address(written) == plain


@given(text=st.text(max_size=MAX_ADDRESS_CHARS + 5))
def test_what_is_none_is_told_and_what_is_one_stays_so(text: str) -> None:
    found = read_address(text)
    if found is not None:
        assert read_address(found) == found
        assert read_network(found).num_addresses == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "unknown", "1.2.3", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "01.2.3.4", "0x7f.1"),
        *("[1.2.3.4", "1.2.3.4]", "[]:1", "::1::", "2001:db8::1%", '"1.2.3.4"', " 1.2.3.4"),
        *("1.2.3.4/32", "<script>", "1.2.3.4%eth0", "::1" + " " * MAX_ADDRESS_CHARS),
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert read_address(text) is None


def test_a_network_has_its_own_bits_only() -> None:
    assert read_network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert read_network("10.0.0.7") == ip_network("10.0.0.7/32")
    assert read_network("::ffff:10.0.0.7") == ip_network("10.0.0.7/32")
    assert read_network("2001:db8::/32") == ip_network("2001:db8::/32")
    for text in ("10.0.0.7/8", "10.0.0.0/33", "proxy", "", "10.0.0.1:80", "*"):
        with pytest.raises(ValueError, match=r".+"):
            read_network(text)


def test_an_address_is_in_a_network_of_its_kind() -> None:
    networks = ("10.0.0.0/8", "2001:db8::/32", "192.0.2.1")
    assert all(is_in(each, networks) for each in ("10.9.9.9", "2001:db8::9", "192.0.2.1"))
    assert not any(is_in(each, networks) for each in ("11.0.0.1", "2001:db9::1", "192.0.2.2"))
