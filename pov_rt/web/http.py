"""What all HTTP handlers share: who may ask, JSON errors, and a log without tokens."""

from __future__ import annotations

import asyncio
import logging
import math
from asyncio import Future
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import HTTPError, RequestHandler

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import BYTE, LARGE_BYTES
from pov_rt.protocol.encoding import encode, http_error
from pov_rt.protocol.errors import (
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
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.containment import internal
from pov_rt.runtime.logs import Throttle
from pov_rt.server.server import Server
from pov_rt.web.hosts import HostRules, check_host, client_ip, one_header, origin_allowed

log = logging.getLogger(__name__)

API_KINDS = frozenset({Kind.SERVICE, Kind.SOCKET, Kind.ACCESS})
SERVICE = frozenset({Kind.SERVICE})

_BY_STATUS: Mapping[int, type[ClientError]] = {
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    503: Unavailable,
}
UNREAD_S = 60.0
"""How long a client may take to read a large answer."""
REFUSALS_PER_S = 5.0
REFUSALS_AT_ONCE = 50.0
"""How many lines on refused requests the log takes, for anybody can cause them."""


def bearer(request: HTTPServerRequest) -> str | None:
    """Return the bearer token, or None without one: other schemes are a proxy's business."""
    scheme, _, token = (one_header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    if not token or token != token.strip():
        raise TokenError from ValueError("no token behind 'Bearer', or more than that")
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


class JsonHandler(RequestHandler):
    """The base of all handlers. `server` is the node it belongs to."""

    CORS_METHODS = ""
    """What pages of allowed origins may do across origins, such as `GET, POST`; empty: nothing."""
    TAKES_BODIES = True

    server: Server
    host_rules: HostRules
    host: str
    ip: str
    routes: Mapping[str, Any] | None = None
    """What is behind each method, where that is not known before the start."""
    allowed_origin: str | None = None
    """The page's that asked, if it may."""
    is_early = False
    """The request's body is not there, and will not be looked at."""
    refusal: Callable[[], ClientError] | None = None
    """Makes the error for a request that is refused whatever it asks for."""
    error_code: str | None = None
    """What the client was told is wrong."""
    reason = ""
    """Why, for the log."""
    failure: Internal | None = None
    """What was our fault."""

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
        if "Upgrade" in self.request.headers and not self.takes_upgrade():
            raise InvalidRequest("WebSockets are below /ws/")
        self.host = check_host(self.request, settings, self.host_rules)
        origin = one_header(self.request, "Origin")
        if origin is not None:
            self._check_origin(origin)
        elif self.request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A link may lead here from anywhere; what a page does behind its visitor's back comes
            # with its origin.
            if self.request.headers.get("Sec-Fetch-Mode") != "navigate":
                raise Forbidden("Pages of other sites may not use this server")
        if self.refusal is not None:
            raise self.refusal()

    def takes_upgrade(self) -> bool:
        """Tell whether this path is one for WebSockets."""
        return False

    def _check_origin(self, origin: str) -> None:
        settings = self.server.settings
        if not origin_allowed(origin, self.host, settings.server, dev=settings.dev):
            cause = ValueError(f"{origin[:100]} is not in server.allowed_origins")
            raise Forbidden("Pages of this origin may not use this server") from cause
        if self.CORS_METHODS:
            self.allowed_origin = origin

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the answer; a page that may use the server can read it."""
        if self.allowed_origin is not None:
            self.set_header("Access-Control-Allow-Origin", self.allowed_origin)
            self.set_header("Access-Control-Allow-Credentials", "true")
            self.set_header("Vary", "Origin")
        return super().finish(chunk)

    def options(self, *_: str, **__: str) -> None:
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
            raise TokenError("Send a token: Authorization: Bearer ...") from ValueError("no token")
        return self.server.tokens.verify(token, accept)

    def pay(self, identity: Identity, price: float = 1) -> None:
        """Take a price off the user's budget; what the request does is the user's from here on.

        Raises `RateLimited`.
        """
        self.server.budgets.pay(identity.owner, price)
        payer.set(identity.owner)

    def answer(self, value: Any, status: int = 200) -> None:
        """Send a struct or a dict as JSON."""
        self.answer_bytes(encode(value), status)

    def answer_bytes(self, body: bytes, status: int = 200) -> None:
        """Send ready JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.server.budgets.charge(len(body) * BYTE)
        if len(body) <= LARGE_BYTES:
            self.finish(body)
            return
        pages, owner, size = self.server.pages, payer.get(), len(body)
        stream: IOStream = cast("HTTP1Connection", self.request.connection).stream
        pages.begin(owner, size)
        # However slowly it is read: a byte now and then does not keep it for ever.
        timer = asyncio.get_running_loop().call_later(UNREAD_S, stream.close)

        def end(_: object = None) -> None:
            timer.cancel()
            pages.give(owner, size)

        self.finish(body)
        try:
            # Done when all before it is, or when the connection is gone.
            stream.write(b"").add_done_callback(end)
        except StreamClosedError:
            end()

    def refuse(self, error: ClientError) -> None:
        """Send an error as JSON. What led to it goes to the log and not to the sender."""
        self.error_code, self.reason = error.code, str(error.__cause__ or error.message)
        if error.status == 405:
            self.set_header("Allow", ", ".join(self._methods()))
        if error.status == 426:
            self.set_header("Connection", "Upgrade")
        elif self.is_early or "Upgrade" in self.request.headers:
            self._hang_up()
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(max(1, math.ceil(error.retry_after_s))))
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.answer_bytes(http_error(error), error.status)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Turn what a handler raised into its answer."""
        cause = (kwargs.get("exc_info") or (None, None, None))[1]
        if self._headers_written:
            super().send_error(status_code, **kwargs)
            return
        self.clear()
        if isinstance(cause, ClientError):
            error = cause
        elif status_code < 500 or status_code in _BY_STATUS:
            error = _BY_STATUS.get(status_code, InvalidRequest)()
            error.status = status_code  # one that only HTTP itself gives, such as 411
        else:
            error = self.failure or Internal()
        self.refuse(error)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log what is our fault, without the request's repr, which has the token in it."""
        if isinstance(value, ClientError | HTTPError):
            return
        summary = self._request_summary()
        self.failure = internal(self.server.clock, log, "%s failed", summary, error=value)

    def _methods(self) -> list[str]:
        if self.routes is not None:
            own = list(self.routes)
        else:
            own = [name for name in self.SUPPORTED_METHODS if _is_own(type(self), name.lower())]
        return [*own, "OPTIONS"] if self.CORS_METHODS else own

    def _hang_up(self) -> None:
        """End the connection after this answer; before its body is there, `routing` does that."""
        self.set_header("Connection", "close")
        if not self.is_early:
            connection: Any = self.request.connection
            connection._disconnect_on_finish = True  # noqa: SLF001  (there is no public way)

    def _request_summary(self) -> str:
        """Return the request without its query, where tokens travel."""
        return f"{self.request.method} {self.request.path}"


class Fallback(JsonHandler):
    """Answers what no route takes."""

    def prepare(self) -> None:
        """Refuse."""
        super().prepare()
        raise NotFound


class AccessLog:
    """A line for each request, without its query; on those that went well only when debugging."""

    def __init__(self, clock: Clock) -> None:
        self.refused: dict[str, int] = {}
        """Errors answered since the start, by code."""
        self._throttle = Throttle(log, REFUSALS_PER_S, clock, burst=REFUSALS_AT_ONCE)

    def __call__(self, handler: RequestHandler) -> None:
        """Log a request that is answered; Tornado's `log_function`."""
        status, code = handler.get_status(), getattr(handler, "error_code", None)
        fields: dict[str, Any] = {
            "ip": getattr(handler, "ip", handler.request.remote_ip),
            "ms": round(1000 * handler.request.request_time(), 1),
        }
        words = ("%s %s: %d", handler.request.method, handler.request.path[:200], status)
        if code is None:
            log.debug(*words, extra=fields)
            return
        self.count(code)
        level = logging.INFO if status < 500 else logging.WARNING
        reason = getattr(handler, "reason", "")
        self._throttle.log(level, *words, code=code, reason=reason, **fields)

    def count(self, code: str) -> None:
        """Count an error that was answered."""
        self.refused[code] = self.refused.get(code, 0) + 1


def _is_own(kind: type[JsonHandler], method: str) -> bool:
    """Tell whether this class of handlers answers the method."""
    return getattr(kind, method) not in (getattr(RequestHandler, method), JsonHandler.options)
