"""The tests of copying an engine: another one that takes it over reads the same, and goes on."""

from __future__ import annotations

import math
from typing import Any

from pov_rt.config.settings import PovSettings
from pov_rt.engine.base import (
    Amendment,
    Appended,
    Conflict,
    Engine,
    NewEntry,
    Position,
    Rewrite,
)
from pov_rt.engine.copying import compare, copy, total
from pov_rt.runtime.clock import ManualClock
from pov_rt.suites.support import (
    BODIES,
    FEED,
    ODD,
    A,
    B,
    Povs,
    Recorder,
    Suite,
    all_topics,
    new,
    on_engine,
    stub,
)

POVS = {"short": PovSettings(max_age_s=10.0), "few": PovSettings(max_entries=3)}
SHORT, FEW = "pov/short", "pov/few"
KEYS = ("1", "2", "compared", "none")
USERS = ("ana", "é\u202e ", "nobody")
SETS, SPACES = ("durable/ana", "followers/a", "gone"), ("notes", "other")


async def reads(engine: Engine) -> dict[str, Any]:
    """Return what every read of the seam says of what the tests put into an engine."""
    log = engine.log
    found: dict[str, Any] = {}
    topics = [*await all_topics(log, ""), "pov/unknown"]
    for topic in topics:
        top = await log.top(topic)
        epochs = (top.epoch, f"{top.epoch}-1", "another")
        found[topic] = [
            top if top.offset else (0, top.oldest),
            list((await log.read(topic, 0, 10_000)).entries),
            list((await log.read(topic, 0, 2, reverse=True)).entries),
            list((await log.read(topic, 1, 10, max_bytes=1)).entries),
            await log.tally(topic, top.oldest, top.offset, lambda body: body[:2]),
            [sorted(await log.find(topic, key)) for key in KEYS],
            [
                await log.holds(topic, Position(epoch, offset))
                for epoch in (epochs if top.offset else epochs[2:])
                for offset in (0, 1, top.offset, top.offset + 1)
            ],
            [await engine.marks.all(topic, name) for name in ("read", "seen")],
        ]
    found["located"] = [sorted(await log.locate(key)) for key in KEYS]
    # What is hidden is looked at as well, until it is removed, and is not copied.
    oldest = {topic: (await log.top(topic)).oldest for topic in (A, B)}
    matches = (await log.search("pov/", lambda _: True)).found
    found["searched"] = sorted(
        (each for each in matches if each.entry.offset >= oldest.get(each.topic, math.inf)),
        key=lambda each: (each.topic, each.entry.offset),
    )
    for user in USERS:
        found[user] = [
            await engine.marks.of(user),
            await engine.marks.get_many(user, topics, ("read", "seen")),
            await engine.store.owned(user),
        ]
    for name in SETS:
        found[name] = [await engine.sets.members(name), await engine.sets.get(name, "ana")]
    found["having"] = await engine.sets.having("a", "durable/")
    for space in SPACES:
        found[space] = [await engine.store.read(space), await engine.store.get(space, "key")]
    return found


