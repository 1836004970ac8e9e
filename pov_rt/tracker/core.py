"""The pure part of every activity tracker: which requests are activities, and what they say."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypedDict
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET

from pov_rt.protocol.details.traces import with_trace
from pov_rt.protocol.messages import NewActivity

EXCLUDED = (r"^/(healthz|readyz|health|metrics|static|favicon\.ico)(/|$)",)
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
DONE = frozenset({*range(200, 300), 303})
"""Statuses that say the request was done. 303 leads from a form to its result (RFC 9110, section
15.4.4); 302 is not among them, for it also leads to the login page: a rule has to name it."""
UNENCODED = "/:@!$&'()*+,;=~"
"""What paths have as it is, beside letters, digits and -._ (RFC 3986, section 3.3)."""


class Facts(msgspec.Struct, frozen=True):
    """What is known of a request once it is answered.

    No body, cookie or query value, and of the headers the trace context alone, `traceparent`.

    `path` is percent-encoded, as it came, within the application; `path_arguments` are the route's
    named parts, decoded; `user` is who the app says it was, `pov` where it says it was. `request`
    is the framework's own, for who has to ask for more.
    """

    method: str
    path: str
    status: int
    duration_s: float
    path_arguments: Mapping[str, str] = msgspec.field(default_factory=dict)
    user: str | None = None
    pov: str | None = None
    request: Any = None
    traceparent: str | None = None


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

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the path's named parts, decoded, if the rule is for this request.

        `path` is percent-encoded: decoded before, a '/' inside of a part would end it.
        """
        found = self._pattern.fullmatch(path) if method == self.method else None
        if found is None:
            return None
        parts = found.groupdict()
        return {name: unquote(part) for name, part in parts.items()} if "%" in path else parts

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        literal = re.escape(self.path)
        return re.compile(re.sub(r"\\?\{(\w+)\\?\}", r"(?P<\1>[^/]+)", literal))


Describe = Callable[[Facts], NewActivity | None]
Who = Callable[[Any], "str | Awaitable[str | None] | None"]


class Options(TypedDict, total=False):
    """The options of all trackers; each has the same in every framework.

    - `exclude`: patterns (`re.search`) of paths that are none of the tracker's; health checks,
      metrics and static files unless said otherwise.
    - `methods`: of which requests may become activities; those that change something by default.
    - `statuses`: of which answers count where no rule says it.
    - `sample_rate`: which part of them is chosen, by chance.
    - `describe`: asked about requests that no rule is for; returns the activity, or None.
    - `before_send`: has the last word: returns the activity, another, or None.
    - `anonymous`: in whose name activities are published of which nobody is known who did them;
      without it they are none.
    - `actor`, `pov`: who did a request, and on which PoV where the path does not say it; called
      with the framework's own request. In asynchronous applications they may be `async`.
    - `trace`: whether activities have the trace context of their requests in their details, as
      `traceparent`, and those too that are published while one is handled; True by default.
    - `capacity`, `capacity_bytes`: how many activities wait at most, and how large they are.
    """

    exclude: Sequence[str]
    methods: Collection[str]
    statuses: Container[int]
    sample_rate: float
    describe: Describe
    before_send: Callable[[NewActivity], NewActivity | None]
    anonymous: str
    actor: Who
    pov: Who
    trace: bool
    capacity: int
    capacity_bytes: int


class Candidate(NamedTuple):
    """A request that is to become an activity: by a rule and the path's parts, or by `describe`."""

    rule: Track | None
    parts: Mapping[str, str]


