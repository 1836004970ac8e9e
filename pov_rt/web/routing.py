"""From a request's head to its handler: what can be refused is, before its body has arrived."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.web import Application, RequestHandler, _HandlerDelegate

from pov_rt.protocol.errors import ClientError, InvalidRequest, TooLarge
from pov_rt.web.http import AccessLog, Fallback, JsonHandler

_LENGTH = re.compile(r"[0-9]{1,18}")

MAX_BODY_BYTES = 10**18
"""What Tornado may read: the limits are ours, for it refuses with an empty 400."""
LINGER_S = 2.0
"""How long the body of a refused request is read away."""


class Site(Application):
    """The routes of one port. `arguments` go to each handler; `body_bytes` bounds each body."""

    def __init__(
        self,
        routes: Sequence[tuple[Any, ...]],
        *,
        access_log: AccessLog,
        body_bytes: int,
        arguments: dict[str, Any],
    ) -> None:
        self.body_bytes = body_bytes
        super().__init__(
            [
                (path, kind, {**arguments, **(more[0] if more else {})})
                for path, kind, *more in routes
            ],
            default_handler_class=Fallback,
            default_handler_args=arguments,
            log_function=access_log,
        )

    def get_handler_delegate(
        self,
        request: HTTPServerRequest,
        target_class: type[RequestHandler],
        target_kwargs: dict[str, Any] | None = None,
        path_args: list[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> Exchange:
        """Return what takes the request; Tornado asks for it."""
        return Exchange(self, request, target_class, target_kwargs, path_args, path_kwargs)


class Exchange(_HandlerDelegate):
    """A request and its answer, which may come before the body does."""

    application: Site
    handler_class: type[JsonHandler]
    _is_early = False
    _end: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Tornado takes a body for a form by its content type, which is what curl says by default,
        # and refuses JSON with a thousand '&' in it.
        self.request._parse_body = _leave  # type: ignore[method-assign]  # noqa: SLF001

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Answer now what needs no body, or has one that is too large."""
        size = _body_size(headers)
        if size is None:
            return None
        if "Upgrade" in headers:
            return self._answer(partial(InvalidRequest, "An upgrade has no body"))
        if not self.handler_class.TAKES_BODIES:
            return self._answer(None)
        if size > self.application.body_bytes:
            return self._refuse_size()
        return None

    def data_received(self, data: bytes) -> Awaitable[None] | None:
        """Take a piece of the body."""
        if self._is_early:
            return None
        if len(self.chunks) + len(data) > self.application.body_bytes:
            return self._refuse_size()
        return super().data_received(data)

    def on_connection_close(self) -> None:
        """Let go; the body has been read away, or the client has gone."""
        super().on_connection_close()
        if self._end is not None:
            self._end.cancel()
            self._hang_up()

    def _refuse_size(self) -> Awaitable[None] | None:
        limit = self.application.body_bytes
        return self._answer(
            partial(TooLarge, f"The body is above {limit} bytes; send less at once")
        )

    def _answer(self, refusal: Callable[[], ClientError] | None) -> Awaitable[None] | None:
        """Have the handler answer, and read the body away for a while.

        With bytes unread the end would be a reset, which can take the answer from the client.
        """
        self._is_early = True
        connection: Any = self.connection
        connection._read_finished = True  # noqa: SLF001  (else it would hang up after the answer)
        connection._disconnect_on_finish = False  # noqa: SLF001
        self._end = asyncio.get_running_loop().call_later(LINGER_S, self._hang_up)
        self.handler_kwargs = {**self.handler_kwargs, "is_early": True, "refusal": refusal}
        self.stream_request_body = True  # it is waited for
        return self.execute()

    def _hang_up(self) -> None:
        connection: Any = self.connection
        if connection.stream is not None:
            connection.stream.close()


def _body_size(headers: HTTPHeaders) -> int | None:
    """Return how many bytes will come at least; None if none do, or Tornado is to refuse them."""
    length, encoding = headers.get("Content-Length"), headers.get("Transfer-Encoding")
    if length is None:
        return 0 if encoding is not None and encoding.lower() == "chunked" else None
    return int(length) if encoding is None and _LENGTH.fullmatch(length) else None


def _leave() -> None:
    """Leave a body as it is."""
