"""IP addresses and networks, as people and proxies write them."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([^\[\]]+)\](?::[0-9]{1,5})?")
MAX_ADDRESS_CHARS = 80
"""More than the longest has, with brackets, a zone and a port."""


def read_address(text: str) -> str | None:
    """Return an IP address in the one form that is compared and counted; None if it is none.

    It may be written with a port, in brackets, with a zone, or as IPv4 mapped into IPv6, which is
    how a socket for both names a client that came by IPv4.
    """
    return _read_address(text) if len(text) <= MAX_ADDRESS_CHARS else None


@lru_cache(4096)
def _read_address(text: str) -> str | None:
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        return str(_plain(ip_address(text)))
    except ValueError:
        return None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))  # without its zone


def read_network(text: str) -> Network:
    """Return a network such as `10.0.0.0/8`; an address is one of its own.

    Raises ValueError for what is neither, and for a network with more than its own bits, such as
    `10.0.0.7/8`: it is not clear which of the two is meant.
    """
    if "/" in text:
        return ip_network(text)
    return ip_network(_plain(ip_address(text)))


@lru_cache(4096)
def is_in(address: str, networks: tuple[str, ...]) -> bool:
    """Tell whether an address, as `read_address` returns it, is in one of some networks."""
    parsed = ip_address(address)
    return any(parsed in network for network in _read_networks(networks))


@lru_cache(16)
def _read_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(map(read_network, texts))
