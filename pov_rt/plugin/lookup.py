"""Answers that cost a call to somebody else: asked once at a time, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from pov_rt.plugin.interfaces import Host
from pov_rt.protocol.errors import Unavailable

QuestionT = TypeVar("QuestionT", bound=Hashable)
AnswerT = TypeVar("AnswerT")

WAIT_S = 4.0
"""How long an answer may take, with the wait for other questions; handlers have 5 s."""


class _Known(NamedTuple, Generic[AnswerT]):
    """An answer, and until when (`Clock.monotonic`) it is remembered."""

    answer: AnswerT
    until: float


class Lookup(Generic[QuestionT, AnswerT]):
    """Asks, and remembers what was answered for `ttl_s`. Owner: a plugin's lifespan.

    `ask` raises if there is no answer, which is not remembered. At most `at_once` questions are
    asked at a time; who asks what is being asked already waits for that answer. Of more than
    `capacity` answers the oldest are forgotten.
    """

    def __init__(
        self,
        host: Host[Any],
        ask: Callable[[QuestionT], Awaitable[AnswerT]],
        *,
        ttl_s: float,
        capacity: int = 10_000,
        at_once: int = 64,
    ) -> None:
        self._clock = host.clock
        self._ask = ask
        self._ttl_s = ttl_s
        self._capacity = capacity
        self._answers: dict[QuestionT, _Known[AnswerT]] = {}
        self._asking: dict[QuestionT, asyncio.Task[AnswerT]] = {}
        self._slots = asyncio.Semaphore(at_once)

    @property
    def asking(self) -> int:
        """How many questions are being asked."""
        return len(self._asking)

    async def get(self, question: QuestionT) -> AnswerT:
        """Return the answer; who asks may go away meanwhile.

        Raises what `ask` does, and `Unavailable` after 4 s.
        """
        known = self._answers.get(question)
        if known is not None and self._clock.monotonic() < known.until:
            return known.answer
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(self._find(question))
            task.add_done_callback(self._forget_failure)
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(task)
        except TimeoutError:
            raise Unavailable from None

    async def close(self) -> None:
        """Cancel what is still being asked."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _find(self, question: QuestionT) -> AnswerT:
        try:
            async with self._slots:
                answer = await self._ask(question)
        finally:
            del self._asking[question]
        self._answers.pop(question, None)
        if len(self._answers) >= self._capacity:
            del self._answers[next(iter(self._answers))]
        self._answers[question] = _Known(answer, self._clock.monotonic() + self._ttl_s)
        return answer

    @staticmethod
    def _forget_failure(task: asyncio.Task[AnswerT]) -> None:
        # Else asyncio complains of a failure that nobody waited for any more.
        if not task.cancelled():
            task.exception()