class Chooser:
    """Decides which requests become activities: the pure part. `Options` says what is what."""

    def __init__(
        self,
        rules: Sequence[Track],
        *,
        describe: Describe | None = None,
        exclude: Sequence[str] = EXCLUDED,
        methods: Collection[str] = CHANGING,
        statuses: Container[int] = DONE,
        sample_rate: float = 1.0,
        before_send: Callable[[NewActivity], NewActivity | None] | None = None,
        anonymous: str | None = None,
        has_pov: bool = False,
    ) -> None:
        """Refuse, with ValueError, what could never make an activity.

        `has_pov`: the PoV is known of requests whose path does not say it.
        """
        for rule in rules:
            if not has_pov and "{pov_id}" not in rule.path:
                raise ValueError(
                    f"the rule for {rule.path} does not say where the {{pov_id}} is; write it into "
                    "the path, or have pov= say it"
                )
            if rule.method not in methods:
                raise ValueError(f"the rule for {rule.method} {rule.path}: add it to methods=")
        if isinstance(methods, str) or isinstance(exclude, str):
            raise ValueError("methods= and exclude= are lists of texts")  # noqa: TRY004
        if not 0 <= sample_rate <= 1:
            raise ValueError(f"sample_rate={sample_rate} is not between 0 and 1")
        self._rules = rules
        self._describe = describe
        self._exclude = [re.compile(each) for each in exclude]
        self.methods = frozenset(methods)
        self._statuses = statuses
        self._sample_rate = sample_rate
        self._before_send = before_send
        self._anonymous = anonymous

    def watches(self, method: str, path: str) -> bool:
        """Tell whether a request could become an activity, before it is answered."""
        if method not in self.methods:
            return False
        for each in self._exclude:  # no generator: every such request pays for it
            if each.search(path):
                return False
        return True

    def pick(self, method: str, path: str, status: int) -> Candidate | None:
        """Return what a request that it watches is to become, now that it is answered."""
        found: Candidate | None = None
        for rule in self._rules:
            parts = rule.match(method, path)
            if parts is not None:
                found = Candidate(rule, parts) if status in rule.statuses else None
                break
        else:
            if self._describe is not None and status in self._statuses:
                found = Candidate(None, {})
        # Sampled before anybody is asked: what is not sent need not be prepared.
        return found if found and random.random() < self._sample_rate else None  # noqa: S311

    def make(self, candidate: Candidate, facts: Facts) -> NewActivity | None:
        """Return the activity, or None; whatever the app's callables raise comes out.

        Raises LookupError where nobody is known who did it, or no PoV.
        """
        if candidate.rule is not None:
            activity: NewActivity | None = _apply(candidate.rule, candidate.parts, facts)
        else:
            activity = self._describe(facts) if self._describe else None
            if activity is not None and activity.user_id is UNSET and facts.user:
                activity = msgspec.structs.replace(activity, user_id=facts.user)
        if activity is not None:
            activity = with_trace(activity, facts.traceparent)
        if activity is not None and self._before_send is not None:
            activity = self._before_send(activity)
        if activity is None or activity.user_id is not UNSET:
            return activity
        if self._anonymous is None:
            raise LookupError(
                "nobody is signed in: have actor= say who does such requests, or name a user for "
                "them with anonymous="
            )
        return msgspec.structs.replace(activity, user_id=self._anonymous)


def _apply(rule: Track, parts: Mapping[str, str], facts: Facts) -> NewActivity:
    details = dict(parts)
    pov_id = details.pop("pov_id", None) or facts.pov
    if pov_id is None:
        raise LookupError(f"pov= does not say on which PoV {facts.path} was")
    return NewActivity(
        type=rule.type,
        action=rule.action,
        pov_id=pov_id,
        user_id=facts.user or UNSET,
        details=details or UNSET,
    )


def name_of(user: Any) -> str | None:
    """Return a user's id: itself, or its `userId`, `user_id`, `id` or `username`; None for nobody.

    Nobody is also one of whom the framework says that they did not sign in.
    """
    if user is None or getattr(user, "is_authenticated", True) is False:
        return None
    if isinstance(user, bytes):
        user = user.decode()
    if isinstance(user, str | int):
        return str(user) or None
    for name in ("userId", "user_id", "id", "username"):
        found = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if found is not None:
            return str(found)
    return None


def encode_path(path: str, raw: str | None = None, root: str = "") -> str:
    """Return a path that a server decoded, percent-encoded, without `root` at its beginning.

    As it came, if `raw` is that (a query may follow): in `path` a '/' inside of a part is like any
    other. `root` is where the application is mounted.
    """
    text = raw.partition("?")[0] if raw else ""
    if text == path and not root and "%" not in text:
        return text
    if unquote(text) != path:
        text = quote(path, safe=UNENCODED)
    for start in (root.rstrip("/"), quote(root.rstrip("/"), safe=UNENCODED)):
        if start and text.startswith(f"{start}/"):
            return text[len(start) :]
    return text
