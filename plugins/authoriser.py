"""The authoriser: asks another server who may subscribe, and remembers what it said."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from pov_rt.plugin import (
    Context,
    Endpoint,
    Forbidden,
    Host,
    Lookup,
    Part,
    Plugin,
    Range,
    SignedCalls,
    Unavailable,
)

log = logging.getLogger(__name__)

ASK_S = 2.0
DOWN_S = 1.0
"""For how long nobody asks an authoriser that did not answer."""
MAX_ANSWERS = 10_000
MAX_ASKING = 64
"""Questions at a time."""


class Options(Endpoint, frozen=True, forbid_unknown_fields=True):
    """`url` is asked; what it answered is good for `ttl_s`."""

    ttl_s: Annotated[float, Range(0, 86400)] = 60.0


class Question(Part):
    """The body of what is asked: whether this user may subscribe to this PoV."""

    user_id: str
    pov_id: str
    role: str | None
    team_id: str


class Authoriser:
    """The other server. Owner: the lifespan."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._calls = SignedCalls(host, host.options(Options))
        self._down_until = 0.0
        self._is_failing = False

    async def ask(self, question: Question) -> bool:
        """Return whether the user may. Raises `Unavailable` if the answer is neither yes nor no."""
        status = 0
        if self._host.clock.monotonic() >= self._down_until:
            status = await self._calls.post(msgspec.json.encode(question), ASK_S)
            self._note(status)
        if status != 403 and not 200 <= status < 300:
            raise Unavailable("Nobody can say now whether you may subscribe", retry_after_s=DOWN_S)
        return status != 403

    def _note(self, status: int) -> None:
        self._host.count("questions_asked")
        if 200 <= status < 300 or status == 403:
            self._is_failing = False
            return
        self._host.count("questions_failed")
        if status == 0:
            self._down_until = self._host.clock.monotonic() + DOWN_S
        if not self._is_failing:
            log.warning("subscriptions are refused: the authoriser gave %s", status or "no answer")
            self._is_failing = True


plugin = Plugin[Lookup[Question, bool]]("authoriser", options=Options, needs="url")


@plugin.lifespan
async def answers(host: Host) -> AsyncIterator[Lookup[Question, bool]]:
    """Read the secret; at the end stop asking."""
    ask, ttl_s = Authoriser(host).ask, host.options(Options).ttl_s
    made = Lookup(host, ask, ttl_s=ttl_s, capacity=MAX_ANSWERS, at_once=MAX_ASKING)
    yield made
    await made.close()


@plugin.before_subscribe
async def authorise(pov_id: str, context: Context[Lookup[Question, bool]]) -> None:
    """Ask whether the user may; the token says so already."""
    user, team_id = context.user, context.grants.team_id
    question = Question(user_id=user.user_id, pov_id=pov_id, role=user.role, team_id=team_id)
    if not await context.state.get(question):
        raise Forbidden("You may not subscribe to this PoV", field="povId")
