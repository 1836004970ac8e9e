"""The tests of `Log`, `Follower`, and of topics that come and go."""

from __future__ import annotations

import asyncio
import random

import pytest

from pov_rt.engine.base import (
    Appended,
    Conflict,
    NewEntry,
    Position,
    Top,
)
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.eager import begun
from pov_rt.suites.support import (
    BODIES,
    FEED,
    HOUR_S,
    LOOK_S,
    ODD,
    WAIT_S,
    A,
    B,
    Suite,
    all_topics,
    new,
    on_engine,
    stub,
)


class LogSuite(Suite):
    """What every engine's logs must do."""

    @on_engine()
    async def test_topics_with_a_log_are_found_by_their_beginning(self) -> None:
        log = self.engine.log
        await self.engine.watch("team/none")
        assert await all_topics(log, "team/") == []
        await log.append(
            [new(A, "1", feed=FEED), new(B, "2", feed="team/é"), new("pov/team/x", "3")]
        )
        for limit in (1, 2, 1000):
            assert await all_topics(log, "team/", limit) == sorted([FEED, "team/é"])
            assert await all_topics(log, "pov/", limit) == sorted([A, B, "pov/team/x"])
            assert await all_topics(log, "", limit) == sorted([A, B, "pov/team/x", FEED, "team/é"])
            assert await all_topics(log, "none", limit) == []

    @on_engine()
    async def test_a_log_holds_the_places_up_to_its_top_and_none_that_it_does_not_know(
        self,
    ) -> None:
        log = self.engine.log
        (first, _, other) = await log.append([new(A, "1"), new(A, "2"), new(B, "1")])
        for offset, holds in ((0, True), (1, True), (2, True), (3, False)):
            assert await log.holds(A, Position(first.epoch, offset)) is holds
        assert await log.holds(B, Position(other.epoch, 1))
        for offset in (0, 1):
            assert not await log.holds(A, Position("never", offset))
        await log.drop(A, stub)
        for offset in (0, 1):
            assert not await log.holds(A, Position(first.epoch, offset))
        assert await log.holds(B, Position(other.epoch, 1))

    @on_engine()
    async def test_a_place_before_the_first_entry_is_held_once_there_is_one(self) -> None:
        log = self.engine.log
        top = await self.engine.watch(A)
        await log.append([new(A, "1")])
        assert await log.holds(A, Position(top.epoch, 0))
        assert (await log.top(A)).epoch == top.epoch

    @on_engine()
    async def test_offsets_start_at_1_and_are_contiguous_per_topic(self) -> None:
        done = await self.engine.log.append([new(A, "1"), new(B, "1"), new(A, "2")])
        assert [each.offset for each in done] == [1, 1, 2]
        assert [each.offset for each in await self.engine.log.append([new(A, "3")])] == [3]

    @on_engine()
    async def test_a_page_ends_with_the_entry_that_fills_its_bytes_and_says_where_to_go_on(
        self,
    ) -> None:
        await self.engine.log.append([new(A, str(n), b"x" * 10) for n in range(1, 8)])
        for reverse, expected in ((False, [1, 2, 3, 4, 5, 6, 7]), (True, [7, 6, 5, 4, 3, 2, 1])):
            for max_bytes, each in ((1, 1), (10, 1), (11, 2), (30, 3), (69, 7), (70, 7), (999, 7)):
                found: list[int] = []
                at: int | None = 0
                while at is not None:
                    page = await self.engine.log.read(
                        A, at, 100, reverse=reverse, max_bytes=max_bytes
                    )
                    found += [entry.offset for entry in page.entries]
                    at = page.next(len(page.entries), reverse=reverse)
                    assert len(page.entries) == each or at is None
                assert found == expected

    @on_engine(max_entries=6)
    async def test_entries_are_counted_by_what_is_made_of_their_bodies(self) -> None:
        batch = [new(A, str(n), b"%d." % (n % 2) + b"x" * n, FEED) for n in range(1, 9)]
        await self.engine.log.append([*batch, new(B, "1", b"b", FEED)])

        async def count(topic: str, first: int, last: int) -> tuple[dict[bytes, int], int]:
            found = await self.engine.log.tally(topic, first, last, lambda body: body[:1])
            return dict(found.counts), found.size

        assert await count(A, 3, 8) == ({b"0": 3, b"1": 3}, 45)
        assert await count(A, 4, 6) == ({b"0": 2, b"1": 1}, 21)
        assert await count(A, 8, 100) == ({b"0": 1}, 10)
        assert await count(FEED, 8, 9) == ({b"0": 1, b"b": 1}, 11)
        assert await count(A, 9, 100) == await count("pov/none", 1, 9) == ({}, 0)

    @on_engine()
    async def test_an_unknown_topic_has_an_epoch_that_stays(self) -> None:
        top = await self.engine.log.top(A)
        assert (top.offset, top.oldest, bool(top.epoch)) == (0, 1, True)
        assert await self.engine.log.top(A) == top
        assert (await self.engine.log.append([new(A, "1")]))[0].epoch == top.epoch
        page = await self.engine.log.read(A, 0, 10)
        assert (page.top.epoch, page.top.offset, page.top.oldest) == (top.epoch, 1, 1)

    @on_engine()
    async def test_a_retry_answers_the_first_offset_and_reaches_nobody(self) -> None:
        await self.engine.watch(A)
        first, again = await self.engine.log.append([new(A, "1"), new(A, "1")])
        (later,) = await self.engine.log.append([new(A, "1")])
        assert first == Appended(first.epoch, 1)
        assert again == later == Appended(first.epoch, 1, duplicate=True)
        assert self.told.offsets(A) == [1]

    @on_engine()
    async def test_a_key_belongs_to_its_publisher_and_topic(self) -> None:
        done = await self.engine.log.append(
            [new(A, "1"), new(A, "1", publisher="q"), new(B, "1"), new(A, "1", b"other")]
        )
        assert [each.offset for each in done] == [1, 2, 1, 1]
        assert isinstance(done[3], Conflict)
        assert not any(isinstance(each, Conflict) for each in done[:3])
        assert (await self.engine.log.top(A)).offset == 2

    @on_engine()
    async def test_what_is_compared_tells_entries_apart_and_without_it_the_body(self) -> None:
        first, later, plain = new(A, "1", b"{1}"), new(A, "1", b"{2}"), new(A, "1", b"{1}")
        first, later = first._replace(compared=b"same"), later._replace(compared=b"same")
        done = await self.engine.log.append([first, later, later._replace(compared=b"other")])
        assert done[1] == Appended(done[0].epoch, 1, duplicate=True)
        assert isinstance(done[2], Conflict)
        (again,) = await self.engine.log.append([later])
        assert again == done[1]
        (entry,) = (await self.engine.log.read(A, 0, 10)).entries
        assert entry.body == b"{1}"
        assert isinstance((await self.engine.log.append([plain]))[0], Conflict)

    @on_engine(max_entries=2, max_age_s=1.0, id_window_s=100.0)
    async def test_keys_are_remembered_for_the_window_whatever_the_retention(self) -> None:
        await self.engine.log.append([new(A, str(n)) for n in range(10)])
        self.clock.advance(99)
        (again,) = await self.engine.log.append([new(A, "0")])
        assert again == Appended(again.epoch, 1, duplicate=True)
        self.clock.advance(2)
        (anew,) = await self.engine.log.append([new(A, "0", b"changed")])
        assert anew == Appended(anew.epoch, 11)

    @on_engine()
    async def test_a_follower_is_told_before_append_returns_in_order_and_only_if_watching(
        self,
    ) -> None:
        await self.engine.log.append([new(A, "0")])
        top = await self.engine.watch(A)
        assert top.offset == 1
        (first, *_rest) = await self.engine.log.append(
            [new(A, str(n), b"%d" % n) for n in range(1, 50)] + [new(B, "1")]
        )
        assert self.told.told == [(A, first.epoch, n + 1, b"%d" % n) for n in range(1, 50)]
        await self.engine.unwatch(A)
        await self.engine.log.append([new(A, "last")])
        assert self.told.offsets(A) == list(range(2, 51))

    @on_engine()
    async def test_a_feed_gets_the_same_bodies_in_the_same_step(self) -> None:
        await self.engine.watch(FEED)
        batch = [new(A, "1", b"a", FEED), new(B, "1", b"b", FEED), new(A, "1", b"a", FEED)]
        await self.engine.log.append(batch)
        page = await self.engine.log.read(FEED, 0, 10)
        assert [(each.offset, each.body) for each in page.entries] == [(1, b"a"), (2, b"b")]
        assert self.told.offsets(FEED) == [1, 2]

    @on_engine()
    async def test_reading_both_ways_is_bounded_and_exclusive(self) -> None:
        await self.engine.log.append([new(A, str(n), b"%d" % n) for n in range(1, 8)])

        async def read(after: int, limit: int, *, reverse: bool = False) -> list[int]:
            page = await self.engine.log.read(A, after, limit, reverse=reverse)
            assert page.top.offset == 7
            assert all(each.body == b"%d" % each.offset for each in page.entries)
            return [each.offset for each in page.entries]

        assert await read(0, 3) == [1, 2, 3]
        assert await read(5, 10) == [6, 7]
        assert await read(7, 10) == await read(99, 10) == []
        assert await read(0, 3, reverse=True) == [7, 6, 5]
        assert await read(3, 10, reverse=True) == [2, 1]
        assert await read(1, 10, reverse=True) == []
        assert await read(99, 2, reverse=True) == [7, 6]
        assert (await self.engine.log.read("pov/none", 0, 10)).entries in ((), [])

    @on_engine(max_entries=100)
    async def test_retention_by_number_leaves_the_newest(self) -> None:
        for start in range(0, 5000, 500):
            await self.engine.log.append([new(A, str(n)) for n in range(start, start + 500)])
        page = await self.engine.log.read(A, 0, 10_000)
        assert [each.offset for each in page.entries] == list(range(4901, 5001))
        assert (page.top.offset, page.top.oldest) == (5000, 4901)
        page = await self.engine.log.read(A, 4990, 3)
        assert [each.offset for each in page.entries] == [4991, 4992, 4993]
        page = await self.engine.log.read(A, 4903, 10, reverse=True)
        assert [each.offset for each in page.entries] == [4902, 4901]

    @on_engine(max_age_s=10.0)
    async def test_retention_by_age_may_leave_nothing_but_the_offset(self) -> None:
        await self.engine.log.append([new(A, "1"), new(A, "2")])
        self.clock.advance(6)
        await self.engine.log.append([new(A, "3")])
        self.clock.advance(6)
        assert [e.offset for e in (await self.engine.log.read(A, 0, 9)).entries] == [3]
        self.clock.advance(6)
        top = await self.engine.log.top(A)
        assert (top.offset, top.oldest) == (3, 4)
        assert [e.offset for e in await self.engine.log.append([new(A, "4")])] == [4]

    @on_engine()
    async def test_an_entry_has_its_instant_origin_and_bytes(self) -> None:
        for topic in ODD:
            for number, body in enumerate(BODIES):
                entry = NewEntry(topic, "pub:é", f"k{number}", body, "", "origin")
                await self.engine.log.append([entry])
            page = await self.engine.log.read(topic, 0, 10)
            assert tuple(each.body for each in page.entries) == BODIES
            assert {(each.at, each.origin) for each in page.entries} == {
                (self.clock.time(), "origin")
            }
        assert (await self.engine.log.top("pov/b")).offset == 0

    @on_engine()
    async def test_many_appenders_share_one_order(self) -> None:
        chance = random.Random(7)  # noqa: S311  (a seeded test)
        await self.engine.watch(A)

        async def append(publisher: int) -> None:
            for n in range(20):
                await self.engine.log.append(
                    [
                        new(A, f"{n}-{k}", b"%d" % publisher, publisher=str(publisher))
                        for k in range(chance.randrange(1, 4))
                    ]
                )
                await asyncio.sleep(0)

        await asyncio.gather(*(append(number) for number in range(8)))
        entries = (await self.engine.log.read(A, 0, 10_000)).entries
        assert [each.offset for each in entries] == list(range(1, len(entries) + 1))
        assert [(o, body) for _, _, o, body in self.told.told] == [
            (each.offset, each.body) for each in entries
        ]

    @on_engine()
    async def test_a_cancelled_append_leaves_the_log_whole(self) -> None:
        for number in range(30):
            task = begun(self.engine.log.append([new(A, str(number))]))
            for _turn in range(number % 3):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.engine.log.append([new(A, str(number)) for number in range(30)])
        entries = (await self.engine.log.read(A, 0, 100)).entries
        assert [each.offset for each in entries] == list(range(1, 31))

    @on_engine(max_topics=3)
    async def test_topics_are_bounded(self) -> None:
        await self.engine.log.append([new(f"pov/{n}", "1", publisher=str(n)) for n in range(3)])
        with pytest.raises(Unavailable, match="max_topics"):
            await self.engine.log.append([new("pov/0", "2"), new("pov/4", "1")])
        assert (await self.engine.log.append([new("pov/0", "3")]))[0].offset in (2, 3)
        (bound,) = (each for each in self.engine.bounds if each.name == "topics")
        assert (bound.used(), bound.limit, bound.refused) == (3, 3, 1)

    @on_engine(max_topics=100, topics_per_hour=10)
    async def test_one_publisher_begins_so_many_topics_in_an_hour(self) -> None:
        append = self.engine.log.append
        await append([new(f"pov/{n}", "1") for n in range(10)])
        with pytest.raises(Unavailable, match="topics_per_hour") as refused:
            await append([new("pov/0", "2"), new("pov/11", "1")])
        assert refused.value.retry_after_s == 360.0
        await append([new("pov/11", "1", publisher="q"), new("pov/11", "2")])
        self.clock.advance(360)
        await append([new("pov/12", "1")])

    @on_engine(max_topics=8)
    async def test_one_publisher_leaves_half_of_a_small_bound_to_the_others(self) -> None:
        with pytest.raises(Unavailable, match="topics_per_hour"):
            await self.engine.log.append([new(f"pov/{n}", "1") for n in range(8)])
        await self.engine.log.append([new(f"pov/{n}", "1", publisher="q") for n in range(8)])

    # Topics that nothing needs:

    async def forgotten(self, topic: str, epoch: str) -> Top:
        """Let hours pass until a topic has another epoch, and return its state."""
        async with asyncio.timeout(WAIT_S):
            while (top := await self.engine.log.top(topic)).epoch == epoch:
                self.clock.advance(HOUR_S)
                await self.engine.leases.renew()
                await asyncio.sleep(LOOK_S)
        return top

    @on_engine(max_age_s=10.0, id_window_s=20.0)
    async def test_a_topic_that_nothing_needs_is_forgotten_and_comes_back_as_another(self) -> None:
        log = self.engine.log
        (old,) = await log.append([new(A, "1", feed=FEED)])
        epochs = {old.epoch}
        for _ in range(3):
            top = await self.forgotten(A, old.epoch)
            assert (top.offset, top.oldest) == (0, 1)
            assert top.epoch not in epochs
            assert (await log.read(A, 0, 9)).top == top
            (old,) = await log.append([new(A, "1", b"other")])
            assert old == Appended(old.epoch, 1)
            assert old.epoch not in epochs
            epochs.add(old.epoch)
            page = await log.read(A, 0, 9)
            assert ([each.body for each in page.entries], page.top.epoch) == ([b"other"], old.epoch)
        (bound,) = (each for each in self.engine.bounds if each.name == "topics")
        assert bound.used() == 1, "the feed has gone as well"

    @on_engine(max_age_s=10.0, id_window_s=5 * 86400.0)
    async def test_a_topic_with_ids_or_marks_or_somebody_who_watches_is_kept(self) -> None:
        log, marks = self.engine.log, self.engine.marks
        epochs = {}
        for topic in (A, B, FEED, "pov/other", "pov/gone"):
            (done,) = await log.append([new(topic, "1", publisher="p" if topic == A else "q")])
            epochs[topic] = done.epoch
        await marks.advance(B, "ana", "read", Position(epochs[B], 1))
        await self.engine.watch(FEED)
        self.clock.advance(4 * 86400.0)
        await log.append([new(A, "2")])
        (again,) = await log.append([new("pov/other", "2")])
        gone = await self.forgotten("pov/gone", epochs["pov/gone"])
        assert (await log.top(A))[:2] == (epochs[A], 2)
        assert (await log.top(B))[:2] == (epochs[B], 1)
        assert (await log.top(FEED))[:2] == (epochs[FEED], 1)
        assert gone.offset == 0
        assert again.epoch == epochs["pov/other"]

    @on_engine(max_age_s=10.0, id_window_s=10.0)
    async def test_who_watches_an_unknown_topic_has_the_epoch_that_its_log_will_have(self) -> None:
        log = self.engine.log
        (old,) = await log.append([new(A, "1")])
        top = await self.engine.watch(B)
        await self.forgotten(A, old.epoch)
        assert await log.top(B) == top
        assert (await log.read(B, 0, 9)).top == top
        (first,) = await log.append([new(B, "1")])
        assert first == Appended(top.epoch, 1)
        assert self.told.told == [(B, top.epoch, 1, b"{}")]
        await self.engine.unwatch(B)
        assert (await log.top(B)).epoch == top.epoch
