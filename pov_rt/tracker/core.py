"""What every activity tracker shares: which requests count, and how activities get to the server.

An application's response is never delayed and never fails because of it: what cannot be sent waits
in a bounded queue, what does not fit is counted and dropped.
"""

from __future__ import annotations

import inspect
import logging
import random
import re
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import NamedTuple, Protocol
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.protocol.characters import escape
from pov_rt.protocol.messages import NewActivity
from pov_rt.runtime.clock import SystemClock, new_id
from pov_rt.runtime.sender import Attempt, Batch, BatchSender, Verdict

log = logging.getLogger(__name__)

MAX_REASONS, MAX_TEXT = 3, 200
"""Of what the server says the log has at most so much."""

GATHER_S = 0.2
"""How long the first activity waits for others to travel with it."""

EXCLUDED = (r"^/(healthz|readyz|health|metrics|static|favicon\.ico)(/|$)",)
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
DONE = frozenset({*range(200, 300), 303})
"""Statuses that say the request was done. 303 leads from a form to its result (RFC 9110, section
15.4.4); 302 is not among them, for it also leads to the login page: a rule has to name it."""

Token = str | Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a request once it is answered. No body, header, cookie or query value.

    `path` is percent-encoded, as it came; `path_arguments` are the route's named parts, decoded;
    `user` is who the app says it was.
    """

    method: str
    path: str
    status: int
    duration_s: float
    path_arguments: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


@dataclass(frozen=True)
class Track:
    """A rule: `Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done")`.

    `{pov_id}` is the PoV; the path's other parts become the activity's details. Requests that were
    answered with another status than those of `statuses` do not count.
    """

    method: str
    path: str
    type: str
    action: str
    statuses: Container[int] = DONE

    def __post_init__(self) -> None:
        """Refuse a rule that could never make an activity."""
        if "{pov_id}" not in self.path:
            raise ValueError(f"the rule for {self.path} does not say where the {{pov_id}} is")

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the path's named parts, decoded, if the rule is for this request.

        `path` is percent-encoded: decoded before, a '/' inside of a part would end it.
        """
        if method != self.method:
            return None
        pattern = re.sub(r"\\?\{(\w+)\\?\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        found = re.fullmatch(pattern, path)
        if found is None:
            return None
        return {name: unquote(part) for name, part in found.groupdict().items()}


Describe = Callable[[Facts], NewActivity | None]


class HttpAnswer(NamedTuple):
    """What the server answered: the status, Retry-After in seconds if given, the body."""

    status: int
    retry_after_s: float | None
    body: bytes


class Sender(Protocol):
    """Posts a body; one for each kind of application."""

    async def post(self, url: str, token: str, body: bytes) -> HttpAnswer:
        """Return the answer, whatever its status. Raises OSError if there was none."""


class Chooser:
    """Decides which requests become activities.

    A rule has its own `statuses`; `describe`, which is asked about what no rule is for, is asked
    about requests that were answered with one of these. `anonymous` is in whose name activities are
    published of which nobody is known who did them; without it they are none.
    """

    def __init__(
        self,
        rules: Sequence[Track],
        *,
        describe: Describe | None = None,
        exclude: Sequence[str] = EXCLUDED,
        methods: frozenset[str] = CHANGING,
        statuses: Container[int] = DONE,
        sample_rate: float = 1.0,
        before_send: Callable[[NewActivity], NewActivity | None] | None = None,
        anonymous: str | None = None,
    ) -> None:
        self._rules = rules
        self._describe = describe
        self._exclude = [re.compile(each) for each in exclude]
        self._methods = methods
        self._statuses = statuses
        self._sample_rate = sample_rate
        self._before_send = before_send
        self._anonymous = anonymous

    def choose(
        self,
        method: str,
        path: str,
        status: int,
        duration_s: float,
        who: Callable[[], str | None],
        path_arguments: Mapping[str, str] | None = None,
    ) -> NewActivity | None:
        """Return the request's activity, or None; whatever the app's callables raise comes out.

        Raises LookupError where nobody is known who did it.
        """
        if method not in self._methods or any(each.search(path) for each in self._exclude):
            return None
        for rule in self._rules:
            parts = rule.match(method, path)
            if parts is not None:
                activity = _apply(rule, parts, who()) if status in rule.statuses else None
                break
        else:
            if self._describe is None or status not in self._statuses:
                return None
            facts = Facts(method, path, status, duration_s, path_arguments or {}, who())
            activity = self._describe(facts)
            if activity is not None and activity.user_id is UNSET and facts.user:
                activity = msgspec.structs.replace(activity, user_id=facts.user)
        # Sampled before before_send: what is not sent need not be prepared.
        if activity is None or random.random() >= self._sample_rate:  # noqa: S311
            return None
        if self._before_send is not None:
            activity = self._before_send(activity)
        if activity is None or activity.user_id is not UNSET:
            return activity
        if self._anonymous is None:
            raise LookupError(
                "nobody is signed in: have actor= say who does such requests, or name a user for "
                "them with anonymous="
            )
        return msgspec.structs.replace(activity, user_id=self._anonymous)


def _apply(rule: Track, parts: dict[str, str], user: str | None) -> NewActivity:
    pov_id = parts.pop("pov_id")
    return NewActivity(
        type=rule.type,
        action=rule.action,
        pov_id=pov_id,
        user_id=user or UNSET,
        details=dict(parts) or UNSET,
    )


class Refusal(msgspec.Struct):
    """Why an activity was refused."""

    code: str
    message: str = ""

    def __str__(self) -> str:
        """Return both, for a log."""
        return f"{_cut(self.code)}: {_cut(self.message)}" if self.message else _cut(self.code)


class Refused(msgspec.Struct):
    """The body of an answer that refuses all."""

    error: Refusal


class ItemOutcome(msgspec.Struct):
    """What became of an activity."""

    error: Refusal | UnsetType = UNSET
    duplicate: bool = False


class Outcomes(msgspec.Struct):
    """The body of an answer to a batch."""

    results: list[ItemOutcome]


_read_batch_answer = msgspec.json.Decoder(Outcomes).decode
_read_refusal = msgspec.json.Decoder(Refused).decode


def read_refusal(answer: HttpAnswer) -> Refusal | None:
    """Return what the server says is wrong; None where something else answers than a server."""
    try:
        refusal = _read_refusal(answer.body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Refusal(_cut(refusal.code), _cut(refusal.message))


def read_results(answer: HttpAnswer, count: int) -> list[ItemOutcome] | None:
    """Return what became of each of `count` activities; None if the answer does not say so.

    Anything may stand at that address, such as a proxy's page, and answer 200.
    """
    if answer.status == 400:  # the batch as a whole
        return [ItemOutcome(read_refusal(answer) or Refusal("400"))] * count
    if answer.status != 200:
        return None
    try:
        results = _read_batch_answer(answer.body).results
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return results if len(results) == count else None


class ActivitySender(BatchSender[NewActivity]):
    """Brings activities to the server in the background. Owner: the tracker.

    Each has its id from the start, so that a retry is recognised and nothing arrives twice.
    """

    what = "activities"
    batch_bytes = 1024 * 1024
    gather_s, retry_s = GATHER_S, (0.5, 20.0)

    def __init__(self, url: str, token: Token, sender: Sender, *, capacity: int = 10_000) -> None:
        super().__init__(SystemClock(), log)
        self.capacity = capacity
        self._url = f"{url.rstrip('/')}/api/activities"
        self._token = token
        self._sender = sender

    def put(self, activity: NewActivity) -> bool:
        """Take an activity, and give it an id if it has none.

        One that JSON cannot hold is dropped at once, or no batch with it could ever be sent.
        """
        if activity.id is UNSET:
            activity = msgspec.structs.replace(activity, id=new_id())
        try:
            msgspec.json.encode(activity)
        except Exception as error:  # the details are the application's: anything
            self.on_dropped([activity], f"JSON cannot hold them ({error!r})")
            return False
        return super().put(activity)

    def encode(self, activities: Sequence[NewActivity]) -> bytes:
        """Return them as JSON lines."""
        return b"\n".join(map(msgspec.json.encode, activities))

    async def attempt(self, batch: Batch[NewActivity]) -> Attempt:
        """Post them, with the token of the moment."""
        try:
            token = self._token if isinstance(self._token, str) else self._token()
            if inspect.isawaitable(token):
                token = await token
            answer = await self._sender.post(self._url, token, batch.body)
        except Exception as error:  # the token's callable is the application's: anything
            answer = HttpAnswer(0, None, repr(error).encode())
        results = read_results(answer, len(batch.items))
        if results is None and answer.status == 413 and len(batch.items) == 1:
            log.warning("the server refuses an activity: it is too large")
            return Attempt("done", rejected=1)
        if results is None:
            why = f"no success at {self._url} ({_why(answer)})"
            if answer.status == 401 and isinstance(self._token, str):
                why += "; the token is always the same: give a ServiceToken, or a function"
            verdict: Verdict = "too large" if answer.status == 413 else "failed"
            return Attempt(verdict, why, answer.retry_after_s)
        refused = [str(each.error) for each in results if each.error]
        if refused:
            reasons = sorted(set(refused))
            more = ", ..." if len(reasons) > MAX_REASONS else ""
            said = ", ".join(reasons[:MAX_REASONS]) + more
            log.warning("the server refuses %d activities: %s", len(refused), said)
        return Attempt("done", rejected=len(refused))


def _why(answer: HttpAnswer) -> str:
    if answer.status == 200:
        return "200, but the body is no answer to a batch: is that a pov-rt server?"
    if not answer.status:
        return answer.body.decode(errors="replace")
    refusal = read_refusal(answer)
    return f"{answer.status} {refusal or responses.get(answer.status, '')}".rstrip()


def _cut(text: str) -> str:
    """Return a text that a stranger may have written, as a log can have it."""
    return escape(text[:MAX_TEXT])
