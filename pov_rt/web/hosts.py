"""Which hosts a request may ask for, which pages may send it, and whose word counts."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.protocol.errors import ClientError, InvalidRequest

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
    if name in listed:
        return host
    if listed and not rules.for_operators:
        raise HostUnknown from ValueError(f"{name} is not in server.allowed_hosts")
    is_exposed = not rules.is_local and not settings.dev
    if not is_exposed and _has_owner(name) and not is_behind_proxy(request, settings.server):
        raise HostUnknown from ValueError(f"{name} is no local name; see server.allowed_hosts")
    return host


def origin_allowed(origin: str, host: str, settings: ServerSettings, *, dev: bool) -> bool:
    """Tell whether a page of this origin may use the server: the same host, or one on the list."""
    if origin in settings.allowed_origins or (dev and _LOCAL.fullmatch(origin)):
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    plain = parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == origin
    return plain and parts.netloc == host


def is_behind_proxy(request: HTTPServerRequest, settings: ServerSettings) -> bool:
    """Tell whether the peer is a proxy to be believed: a trusted address, or a Unix socket.

    Whoever may write to a Unix socket is a proxy on this machine.
    """
    context = getattr(request.connection, "context", None)
    family = getattr(context, "address_family", None)
    return family == socket.AF_UNIX or request.remote_ip in settings.trusted_proxies


def client_ip(request: HTTPServerRequest, settings: ServerSettings) -> str:
    """Return the client's address; what a trusted proxy says about it is believed."""
    peer = request.remote_ip or ""
    if not is_behind_proxy(request, settings):
        return peer
    if real := request.headers.get("X-Real-IP"):
        return real.strip()[:64]
    # The nearest proxy wrote the last address; those before it are anybody's words.
    for address in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
        if (text := address.strip()) and text not in settings.trusted_proxies:
            return text[:64]
    return peer


def is_loopback(address: str) -> bool:
    """Tell whether this is an IP address that leads nowhere but to this machine."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


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
