"""Which hosts a request may ask for, and which pages may send it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.protocol.errors import ClientError, Forbidden, InvalidRequest
from pov_rt.web.addresses import is_behind_proxy, is_loopback, is_of_this_machine
from pov_rt.web.upgrade.head import Asked, Head

_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(\d{0,5}))?")
_ORIGIN = re.compile(rf"(http|ws)(s?)://{_HOST.pattern}")
_PORTS = {"http": "80", "https": "443"}


class HostUnknown(ClientError):
    """The Host header names no host of this server (RFC 9110, section 15.5.20)."""

    code = "host_unknown"
    status = 421
    message = "This server does not answer for that host"


@dataclass(slots=True)
class HostRules:
    """What decides which hosts a port answers for. Owner: the web server.

    `for_operators`: it is the port of health and metrics. `is_local`: only this machine gets here,
    which is known once the port is listened on.
    """

    for_operators: bool = False
    is_local: bool = False


def one_header(request: Asked, name: str) -> str | None:
    """Return a header that may come once at most. Raises `InvalidRequest` for more."""
    if isinstance(request, Head):  # in which each came once
        value: str | None = request.headers.get(name)
        return value
    values = request.headers.get_list(name)
    if len(values) > 1:
        raise InvalidRequest(f"There is more than one {name} header")
    return values[0] if values else None


def has_word(request: Asked, name: str, word: str) -> bool:
    """Tell whether a word is in a header that is a list of words in any case."""
    value = request.headers.get(name)
    if value is None:
        return False
    value = value.lower()
    return value == word or word in map(str.strip, value.split(","))


class Site(NamedTuple):
    """An origin of the web in its parts: two that are the same are equal.

    Some clients that are no browsers write the scheme of the socket, or the port that goes without
    saying.
    """

    scheme: str
    name: str
    port: str

    def is_at(self, host: str) -> bool:
        """Tell whether a Host header, as `check_host` returns it, asks for the same host."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        return (match[1], match[2] or _PORTS[self.scheme]) == (self.name, self.port)

    def written(self) -> str:
        """Return it as browsers write it."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.name}{port}"


def read_site(origin: str) -> Site | None:
    """Return an origin's parts; None of what is none of the web, or not in lower case."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme = f"http{match[2]}"
    return Site(scheme, _without_dot(match[3]), match[4] or _PORTS[scheme])


@lru_cache(16)
def _own_site(public_url: str | None) -> Site | None:
    return None if public_url is None else read_site(public_url)


@lru_cache(64)
def _read_host(host: str) -> tuple[str, str] | None:
    """Return a host's name, and that with the port; None of what is malformed."""
    match = _HOST.fullmatch(host)
    name = "" if match is None else _without_dot(match[1])
    if match is None or not name:
        return None
    # The port may be empty (RFC 3986, section 3.2.3).
    return name, f"{name}:{match[2]}" if match[2] else name


def check_host(request: Asked, settings: Settings, rules: HostRules) -> str:
    """Return the Host header, in lower case and without the dot that a whole name may end with.

    Raises unless the server answers for that host.

    Without a list of hosts, a server that only this machine reaches, or one under development,
    answers for no name that a stranger could own: a page of that name, made to lead here by its
    DNS, would be a page of the same host (DNS rebinding). A proxy in front keeps that out itself.

    With a list, this machine's own programs may still call it `localhost` or by a loopback address:
    no DNS makes a page of that name.
    """
    host = (one_header(request, "Host") or "").lower()
    if not host and rules.for_operators and request.version == "HTTP/1.0":
        return host  # a load balancer's check, which no browser could make
    read = _read_host(host)
    if read is None:
        raise InvalidRequest("The Host header is missing or malformed")
    name, host = read
    listed, own = settings.server.allowed_hosts, _own_site(settings.server.public_url)
    if name in map(_without_dot, listed) or (own is not None and own.is_at(host)):
        return host
    is_own_name = f".{name}".endswith(".localhost") or is_loopback(name.strip("[]"))
    if is_own_name and is_of_this_machine(request):
        return host
    if listed and not rules.for_operators:
        raise HostUnknown from ValueError(f"{name} is not in server.allowed_hosts")
    is_exposed = not rules.is_local and not settings.dev
    if not is_exposed and _has_owner(name) and not is_behind_proxy(request, settings.server):
        raise HostUnknown from ValueError(f"{name} is no local name; see server.allowed_hosts")
    return host


def check_origin(request: Asked, host: str, settings: Settings) -> str | None:
    """Return the origin of the page that sends a request; None if there is none.

    Raises `Forbidden` unless the page may use the server: it is of the same origin, or of one on
    the list.
    """
    origin = one_header(request, "Origin")
    site = (one_header(request, "Sec-Fetch-Site") or "").lower()
    is_foreign = site == "cross-site"
    if origin is None:
        # A link may lead here from anywhere; what a page does behind its visitor's back comes with
        # its origin.
        mode = one_header(request, "Sec-Fetch-Mode") if is_foreign else None
        if is_foreign and (mode or "").lower() != "navigate":
            raise Forbidden("Pages of other sites may not use this server")
        return None
    server, sender = settings.server, read_site(origin)
    if origin in server.allowed_origins:
        return origin
    own = _own_site(server.public_url)
    if sender is not None and (
        sender.written() in server.allowed_origins or (settings.dev and sender.name in _LOCAL)
    ):
        return origin
    # Of a page of this very host a browser says `same-site` only if its scheme is another, however
    # little is known here of the scheme by which browsers come.
    is_foreign = is_foreign or (site == "same-site" and (own is None or sender != own))
    if is_foreign or sender is None or not _is_same(sender, own, host, request, server):
        cause = ValueError(f"{origin[:100]} is not in server.allowed_origins")
        raise Forbidden("Pages of this origin may not use this server") from cause
    return origin


def _is_same(
    sender: Site,
    own: Site | None,
    host: str,
    request: Asked,
    settings: ServerSettings,
) -> bool:
    """Tell whether an origin is this server's own: the same host, by the same scheme.

    A page of the same name by plain http may be anybody's who is between it and its visitor.
    """
    if sender == own:
        return True
    if not sender.is_at(host):
        return False
    if own is not None:
        return sender.scheme == own.scheme
    if is_behind_proxy(request, settings):
        # The nearest proxy wrote the last one. Of one that says nothing the better is believed.
        proto = request.headers.get("X-Forwarded-Proto", "https").rpartition(",")[2]
        proto = proto.strip().lower()
        return sender.scheme == {"ws": "http", "wss": "https"}.get(proto, proto)
    # Where TLS ends in something that is no trusted proxy, a page of the host has https all the
    # same; without, it has http.
    return True


def _without_dot(name: str) -> str:
    """Return a host's name without the dot that makes it a whole one (RFC 1034, section 3.1)."""
    return name.removesuffix(".")


@lru_cache(64)
def _has_owner(name: str) -> bool:
    """Tell whether somebody may have registered this name.

    Not so an address, or a name without a dot, such as those of machines in a network of one's own.
    """
    if "." not in name or name.endswith(".localhost"):
        return False
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return True
    return False
