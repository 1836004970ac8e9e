"""The authoriser: asks another server who may subscribe, and remembers what it said."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from pov_rt.plugin import (
    Context,
    Endpoint,
    Forbidden,
    Host,
    Part,
    Plugin,
    Range,
    SignedCalls,
    Unavailable,
)

log = logging.getLogger(__name__)

ASK_S = 2.0
WAIT_S = 4.0
"""With the wait for others' questions; handlers have 5 s."""
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
    """Asks, each question once at a time. Owner: the lifespan."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._options = host.options(Options)
        self._calls = SignedCalls(host, self._options)
        self._answers: dict[Question, tuple[int, float]] = {}
        self._asking: dict[Question, asyncio.Task[int]] = {}
        self._slots = asyncio.Semaphore(MAX_ASKING)
        self._down_until = 0.0
        self._is_failing = False

    async def ask(self, question: Question) -> int:
        """Return the answer's status, 0 if there is none; the asker may go away meanwhile."""
        status, until = self._answers.get(question, (0, 0.0))
        if self._host.clock.monotonic() < until:
            return status
        if self._is_down:
            return 0
        if question not in self._asking:
            self._asking[question] = asyncio.create_task(self._ask(question))
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(self._asking[question])
        except TimeoutError:
            return 0

    async def close(self) -> None:
        """Let go of what is still being asked."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    @property
    def _is_down(self) -> bool:
        return self._host.clock.monotonic() < self._down_until

    async def _ask(self, question: Question) -> int:
        try:
            async with self._slots:
                if self._is_down:
                    return 0
                status = await self._calls.post(msgspec.json.encode(question), ASK_S)
        finally:
            del self._asking[question]
        now = self._host.clock.monotonic()
        self._host.count("questions_asked")
        if 200 <= status < 300 or status == 403:
            self._is_failing = False
            self._answers.pop(question, None)
            if len(self._answers) >= MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[question] = (status, now + self._options.ttl_s)
            return status
        self._host.count("questions_failed")
        if status == 0:
            self._down_until = now + DOWN_S
        if not self._is_failing:
            log.warning("subscriptions are refused: the authoriser gave %s", status or "no answer")
            self._is_failing = True
        return status


plugin = Plugin[Authoriser]("authoriser", options=Options, needs="url")


@plugin.lifespan
async def authoriser(host: Host) -> AsyncIterator[Authoriser]:
    """Read the secret; at the end stop asking."""
    made = Authoriser(host)
    yield made
    await made.close()


@plugin.before_subscribe
async def authorise(pov_id: str, context: Context[Authoriser]) -> None:
    """Ask whether the user may; the token says so already."""
    user, team_id = context.user, context.grants.team_id
    question = Question(user_id=user.user_id, pov_id=pov_id, role=user.role, team_id=team_id)
    status = await context.state.ask(question)
    if status == 403:
        raise Forbidden("You may not subscribe to this PoV", field="povId")
    if not 200 <= status < 300:
        raise Unavailable("Nobody can say now whether you may subscribe", retry_after_s=DOWN_S)
