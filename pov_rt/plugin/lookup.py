"""Answers that cost a call to somebody else: asked for, by their owners' turns, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from pov_rt.plugin.interfaces import Host
from pov_rt.protocol.errors import RateLimited, Unavailable
from pov_rt.runtime.bounds import FairSlots, payer

QuestionT = TypeVar("QuestionT", bound=Hashable)
AnswerT = TypeVar("AnswerT")

WAIT_S = 4.0
"""How long an answer may take, with the wait for other questions; handlers have 5 s."""
RETRY_S = 1.0
"""When an owner with too many questions may ask again."""
SPREAD = 0.2
"""An answer is remembered for up to this part less, at random: not all are over at once."""
PRICE = 5.0
"""Of a question that is asked, for its owner; what is remembered costs nothing."""


class _Known(NamedTuple, Generic[AnswerT]):
    """An answer, and until when (`Clock.monotonic`) it is remembered."""

    answer: AnswerT
    until: float


class Lookup(Generic[QuestionT, AnswerT]):
    """Asks, and remembers what was answered for `ttl_s`. Owner: a plugin's lifespan.

    `ask` raises if there is no answer, which is not remembered. Every question is somebody's
    (`Identity.owner`), and nobody can take from others what all share: of `at_once` questions at a
    time one owner has `at_once_each`, of `waiting` that wait or are asked `waiting_each`, of
    `capacity` answers `capacity_each`, and owners are served by turns. Whose memory is full forgets
    its own oldest answer. What an owner asks already is not asked once more meanwhile. A question
    is charged to its owner. The metrics have what waits as the bound `PLUGIN_questions`.
    """

    def __init__(
        self,
        host: Host[Any],
        ask: Callable[[QuestionT], Awaitable[AnswerT]],
        *,
        ttl_s: float,
        capacity: int = 50_000,
        capacity_each: int = 1_000,
        at_once: int = 64,
        at_once_each: int = 4,
        waiting: int = 10_000,
        waiting_each: int = 256,
    ) -> None:
        self._clock = host.clock
        self._charge = host.charge
        self._ask = ask
        self._ttl_s = ttl_s
        self._capacity = capacity
        self._capacity_each = capacity_each
        self._slots = FairSlots(at_once, at_once_each)
        self._shares = host.shares("questions", waiting, waiting_each)
        # By owner: their answers, the oldest first. The owner whose newest answer is the oldest is
        # the first.
        self._answers: dict[str, dict[QuestionT, _Known[AnswerT]]] = {}
        self._remembered = 0
        self._asking: dict[tuple[str, QuestionT], asyncio.Task[AnswerT]] = {}

    @property
    def asking(self) -> int:
        """How many questions wait or are being asked."""
        return len(self._asking)

    @property
    def remembered(self) -> int:
        """How many answers are remembered."""
        return self._remembered

    async def get(self, question: QuestionT, owner: str) -> AnswerT:
        """Return the answer; who asks may go away meanwhile.

        Raises what `ask` does, `RateLimited` if the owner has too many questions, and `Unavailable`
        after 4 s.
        """
        known = self._known(question, owner)
        if known is not None:
            return known.answer
        task = self._asking.get((owner, question))
        if task is None:
            if not self._shares.take(owner):
                await asyncio.sleep(0)  # or a crowd of them would hold the loop up
                raise RateLimited("Too many questions wait for an answer", retry_after_s=RETRY_S)
            task = asyncio.create_task(self._find(question, owner))
            self._asking[owner, question] = task
            task.add_done_callback(self._forget_failure)
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(task)
        except TimeoutError:
            raise Unavailable from None

    def good_for_s(self, question: QuestionT, owner: str) -> float:
        """Return for how long an answer is remembered yet; 0 if it is not."""
        known = self._known(question, owner)
        return 0.0 if known is None else known.until - self._clock.monotonic()

    async def close(self) -> None:
        """Cancel what is still being asked."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _known(self, question: QuestionT, owner: str) -> _Known[AnswerT] | None:
        known = self._answers.get(owner, {}).get(question)
        return known if known is not None and self._clock.monotonic() < known.until else None

    async def _find(self, question: QuestionT, owner: str) -> AnswerT:
        payer.set(owner)
        try:
            async with self._slots:
                self._charge(PRICE)
                answer = await self._ask(question)
        finally:
            del self._asking[owner, question]
            self._shares.give(owner)
        if self._ttl_s:
            self._remember(question, owner, answer)
        return answer

    def _remember(self, question: QuestionT, owner: str, answer: AnswerT) -> None:
        mine = self._answers.pop(owner, {})
        self._answers[owner] = mine
        if mine.pop(question, None) is None:
            self._remembered += 1
        until = self._clock.monotonic() + self._ttl_s * (1 - SPREAD * self._clock.random())
        mine[question] = _Known(answer, until)
        if len(mine) > self._capacity_each:
            del mine[next(iter(mine))]
            self._remembered -= 1
        elif self._remembered > self._capacity:
            # Whoever has more than one gives one of their own; only a newcomer takes from others.
            whose = owner if len(mine) > 1 else next(iter(self._answers))
            theirs = self._answers[whose]
            del theirs[next(iter(theirs))]
            self._remembered -= 1
            if not theirs:
                del self._answers[whose]

    @staticmethod
    def _forget_failure(task: asyncio.Task[AnswerT]) -> None:
        # Else asyncio complains of a failure that nobody waited for any more.
        if not task.cancelled():
            task.exception()
