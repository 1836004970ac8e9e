"""What all HTTP handlers share: who may ask, JSON errors, and a log without tokens."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import Identity
from pov_rt.encoding import encode, http_error
from pov_rt.errors import (
    ClientError,
    Forbidden,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    TokenError,
    TooLarge,
    Unavailable,
)
from pov_rt.server import Server
from pov_rt.settings import ServerSettings

log = logging.getLogger(__name__)

API_KINDS = frozenset({Kind.SERVICE, Kind.SOCKET, Kind.ACCESS})
SERVICE = frozenset({Kind.SERVICE})

_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
_HOST = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
_BY_STATUS: Mapping[int, type[ClientError]] = {
    400: InvalidRequest,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    503: Unavailable,
}


class HostUnknown(ClientError):
    """The Host header names no host of this server (RFC 9110, section 15.5.20)."""

    code = "host_unknown"
    status = 421
    message = "This server does not answer for that host"


def one_header(request: HTTPServerRequest, name: str) -> str | None:
    """Return a header that may come once at most. Raises `InvalidRequest` for more."""
    values = request.headers.get_list(name)
    if len(values) > 1:
        raise InvalidRequest(f"There is more than one {name} header")
    return values[0] if values else None


def check_host(request: HTTPServerRequest, settings: ServerSettings) -> str:
    """Return the Host header in lower case. Raises unless the server answers for that host."""
    host = (one_header(request, "Host") or "").lower()
    match = _HOST.fullmatch(host)
    if match is None:
        raise InvalidRequest("The Host header is missing or malformed")
    if settings.allowed_hosts and match[1] not in settings.allowed_hosts:
        raise HostUnknown
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


def client_ip(request: HTTPServerRequest, settings: ServerSettings) -> str:
    """Return the client's address; what a trusted proxy says about it is believed.

    On a Unix socket the peer is a proxy on this machine.
    """
    peer = request.remote_ip or ""
    is_proxy = peer in settings.trusted_proxies or settings.unix is not None
    if not is_proxy:
        return peer
    if real := request.headers.get("X-Real-IP"):
        return real.strip()[:64]
    # The nearest proxy wrote the last address; those before it are anybody's words.
    for address in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
        if (text := address.strip()) and text not in settings.trusted_proxies:
            return text[:64]
    return peer


def bearer(request: HTTPServerRequest) -> str | None:
    """Return the token of the Authorization header, or None without one."""
    header = one_header(request, "Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token or token != token.strip():
        raise TokenError
    return token


def parse_query(query: str) -> list[tuple[str, str]]:
    """Split a query string; unlike the stock parser it keeps empty and repeated ones.

    Raises `InvalidRequest` for what is not UTF-8.
    """
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name or value:
            try:
                pairs.append((unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()))
            except UnicodeDecodeError as error:
                raise InvalidRequest("The query is not UTF-8") from error
    return pairs


class Handler(RequestHandler):
    """The base of all handlers. `server` is the node it belongs to."""

    CORS_METHODS = ""
    """What pages of allowed origins may do across origins, such as `GET, POST`; empty: nothing."""

    server: Server
    host: str
    ip: str

    def initialize(self, server: Server, **more: Any) -> None:
        """Take the node, and what the route adds, from the routing table."""
        self.server = server
        for name, value in more.items():
            setattr(self, name, value)

    def set_default_headers(self) -> None:
        """Say what holds for every answer; the software's version is nobody's business."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        """Check Host and Origin before anything else (stock checks let a rebound name pass)."""
        settings = self.server.settings
        self.ip = client_ip(self.request, settings.server)
        self.host = check_host(self.request, settings.server)
        origin = one_header(self.request, "Origin")
        if origin is None:
            return
        if not origin_allowed(origin, self.host, settings.server, dev=settings.dev):
            raise Forbidden("Pages of this origin may not use this server")
        if self.CORS_METHODS:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Allow-Credentials", "true")
            self.set_header("Vary", "Origin")

    def options(self, *_: str) -> None:
        """Answer a page's preflight request."""
        if not self.CORS_METHODS:
            raise MethodNotAllowed
        self.set_status(204)
        self.set_header("Access-Control-Allow-Methods", self.CORS_METHODS)
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.set_header("Access-Control-Max-Age", "600")

    def authenticate(self, accept: frozenset[Kind]) -> Identity:
        """Return who sent the bearer token. Raises `TokenError`."""
        token = bearer(self.request)
        if token is None:
            raise TokenError("Send a token: Authorization: Bearer ...")
        return self.verify(token, accept)

    def verify(self, token: str, accept: frozenset[Kind]) -> Identity:
        """Verify a token; why it failed goes to the log and not to the sender."""
        try:
            return self.server.tokens.verify(token, accept)
        except TokenError as error:
            log.info("token refused: %s", error.__cause__ or error.message, extra={"ip": self.ip})
            raise

    def answer(self, value: Any, status: int = 200) -> None:
        """Send a struct or a dict as JSON."""
        self.answer_bytes(encode(value), status)

    def answer_bytes(self, body: bytes, status: int = 200) -> None:
        """Send ready JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(body)

    def refuse(self, error: ClientError) -> None:
        """Send an error as JSON."""
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(max(1, round(error.retry_after_s))))
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.answer_bytes(http_error(error), error.status)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Turn what a handler raised into its answer."""
        cause = (kwargs.get("exc_info") or (None, None, None))[1]
        if self._headers_written:
            super().send_error(status_code, **kwargs)
            return
        allowed = self._headers.get("Access-Control-Allow-Origin")
        self.clear()
        if allowed:  # without it a page could not read the error
            self.set_header("Access-Control-Allow-Origin", allowed)
            self.set_header("Access-Control-Allow-Credentials", "true")
            self.set_header("Vary", "Origin")
        if isinstance(cause, ClientError):
            self.refuse(cause)
        elif status_code in _BY_STATUS:
            self.refuse(_BY_STATUS[status_code]())
        elif status_code < 500:
            self.set_status(status_code)
            self.refuse(_Other(status_code))
        else:
            self.refuse(Internal(incident=getattr(self, "incident", "")))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log what is our fault, without the request's repr, which has the token in it."""
        if isinstance(value, ClientError | HTTPError):
            return
        self.incident = self.server.clock.new_id()[:12]
        log.error(
            "%s failed",
            self._request_summary(),
            exc_info=value,
            extra={"incident": self.incident},
        )

    def _request_summary(self) -> str:
        """Return the request without its query, where tokens travel."""
        return f"{self.request.method} {self.request.path}"


class _Other(ClientError):
    """A status that HTTP itself gives, such as 411."""

    code = "invalid_request"

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class Fallback(Handler):
    """Answers what no route takes; an upgrade elsewhere than below /ws/ is a client's mistake."""

    def prepare(self) -> None:
        """Refuse."""
        if "upgrade" in self.request.headers:
            raise InvalidRequest("WebSockets are below /ws/")
        super().prepare()
        raise NotFound


def log_request(handler: RequestHandler) -> None:
    """Log one line a request, without its query; what went well only when debugging."""
    status = handler.get_status()
    level = logging.DEBUG if status < 400 else logging.INFO if status < 500 else logging.WARNING
    log.log(
        level,
        "%s %s: %d",
        handler.request.method,
        handler.request.path[:200],
        status,
        extra={
            "ip": getattr(handler, "ip", handler.request.remote_ip),
            "ms": round(1000 * handler.request.request_time(), 1),
        },
    )
