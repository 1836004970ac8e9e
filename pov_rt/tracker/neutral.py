"""The contract of all activity trackers, whatever the framework.

tracker = ActivityTracker("http://127.0.0.1:8765", ServiceToken(secret, "my-app"), rules)
response = await tracker.activity_tracker(request, next)

An application's response is never delayed and never fails because of it: what cannot be sent waits
in a bounded queue, what does not fit is counted and dropped. No framework is imported here; the
adapters beside say what a framework's requests look like.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, NamedTuple

from typing_extensions import TypeVar, Unpack

from pov_rt.protocol.details.traces import TRACEPARENT, read_traceparent, traced
from pov_rt.protocol.messages import NewActivity
from pov_rt.tracker.core import Candidate, Chooser, Facts, Options, Track, encode_path, name_of
from pov_rt.tracker.sender import ActivitySender, Token

PLAIN = (str, int, type(None))
"""What most applications say of a user: to ask whether it is to be awaited takes longer
(docs/measurements.md, tracked requests)."""
RequestT = TypeVar("RequestT", default=Any)
ResponseT = TypeVar("ResponseT")
_NO_TRACE: AbstractContextManager[None] = nullcontext()
"""One for most requests, which pay for nothing."""


class ActivityTracker(Generic[RequestT]):
    """Answers as `next(request)` does, and has an activity made of it where it is one.

    What a framework's requests look like say the methods `method_of` to `status_of`, which adapters
    override; those here suit most frameworks whose middleware is called with the request and with
    what is next. `url` and `token` are those of the sender (`outbox`), `options` are `Options`.
    """

    def __init__(
        self, url: str, token: Token, rules: Sequence[Track] = (), **options: Unpack[Options]
    ) -> None:
        given: dict[str, Any] = dict(options)
        bounds = {each: given.pop(each) for each in ("capacity", "capacity_bytes") if each in given}
        self._actor = given.pop("actor", None) or self.user_of
        self._pov = given.pop("pov", None)
        self._has_traces = given.pop("trace", True)
        self.chooser = Chooser(rules, has_pov=self._pov is not None, **given)
        self.outbox = ActivitySender(url, token, waits=True, **bounds)

    def method_of(self, request: RequestT) -> str:
        """Return the method, in capitals."""
        return str(getattr(request, "method", ""))

    def path_of(self, request: RequestT) -> str:
        """Return the path within the application, percent-encoded, without the query."""
        path = getattr(request, "path", None) or getattr(getattr(request, "url", None), "path", "")
        return encode_path(str(path))

    def arguments_of(self, request: RequestT) -> Mapping[str, Any]:
        """Return the route's named parts, decoded. Asked when the request is answered."""
        return getattr(request, "path_params", None) or {}

    def user_of(self, request: RequestT) -> Any:
        """Return the framework's user, for `name_of`, or what is to be awaited for it.

        Asked only about a request that is to become an activity.
        """
        return getattr(request, "user", None)

    def header_of(self, request: RequestT, name: str) -> str | None:
        """Return a header, None where there is none or several."""
        headers = getattr(request, "headers", None)
        return None if headers is None else headers.get(name)

    def status_of(self, response: Any) -> int:
        """Return the status of what `next` answered."""
        status = getattr(response, "status_code", None)
        return int(response.status if status is None else status)

    def trace_of(self, request: RequestT) -> str | None:
        """Return the trace context of a request, None if it has none, or is to have none."""
        if not self._has_traces:
            return None
        try:
            return read_traceparent(self.header_of(request, TRACEPARENT))
        except Exception as error:  # as in `begin`
            self.complain(error)
            return None

    def traced(self, request: RequestT) -> AbstractContextManager[None]:
        """Have what the application publishes itself in the block belong to the request's trace."""
        context = self.trace_of(request)
        return _NO_TRACE if context is None else traced(context)

    def begin(self, request: RequestT) -> Watch | None:
        """Return what watches a request; None: it cannot become an activity."""
        self.outbox.serve()
        try:
            method = self.method_of(request)
            if method not in self.chooser.methods:  # most requests; nothing else is read of them
                return None
            path = self.path_of(request)
            if self.chooser.watches(method, path):
                return Watch(self, request, method, path)
        except Exception as error:  # what an adapter did not foresee must not hurt the response
            self.complain(error)
        return None

    async def activity_tracker(
        self, request: RequestT, next: Callable[[RequestT], Awaitable[ResponseT]]
    ) -> ResponseT:
        """Return what `next` answers. What it raises is taken for an answer with 500."""
        watch = self.begin(request)
        try:
            with self.traced(request):
                response = await next(request)
        except Exception:
            if watch is not None:
                await watch.answered(500)
            raise
        if watch is not None:
            await watch.answered(self._read_status(response))
        return response

    def activity_tracker_sync(
        self, request: RequestT, next: Callable[[RequestT], ResponseT]
    ) -> ResponseT:
        """Do the same where nothing is `async`."""
        watch = self.begin(request)
        try:
            with self.traced(request):
                response = next(request)
        except Exception:
            if watch is not None:
                watch.choose(500)
                watch.send()
            raise
        if watch is not None:
            watch.choose(self._read_status(response))
            watch.send()
        return response

    def _read_status(self, response: Any) -> int:
        """Return the status, 0 where it cannot be read: no rule is for that."""
        try:
            return self.status_of(response)
        except Exception as error:
            self.complain(error)
            return 0

    def ask(self, watch: Watch, status: int) -> Asked | None:
        """Return whose request it was and where; None: it becomes no activity."""
        candidate = self.chooser.pick(watch.method, watch.path, status)
        if candidate is None:
            return None
        ask_pov = self._pov if "pov_id" not in candidate.parts else None
        return Asked(
            candidate, self._actor(watch.request), ask_pov(watch.request) if ask_pov else None
        )

    def complain(self, error: Exception) -> None:
        """Count an activity that could not be made, and have the log say why."""
        self.outbox.refuse(f"a request was not tracked: {error!r}")


