"""The tests of what is kept of which topics: `keeping.Keeping`."""

from __future__ import annotations

from pov_rt.config.settings import PovSettings
from pov_rt.engine.base import Appended, Position
from pov_rt.suites.support import FEED, A, B, Suite, new, on_engine, stub

SHORT, LONG = PovSettings(max_age_s=10.0), PovSettings(max_age_s=1000.0)


class KeepingSuite(Suite):
    """What every engine must keep of the topics that a pattern fits, and of the others."""

    async def read(self, topic: str) -> list[tuple[int, bytes]]:
        """Return what can be read of a topic."""
        entries = (await self.engine.log.read(topic, 0, 10_000)).entries
        return [(entry.offset, entry.body) for entry in entries]

    @on_engine(max_entries=5, povs={"a*": PovSettings(max_entries=2)})
    async def test_a_pattern_says_how_many_entries_its_topics_keep(self) -> None:
        for topic in (A, "pov/ab", B):
            await self.engine.log.append([new(topic, str(n), b"%d" % n) for n in range(1, 9)])
        for topic, first in ((A, 7), ("pov/ab", 7), (B, 4)):
            assert await self.read(topic) == [(n, b"%d" % n) for n in range(first, 9)]
            assert (await self.engine.log.top(topic)).oldest == first
        await self.engine.watch(A)
        assert (await self.engine.log.top(A)).oldest == 7

    @on_engine(max_age_s=100.0, povs={"a": SHORT, "l": LONG})
    async def test_a_pattern_says_how_long_its_topics_keep_entries(self) -> None:
        for topic in (A, B, "pov/l"):
            await self.engine.log.append([new(topic, "1"), new(topic, "2")])
        await self.engine.watch(A)
        ages = {A: 10, B: 100, "pov/l": 1000}
        for passed in (9, 11, 99, 101, 999, 1001):
            self.clock.advance(passed - (self.clock.now - 1_800_000_000.0))
            for topic, age in ages.items():
                kept = [1, 2] if passed < age else []
                assert [offset for offset, _ in await self.read(topic)] == kept
                top = await self.engine.log.top(topic)
                assert (top.offset, top.oldest) == (2, 1 if kept else 3)

    @on_engine(max_age_s=100.0, povs={"a": SHORT, "l": LONG})
    async def test_a_feed_has_a_stub_of_what_is_too_old_for_its_pov_and_nothing_for_longer(
        self,
    ) -> None:
        log = self.engine.log
        batch = [new(topic, "1", b"in " + topic.encode(), FEED) for topic in (A, B, "pov/l")]
        await log.append(batch)
        whole = [(n, entry.body) for n, entry in enumerate(batch, 1)]
        assert await self.read(FEED) == whole
        self.clock.advance(11)
        await log.append([new(B, "2", b"later", FEED)])
        left = [(1, stub(batch[0].body)), *whole[1:], (4, b"later")]
        assert await self.read(FEED) == left
        page = await log.read(FEED, 3, 2, reverse=True)
        assert [(entry.offset, entry.body) for entry in page.entries] == left[1::-1]
        tally = await log.tally(FEED, 1, 3, bytes)
        assert dict(tally.counts) == {body: 1 for _, body in left[:3]}
        self.clock.advance(90)
        assert await self.read(FEED) == [(4, b"later")]
        assert await self.read("pov/l") == [(1, b"in pov/l")]

    @on_engine(max_age_s=10.0, id_window_s=50.0, povs={"a": PovSettings(max_age_s=1.0)})
    async def test_ids_are_remembered_for_their_window_whatever_a_pattern_says(self) -> None:
        (first,) = await self.engine.log.append([new(A, "1")])
        self.clock.advance(49)
        (again,) = await self.engine.log.append([new(A, "1")])
        assert again == Appended(first.epoch, 1, duplicate=True)

    @on_engine(max_age_s=10.0, mark_age_s=1.0, povs={"l": LONG})
    async def test_a_mark_lives_as_long_as_what_is_kept_for_longest(self) -> None:
        (first,) = await self.engine.log.append([new("pov/l", "1")])
        await self.engine.marks.advance("pov/l", "ana", "read", Position(first.epoch, 1))
        self.clock.advance(999)
        assert await self.engine.marks.get("pov/l", "ana", "read") == Position(first.epoch, 1)

    @on_engine(max_age_s=100.0, povs={"a": SHORT})
    async def test_what_became_a_stub_is_the_feeds_own(self) -> None:
        log = self.engine.log
        await log.append([new(A, "1", b"one", FEED), new(B, "1", b"other", FEED)])
        self.clock.advance(11)
        await self.read(FEED)
        await log.drop(A, lambda body: b"dropped " + body)
        left = await self.read(FEED)
        assert left == [(1, left[0][1]), (2, b"other")]
        assert left[0][1] in (stub(b"one"), b"dropped " + stub(b"one"), b"dropped one")
