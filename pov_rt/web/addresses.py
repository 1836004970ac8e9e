"""Who sends a request: its address, what that counts as, and tokens of it that nobody signed."""

from __future__ import annotations

import logging
import socket
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.config.networks import is_in, read_address
from pov_rt.config.settings import ServerSettings
from pov_rt.protocol.errors import RateLimited, TokenUnsigned
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.limits import Bucket, KeyedBuckets, Rate
from pov_rt.runtime.process.logs import Throttle
from pov_rt.web.upgrade.head import Asked, Head

log = logging.getLogger(__name__)

MAX_ADDRESSES = 10_000
"""Whose failures are remembered; past that the half that failed first is forgotten."""


def peer_ip(request: Asked) -> str:
    """Return the address of who is connected, in the one form that is compared and counted."""
    text = request.remote_ip or ""
    return text if isinstance(request, Head) else read_address(text) or text


def is_trusted(address: str, settings: ServerSettings) -> bool:
    """Tell whether an address is a proxy's to be believed; `address` as `read_address` has it."""
    proxies = settings.trusted_proxies
    return bool(proxies) and is_in(address, tuple(proxies))


def is_behind_proxy(request: Asked, settings: ServerSettings) -> bool:
    """Tell whether the peer is a proxy to be believed: a trusted address, or a Unix socket.

    Whoever may write to a Unix socket is a proxy on this machine.
    """
    return _is_unix(request) or is_trusted(peer_ip(request), settings)


def is_of_this_machine(request: Asked) -> bool:
    """Tell whether who is connected is a program of this machine; it may be a proxy."""
    return _is_unix(request) or is_loopback(peer_ip(request))


def _is_unix(request: Asked) -> bool:
    if isinstance(request, Head):
        return request.is_unix
    context = getattr(request.connection, "context", None)
    return getattr(context, "address_family", None) == socket.AF_UNIX


def client_ip(request: Asked, settings: ServerSettings) -> str | None:
    """Return the client's address: the peer's, or what a trusted proxy says; None if it says none.

    It does so in one header, the one which it writes itself: any other is the client's own word.
    What it writes there and is no address stands for the peer: whoever can make a proxy write such
    a thing has no budgets of their own by it.
    """
    peer = peer_ip(request)
    if not (_is_unix(request) or is_trusted(peer, settings)):
        return peer
    said = request.headers.get(settings.client_ip_header)
    if not said:
        return None
    found = peer
    # The nearest proxy wrote the last address; those before it are anybody's words, unless a
    # trusted proxy wrote them.
    for text in reversed(said.split(",")):
        address = read_address(text.strip())
        if address is None:
            return peer
        found = address
        if not is_trusted(address, settings):
            break
    return found


def is_loopback(address: str) -> bool:
    """Tell whether this is an IP address that leads nowhere but to this machine."""
    read = read_address(address)
    return read is not None and _is_loopback(read)


@lru_cache(1024)
def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


@lru_cache(1024)
def address_key(address: str) -> str:
    """Return what an address counts as where addresses are counted.

    Of IPv6 that is its /64, for whoever has one address has 2^64 of them (RFC 6177).
    """
    read = read_address(address)
    if read is None or ":" not in read:
        return read or address
    return f"{IPv6Address(int(ip_address(read)) >> 64 << 64)}/64"


SPARE = Rate(100.0, 100.0)
"""Tokens of addresses that have to wait which are looked at nevertheless."""


class Client(NamedTuple):
    """Who asks: the address, and what it counts as; None where it is not known."""

    ip: str
    key: str | None


class Failures:
    """Tokens that no key has signed, by the address they came from. Owner: the web server.

    To look at one costs a signature for each key that might have made it. Whose budget is used up
    is refused before that, until there is some again; only those who failed are remembered.
    """

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._clock = clock
        self._buckets = KeyedBuckets(rate, MAX_ADDRESSES)
        self._complaint = Throttle(log, per_s=0.1)
        self._nameless = Throttle(log, per_s=0.01)
        self._unbelieved = Throttle(log, per_s=0.001)
        self._spare = Bucket(SPARE, clock.monotonic())

    def client(self, request: Asked, settings: ServerSettings) -> Client:
        """Return who asks; have the log tell of a peer that speaks for others in vain."""
        self._doubt(request, settings)
        address = client_ip(request, settings)
        if address is None:
            return Client(peer_ip(request), None)
        return Client(address, address_key(address))

    def verify(
        self, tokens: Tokens, token: str, accept: frozenset[Kind], client: Client
    ) -> Identity:
        """Return whose token this is.

        Raises `TokenError`, or `RateLimited` where too many tokens of the address were not good.
        """
        wait_s = self.wait_s(client.key)
        if wait_s and not tokens.remembers(token, accept) and not self.spare():
            raise self.refuse(client.ip, wait_s)
        try:
            return tokens.verify(token, accept)
        except TokenUnsigned:
            # Not a good token at the wrong door, too late or revoked: its bearer is somebody, and
            # must not shut out all others behind one address.
            self.count(client.key)
            raise

    def _doubt(self, request: Asked, settings: ServerSettings) -> None:
        """Have the log tell of a peer that speaks for others and is not believed.

        If it is a proxy, all its clients count as one address. But anybody may send the header.
        """
        if settings.client_ip_header in request.headers and not is_behind_proxy(request, settings):
            self._unbelieved.log(
                logging.WARNING,
                "%s comes from an address that is not in server.trusted_proxies: if it is a "
                "proxy's, limits of one address hold for all its clients together",
                settings.client_ip_header,
                ip=request.remote_ip,
            )

    def wait_s(self, key: str | None) -> float:
        """Return how long an address must wait until a token of it is looked at; 0: not at all.

        `key` is what the address counts as; where there is none, nobody waits for all others.
        """
        if key is None:
            self._nameless.log(
                logging.WARNING,
                "a trusted proxy does not say for whom it asks (see server.client_ip_header): "
                "limits of one address do not hold",
            )
            return 0.0
        return self._buckets.wait_s(key, self._clock.monotonic())

    def spare(self) -> bool:
        """Tell whether a token of an address that has to wait is looked at nevertheless.

        A few of all of them are: a good one among them gets in, if it is sent again.
        """
        return not self._spare.take(SPARE, self._clock.monotonic())

    def refuse(self, ip: str, wait_s: float) -> RateLimited:
        """Return the refusal, and have the log tell of it."""
        self._complaint.log(
            logging.WARNING,
            "too many tokens that are not good come from one address (limits.failed_rate)",
            ip=ip,
        )
        return RateLimited("Too many tokens of this address were not good", retry_after_s=wait_s)

    def count(self, key: str | None) -> None:
        """Count a token that no key has signed."""
        if key is not None:
            self._buckets.take(key, self._clock.monotonic())