class Asked(NamedTuple):
    """A request that is to become an activity: what the application says of it, to be awaited."""

    candidate: Candidate
    user: Any
    pov: Any


class Watch:
    """One request until it is answered. Whatever the application's callables raise stays here."""

    __slots__ = ("_activity", "_begun", "_tracker", "method", "path", "request")

    def __init__(self, tracker: ActivityTracker[Any], request: Any, method: str, path: str) -> None:
        self.method, self.path, self.request = method, path, request
        self._tracker = tracker
        self._begun = time.perf_counter()
        self._activity: NewActivity | None = None

    async def answered(self, status: int) -> None:
        """Have the activity sent, if it is one."""
        try:
            asked = self._tracker.ask(self, status)
            if asked is not None:
                candidate, user, pov = asked
                if not isinstance(user, PLAIN) and inspect.isawaitable(user):
                    user = await user
                if not isinstance(pov, PLAIN) and inspect.isawaitable(pov):
                    pov = await pov
                self._make(status, candidate, user, pov)
        except Exception as error:
            self._tracker.complain(error)
        self.send()

    def forget(self) -> None:
        """Have no activity: the application broke its answer off."""
        self._activity = None

    def choose(self, status: int) -> None:
        """Make the activity, in place of one that was made before of another status."""
        self.forget()
        try:
            asked = self._tracker.ask(self, status)
            if asked is not None:
                _refuse_awaitables(asked)
                self._make(status, *asked)
        except Exception as error:
            self._tracker.complain(error)

    def send(self) -> None:
        """Hand the activity over to the sender, which does not wait."""
        if self._activity is not None:
            self._tracker.outbox.put(self._activity)
            self.forget()

    def _make(self, status: int, candidate: Candidate, user: Any, pov: Any) -> None:
        arguments = self._tracker.arguments_of(self.request)
        facts = Facts(
            self.method,
            self.path,
            status,
            time.perf_counter() - self._begun,
            {name: str(value) for name, value in arguments.items()},
            name_of(user),
            None if pov is None else str(pov),
            self.request,
            self._tracker.trace_of(self.request),
        )
        self._activity = self._tracker.chooser.make(candidate, facts)


def _refuse_awaitables(asked: Asked) -> None:
    for each in (asked.user, asked.pov):
        if not isinstance(each, PLAIN) and inspect.isawaitable(each):
            if inspect.iscoroutine(each):
                each.close()
            raise TypeError("actor= and pov= cannot be async in an application that is not")
