"""The authoriser: asks another server what users may do on PoVs, and remembers what it said."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from pov_rt.plugin import (
    Access,
    Allowed,
    Endpoint,
    Forbidden,
    Host,
    Lookup,
    Part,
    Plugin,
    Range,
    SignedCalls,
    Unavailable,
    encode,
)

log = logging.getLogger(__name__)

ASK_S = 2.0
DOWN_S = 1.0
"""For how long an authoriser that did not answer is not asked again about the user; and about
nobody when it did not answer about `DOWN_USERS` in a row: one who knows what takes it long must not
keep it from the others."""
DOWN_USERS = 3
MAX_ANSWERS = 50_000
ANSWERS_EACH = 1_000
"""Answers about one user."""
MAX_ASKING = 64
"""Questions at a time."""
ASKING_EACH = 4
"""About one user."""


class Options(Endpoint, frozen=True, forbid_unknown_fields=True):
    """`url` is asked; what it answered is good for `ttl_s` at most.

    If it is away then, who is subscribed stays so for `grace_s` more.
    """

    ttl_s: Annotated[float, Range(0, 86400)] = 60.0
    grace_s: Annotated[float, Range(0, 86400)] = 300.0


class Question(Part):
    """The body of what is asked: whether this user may do this on this PoV."""

    user_id: str
    pov_id: str
    action: Literal["see", "collaborate", "write"]
    role: str | None
    team_id: str


class Authoriser:
    """The other server. Owner: the lifespan."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls = SignedCalls(host, host.options(Options))
        self._down_until = 0.0
        self._unanswered: set[str] = set()
        """The users about whom there was no answer since there was one."""
        self._is_failing = False
        for name in ("questions_asked", "questions_failed"):
            host.count(name, 0)

    async def ask(self, question: Question) -> bool:
        """Return whether the user may. Raises `Unavailable` if the answer is neither yes nor no."""
        status = 0
        if not self._is_down(question.user_id):
            status = await self._calls.post(encode(question), ASK_S)
            self._note(status, question.user_id)
        if status != 403 and not 200 <= status < 300:
            raise Unavailable("Nobody can say now whether you may", retry_after_s=DOWN_S)
        return status != 403

    def _is_down(self, user_id: str) -> bool:
        if self._host.clock.monotonic() >= self._down_until:
            return False
        return user_id in self._unanswered or len(self._unanswered) >= DOWN_USERS

    def _note(self, status: int, user_id: str) -> None:
        self._host.count("questions_asked")
        if status:
            self._unanswered.clear()
        if 200 <= status < 300 or status == 403:
            self._is_failing = False
            return
        self._host.count("questions_failed")
        if status == 0:
            if len(self._unanswered) < DOWN_USERS:
                self._unanswered.add(user_id)
            self._down_until = self._host.clock.monotonic() + DOWN_S
        if not self._is_failing:
            log.warning("users are refused: the authoriser gave %s", status or "no answer")
            self._is_failing = True


plugin = Plugin[Lookup[Question, bool]]("authoriser", options=Options, needs="url")


@plugin.lifespan
async def answers(host: Host) -> AsyncIterator[Lookup[Question, bool]]:
    """Read the secret; at the end stop asking."""
    ask, ttl_s = Authoriser(host).ask, host.options(Options).ttl_s
    made = Lookup(
        host,
        ask,
        ttl_s=ttl_s,
        capacity=MAX_ANSWERS,
        capacity_each=ANSWERS_EACH,
        at_once=MAX_ASKING,
        at_once_each=ASKING_EACH,
    )
    yield made
    await made.close()


@plugin.authorise
async def authorise(access: Access, host: Host[Lookup[Question, bool]]) -> Allowed:
    """Ask whether the user may; the token says so already."""
    question = Question(
        user_id=access.user_id,
        pov_id=access.pov_id,
        action=access.action,
        role=access.role,
        team_id=access.team_id,
    )
    if not await host.state.get(question, access.owner):
        raise Forbidden("You may not do this on this PoV", field="povId")
    good_for_s = host.state.good_for_s(question, access.owner)
    return Allowed(good_for_s, host.options(Options).grace_s)
