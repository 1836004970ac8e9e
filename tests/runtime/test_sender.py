"""What every sender of batches guarantees, with a receiver that does what a test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest

from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.sender import Attempt, Batch, BatchSender

DONE, FAILED, TOO_LARGE = Attempt("done"), Attempt("failed", "away"), Attempt("too large", "huge")
OVER = Attempt("over", "gone")
Answers = Sequence[Attempt | Callable[[], Awaitable[Attempt]]]


class Numbers(BatchSender[int]):
    """Sends numbers; answers with the next of `answers`, then `done`."""

    what = "numbers"
    retry_s = (0.0, 0.0)

    def __init__(self, answers: Answers = (), clock: ManualClock | None = None) -> None:
        super().__init__(clock or ManualClock(), logging.getLogger("numbers"))
        self.answers = list(answers)
        self.batches: list[Batch[int]] = []
        self.lost: list[int] = []
        self.at_once = 0
        self.came = asyncio.Event()

    def encode(self, items: Sequence[int]) -> bytes:
        return b"%d:" % len(self.batches) + b",".join(b"%d" % item for item in items)

    async def attempt(self, batch: Batch[int]) -> Attempt:
        assert self.at_once == 0, "one attempt at a time"
        self.at_once += 1
        try:
            self.batches.append(batch)
            self.came.set()
            answer = self.answers.pop(0) if self.answers else DONE
            await asyncio.sleep(0)
            return answer if isinstance(answer, Attempt) else await answer()
        finally:
            self.at_once -= 1

    def on_dropped(self, items: Sequence[int], why: str) -> None:
        super().on_dropped(items, why)
        self.lost += items

    @property
    def sizes(self) -> list[int]:
        return [len(batch.items) for batch in self.batches]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.sent, self.rejected, self.dropped, self.queued


async def never() -> Attempt:
    await asyncio.Event().wait()
    return DONE


def put(sender: Numbers, count: int) -> None:
    for number in range(count):
        sender.put(number)


def delivered(count: int, answers: Answers = (), **bounds: object) -> Numbers:
    """Put so many numbers and deliver them, within these bounds."""
    sender = Numbers(answers)
    vars(sender).update(bounds)
    put(sender, count)
    asyncio.run(sender.deliver())
    return sender


def test_a_retry_has_the_same_items_and_the_same_body() -> None:
    sender = delivered(3, [FAILED, FAILED])
    assert sender.batches[0] is sender.batches[1] is sender.batches[2]
    assert sender.batches[0].body == b"0:0,1,2"
    assert sender.counts == (3, 0, 0, 0)


def test_a_batch_is_bounded_in_items_and_in_bytes() -> None:
    assert delivered(7, batch_items=3).sizes == [3, 3, 1]
    assert delivered(7, batch_bytes=6).sizes == [1, 1, 2, 1, 2]  # halves of 7, 6, 5, 3 and 2
    assert delivered(2, batch_bytes=1).sizes == [1, 1], "one item goes, however large"


def test_what_is_too_large_is_halved_in_order_and_a_single_item_dropped() -> None:
    sender = delivered(5, [TOO_LARGE, TOO_LARGE])
    assert [batch.items for batch in sender.batches] == [[0, 1, 2, 3, 4], [0, 1], [0], [1, 2, 3, 4]]
    assert sender.counts == (5, 0, 0, 0)
    sender = delivered(2, [TOO_LARGE, TOO_LARGE])
    assert (sender.lost, sender.counts) == ([0], (1, 0, 1, 0))


@pytest.mark.parametrize(("drops_oldest", "lost"), [(False, [3, 4]), (True, [0, 1])])
def test_of_too_many_the_newest_or_the_oldest_are_dropped_and_it_is_said_once(
    drops_oldest: bool, lost: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    sender = delivered(5, capacity=3, drops_oldest=drops_oldest)
    assert (sender.lost, sender.counts) == (lost, (3, 0, 2, 0))
    assert [record.getMessage() for record in caplog.records] == [
        "1 numbers are dropped: the queue of 3 is full; more are only counted"
    ]


def test_what_the_receiver_rejects_is_counted_apart() -> None:
    assert delivered(5, [Attempt("done", rejected=2)]).counts == (3, 2, 0, 0)


def test_past_its_deadline_a_batch_is_dropped_and_the_next_has_one_of_its_own() -> None:
    clock = ManualClock()

    async def late() -> Attempt:
        clock.advance(10)
        return FAILED

    sender = Numbers([FAILED, late, FAILED, FAILED], clock)
    sender.retry_for_s, sender.batch_items = 10, 2
    put(sender, 4)
    asyncio.run(sender.deliver())
    assert [batch.items for batch in sender.batches] == [[0, 1], [0, 1], [2, 3], [2, 3], [2, 3]]
    assert sender.counts == (2, 0, 2, 0)


def test_the_wait_is_a_part_of_a_limit_that_doubles_or_what_the_receiver_asks_for() -> None:
    waits: list[float] = []

    class Waiting(Numbers):
        retry_s = (1.0, 3.0)

        async def _pause(self, seconds: float) -> None:
            waits.append(seconds)

    asked = Attempt("failed", "busy", 7.0)
    sender = Waiting([FAILED, FAILED, FAILED, asked, FAILED, DONE, FAILED])
    sender.batch_items = 1
    put(sender, 2)
    asyncio.run(sender.deliver())
    assert waits == [0.5, 1.0, 1.5, 7.0, 1.5, 0.5]  # the clock's chance is a half


def test_a_delivery_that_is_cancelled_leaves_its_batch_to_the_next() -> None:
    async def run() -> Numbers:
        sender = Numbers([never])
        put(sender, 3)
        task = asyncio.create_task(sender.deliver())
        await sender.came.wait()
        sender.put(3)
        task.cancel()
        await asyncio.wait([task])
        assert sender.queued == 4
        await asyncio.gather(sender.deliver(), sender.deliver())
        return sender

    sender = asyncio.run(run())
    assert [batch.items for batch in sender.batches] == [[0, 1, 2], [0, 1, 2], [3]]
    assert sender.batches[0] is sender.batches[1]


def test_a_flush_does_not_wait_for_the_next_retry() -> None:
    async def run() -> Numbers:
        sender = Numbers([FAILED])
        sender.retry_s = (60.0, 60.0)
        put(sender, 2)
        assert not await sender.flush(0.05), "the second attempt would come after half a minute"
        assert await sender.flush(), "but not while somebody waits"
        put(sender, 1)
        assert await sender.flush()
        assert await sender.flush()
        await sender.close()
        return sender

    sender = asyncio.run(run())
    assert sender.sizes == [2, 2, 1]
    assert sender.counts == (3, 0, 0, 0)


def test_a_flush_hurries_a_delivery_that_waits_for_its_retry() -> None:
    async def run() -> Numbers:
        sender = Numbers([FAILED])
        sender.retry_s = (60.0, 60.0)
        put(sender, 2)
        delivery = asyncio.create_task(sender.deliver())
        await sender.came.wait()
        while not sender.failures:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0)
        assert await sender.flush()
        await delivery
        return sender

    assert asyncio.run(run()).counts == (2, 0, 0, 0)


def test_it_sends_only_when_told() -> None:
    async def run() -> Numbers:
        sender = Numbers()
        put(sender, 2)
        for _ in range(10):
            await asyncio.sleep(0)
        assert sender.sizes == []
        assert await sender.flush()
        return sender

    assert asyncio.run(run()).sizes == [2]


def test_what_leaves_is_told_of_once_whichever_way() -> None:
    left: list[int] = []

    class Leaving(Numbers):
        def on_left(self, items: Sequence[int]) -> None:
            left.extend(items)

    sender = Leaving([Attempt("done", rejected=1), TOO_LARGE, DONE, DONE, OVER])
    sender.batch_items, sender.capacity = 2, 6
    put(sender, 7)
    asyncio.run(sender.deliver())
    sender.put(7)
    assert sorted(left) == list(range(8))


def test_closing_takes_a_bounded_time_and_drops_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> Numbers:
        sender = Numbers([never])
        sender.batch_items = 2
        put(sender, 3)
        await sender.close(0.01)
        assert not sender.put(3)
        await sender.close()
        return sender

    sender = asyncio.run(run())
    assert (sender.lost, sender.counts) == ([0, 1, 2, 3], (0, 0, 4, 0))
    assert [record.getMessage() for record in caplog.records] == [
        "3 numbers are dropped: their receiver does not answer before the end",
        "1 numbers are dropped: it is closed",
    ]


def test_when_it_is_over_all_is_dropped_and_nothing_taken_any_more() -> None:
    sender = delivered(3, [OVER], batch_items=2)
    assert not sender.put(3)
    assert (sender.lost, sender.sizes) == ([0, 1, 2, 3], [2])


def test_what_an_attempt_raises_ends_the_delivery_and_keeps_the_batch() -> None:
    async def fail() -> Attempt:
        raise ValueError("a mistake")

    sender = Numbers([fail])
    put(sender, 2)
    with pytest.raises(ValueError, match="a mistake"):
        asyncio.run(sender.deliver())
    assert sender.counts == (0, 0, 0, 2)
    asyncio.run(sender.deliver())
    assert sender.counts == (2, 0, 0, 0)


@pytest.mark.parametrize("seed", range(40))
def test_each_item_is_counted_once_and_what_arrives_is_in_order(seed: int) -> None:
    dice = Random(seed)
    clock = ManualClock()

    async def answer() -> Attempt:
        clock.advance(dice.random())
        if dice.random() < 0.1:
            await never()
        some = Attempt("done", rejected=dice.randint(0, len(sender.batches[-1].items)))
        return dice.choice([DONE, FAILED, TOO_LARGE, some])

    async def run() -> None:
        number = 0
        for _ in range(100):
            for _ in range(dice.randint(0, 5)):
                sender.put(number)
                number += 1
            if dice.random() < 0.3:
                task = asyncio.create_task(sender.deliver())
                for _ in range(dice.randint(0, 20)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            assert sum(sender.counts) == number
            assert sender.queued <= sender.capacity + sender.batch_items
        await sender.close(0.01)
        assert sum(sender.counts) == number
        assert sender.queued == 0

    sender = Numbers([answer] * 10_000, clock)
    sender.capacity, sender.batch_items = dice.randint(1, 20), dice.randint(1, 10)
    sender.drops_oldest, sender.retry_for_s = dice.random() < 0.5, dice.choice([0.0, 2.0, 100.0])
    asyncio.run(run())
    firsts = [batch.items[0] for batch in sender.batches]
    assert firsts == sorted(firsts)
    assert sender.dropped == len(sender.lost) == len(set(sender.lost))


def test_what_is_unwanted_is_sent_no_more() -> None:
    async def work() -> None:
        sender = Numbers([FAILED, DONE])
        sender.batch_items = 4
        put(sender, 8)
        delivering = asyncio.create_task(sender.deliver())
        await sender.came.wait()
        sender.discard(lambda number: number % 2 == 0)
        await delivering
        assert [[*batch.items] for batch in sender.batches] == [[0, 1, 2, 3], [1, 3], [5, 7]]
        assert [batch.body for batch in sender.batches][1] == b"1:1,3", "it is another batch"
        assert sender.counts == (4, 0, 4, 0)
        assert sender.lost == []

    asyncio.run(work())


def test_a_batch_of_which_nothing_is_wanted_is_sent_no_more() -> None:
    async def work() -> None:
        for later in (0, 2):
            sender = Numbers([FAILED])
            put(sender, 3)
            delivering = asyncio.create_task(sender.deliver())
            await sender.came.wait()
            sender.discard(lambda _: True)
            put(sender, later)
            await delivering
            assert sender.sizes == [3, 2][: 1 + bool(later)]
            assert sender.counts == (later, 0, 3, 0)

    asyncio.run(work())


def test_what_is_put_after_it_was_unwanted_is_sent() -> None:
    async def work() -> None:
        sender = Numbers()
        put(sender, 3)
        delivering = asyncio.create_task(sender.deliver())
        await sender.came.wait()
        sender.discard(lambda _: True)  # that is on its way, and taken
        await delivering
        put(sender, 2)
        await sender.deliver()
        assert sender.sizes == [3, 2]

    asyncio.run(work())
