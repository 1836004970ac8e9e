"""The tests of what changes the past of logs: `amend`, `edit`, `drop`, `disown`, and looking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import structs

from pov_rt.engine.base import (
    Amended,
    Amendment,
    Appended,
    Conflict,
    Entry,
    Found,
    Located,
    Match,
    Position,
    Rewrite,
)
from pov_rt.suites.support import FEED, ODD, A, B, Suite, all_topics, new, on_engine

OTHER = "team/other"


def amendment(
    topic: str, offset: int, key: str, old: bytes = b"old", body: bytes = b"new"
) -> Amendment:
    """Return one whose entry names what it changes by its key."""
    return Amendment(Rewrite(topic, offset, old, body), new("pov/no", key, key.encode(), "team/no"))


class PastSuite(Suite):
    """What every engine must do when the past is to be another one."""

    async def bodies(self, topic: str) -> list[bytes]:
        """Return the bodies of a topic in their order."""
        return [each.body for each in (await self.engine.log.read(topic, 0, 10_000)).entries]

    async def all_found(self, prefix: str, needle: bytes) -> list[Match]:
        """Search to the end."""
        found: list[Match] = []
        after: str | None = ""
        while after is not None:
            page = await self.engine.log.search(prefix, lambda body: needle in body, after)
            found += page.found
            after = page.next
        return found

    def told_of(self, topic: str) -> list[bytes | None]:
        """Return what was told of a topic: bodies, and None where it was rewritten."""
        return [body if at else None for name, _, at, body in self.told.told if name == topic]

    # To look for entries:

    @on_engine(id_window_s=100.0)
    async def test_an_id_is_found_with_its_publishers_as_long_as_it_is_known(self) -> None:
        log = self.engine.log
        batch = [new(A, "1"), new(A, "1", publisher="q"), new(A, "12"), new(B, "1")]
        await log.append([*batch, new(A, "1\n2")])
        found = [Found("p", 1), Found("q", 2)]
        assert sorted(await log.find(A, "1")) == found
        assert await log.find(B, "1") == [Found("p", 1)]
        assert await log.find(A, "1\n2") == [Found("p", 4)]
        assert list(await log.find(A, "2")) == list(await log.find("pov/none", "1")) == []
        everywhere = [Located(A, *each) for each in found] + [Located(B, "p", 1)]
        assert sorted(await log.locate("1")) == everywhere
        assert await log.locate("1\n2") == [Located(A, "p", 4)]
        assert list(await log.locate("2")) == []
        self.clock.advance(101)
        assert list(await log.find(A, "1")) == []
        assert list(await log.locate("1")) == []

    @on_engine()
    async def test_a_search_looks_at_each_entry_once_however_many_there_are(self) -> None:
        for topic in (A, B, *ODD):
            for start in (0, 600):
                keys = range(start, start + 600)
                await self.engine.log.append(
                    [new(topic, str(n), b"%d %d." % (n, n % 7), FEED) for n in keys]
                )
        await self.engine.log.append([new("user/ana", "1", b"6 6.")])
        for topic in ("pov/", ""):
            found = await self.all_found(topic, b" 6.")
            places = [(each.topic, each.entry.offset) for each in found]
            assert len(set(places)) == len(places)
            for each in (A, B, *ODD):
                mine = [offset for name, offset in places if name == each]
                assert mine == [n + 1 for n in range(1200) if n % 7 == 6]
            assert (("user/ana", 1) in places) == (topic == "")
            assert not any(name.startswith("team/") for name, _ in places)
        (one,) = await self.all_found(A, b"1199 2.")
        assert one == Match(A, Entry(1200, b"1199 2.", self.clock.time(), ""))
        assert await self.all_found("pov/none", b"") == []

    @on_engine(max_entries=3)
    async def test_a_search_finds_what_only_a_feed_has(self) -> None:
        await self.engine.log.append([new(A, "1", b"mine", FEED)])
        await self.engine.log.drop(A, lambda body: b"stub of " + body)
        (found,) = await self.all_found("", b"mine")
        assert found == Match(FEED, Entry(1, b"stub of mine", self.clock.time(), ""))

    # To amend:

    @on_engine()
    async def test_an_amended_entry_is_another_in_its_topic_and_feed_and_one_tells_of_it(
        self,
    ) -> None:
        log = self.engine.log
        await self.engine.watch(A)
        await self.engine.watch(FEED)
        await log.append([new(B, "0", b"b", FEED)])
        (first, _) = await log.append([new(A, "1", b"old", FEED), new(A, "2", b"2", FEED)])
        before = await log.read(A, 0, 9)
        self.clock.advance(5)
        done = await log.amend(amendment(A, 1, "change"))
        assert done == Amended(Appended(first.epoch, 3), FEED)
        assert await self.bodies(A) == [b"new", b"2", b"change"]
        assert await self.bodies(FEED) == [b"b", b"new", b"2", b"change"]
        after = await log.read(A, 0, 9)
        assert after.entries[0] == structs.replace(before.entries[0], body=b"new")
        assert after.entries[2].at == self.clock.time()
        assert self.told_of(A) == [b"old", b"2", None, b"change"]
        assert self.told_of(FEED) == [b"b", b"old", b"2", None, b"change"]
        assert (await log.top("pov/no")).offset == (await log.top("team/no")).offset == 0
        assert await log.find(A, "change") == [Found("p", 3)]

    @on_engine()
    async def test_an_amendment_is_done_once_and_only_to_the_body_it_is_about(self) -> None:
        log = self.engine.log
        (first,) = await log.append([new(A, "1", b"old")])
        assert await log.amend(amendment(A, 1, "x", old=b"else")) is None
        assert await log.amend(amendment(A, 2, "x")) is None
        assert await log.amend(amendment(B, 1, "x")) is None
        assert (await log.top(B)).offset == 0
        assert await self.bodies(A) == [b"old"]
        assert await log.amend(amendment(A, 1, "x")) == Amended(Appended(first.epoch, 2))
        again = amendment(A, 1, "x")
        assert await log.amend(again) == Amended(Appended(first.epoch, 2, duplicate=True))
        other = again._replace(entry=again.entry._replace(body=b"other"))
        assert await log.amend(other) == Conflict(first.epoch, 2)
        (retry,) = await log.append([new(A, "1", b"old")])
        assert retry == Appended(first.epoch, 1, duplicate=True)
        assert await log.amend(amendment(A, 1, "1")) == Conflict(first.epoch, 1)
        assert await self.bodies(A) == [b"new", b"x"]

    @on_engine()
    async def test_of_many_who_amend_an_entry_at_once_one_does(self) -> None:
        await self.engine.watch(A)
        await self.engine.log.append([new(A, "1", b"old")])
        done = await asyncio.gather(
            *(self.engine.log.amend(amendment(A, 1, str(n))) for n in range(10, 20)),
            *(self.engine.log.append([new(A, str(n))]) for n in range(20, 40)),
        )
        assert sum(isinstance(each, Amended) for each in done) == 1
        assert (
            self.told.offsets(A)[-22:] == [0, *range(2, 23)] or self.told.offsets(A).count(0) == 1
        )
        assert [at for at in self.told.offsets(A) if at] == list(range(1, 23))

    @on_engine()
    async def test_others_are_rewritten_with_an_entry_or_nothing_is(self) -> None:
        log = self.engine.log
        await log.append([new(A, "1", b"old"), new(A, "2", b"2"), new(B, "3", b"3", FEED)])
        others = [Rewrite(A, 2, b"2", b"two"), Rewrite(FEED, 1, b"3", b"three")]
        wrong = [others[0], others[1]._replace(old=b"else")]
        assert await log.amend(amendment(A, 1, "x")._replace(others=wrong)) is None
        assert await self.bodies(A) == [b"old", b"2"]
        await log.amend(amendment(A, 1, "x")._replace(others=others))
        assert await self.bodies(A) == [b"new", b"two", b"x"]
        assert await self.bodies(B) == await self.bodies(FEED) == [b"three"]

    # To edit:

    @on_engine()
    async def test_entries_are_edited_in_place_by_whichever_topic_has_them(self) -> None:
        log = self.engine.log
        await self.engine.watch(FEED)
        await log.append([new(A, str(n), b"%d" % n, FEED) for n in range(1, 5)])
        top, offsets = await log.top(A), self.told.offsets(FEED)
        done = await log.edit(
            [
                Rewrite(A, 1, b"1", b""),
                Rewrite(FEED, 2, b"2", b"x" * 100_000),
                Rewrite(A, 3, b"else", b"x"),
                Rewrite(A, 9, b"9", b"x"),
                Rewrite("pov/none", 1, b"1", b"x"),
                Rewrite(A, 4, b"4", b"5"),
                Rewrite(A, 4, b"5", b"6"),
                Rewrite(A, 4, b"4", b"7"),
            ]
        )
        assert list(done) == [True, True, False, False, False, True, True, False]
        bodies = [b"", b"x" * 100_000, b"3", b"6"]
        assert await self.bodies(A) == await self.bodies(FEED) == bodies
        assert await log.top(A) == top
        assert self.told.offsets(FEED) == [*offsets, 0]
        assert {A, FEED} <= set(self.told.changed), "watched or not"

    # To drop:

    @on_engine()
    async def test_a_dropped_topic_is_gone_and_comes_back_as_another(self) -> None:
        log, marks = self.engine.log, self.engine.marks
        many = [new(A, str(n), b"%d" % n, FEED) for n in range(1000)]
        await log.append([new(B, "0", b"b", FEED), *many, new(B, "1", b"c", FEED)])
        (old,) = await log.append([new(A, "last", b"last")])
        for topic, user in ((A, "ana"), (A, "ben"), (B, "ana")):
            await marks.advance(topic, user, "read", Position(old.epoch, 1))
        feed = await self.engine.watch(FEED)
        await log.drop(A, lambda body: b"-" + body)
        top = await log.top(A)
        assert (top.offset, top.oldest) == (0, 1)
        assert top.epoch != old.epoch
        assert await self.bodies(A) == []
        assert A not in await all_topics(log, "")
        assert await log.find(A, "1") == []
        assert await marks.all(A, "read") == {}
        assert await self.bodies(B) == [b"b", b"c"]
        assert await self.bodies(FEED) == [b"b", *(b"-%d" % n for n in range(1000)), b"c"]
        assert set(self.told_of(FEED)) == {None}
        used = {bound.name: bound.used() for bound in self.engine.bounds}
        assert (used["topics"], used["marks"]) == (2, 1)
        (again,) = await log.append([new(A, "1", b"other", FEED)])
        assert again == Appended(top.epoch, 1)
        assert await self.bodies(A) == [b"other"]
        assert (await log.top(FEED))[:2] == (feed.epoch, 1003)
        assert (await log.edit([Rewrite(A, 1, b"other", b"x")])) == [True]
        assert (await self.bodies(FEED))[-2:] == [b"c", b"x"]
        await log.drop("pov/none", lambda body: body)
        await log.drop(A, lambda body: body)
        assert await log.top(A) not in (top, old)

    @on_engine()
    async def test_who_watches_a_dropped_topic_learns_of_its_new_epoch(self) -> None:
        log = self.engine.log
        await log.append([new(A, "1")])
        watched = await self.engine.watch(A)
        unknown = await self.engine.watch(B)
        await log.drop(A, lambda body: body)
        await log.drop(B, lambda body: body)
        assert self.told.changed.count(f"? {A}") == 1
        top = await log.top(A)
        assert (top.offset, top.epoch == watched.epoch) == (0, False)
        assert await log.top(B) == unknown
        (first,) = await log.append([new(A, "1")])
        assert first == Appended(top.epoch, 1)
        assert self.told.told == [(A, top.epoch, 1, b"{}")]

    @on_engine()
    async def test_what_a_dropped_feed_had_stays_in_the_other_topics(self) -> None:
        log = self.engine.log
        await log.append([new(A, "1", b"old", FEED), new(B, "1", b"b", OTHER)])
        await log.drop(FEED, lambda body: b"stub")
        assert await self.bodies(A) == [b"old"]
        assert await self.bodies(FEED) == []
        assert await self.bodies(OTHER) == [b"b"]
        assert isinstance(await log.amend(amendment(A, 1, "2")), Amended)
        assert (await log.top(FEED)).offset == 0
        await log.append([new(A, "3", b"3", FEED)])
        assert await self.bodies(FEED) == [b"3"]
        assert await self.bodies(A) == [b"new", b"2", b"3"]

    # Whose it is:

    @on_engine()
    async def test_a_publisher_that_is_disowned_has_no_ids_and_all_entries(self) -> None:
        log = self.engine.log
        batch = [new(topic, str(n)) for topic in (A, B) for n in range(5)]
        await log.append([*batch, new(A, "1", publisher="q"), new(A, "1", publisher="pp")])
        assert await log.disown("p") == 10
        assert await log.disown("p") == 0
        assert sorted(each.publisher for each in await log.find(A, "1")) == ["pp", "q"]
        assert len(await self.bodies(A)) == 7
        (again, other) = await log.append([new(A, "1"), new(A, "1", publisher="q")])
        assert (again.offset, other) == (8, Appended(again.epoch, 6, duplicate=True))

    @on_engine()
    async def test_all_marks_of_a_user_are_had_and_dropped(self) -> None:
        marks = self.engine.marks
        for topic, user, name in ((B, "ana", "read"), (A, "ana", "seen"), (A, "ben", "seen")):
            await marks.advance(topic, user, name, Position("e", 3))
        assert await marks.of("ana") == [(A, "seen", ("e", 3)), (B, "read", ("e", 3))]
        assert await marks.of("nobody") == []
        assert await marks.drop_user("ana") == 2
        assert await marks.drop_user("ana") == 0
        assert await marks.of("ana") == []
        assert await marks.all(A, "seen") == {"ben": ("e", 3)}

    @on_engine()
    async def test_marks_at_one_place_are_carried_on_together(self) -> None:
        marks = self.engine.marks
        places = {"ana": 3, "ben": 3, "cem": 2, "dan": 4}
        for user, offset in places.items():
            await marks.advance(A, user, "read", Position("e", offset))
        await marks.advance(A, "eve", "read", Position("f", 3))
        await marks.advance(B, "ana", "read", Position("e", 3))
        await marks.advance(A, "ana", "seen", Position("e", 3))
        await marks.carry(A, "read", Position("e", 3), Position("e", 4))
        await marks.carry("pov/none", "read", Position("e", 3), Position("e", 4))
        now = {user: mark.offset for user, mark in (await marks.all(A, "read")).items()}
        assert now == {**places, "ana": 4, "ben": 4, "eve": 3}
        assert await marks.all(B, "read") == await marks.all(A, "seen") == {"ana": ("e", 3)}

    @on_engine()
    async def test_the_sets_that_have_a_member_are_found(self) -> None:
        sets = self.engine.sets
        names: Sequence[str] = ("f/b", "f/a", "g/a", "f")
        for name in names:
            await sets.add(name, "ana", b"1")
            await sets.add(name, "ben")
        await sets.add("f/c", "an")
        await sets.remove("f/b", "ben")
        assert await sets.having("ana") == sorted(names)
        assert await sets.having("ben", "f/") == ["f/a"]
        assert await sets.having("nobody") == []

    @on_engine()
    async def test_a_scrub_changes_nothing_that_is_there(self) -> None:
        log = self.engine.log
        await self.engine.watch(A)
        (first,) = await log.append([new(A, "1", b"old", FEED)])
        await log.amend(amendment(A, 1, "2"))
        await self.engine.scrub()
        assert await self.bodies(A) == await self.bodies(FEED) == [b"new", b"2"]
        assert await log.append([new(A, "3")]) == [Appended(first.epoch, 3)]
        assert self.told_of(A) == [b"old", None, b"2", b"{}"]
        await self.engine.scrub()
        assert len(await self.bodies(A)) == 3
