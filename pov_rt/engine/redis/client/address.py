"""Where Redis is and how one gets in: what the URL says."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

PORT, SENTINEL_PORT = 6379, 26379
SCHEMES = ("redis", "rediss")
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
"""Without TLS, and with it."""
NAME = "mymaster"
"""What Sentinel itself calls a primary that nobody gave a name."""


class BadAddress(ValueError):
    """A URL that names no Redis; the text says what is wrong and would be right."""


@dataclass(frozen=True)
class Address:
    """One Redis: where it listens, whether it speaks TLS, who we are, and our database."""

    host: str
    port: int
    is_tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    ca_file: str = ""
    """Whose certificates count; empty: those that the system trusts."""
    must_lead: bool = False
    """Whether it has to say that it is a primary, before anything else is asked of it."""

    def __str__(self) -> str:
        """Return the place alone, for what people read."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """Return what a connection is encrypted with; None for a plain one. Raises `OSError`."""
        if not self.is_tls:
            return None
        return ssl.create_default_context(cafile=self.ca_file or None)

    async def find(self) -> Address:
        """Return itself: nobody has to be asked where it is."""
        return self

    def is_now(self, address: Address) -> bool:
        """Tell that it has not moved."""
        return True


class Place(Protocol):
    """Where a Redis is, which may be another address each time: an `Address`, or `Sentinels`."""

    async def find(self) -> Address:
        """Return what to dial. Raises `Unavailable` when that cannot be known."""
        ...

    def is_now(self, address: Address) -> bool:
        """Tell whether an address that was found is still the one, as far as is known."""
        ...


@dataclass(frozen=True)
class SentinelAddress:
    """Which sentinels know where the primary is, by what name, and how one gets in there."""

    name: str
    sentinels: Sequence[Address]
    primary: Address
    """All but its host and port, which are the sentinels' to say."""

    def __str__(self) -> str:
        """Return the name and who knows it, for what people read."""
        return f"{self.name} (sentinels {', '.join(map(str, self.sentinels))})"


def parse_address(url: str, ca_file: str = "") -> Address:
    """Return what `redis://` or `rediss://` (TLS) names: `//USER:PASSWORD@HOST:PORT/DATABASE`.

    All but the scheme may be left out; a password without a user is the default user's. Raises
    `BadAddress`, which never shows the password.
    """
    parts = _split(url, SCHEMES)
    _, _, place = parts.netloc.rpartition("@")
    host, port = _parse_place(place, PORT)
    return Address(host, port, **_parse_access(parts, parts.path.strip("/"), ca_file))


def parse_sentinels(
    url: str, user: str = "", password: str = "", ca_file: str = ""
) -> SentinelAddress:
    """Return what `redis+sentinel://` or `rediss+sentinel://` (TLS to all of them) names.

    `//USER:PASSWORD@HOST:PORT,HOST:PORT/NAME/DATABASE`: the sentinels, and the primary's name;
    user and password are for Redis, those of the sentinels are given beside. All but the scheme
    may be left out. Raises `BadAddress`.
    """
    parts = _split(url, SENTINEL_SCHEMES)
    _, _, places = parts.netloc.rpartition("@")
    name, _, database = parts.path.strip("/").partition("/")
    primary = Address("", 0, **_parse_access(parts, database, ca_file))
    own = replace(primary, user=user, password=password, database=0)
    found = [_parse_place(place, SENTINEL_PORT) for place in places.split(",")]
    if len(set(found)) < len(found):
        raise BadAddress("names a sentinel twice, which would have two votes")
    sentinels = tuple(replace(own, host=host, port=port) for host, port in found)
    return SentinelAddress(unquote(name) or NAME, sentinels, replace(primary, must_lead=True))


def _split(url: str, schemes: tuple[str, str]) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadAddress("has a host that is none") from None
    if parts.scheme not in schemes:
        raise BadAddress(f"must begin with {schemes[0]}:// or {schemes[1]}://")
    if parts.query or parts.fragment:
        raise BadAddress("has options behind a ? or #, but those stand in [engine.redis]")
    return parts


def _parse_place(place: str, otherwise: int) -> tuple[str, int]:
    """Return the host and port of `HOST:PORT`."""
    try:
        parts = urlsplit(f"//{place}")
        port = parts.port or otherwise
    except ValueError:
        raise BadAddress("has a port that is not a number from 1 to 65535") from None
    return parts.hostname or "localhost", port


def _parse_access(parts: SplitResult, database: str, ca_file: str) -> dict[str, Any]:
    """Return all of an `Address` but where it is."""
    if database and not (database.isascii() and database.isdigit()):
        raise BadAddress(f"names the database {database!r}; it has a number: redis://HOST/0")
    return {
        "is_tls": parts.scheme in (SCHEMES[1], SENTINEL_SCHEMES[1]),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": int(database or 0),
        "ca_file": ca_file,
    }
