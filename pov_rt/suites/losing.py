"""For engines that can lose the end of their logs: what is left stays what it was.

Subclass it beside `EngineSuite`, and say how something is lost:

    class TestMyEngineLoses(LosingSuite):
        def make(self, clock, povs=None, **settings): ...
        async def lose(self, number): ...
"""

from __future__ import annotations

from pov_rt.engine.base import Appended, Position
from pov_rt.suites.support import FEED, A, B, Suite, new, on_engine


class LosingSuite(Suite):
    """What the end of a log may take with it, and what not."""

    async def lose(self, number: int) -> None:
        """Lose so many of the entries that were appended last, whichever topics' they are."""
        raise NotImplementedError

    @on_engine()
    async def test_what_is_left_is_held_and_nothing_behind_it(self) -> None:
        log = self.engine.log
        done = await log.append([new(B, "1"), *(new(A, str(each)) for each in range(1, 6))])
        old = {topic: (await log.top(topic)).epoch for topic in (A, B)}
        await self.lose(2)
        for topic, end, last in ((A, 3, 5), (B, 1, 1)):
            top = await log.top(topic)
            assert (top.epoch != old[topic], top.offset) == (True, end)
            for offset in range(last + 1):
                assert await log.holds(topic, Position(old[topic], offset)) is (offset <= end)
                assert await log.holds(topic, Position(top.epoch, offset)) is (offset <= end)
        assert [each.offset for each in done if isinstance(each, Appended)] == [1, 1, 2, 3, 4, 5]

    @on_engine()
    async def test_new_entries_do_not_make_old_places_good(self) -> None:
        log = self.engine.log
        await log.append([new(A, str(each)) for each in range(1, 6)])
        first = (await log.top(A)).epoch
        await self.lose(2)
        (again,) = await log.append([new(A, "x")])
        assert (again.offset, again.epoch != first) == (4, True)
        await log.append([new(A, "y"), new(A, "z")])
        for offset, holds in ((3, True), (4, False), (5, False)):
            assert await log.holds(A, Position(first, offset)) is holds
        # Lost once more, further back, and then from behind that.
        await self.lose(4)
        await log.append([new(A, "v"), new(A, "w")])
        for epoch in (first, again.epoch):
            for offset, holds in ((2, True), (3, False), (4, False)):
                assert await log.holds(A, Position(epoch, offset)) is holds

    @on_engine()
    async def test_a_retry_of_what_is_left_is_one_and_of_what_was_lost_is_appended(self) -> None:
        log = self.engine.log
        await log.append([new(A, "1"), new(A, "2")])
        await self.lose(1)
        epoch = (await log.top(A)).epoch
        assert await log.append([new(A, "1"), new(A, "2")]) == [
            Appended(epoch, 1, duplicate=True),
            Appended(epoch, 2),
        ]

    @on_engine()
    async def test_a_topic_and_its_feed_lose_the_same(self) -> None:
        log = self.engine.log
        await log.append([new(A, "1", b"1", FEED), new(B, "2", b"2", FEED)])
        await self.lose(1)
        for topic, bodies in ((A, [b"1"]), (B, []), (FEED, [b"1"])):
            page = await log.read(topic, 0, 9)
            assert [each.body for each in page.entries] == bodies

    @on_engine()
    async def test_who_watches_is_told_under_the_new_epoch(self) -> None:
        log = self.engine.log
        await self.engine.watch(A)
        await log.append([new(A, "1"), new(A, "2")])
        await self.lose(1)
        (again,) = await log.append([new(A, "3")])
        assert self.told.told[-1] == (A, again.epoch, 2, b"{}")
        assert again.epoch == (await log.top(A)).epoch

    @on_engine()
    async def test_marks_go_over_with_what_is_left(self) -> None:
        log, marks = self.engine.log, self.engine.marks
        await log.append([new(A, str(each)) for each in range(1, 6)])
        old = (await log.top(A)).epoch
        await marks.advance(A, "ana", "read", Position(old, 2))
        await marks.advance(A, "ana", "unread", Position(f"{old}-3", 3))
        await marks.advance(A, "ben", "read", Position(old, 5))
        await self.lose(2)
        epoch = (await log.top(A)).epoch
        assert await marks.get(A, "ana", "read") == (epoch, 2)
        assert await marks.get_many("ana", [A], ["read", "unread"]) == [
            [(epoch, 2), (f"{epoch}-3", 3)]
        ]
        assert (await marks.of("ana"))[0] == (A, "read", Position(epoch, 2))
        # Neither goes back; one that speaks of what was lost is replaced.
        assert await marks.advance(A, "ana", "read", Position(old, 1)) == (epoch, 2)
        assert await marks.advance(A, "ana", "read", Position(old, 3)) == (epoch, 3)
        assert (await marks.all(A, "read"))["ana"] == (epoch, 3)
        assert await marks.advance(A, "ben", "read", Position(epoch, 1)) == (epoch, 1)
        await marks.carry(A, "read", Position(epoch, 3), Position(epoch, 4))
        assert await marks.get(A, "ana", "read") == (epoch, 4)
