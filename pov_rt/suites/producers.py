"""The tests of producers, who number what they append."""

from __future__ import annotations

import pytest

from pov_rt.engine.base import Amendment, Appended, Conflict, NewEntry, Rewrite
from pov_rt.protocol.errors import Unavailable
from pov_rt.suites.support import DAY_S, FEED, HOUR_S, A, B, Suite, on_engine


def numbered(
    seq: int, key: str, topic: str = A, producer: str = "spool", publisher: str = "p"
) -> NewEntry:
    """Return an entry with a number of its producer's."""
    return NewEntry(topic, publisher, key, b"{}", FEED, producer=producer, seq=seq)


class ProducerSuite(Suite):
    """What every engine must make of producers' numbers."""

    async def offsets(self, *batch: NewEntry) -> list[tuple[int, bool]]:
        """Append, and return where each is and whether it was there."""
        done = await self.engine.log.append(batch)
        return [(each.offset, isinstance(each, Appended) and each.duplicate) for each in done]

    @on_engine()
    async def test_a_number_that_is_not_higher_was_appended_already(self) -> None:
        await self.engine.watch(A)
        assert await self.offsets(numbered(1, "a"), numbered(2, "b"), numbered(2, "c")) == [
            (1, False),
            (2, False),
            (2, True),
        ]
        assert await self.offsets(numbered(1, "d"), numbered(7, "e"), numbered(3, "f")) == [
            (2, True),
            (3, False),
            (3, True),
        ]
        assert self.told.offsets(A) == [1, 2, 3]

    @on_engine()
    async def test_each_producer_of_each_publisher_counts_in_each_topic_for_itself(self) -> None:
        assert await self.offsets(
            numbered(5, "a"),
            numbered(1, "b", B),
            numbered(1, "c", producer="other"),
            numbered(1, "d", publisher="q"),
        ) == [(1, False), (1, False), (2, False), (3, False)]
        assert (await self.offsets(numbered(5, "e"), numbered(1, "f", B)))[0][1]

    @on_engine(id_window_s=HOUR_S, producer_age_s=30 * DAY_S, max_age_s=DAY_S)
    async def test_a_retry_after_the_window_of_ids_is_still_none(self) -> None:
        await self.offsets(numbered(1, "a"))
        for _ in range(29):
            self.clock.advance(DAY_S)
            assert await self.offsets(numbered(1, "a")) == [(1, True)]
        assert await self.offsets(numbered(2, "b")) == [(2, False)]

    @on_engine()
    async def test_an_id_that_is_known_moves_the_number_on(self) -> None:
        await self.offsets(NewEntry(A, "p", "a", b"{}"))
        assert await self.offsets(numbered(4, "a")) == [(1, True)]
        assert await self.offsets(numbered(4, "b"), numbered(5, "c")) == [(1, True), (2, False)]

    @on_engine()
    async def test_a_conflict_takes_no_number(self) -> None:
        await self.offsets(NewEntry(A, "p", "a", b"other"))
        (conflict,) = await self.engine.log.append([numbered(1, "a")])
        assert isinstance(conflict, Conflict)
        assert await self.offsets(numbered(1, "b")) == [(2, False)]

    @on_engine(max_producers=4)
    async def test_one_publisher_has_half_of_them_and_the_bound_holds(self) -> None:
        await self.offsets(numbered(1, "a"), numbered(1, "b", producer="other"))
        with pytest.raises(Unavailable, match="one publisher has 2 producers"):
            await self.offsets(numbered(1, "c", B))
        assert (await self.engine.log.top(B)).offset == 0
        await self.offsets(numbered(1, "d", publisher="q"), numbered(1, "e", B, publisher="q"))
        with pytest.raises(Unavailable, match="there are 4 producers"):
            await self.offsets(numbered(1, "f", publisher="r"))
        assert await self.offsets(numbered(2, "g")) == [(4, False)]

    @on_engine(max_producers=4)
    async def test_a_batch_with_a_retry_counts_its_producers_once(self) -> None:
        await self.offsets(NewEntry(A, "p", "a", b"{}"))
        await self.offsets(numbered(1, "b", B), numbered(1, "a"))
        with pytest.raises(Unavailable):
            await self.offsets(numbered(1, "c", producer="other"))
        assert (await self.engine.log.top(A)).offset == 1

    @on_engine(max_producers=4)
    async def test_a_topic_that_is_dropped_has_no_numbers_and_leaves_room(self) -> None:
        await self.offsets(numbered(5, "a"), numbered(5, "b", producer="other"))
        await self.engine.log.drop(A, lambda body: body)
        assert await self.offsets(numbered(1, "a"), numbered(1, "b", B)) == [(1, False)] * 2
        await self.engine.log.drop(B, lambda body: body)
        assert await self.offsets(numbered(1, "c", producer="other")) == [(2, False)]
        assert await self.offsets(numbered(1, "d")) == [(2, True)]

    @on_engine(max_producers=4, id_window_s=HOUR_S)
    async def test_a_publisher_that_is_disowned_has_no_numbers_and_leaves_room(self) -> None:
        await self.offsets(numbered(5, "a"), numbered(5, "b", B))
        await self.offsets(numbered(5, "c", publisher="q"))
        self.clock.advance(2 * HOUR_S)  # its ids are forgotten by themselves
        await self.engine.log.disown("p")
        assert await self.offsets(numbered(1, "d"), numbered(1, "e", B)) == [
            (3, False),
            (2, False),
        ]
        assert (await self.offsets(numbered(5, "f", publisher="q")))[0][1]

    @on_engine()
    async def test_an_entry_that_was_changed_has_its_number_still(self) -> None:
        log = self.engine.log
        await self.offsets(numbered(5, "a"))
        told = NewEntry(A, "p", "b", b"{}")
        assert await log.amend(Amendment(Rewrite(A, 1, b"{}", b"[]"), told))
        assert await log.edit([Rewrite(A, 1, b"[]", b"")]) == [True]
        assert await self.offsets(numbered(5, "c"), numbered(6, "d")) == [(2, True), (3, False)]
