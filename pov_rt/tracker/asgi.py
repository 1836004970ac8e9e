"""The activity tracker for ASGI: FastAPI, Starlette, Litestar and all others.

app.add_middleware(ActivityTracker, url="http://127.0.0.1:8765", token=token, rules=rules)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from typing_extensions import Unpack

from pov_rt.tracker import neutral
from pov_rt.tracker.core import Options, Track, encode_path
from pov_rt.tracker.sender import Token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[..., Awaitable[None]]
"""An application; each framework has types of its own for what it is called with."""


class ScopeTracker(neutral.ActivityTracker[Scope]):
    """Reads a request's scope; the user is `scope["user"]`, where an authentication puts it."""

    def method_of(self, request: Scope) -> str:
        return str(request["method"])

    def path_of(self, request: Scope) -> str:
        raw = request.get("raw_path") or b""
        return encode_path(request["path"], raw.decode("latin-1"), request.get("root_path", ""))

    def arguments_of(self, request: Scope) -> Mapping[str, Any]:
        return request.get("path_params") or {}

    def user_of(self, request: Scope) -> Any:
        return request.get("user")

    def header_of(self, request: Scope, name: str) -> str | None:
        wanted = name.encode()
        found = [value for each, value in request.get("headers") or () if each == wanted]
        return found[0].decode("latin-1") if len(found) == 1 else None


class ActivityTracker:
    """Watches the HTTP requests of an application, and hands all else on as it comes.

    A response is watched until its last byte is handed over; what goes on after it, such as a
    background task, is not waited for. `actor=` and `pov=` are called with the scope then.
    """

    def __init__(
        self,
        app: App,
        url: str,
        token: Token,
        rules: Sequence[Track] = (),
        **options: Unpack[Options],
    ) -> None:
        self.app = app
        self.tracker = ScopeTracker(url, token, rules, **options)
        self.outbox = self.tracker.outbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection."""
        if scope["type"] == "lifespan":
            self.outbox.serve()
            await self.app(scope, receive, self._flush_before(send))
            return
        with self.tracker.traced(scope):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = self.tracker.begin(scope) if scope["type"] == "http" else None
        if watch is None:
            await self.app(scope, receive, send)
            return
        status, is_told = 0, False

        async def watched(message: Message) -> None:
            nonlocal status, is_told
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status and not is_told and not message.get("more_body", False):
                is_told = True
                await watch.answered(status)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            if not status:  # the server answers with 500; else it breaks the answer off
                await watch.answered(500)
            raise
        if status and not is_told:  # its client has gone before the end
            await watch.answered(status)

    def _flush_before(self, send: Send) -> Send:
        """Send what waits before the server learns that it may end: many end by a signal then."""

        async def flushing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await asyncio.to_thread(self.outbox.flush)
            await send(message)

        return flushing
