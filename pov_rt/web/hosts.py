"""Which hosts a request may ask for, and which pages may send it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.protocol.errors import ClientError, Forbidden, InvalidRequest
from pov_rt.web.addresses import is_behind_proxy

_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_HOST = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")


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


def one_header(request: HTTPServerRequest, name: str) -> str | None:
    """Return a header that may come once at most. Raises `InvalidRequest` for more."""
    values = request.headers.get_list(name)
    if len(values) > 1:
        raise InvalidRequest(f"There is more than one {name} header")
    return values[0] if values else None


def check_host(request: HTTPServerRequest, settings: Settings, rules: HostRules) -> str:
    """Return the Host header in lower case. Raises unless the server answers for that host.

    Without a list of hosts, a server that only this machine reaches, or one under development,
    answers for no name that a stranger could own: a page of that name, made to lead here by its
    DNS, would be a page of the same host (DNS rebinding). A proxy in front keeps that out itself.
    """
    host = (one_header(request, "Host") or "").lower()
    if not host and rules.for_operators and request.version == "HTTP/1.0":
        return host  # a load balancer's check, which no browser could make
    match = _HOST.fullmatch(host)
    if match is None:
        raise InvalidRequest("The Host header is missing or malformed")
    name, listed = match[1], settings.server.allowed_hosts
    if name in listed or f"//{host}" == (settings.server.public_url or "").partition(":")[2]:
        return host
    if listed and not rules.for_operators:
        raise HostUnknown from ValueError(f"{name} is not in server.allowed_hosts")
    is_exposed = not rules.is_local and not settings.dev
    if not is_exposed and _has_owner(name) and not is_behind_proxy(request, settings.server):
        raise HostUnknown from ValueError(f"{name} is no local name; see server.allowed_hosts")
    return host


def check_origin(request: HTTPServerRequest, host: str, settings: Settings) -> str | None:
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
    server = settings.server
    if origin in server.allowed_origins or (settings.dev and _LOCAL.fullmatch(origin)):
        return origin
    # Of a page of this very host a browser says `same-site` only if its scheme is another, however
    # little is known here of the scheme by which browsers come.
    is_foreign = is_foreign or (site == "same-site" and origin != server.public_url)
    if is_foreign or not _is_same(origin, host, request, server):
        cause = ValueError(f"{origin[:100]} is not in server.allowed_origins")
        raise Forbidden("Pages of this origin may not use this server") from cause
    return origin


def _is_same(origin: str, host: str, request: HTTPServerRequest, settings: ServerSettings) -> bool:
    """Tell whether an origin is this server's own: the same host, by the same scheme.

    A page of the same name by plain http may be anybody's who is between it and its visitor.
    """
    if origin == settings.public_url:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.netloc != host or f"{parts.scheme}://{parts.netloc}" != origin:
        return False
    if settings.public_url is not None:
        return parts.scheme == settings.public_url.partition(":")[0]
    if is_behind_proxy(request, settings):
        # The nearest proxy wrote the last one. Of one that says nothing the better is believed.
        proto = request.headers.get("X-Forwarded-Proto", "https").rpartition(",")[2]
        return parts.scheme == proto.strip().lower()
    # Where TLS ends in something that is no trusted proxy, a page of the host has https all the
    # same; without, it has http.
    return parts.scheme in ("http", "https")


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
