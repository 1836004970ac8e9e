"""The URL says where Redis is and how one gets in; what it says wrong is named."""

from __future__ import annotations

import pytest

from pov_rt.engine.redis.client.address import Address, BadAddress, parse_address, parse_sentinels


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address("localhost", 6379)),
        ("redis://10.0.0.1:7000/3", Address("10.0.0.1", 7000, database=3)),
        ("redis://[::1]", Address("::1", 6379)),
        ("rediss://:p%40ss@host/", Address("host", 6379, True, "", "p@ss")),
        ("redis://app:x@host", Address("host", 6379, False, "app", "x")),
    ],
)
def test_a_url_names_all_or_leaves_it_out(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host", "must begin with redis://"),
        ("redis://host:port", "a port that is not a number"),
        ("redis://host/name", "it has a number"),
        ("redis://host?ssl=1", r"stand in \[engine\.redis\]"),
    ],
)
def test_what_is_wrong_is_named(url: str, words: str) -> None:
    with pytest.raises(BadAddress, match=words):
        parse_address(url)


def test_a_url_names_sentinels_and_what_they_call_the_primary() -> None:
    where = parse_sentinels("redis+sentinel://app:p%2Cs@a,[::1]:7000/main/2", "me", "hunter2")
    assert where.name == "main"
    assert where.primary == Address("", 0, False, "app", "p,s", 2, must_lead=True)
    assert where.sentinels == (
        Address("a", 26379, False, "me", "hunter2"),
        Address("::1", 7000, False, "me", "hunter2"),
    )
    assert str(where) == "main (sentinels a:26379, [::1]:7000)"
    bare = parse_sentinels("rediss+sentinel://", ca_file="ca.pem")
    assert bare.name == "mymaster"
    assert bare.sentinels == (Address("localhost", 26379, True, ca_file="ca.pem"),)
    assert bare.primary.is_tls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://host", r"must begin with redis\+sentinel://"),
        ("redis+sentinel://a,a:26379", "names a sentinel twice"),
        ("redis+sentinel://a,b:port", "a port that is not a number"),
        ("redis+sentinel://a/name/b", "it has a number"),
        ("redis+sentinel://a?name=b", r"stand in \[engine\.redis\]"),
    ],
)
def test_what_is_wrong_about_sentinels_is_named(url: str, words: str) -> None:
    with pytest.raises(BadAddress, match=words):
        parse_sentinels(url)


def test_a_password_is_never_shown() -> None:
    address = parse_address("redis://app:hunter2@[::1]:7000")
    assert "hunter2" not in f"{address} {address!r}"
    assert str(address) == "[::1]:7000"
