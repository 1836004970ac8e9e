"""What all HTTP handlers share: who may ask, JSON errors, and a log without tokens."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from asyncio import Future
from collections.abc import Awaitable, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes

from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import Identity
from pov_rt.config.networks import read_address
from pov_rt.connections.borders import Refused
from pov_rt.connections.budgets import BYTE, LARGE_BYTES
from pov_rt.dispatch.request import Content
from pov_rt.protocol.encoding import BYTE_ORDER_MARK, encode, http_error
from pov_rt.protocol.errors import (
    ClientError,
    Forbidden,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    TokenError,
    TooLarge,
    Unavailable,
)
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.containment import internal
from pov_rt.runtime.measure.tally import tally_of_errors
from pov_rt.runtime.process.logs import Throttle
from pov_rt.server.server import Server
from pov_rt.web.addresses import Client, Failures
from pov_rt.web.bodies import Bodies, Body
from pov_rt.web.hosts import HostRules, check_host, check_origin, has_word, one_header
from pov_rt.web.stream import Refusal, Stream
from pov_rt.web.upgrade.head import Asked

log = logging.getLogger(__name__)

API_KINDS = frozenset({Kind.SERVICE, Kind.SOCKET, Kind.ACCESS})
SERVICE = frozenset({Kind.SERVICE})


class CodingUnknown(InvalidRequest):
    """The body comes in a transfer coding that is not spoken here (RFC 9112, section 6.1)."""

    status = 501
    message = "The only transfer coding here is 'chunked'"


class UnsupportedCoding(InvalidRequest):
    """The body has a content coding (RFC 9110, section 15.5.16)."""

    status = 415
    message = "Send the body as it is, without Content-Encoding"


class MethodUnknown(InvalidRequest):
    """No path has this method (RFC 9110, section 9.1)."""

    status = 501
    message = "There is no such method"


_BY_STATUS: Mapping[int, type[ClientError]] = {
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    503: Unavailable,
}
CONTINUE = "100-continue"
_LENGTH = re.compile(r"[0-9]{1,18}")
_ABSOLUTE = re.compile(r"(?:https?|wss?)://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE)
_LATER = re.compile(r"HTTP/1\.[2-9]")
UNREAD_S = 60.0
"""How long a client may take to read a large answer."""
REFUSED_S = 0.5
"""How long whoever asks for too much waits for the answer that says so."""
REFUSALS_PER_S = 5.0
REFUSALS_AT_ONCE = 50.0
"""How many lines on refused requests the log takes, for anybody can cause them."""


def normalise(request: HTTPServerRequest) -> None:
    """Make of a request what the routes are for, where HTTP has two ways to say one thing.

    A target with scheme and host is as good as the path alone, and its host is the one that counts
    (RFC 9112, section 3.2.2). A later HTTP/1 is the HTTP/1.1 that we know (RFC 9110, section 6.2).
    """
    uri = request.uri or ""
    if not uri.startswith("/"):
        match = _ABSOLUTE.fullmatch(uri)
        if match is not None:
            rest = match[2] if match[2].startswith("/") else f"/{match[2]}"
            request.uri = rest
            request.path, _, request.query = rest.partition("?")
            request.headers["Host"] = match[1]
    if request.version != "HTTP/1.1" and _LATER.fullmatch(request.version):
        request.version = "HTTP/1.1"
        request.headers.add("Connection", "close")  # for Tornado goes by what was sent


def wants_websocket(request: HTTPServerRequest) -> bool:
    """Tell whether a request asks for a WebSocket (RFC 6455, section 4.2.1).

    Any other upgrade is as if it were not there: clients offer some with whatever they ask, and are
    answered without (RFC 9110, section 7.8).
    """
    return (
        "Upgrade" in request.headers
        and request.method == "GET"
        and request.version == "HTTP/1.1"
        and has_word(request, "Upgrade", "websocket")
        and has_word(request, "Connection", "upgrade")
    )


def bearer(request: Asked) -> str | None:
    """Return the bearer token, or None without one: other schemes are a proxy's business."""
    scheme, _, token = (one_header(request, "Authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.lstrip(" ")  # as many as there are (RFC 9110, section 11.4)
    if not token or token != token.strip():
        raise TokenError from ValueError("no token behind 'Bearer', or more than that")
    return token


def parse_query(query: str) -> list[tuple[str, str]]:
    """Split a query string; unlike the stock parser it keeps empty and repeated ones.

    It is form-encoded, as every browser writes it: a `+` is a space. Raises `InvalidRequest` for
    what is not UTF-8.
    """
    pairs = []
    for part in query.replace("+", " ").split("&"):
        name, _, value = part.partition("=")
        if "%" not in part:
            if part not in ("", "="):
                pairs.append((name, value))
        elif name or value:
            try:
                pairs.append((unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()))
            except UnicodeDecodeError as error:
                raise InvalidRequest("The query is not UTF-8") from error
    return pairs


def body_size(request: HTTPServerRequest) -> int | None:
    """Return how many bytes of a body will come at least; None if there are none.

    Raises `InvalidRequest` where it is not clear where a body ends.
    """
    length, coding = request.headers.get("Content-Length"), None
    if "Transfer-Encoding" in request.headers:
        coding = request.headers["Transfer-Encoding"].lower()
    if coding is None:
        if length is None:
            return None
        if _LENGTH.fullmatch(length):
            return int(length) or None
    elif length is None and request.version == "HTTP/1.1":
        if coding == "chunked":
            return 0
        *others, last = map(str.strip, coding.split(","))
        if last == "chunked" and "chunked" not in others:
            raise CodingUnknown
    raise InvalidRequest("Content-Length and Transfer-Encoding do not say where the body ends")


def has_body(request: HTTPServerRequest) -> bool:
    """Tell whether more than the headers may come."""
    try:
        return body_size(request) is not None
    except InvalidRequest:
        return True


@stream_request_body
class JsonHandler(RequestHandler):
    """The base of all handlers. `server` is the node it belongs to.

    Everything is decided as soon as the headers are there: `check`, then `authorize`. A body is
    read of nobody else, and only for a method that takes one.
    """

    CORS_METHODS = ""
    """What pages of allowed origins may do across origins, such as `GET, POST`; empty: nothing."""
    CORS_HEADERS = "Authorization, Content-Type"
    """The headers that they may send."""
    CORS_EXPOSED = "Retry-After"
    """The headers of answers that they can read."""
    TELLS_REFUSED_PAGES = False
    """Whether a page that may not use the server can read that, and nothing else: a browser shows
    it no answer by itself, and it would try again for ever."""
    ANSWERS_OPTIONS = False
    """Whether OPTIONS says what there is, though pages may do nothing across origins."""
    IS_PUBLIC = False
    """Whether pages of all origins get it, who can do nothing with it that others could not."""
    BODIES: frozenset[str] = frozenset()
    """The methods that take a body. Others are answered without waiting for one."""

    own_methods: Sequence[str] = ()
    """Those that the class answers."""

    server: Server
    host_rules: HostRules
    bodies: Bodies
    failures: Failures
    host: str
    caller = Client("", None)
    identity: Identity
    """Who sent the token, once one has been verified."""
    routes: Mapping[str, Any] | None = None
    """What is behind each method, where that is not known before the start."""
    allowed_origin: str | None = None
    """The page's that asked, if it may."""
    is_refused_page = False
    """It may not, and is told."""
    is_upgrade = False
    """It asks for a WebSocket."""
    body: Body | None = None
    refusal: ClientError | None = None
    is_early = True
    """The answer comes before the end of the request, and with it the connection ends."""
    ending = "close"
    """What the Connection header says then, in one line: some clients read only the first."""
    is_answered = False
    error_code: str | None = None
    """What the client was told is wrong."""
    reason = ""
    """Why, for the log."""
    failure: Internal | None = None
    """What was our fault."""

    def __init_subclass__(cls) -> None:
        """Find out which methods the class answers."""
        super().__init_subclass__()
        cls.own_methods = [
            name
            for name in cls.SUPPORTED_METHODS
            if name not in ("HEAD", "OPTIONS")
            and getattr(cls, name.lower()) is not getattr(RequestHandler, name.lower())
        ]

    @property
    def ip(self) -> str:
        """The client's address."""
        return self.caller.ip

    @property
    def content(self) -> Content:
        """The body, without a byte order mark; for a method that takes one."""
        content = b"" if self.body is None else self.body.complete()
        if content.startswith(BYTE_ORDER_MARK):
            return content[len(BYTE_ORDER_MARK) :]
        return content

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

    async def prepare(self) -> None:
        """Decide, when the headers are there and nothing of a body is."""
        takes_body = self.takes_body()
        size = None
        try:
            self.check()
            size = body_size(self.request)
            if size is not None and takes_body:
                self.bodies.check_size(size)
            self.check_method()
            if self.request.method != "OPTIONS":  # a page asks without a token whether it may ask
                answer = self.authorize(*self.path_args, **self.path_kwargs)
                if answer is not None:
                    await answer
            if size is not None and takes_body:
                self.check_coding()
                self.body = Body(self.bodies, self.identity.owner, size, self._refuse_body)
        except ClientError as error:
            if isinstance(error, RateLimited):
                # An answer costs, too, and whoever is told to wait could ask again at once.
                await asyncio.sleep(REFUSED_S)
            offers_upgrade = error.status == 426  # who takes it at its word speaks no more HTTP
            if offers_upgrade or has_body(self.request):
                raise
            # Answered from here it would end the connection, which may be asked more.
            self.refusal = error
            setattr(self, self._method_name, self._refuse)
        if size is not None and not takes_body:
            await self._answer_now()
        else:
            self.is_early = False
        headers = self.request.headers
        if "Expect" in headers:  # Tornado compares it with one word (RFC 9110, section 10.1.1)
            waits = size is not None and has_word(self.request, "Expect", CONTINUE)
            headers["Expect"] = CONTINUE if waits and self.request.version != "HTTP/1.0" else ""

    def check(self) -> None:
        """Check what is the same for all requests (stock checks let a rebound name pass)."""
        request, settings = self.request, self.server.settings
        self.caller = self.failures.client(request, settings.server)
        if request.version not in ("HTTP/1.1", "HTTP/1.0"):
            raise InvalidRequest("The server speaks HTTP/1.1 and HTTP/1.0")
        is_upgrade = self.is_upgrade = wants_websocket(request)
        if is_upgrade and not self.takes_upgrade():
            raise InvalidRequest("WebSockets are below /ws/")
        try:
            self.host = check_host(request, settings, self.host_rules)
            origin = None if self.IS_PUBLIC else check_origin(request, self.host, settings)
        except ClientError:
            self.is_refused_page = self.TELLS_REFUSED_PAGES
            if self.is_refused_page and request.method == "OPTIONS" and not is_upgrade:
                return  # it is the request that follows which is refused
            raise
        if self.CORS_METHODS:
            self.allowed_origin = origin
        if is_upgrade and has_body(request):
            raise InvalidRequest("An upgrade has no body")

    def check_coding(self) -> None:
        """Raise unless a body comes as it is."""
        coding = self.request.headers.get("Content-Encoding", "identity")
        if coding.lower() not in ("identity", ""):
            raise UnsupportedCoding

    def check_method(self) -> None:
        """Raise unless there is something behind the method."""
        if self.request.method not in self._methods():
            raise MethodNotAllowed

    def authorize(self, *path: Any, **named: Any) -> Awaitable[None] | None:
        """Raise unless the sender may do what is asked for: whatever is known without the body.

        The parts of the path are given as they are to a method. It may be a coroutine, if others
        are to be asked.
        """
        return None

    def takes_body(self) -> bool:
        """Tell whether this method of this path takes a body."""
        return self.request.method in self.BODIES

    def takes_upgrade(self) -> bool:
        """Tell whether this path is one for WebSockets."""
        return False

    def data_received(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.body is not None:
            self.body.add(data)

    def on_connection_close(self) -> None:
        """Let go of a body that did not come to its end."""
        super().on_connection_close()
        if self.body is not None and self.body.is_arriving:
            self.body.release()

    def on_finish(self) -> None:
        """Let go of what an answered request needs no more, and of what refers to itself."""
        if self.body is not None:
            self.body.release()
        if self.refusal is not None:
            self.refusal = None
            del vars(self)[self._method_name]

    def head(self, *path: str, **named: str) -> Awaitable[None] | None:
        """Answer as `get` does; Tornado leaves the body out."""
        done: Awaitable[None] | None = self.get(*path, **named)
        return done

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Return a part of the path."""
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest("The path is not UTF-8") from error

    def compute_etag(self) -> str | None:
        """Do without: what may not be stored is never asked for again, and to hash it costs."""
        return None

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the answer; a page that may use the server can read it."""
        self.is_answered = True
        for name, value in self.page_headers().items():
            self.set_header(name, value)
        if self.is_early:
            # Tornado ends the connection after an answer that comes so early.
            self.set_header("Connection", self.ending)
            self._stream.lingers = has_body(self.request)
        elif (
            self.server.draining
            or has_word(self.request, "Connection", "close")
            # A proxy may have taken it for a handshake, and pass on unseen what comes behind.
            or has_word(self.request, "Upgrade", "websocket")
        ):
            self.request.headers["Connection"] = "close"  # which Tornado's answer goes by
            self.set_header("Connection", "close")
            self._stream.is_last = True
        return super().finish(chunk)

    def page_headers(self) -> Mapping[str, str]:
        """Return what lets the page that asked read the answer, if it may."""
        if self.allowed_origin is not None:
            return {
                "Access-Control-Allow-Origin": self.allowed_origin,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Expose-Headers": self.CORS_EXPOSED,
                "Vary": "Origin",
            }
        return {"Access-Control-Allow-Origin": "*"} if self.is_refused_page else {}

    def options(self, *_: Any, **__: Any) -> None:
        """Answer a page's preflight request."""
        self.set_status(204)
        self.set_header("Access-Control-Allow-Methods", self.CORS_METHODS)
        self.set_header("Access-Control-Allow-Headers", self.CORS_HEADERS)
        self.set_header("Access-Control-Max-Age", "600")

    def authenticate(self, accept: frozenset[Kind]) -> Identity:
        """Return who sent the bearer token. Raises `TokenError`, or as `verify` does."""
        token = bearer(self.request)
        if token is None:
            raise TokenError("Send a token: Authorization: Bearer ...") from ValueError("no token")
        return self.verify(token, accept)

    def verify(self, token: str, accept: frozenset[Kind]) -> Identity:
        """Return whose token this is, who pays for the request from here on.

        Raises `TokenError`, or `RateLimited` where too many tokens of the address were not good.
        """
        self.identity = self.failures.verify(self.server.tokens, token, accept, self.caller)
        payer.set(self.identity.owner)
        return self.identity

    def pay(self, price: float = 1) -> None:
        """Take a price off the user's budget. Raises `RateLimited`."""
        self.server.budgets.pay(self.identity.owner, price)

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
        stream = self._stream
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
        if (refused := self.server.borders.refused) is not None:
            refused(Refused(self._sender(error), self.ip, self.request.path, error))
        if error.status == 405:
            self.set_header("Allow", ", ".join(self._methods()))
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(max(1, math.ceil(error.retry_after_s))))
        if error.status == 415:
            self.set_header("Accept-Encoding", "identity")
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.answer_bytes(http_error(error), error.status)

    def _sender(self, error: ClientError) -> str:
        """Return who sent what is refused, "" if no token says."""
        if isinstance(error, TokenError):
            return error.bearer
        return "" if "identity" not in vars(self) else self.identity.user_id

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Turn what a handler raised into its answer."""
        cause = (kwargs.get("exc_info") or (None, None, None))[1]
        if isinstance(cause, ClientError):
            error = cause
        elif status_code == 405 and self.request.method not in self.SUPPORTED_METHODS:
            error = MethodUnknown()
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
        """Log what is our fault, without the request's repr or its query: those have the token."""
        if isinstance(value, ClientError | HTTPError):
            return
        summary = f"{self.request.method} {self.request.path}"
        self.failure = internal(self.server.clock, log, "%s failed", summary, error=value)

    @property
    def _stream(self) -> Stream:
        connection: Any = self.request.connection
        stream: Stream = connection.stream
        return stream

    @property
    def _method_name(self) -> str:
        return (self.request.method or "").lower()

    def _methods(self) -> Sequence[str]:
        own = list(self.own_methods if self.routes is None else self.routes)
        if "GET" in own:
            own.insert(own.index("GET") + 1, "HEAD")
        return [*own, "OPTIONS"] if self.CORS_METHODS or self.ANSWERS_OPTIONS else own

    def _refuse(self, *_: str, **__: str) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _refuse_body(self, error: ClientError) -> None:
        self.is_early = True
        self.send_error(error.status, exc_info=(type(error), error, None))
        # Its last byte may have come in this very turn: what waited for it must find it answered.
        setattr(self, self._method_name, _do_nothing)

    async def _answer_now(self) -> None:
        done = getattr(self, self._method_name)(*self.path_args, **self.path_kwargs)
        if done is not None:
            await done
        if not self.is_answered:
            self.finish()


def _do_nothing(*_: str, **__: str) -> None:
    """Take the place of a method whose request was answered."""


class Fallback(JsonHandler):
    """Answers what no route takes."""

    def check_method(self) -> None:
        """Refuse; but of the server as a whole (RFC 9110, section 9.3.7) all there is is said."""
        target, is_question = self.request.path, self.request.method == "OPTIONS"
        if target == "*" and is_question:
            return
        if not target.startswith("/"):
            raise InvalidRequest("The target is neither a path nor an http:// URL")
        raise NotFound

    def options(self) -> None:
        """Name every method that is known."""
        self.set_status(204)
        known = [name for name in self.SUPPORTED_METHODS if name != "HEAD"]
        self.set_header("Allow", ", ".join(["HEAD", *known]))


class Routes(Application):
    """The routes of a port, for requests as `normalise` leaves them."""

    def find_handler(self, request: HTTPServerRequest, **more: Any) -> Any:
        """Return who answers."""
        normalise(request)
        return super().find_handler(request, **more)


class AccessLog:
    """A line for each request, without its query; on those that went well only when debugging."""

    def __init__(self, clock: Clock) -> None:
        self.refused = tally_of_errors()
        """Errors answered since the start, by code."""
        self._throttle = Throttle(log, REFUSALS_PER_S, clock, burst=REFUSALS_AT_ONCE)

    def __call__(self, handler: RequestHandler) -> None:
        """Log a request that is answered; Tornado's `log_function`."""
        request, status = handler.request, handler.get_status()
        ip, code = getattr(handler, "ip", request.remote_ip), getattr(handler, "error_code", None)
        words = f"{request.method} {request.path[:200]}"
        if code is None:
            self.went_well(words, status, ip, request.request_time())
            return
        self.refused.add(code)
        level = logging.INFO if status < 500 else logging.WARNING
        reason = getattr(handler, "reason", "")
        fields = {"code": code, "reason": reason, "ip": ip, "ms": _ms(request.request_time())}
        self._throttle.log(level, "%s: %d", words, status, **fields)

    def went_well(self, words: str, status: int, ip: str | None, took_s: float) -> None:
        """Log a request that was answered as it asked for; `words` are its method and path."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %d", words, status, extra={"ip": ip, "ms": _ms(took_s)})

    def refuse(self, address: str, refusal: Refusal) -> None:
        """Log a request that no handler sees: its head is too large, or is none."""
        error = refusal.error
        self.refused.add(error.code)
        fields = {"code": error.code, "reason": error.message, "ip": read_address(address) or ""}
        self._throttle.log(
            logging.INFO, "a request that could not be read: %d", refusal.status, **fields
        )


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
