"""The activity tracker for Tornado applications.

rules = [Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done")]
tracker = ActivityTracker("http://127.0.0.1:8765", ServiceToken(secret, "my-app"), rules)
tracker.wrap(app)
...
await tracker.close()  # before the loop ends, or what waits is lost
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tornado.web import Application, RequestHandler
from typing_extensions import Unpack

from pov_rt.tracker import neutral
from pov_rt.tracker.core import Options, Track
from pov_rt.tracker.sender import EXIT_S, Token


class HandlerTracker(neutral.ActivityTracker[RequestHandler]):
    """Reads the request of a handler; the user is its `current_user`."""

    def method_of(self, request: RequestHandler) -> str:
        return request.request.method or ""

    def path_of(self, request: RequestHandler) -> str:
        return request.request.path

    def arguments_of(self, request: RequestHandler) -> Mapping[str, Any]:
        return getattr(request, "path_kwargs", None) or {}  # not there before a route was found

    def user_of(self, request: RequestHandler) -> Any:
        return request.current_user

    def header_of(self, request: RequestHandler, name: str) -> str | None:
        found = request.request.headers.get_list(name)
        return found[0] if len(found) == 1 else None


class ActivityTracker:
    """Watches every handler of an application; `wrap` it once.

    `token` is a service token, or what returns one that is still good: a `ServiceToken`, which
    signs with a secret, or a function of yours, asked for each batch. `rules` and, where they do
    not suffice, `describe=` say which requests are activities; `actor=` who did them, called with
    the handler. `options` are those of all trackers.
    """

    def __init__(
        self, url: str, token: Token, rules: Sequence[Track] = (), **options: Unpack[Options]
    ) -> None:
        self.tracker = HandlerTracker(url, token, rules, **options)
        self.outbox = self.tracker.outbox

    def wrap(self, app: Application) -> Application:
        """Watch the application, and return it.

        The seam is the setting `log_function`, which Tornado calls for every request of every
        handler when its response is on the way; one that was set before is still called.
        """
        before = app.settings.get("log_function")

        def log_request(handler: RequestHandler) -> None:
            self._see(handler)
            if before is not None:
                before(handler)
            else:
                default_log(handler)

        def default_log(handler: RequestHandler) -> None:
            del app.settings["log_function"]
            try:
                app.log_request(handler)
            finally:
                app.settings["log_function"] = log_request

        app.settings["log_function"] = log_request
        return app

    async def flush(self, timeout_s: float = EXIT_S) -> bool:
        """Send what waits now; return whether all is."""
        return await asyncio.to_thread(self.outbox.flush, timeout_s)

    async def close(self, timeout_s: float = EXIT_S) -> None:
        """Send what waits, and stop; call it when the application ends."""
        await asyncio.to_thread(self.outbox.close, timeout_s)

    def _see(self, handler: RequestHandler) -> None:
        watch = self.tracker.begin(handler)
        if watch is not None:
            watch.choose(handler.get_status())
            watch.send()
