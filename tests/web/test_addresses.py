"""Whose word on a client's address counts, what it counts as, and whose tokens failed."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from pov_rt.config.settings import ServerSettings
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.limits import Rate
from pov_rt.web.addresses import MAX_ADDRESSES, Failures, address_key, client_ip

PEER = "10.0.0.2"
PROXIES = [PEER, "2001:db8::2", "172.16.0.0/12"]


def asked(settings: ServerSettings, *headers: tuple[str, str], peer: str = PEER) -> str | None:
    """Return what address a request with these headers is taken to have come from."""
    fields = HTTPHeaders({"Host": "localhost"})
    for name, value in headers:
        fields.add(name, value)
    request = HTTPServerRequest(start_line=RequestStartLine("GET", "/", "HTTP/1.1"), headers=fields)
    request.remote_ip = peer
    return client_ip(request, settings)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("1.1.1.1 ,  192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("anybody's words, 192.0.2.1", "192.0.2.1"),
        ("1.1.1.1, 192.0.2.1, 10.0.0.2, 2001:db8::2", "192.0.2.1"),
        ("[fe80::1%eth0]:4711", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:4711", "192.0.2.1"),
        ("1.1.1.1, 192.0.2.1, 172.16.9.9, ::ffff:10.0.0.2, 10.0.0.2:80", "192.0.2.1"),
        # All of them are ours: the first of them has asked.
        ("10.0.0.2", "10.0.0.2"),
        ("172.16.9.9, 10.0.0.2", "172.16.9.9"),
        # What is no address is not believed, and what stands before it even less.
        ("1.2.3.4 <b>anything</b>", PEER),
        ("192.0.2.1, unknown", PEER),
        ("192.0.2.1, unknown, 172.16.9.9", PEER),
        ("192.0.2.1,", PEER),
        ("192.0.2.1:x", PEER),
        ("192.0.2.300", PEER),
        ("192.0.2.1:4711:1", PEER),
        ("[192.0.2.1", PEER),
        ('"192.0.2.1"', PEER),
        ("x" * 10_000, PEER),
        # It does not say for whom it asks.
        ("", None),
    ],
)
def test_a_trusted_proxy_is_believed_if_it_writes_an_address(
    written: str, address: str | None
) -> None:
    settings = ServerSettings(trusted_proxies=PROXIES)
    assert asked(settings, ("X-Forwarded-For", written)) == address
    for stranger in ("192.0.2.9", "172.32.0.1", "fe80::1"):
        assert asked(settings, ("X-Forwarded-For", written), peer=stranger) == stranger
    # A socket for both kinds names the same peer so.
    assert asked(settings, ("X-Forwarded-For", written), peer=f"::ffff:{PEER}") == address
    mapped = ("X-Forwarded-For", written)
    assert asked(settings, mapped, peer="::ffff:192.0.2.9") == "192.0.2.9"


def test_only_the_header_that_the_proxy_writes_counts() -> None:
    both = ("X-Real-IP", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2")
    assert asked(ServerSettings(trusted_proxies=PROXIES), *both) == "192.0.2.2"
    real = ServerSettings(trusted_proxies=PROXIES, client_ip_header="X-Real-IP")
    assert asked(real, *both) == "192.0.2.1"
    assert asked(real, both[1]) is None
    # Sent by the client, and again by the proxy: the last one is the proxy's.
    assert asked(real, ("X-Real-IP", "1.1.1.1"), ("X-Real-IP", "192.0.2.1")) == "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_of_an_ipv6_address_the_network_counts(address: str, key: str) -> None:
    assert address_key(address) == key


def test_who_failed_too_often_waits_and_others_do_not() -> None:
    clock = ManualClock()
    failures = Failures(Rate(2.0, 4.0), clock)
    assert failures.wait_s("::1") == 0.0
    for _ in range(4):
        assert failures.wait_s("192.0.2.1") == 0.0
        failures.count("192.0.2.1")
    for _ in range(3):  # to look costs nothing
        assert failures.wait_s("192.0.2.1") == 0.5
    assert failures.wait_s("192.0.2.2") == 0.0
    failures.count("192.0.2.1")
    assert failures.wait_s("192.0.2.1") == 0.5, "it never becomes longer than that"
    clock.advance(0.5)
    assert failures.wait_s("192.0.2.1") == 0.0


def test_behind_a_proxy_that_names_nobody_no_one_waits_for_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = Failures(Rate(1.0, 1.0), ManualClock())
    for _ in range(3):
        failures.count(None)
        assert failures.wait_s(None) == 0.0
    (line,) = caplog.messages
    assert "server.client_ip_header" in line


def test_a_crowd_of_addresses_takes_no_more_than_some_memory() -> None:
    failures = Failures(Rate(1.0, 1.0), ManualClock())
    failures.count("first")
    assert failures.wait_s("first") == 1.0
    for number in range(MAX_ADDRESSES):
        failures.count(str(number))
    assert failures.wait_s("first") == 0.0, "it is forgotten"
    assert failures.wait_s(str(MAX_ADDRESSES - 1)) == 1.0
