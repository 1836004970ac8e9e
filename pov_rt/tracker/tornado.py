"""The activity tracker for Tornado applications.

rules = [Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done")]
tracker = ActivityTracker("http://127.0.0.1:8765", ServiceToken(secret, "my-app"), rules)
tracker.wrap(app)
...
await tracker.close()  # before the loop ends, or what waits is lost
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.web import Application, RequestHandler

from pov_rt.runtime.logs import Throttle
from pov_rt.tracker.core import ActivitySender, Chooser, HttpAnswer, Token, Track

log = logging.getLogger(__name__)

Actor = Callable[[RequestHandler], str | None]


def current_user(handler: RequestHandler) -> str | None:
    """Return the id of `handler.current_user`: itself, or its `userId`, `user_id` or `id`."""
    user = handler.current_user
    if isinstance(user, bytes):
        user = user.decode()
    if user is None or isinstance(user, str):
        return user
    for name in ("userId", "user_id", "id"):
        found = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if found is not None:
            return str(found)
    return None


class TornadoSender:
    """Posts with Tornado's own client; each call takes `timeout_s` at most."""

    def __init__(self, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s

    async def post(self, url: str, token: str, body: bytes) -> HttpAnswer:
        """Return the answer, whatever its status. Raises OSError if there was none."""
        request = HTTPRequest(
            url,
            method="POST",
            body=body,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"},
            request_timeout=self._timeout_s,
            connect_timeout=self._timeout_s,
        )
        try:
            answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        except HTTPClientError as error:
            raise OSError(str(error)) from error
        after = answer.headers.get("Retry-After", "")
        return HttpAnswer(
            answer.code, float(after) if after.isdigit() else None, answer.body or b""
        )


class ActivityTracker:
    """Watches every handler of an application; `wrap` it once.

    `token` is a service token, or what returns one that is still good: a `ServiceToken`, which
    signs with a secret, or a function of yours, asked for each batch. `rules` and, where they do
    not suffice, `describe=` say which requests are activities; `actor=` who did them. Further
    options are those of `core.Chooser`.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        rules: Sequence[Track] = (),
        *,
        actor: Actor = current_user,
        capacity: int = 10_000,
        **options: Any,
    ) -> None:
        self.outbox = ActivitySender(url, token, TornadoSender(), capacity=capacity)
        self._chooser = Chooser(rules, **options)
        self._actor = actor
        self._complaint = Throttle(log)

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

    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits, and stop; call it when the application ends."""
        await self.outbox.close(timeout_s)

    def _see(self, handler: RequestHandler) -> None:
        request = handler.request
        try:
            activity = self._chooser.choose(
                request.method or "",
                request.path,
                handler.get_status(),
                request.request_time(),
                lambda: self._actor(handler),
                getattr(handler, "path_kwargs", None),  # not there before a route was found
            )
            if activity is not None:
                self.outbox.put(activity)
        except Exception as error:  # the application's callables, which must not hurt its response
            self._complaint.log(logging.WARNING, "a request was not tracked: %r", error)