class CopyingSuite(Suite):
    """What every engine must give, and take over."""

    def make_other(self, clock: ManualClock, povs: Povs | None = None, **settings: Any) -> Engine:
        """Return another new engine, which has nothing of that of `make`."""
        return self.make(clock, povs, **settings)

    async def fill(self) -> None:
        """Put something of everything into the engine, most of it at several instants."""
        engine, log = self.engine, self.engine.log
        batch = [new(A, str(n), b"%d" % n, FEED) for n in range(1, 4)]
        batch += [new(SHORT, "1", b"short", FEED), new(B, "1", b"its own"), new(FEED, "1", b"feed")]
        batch += [new(FEW, str(n), b"few %d" % n, FEED, "other") for n in range(1, 7)]
        batch += [new(topic, "1") for topic in ODD]
        batch += [new(B, f"body {n}", body) for n, body in enumerate(BODIES)]
        batch += [
            NewEntry(A, "p", "origin", b"{}", FEED, "origin"),
            NewEntry(A, "p", "compared", b"x", compared=b"same"),
            NewEntry(B, "p", "n", b"n", producer="own", seq=7),
            NewEntry(B, "q", "1", b"another's", producer="own", seq=3),
        ]
        await log.append(batch)
        told = new(A, "amended", b"amended")
        await log.amend(Amendment(Rewrite(A, 1, b"1", b"one"), told))
        await log.append([new("pov/dropped", "1", b"dropped", FEED)])
        await log.drop("pov/dropped", stub)
        for topic in (A, B, "pov/no log"):
            epoch = (await log.top(topic)).epoch
            await engine.marks.advance(topic, "ana", "read", Position(epoch, 2))
            await engine.marks.advance(topic, USERS[1], "seen", Position(f"{epoch}-x", 1))
        await engine.sets.add("durable/ana", "a", b"\0body")
        await engine.sets.add("followers/a", "ana", b"", self.clock.time() + 100)
        await engine.sets.add("gone", "ana", b"", self.clock.time() + 1)
        await engine.store.put("notes", "key", b"\0value", "ana")
        for n in range(150):
            await engine.store.put("other", f"{n:03d} \u202e", b"%d" % n)
        self.clock.advance(11)
        await log.append([new(A, "later", b"later", FEED)])

    async def copied(self, **settings: Any) -> tuple[Engine, Recorder]:
        """Return another engine that has taken over all of this one, started."""
        other, told = self.make_other(self.clock, POVS, **settings), Recorder()
        await other.start(told)
        await copy(self.engine.copying, other.copying, self.clock.time(), lambda _: None)
        return other, told

    @on_engine(povs=POVS, max_age_s=1000.0)
    async def test_what_was_copied_reads_the_same(self) -> None:
        await self.fill()
        other, told = await self.copied(max_age_s=1000.0)
        try:
            assert await reads(other) == await reads(self.engine)
            assert told.told == []
            for wait_s in (50, 95, 900):
                self.clock.advance(wait_s)
                assert await reads(other) == await reads(self.engine)
        finally:
            await other.close()

    @on_engine(povs=POVS)
    async def test_a_copy_is_counted_and_compared(self) -> None:
        await self.fill()
        now = self.clock.time()
        sums = await total(self.engine.copying, now, lambda _: None)
        assert all(each.number for each in sums.values())
        other, _ = await self.copied()
        try:
            seen: list[int] = []
            compare(sums, await total(other.copying, now, seen.append))
            assert sum(seen) == sum(each.number for each in sums.values())
            await other.log.append([new(B, "more")])
            after = await total(other.copying, now, lambda _: None)
            assert {kind for kind in sums if sums[kind] != after[kind]} >= {"entries", "ids"}
        finally:
            await other.close()

    @on_engine(povs=POVS)
    async def test_publishers_go_on_where_it_was_copied_to(self) -> None:
        await self.fill()
        top = await self.engine.log.top(A)
        feed = await self.engine.log.top(FEED)
        other, told = await self.copied()
        try:
            retries = [
                new(A, "1", b"1", FEED),
                new(A, "1", b"other", FEED),
                NewEntry(A, "p", "compared", b"another body", compared=b"same"),
                new(FEW, "1", b"few 1", FEED, "other"),
                NewEntry(B, "p", "old", b"old", producer="own", seq=7),
            ]
            b = await other.log.top(B)
            assert await other.log.append(retries) == [
                Appended(top.epoch, 1, duplicate=True),
                Conflict(top.epoch, 1),
                Appended(top.epoch, 5, duplicate=True),
                Appended((await other.log.top(FEW)).epoch, 1, duplicate=True),
                Appended(b.epoch, b.offset, duplicate=True),
            ]
            assert told.told == []
            await other.watch(FEED)
            (place,) = await other.log.append([new(A, "next", b"next", FEED)])
            assert place == Appended(top.epoch, top.offset + 1)
            assert told.told == [(FEED, feed.epoch, feed.offset + 1, b"next")]
            (place,) = await other.log.append([new(B, "2", b"", publisher="q")])
            assert place == Appended(b.epoch, b.offset + 1)
        finally:
            await other.close()

    @on_engine(povs=POVS)
    async def test_an_entry_and_its_feed_are_one_where_they_were_copied_to(self) -> None:
        await self.fill()
        other, _ = await self.copied()
        try:
            log = other.log
            amendment = Amendment(Rewrite(A, 2, b"2", b"two"), new(A, "again", b"amended"))
            done = await log.amend(amendment)
            assert isinstance(done, tuple)
            assert done[1] == FEED
            assert (await log.read(FEED, 1, 1)).entries[0].body == b"two"
            await log.drop(A, stub)
            assert [entry.body for entry in (await log.read(FEED, 0, 3)).entries] == [
                stub(b"one"), stub(b"two"), stub(b"3"),
            ]  # fmt: skip
            await log.drop(FEED, stub)
            assert [entry.body for entry in (await log.read(FEW, 0, 9)).entries] == [
                b"few 4", b"few 5", b"few 6",
            ]  # fmt: skip
        finally:
            await other.close()

    @on_engine(povs=POVS)
    async def test_a_copy_of_a_copy_is_the_same(self) -> None:
        await self.fill()
        other, _ = await self.copied()
        try:
            before = await reads(self.engine)
            await self.engine.close()
            self.engine = other
            third, _ = await self.copied()
            assert await reads(third) == before
            await third.close()
        finally:
            await other.close()
