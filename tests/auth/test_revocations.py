"""Which tokens are void, for how long, and what a full disk or an unheard word changes.

Any order of events: test_revocations_model.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import jwt
import pytest

from pov_rt.auth.grants import Grants, Kind
from pov_rt.auth.revocations import REVOCATIONS, Revocation, Revocations, decode
from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import AuthSettings, EngineSettings
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.errors import InvalidId, InvalidRequest, Unavailable
from pov_rt.runtime.clock import ManualClock

NOW = 1000.5
YEAR_S = 365 * 86400.0


class Bench:
    """The revocations of one node, and of those that share its engine."""

    def __init__(self, **settings: Any) -> None:
        self.settings = AuthSettings(**settings)
        self.clock = ManualClock(NOW)
        self.engine = MemoryEngine(EngineSettings(), self.clock, "one")
        self.one = self.another()

    def another(self) -> Revocations:
        return Revocations(self.engine.sets, self.clock, self.settings)

    async def restarted(self) -> Revocations:
        restarted = self.another()
        await restarted.load()
        return restarted

    async def revoke(self, **which: Any) -> list[Revocation]:
        asked = {"token_id": None, "user_id": None, "before": None} | which
        wanted = self.one.make(**asked)
        self.one.check_room(wanted)
        in_force = self.one.add(wanted)
        await self.one.store(in_force)
        return in_force

    async def stored(self) -> list[Revocation]:
        return [decode(body) for body in (await self.engine.sets.members(REVOCATIONS)).values()]


def identity(
    issued_at: float | None,
    user_id: str = "ana",
    token_id: str = "t",
    parent: tuple[str, float | None] | None = None,
) -> Identity:
    grants = Grants(None, frozenset())
    return Identity(
        user_id,
        None,
        None,
        Kind.SOCKET,
        grants,
        9999.0,
        issued_at,
        token_id,
        *(parent or (None, None)),
    )


@pytest.mark.parametrize("user_id", ["ana", None])
def test_a_later_word_undoes_nothing_of_an_earlier_one(user_id: str | None) -> None:
    async def run() -> None:
        bench = Bench()
        wide, narrow = (Revocation(user_id=user_id, before=at) for at in (500.0, 100.0))
        for revocation in (wide, narrow):
            await bench.one.store(bench.one.add(revocation))
        for each in (bench.one, await bench.restarted()):
            assert each.covers(identity(499.0))
            assert not each.covers(identity(500.0))
        # Nor if the node that says it never heard the earlier one.
        deaf = bench.another()
        await deaf.store(deaf.add(narrow))
        assert deaf.covers(identity(499.0))
        assert (await bench.restarted()).covers(identity(499.0))

    asyncio.run(run())


def test_an_instant_is_no_more_than_all() -> None:
    one = Bench().one
    for before in (None, 100.0):
        one.add(Revocation(user_id="ana", before=before))
    assert one.covers(identity(2000.0))
    assert not one.covers(identity(2000.0, "ben"))


@pytest.mark.parametrize(
    ("issued_at", "before", "is_void"),
    [
        (499.9, 500.0, True),
        (500.0, 500.0, False),
        (500.25, 500.25, False),
        (500.2, 500.25, True),
        # What was issued at 500.9 says 500 where a library writes whole seconds.
        (500.0, 500.7, False),
        (499.0, 500.7, True),
        (500.0, 501.0, True),
        (None, 1.0, True),
    ],
)
def test_a_whole_second_is_compared_as_such(
    issued_at: float | None, before: float, is_void: bool
) -> None:
    one = Bench().one
    one.add(Revocation(user_id="ana", before=before))
    assert one.covers(identity(issued_at)) == is_void


@pytest.mark.parametrize("user_id", ["ana", None])
def test_a_socket_token_is_as_old_as_its_access_token(user_id: str | None) -> None:
    one = Bench().one
    one.add(Revocation(user_id=user_id, before=500.5))
    assert one.covers(identity(900.0, parent=("a", 400.0)))
    assert one.covers(identity(900.0, parent=("a", None)))
    assert not one.covers(identity(900.0, parent=("a", 600.0)))
    one.add(Revocation(token_id="a"))
    assert one.covers(identity(900.0, parent=("a", 600.0)))


@pytest.mark.parametrize("issued_at", [NOW + 4.0, math.floor(NOW), NOW])
@pytest.mark.parametrize("user_id", ["ana", None])
def test_what_does_not_look_older_but_was_seen_is_void_for_good(
    user_id: str | None, issued_at: float
) -> None:
    async def run() -> None:
        bench = Bench()
        old, younger = identity(float(issued_at)), identity(float(issued_at), token_id="new")
        bench.one.see(old)
        in_force = await bench.revoke(user_id=user_id, before=NOW)
        assert [each.name for each in in_force[1:]] == ["token t"]
        bench.clock.advance(10)
        for each in (bench.one, await bench.restarted()):
            each.see(old)
            assert each.covers(old)
            assert each.covers(identity(NOW + 5, token_id="s", parent=("t", float(issued_at))))
            assert not each.covers(younger), "of the same instant, and it came after"

    asyncio.run(run())


def test_the_access_token_of_a_socket_token_that_was_seen_was_there_too() -> None:
    bench = Bench()
    ahead = NOW + 3.0
    bench.one.see(identity(NOW - 1, token_id="s", parent=("a", ahead)))
    _, access = bench.one.add(bench.one.make(None, "ana", None))
    assert (access.token_id, access.until) == ("a", None), "it may be good for longer"
    assert bench.one.covers(identity(ahead, token_id="a"))
    assert bench.one.covers(identity(NOW + 1, token_id="s2", parent=("a", ahead)))


def test_what_was_seen_after_the_instant_is_not_void() -> None:
    bench = Bench()
    bench.one.see(identity(1000.0))
    in_force = bench.one.add(bench.one.make(None, "ana", 1000.0))
    assert len(in_force) == 1
    # The same word, read again from the engine, is not about what came meanwhile.
    ahead = bench.one.make(None, "ana", NOW + 4)
    bench.one.add(ahead)
    bench.clock.advance(1)
    bench.one.see(identity(NOW + 4.5, token_id="new"))
    bench.one.add(ahead)
    assert not bench.one.covers(identity(NOW + 4.5, token_id="new"))


def test_no_more_tokens_that_were_seen_are_remembered_than_can_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pov_rt.auth.revocations.MAX_FRESH", 3)
    bench = Bench()
    bench.one.see(identity(NOW - 2))
    for number in range(5):
        bench.one.see(identity(NOW + number, token_id=str(number)))
    names = [each.name for each in bench.one.add(bench.one.make(None, "ana", None))]
    assert names == ["user ana", "token 0", "token 1", "token 2"]
    bench.clock.advance(1.5)
    bench.one.sweep()
    names = [each.name for each in bench.one.add(bench.one.make(None, None, NOW + 1.5))]
    assert names == ["all", "token 2"]


def test_who_asks_for_what_cannot_be_is_told() -> None:
    one = Bench(leeway_s=5.0).one
    for user_id in ("*", "", "a\nb", "a" * 200):
        with pytest.raises(InvalidId) as bad:
            one.make(None, user_id, None)
        assert bad.value.field == "userId"
    for token in (jwt.encode({"userId": "ana"}, "s" * 32), "eyJhbGciOiJub25lIn0.eyJhIjoxfQ."):
        with pytest.raises(InvalidRequest) as no_id:
            one.make(token, None, None)
        assert no_id.value.field == "tokenId"
    for token_id in ("eyJhbGciOiJub25lIn0", "urn:jti:1.2.3", "*", "https://id.example/?jti=7"):
        assert one.make(token_id, None, None).token_id == token_id
    for before in (NOW + 5.1, math.inf, math.nan):
        with pytest.raises(InvalidRequest) as ahead:
            one.make(None, "ana", before)
        assert ahead.value.field == "issuedBefore"
    assert one.make(None, "ana", NOW + 5.0).before == NOW + 5.0
    assert one.make(None, "ana", -6e10).before == 0.0


def test_they_are_kept_for_ever_or_for_as_long_as_a_token_can_be_good() -> None:
    async def run() -> None:
        for settings, is_void in (({}, True), ({"revocation_s": YEAR_S / 2}, False)):
            bench = Bench(**settings)
            await bench.revoke(token_id="t")
            await bench.revoke(user_id="ben")
            bench.clock.advance(YEAR_S)
            bench.one.sweep()
            for each in (bench.one, await bench.restarted()):
                assert each.covers(identity(NOW)) == is_void
                assert each.covers(identity(NOW - 1, "ben", "u")) == is_void

    asyncio.run(run())


def test_one_that_was_said_again_is_kept_from_then_on() -> None:
    bench = Bench(revocation_s=100.0, leeway_s=0.0)
    for number in (0, 1, 2, 0):
        bench.one.add(bench.one.make(f"t{number}", None, None))
        bench.clock.advance(10)
    bench.clock.advance(80)
    bench.one.sweep()
    assert [bench.one.covers(identity(None, token_id=f"t{n}")) for n in range(3)] == [
        True,
        False,
        True,
    ]


def test_what_was_forgotten_leaves_the_engine_with_a_later_word() -> None:
    async def run() -> None:
        bench = Bench(revocation_s=100.0)
        await bench.revoke(token_id="t")
        bench.clock.advance(200)
        bench.one.sweep()
        await bench.revoke(token_id="u")
        assert [each.token_id for each in await bench.stored()] == ["u"]

    asyncio.run(run())


def test_at_the_bound_a_new_one_is_refused_and_none_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        bench = Bench(max_revocations=3)
        for token_id in ("t1", "t2", "t3"):
            await bench.revoke(token_id=token_id)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await bench.revoke(token_id="t4")
        await bench.revoke(token_id="t1")
        await bench.revoke(before=NOW)
        names = [each.name for each in await bench.stored()]
        assert sorted(names) == ["all", "token t1", "token t2", "token t3"]
        restarted = await bench.restarted()
        assert len(restarted) == 4
        with pytest.raises(Unavailable):
            restarted.check_room(restarted.make("t5", None, None))
        assert bench.one.bound.refused == 2

    asyncio.run(run())
    assert "no room for the revocation of token t4" in caplog.text


def test_one_of_those_who_revoke_has_half_of_the_room_and_gets_back_what_has_ended() -> None:
    async def run() -> None:
        bench = Bench(max_revocations=6, revocation_s=100.0)
        for token_id in ("t1", "t2", "t3"):
            await bench.revoke(token_id=token_id, by="one")
        with pytest.raises(Unavailable):
            await bench.revoke(token_id="t4", by="one")
        await bench.revoke(token_id="t5", by="two")
        # It stays whose it was, whoever says it again, and after a restart.
        await bench.revoke(token_id="t1", by="two")
        restarted = await bench.restarted()
        with pytest.raises(Unavailable):
            restarted.check_room(restarted.make("t4", None, None, by="one"))
        bench.clock.advance(200)
        await bench.revoke(token_id="t4", by="one")
        assert [each.token_id for each in await bench.stored()] == ["t4"]

    asyncio.run(run())


def test_a_clock_that_was_ahead_for_a_while_makes_no_token_good_again() -> None:
    async def work() -> None:
        bench = Bench(revocation_s=1000.0)
        await bench.revoke(user_id="ana")
        bench.clock.step(YEAR_S)
        bench.one.sweep()
        bench.clock.step(-YEAR_S)
        bench.one.sweep()
        await bench.revoke(user_id="ben")  # what was forgotten leaves the engine with a later word
        for each in (bench.one, await bench.restarted()):
            assert each.covers(identity(NOW - 60))

    asyncio.run(work())


@pytest.mark.parametrize("step", [-600.0, 600.0])
def test_what_was_seen_before_is_void_though_the_clock_was_put_right_since(step: float) -> None:
    async def work() -> None:
        bench = Bench()
        bench.clock.step(-step)  # wrong until now
        seen = identity(float(math.floor(NOW)))
        bench.one.see(seen)
        bench.clock.advance(0.25)
        bench.clock.step(step)
        await bench.revoke(user_id="ana")
        assert bench.one.covers(seen)
        bench.clock.advance(0.1)
        bench.one.see(later := identity(float(math.floor(NOW)), token_id="later"))
        assert not bench.one.covers(later)

    asyncio.run(work())


def test_tokens_that_were_seen_need_room_too() -> None:
    bench = Bench(max_revocations=3)
    for number in range(3):
        bench.one.see(identity(NOW, token_id=f"t{number}"))
    with pytest.raises(Unavailable):
        bench.one.check_room(bench.one.make(None, "ana", None))
    # What answers a leaked key has room for all.
    bench.one.check_room(bench.one.make(None, None, NOW, "blue"))
    everybodys = bench.one.make(None, None, NOW)
    bench.one.check_room(everybodys)
    assert len(bench.one.add(everybodys)) == 4


def test_those_of_older_versions_are_kept_like_others() -> None:
    async def run() -> None:
        bench = Bench()
        body = b'{"token_id":"t"}'
        await bench.engine.sets.add(REVOCATIONS, "token t", body, expires_at=NOW + 10)
        await bench.one.load()
        bench.clock.advance(20)
        assert (await bench.restarted()).covers(identity(NOW))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("revocation", "words"),
    [
        (Revocation(token_id="t"), "one token, and those that were exchanged for it"),
        (
            Revocation(user_id="ana", before=0.0, at=1.0),
            "the user's tokens issued before 1970-01-01T00:00:00.000Z "
            "(since 1970-01-01T00:00:01.000Z)",
        ),
        (
            Revocation(before=60.0),
            "everybody's tokens issued before 1970-01-01T00:01:00.000Z",
        ),
        (
            Revocation(user_id="*\x1fblue", before=60.0),
            "all tokens of team blue issued before 1970-01-01T00:01:00.000Z",
        ),
    ],
)
def test_words_say_what_is_void(revocation: Revocation, words: str) -> None:
    assert revocation.describe() == words


def test_what_cannot_be_stored_raises() -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable

    async def run() -> None:
        bench = Bench()
        bench.engine.sets.add = refuse  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await bench.revoke(token_id="t")
        assert bench.one.covers(identity(NOW))

    asyncio.run(run())


@pytest.mark.gen_test
async def test_a_block_voids_what_is_issued_while_it_lasts_and_nothing_afterwards() -> None:
    bench = Bench()
    block = bench.one.make_block("ana", 60.0)
    await bench.one.store(bench.one.add(block))
    for one in (bench.one, await bench.restarted()):
        assert one.covers(identity(NOW - 5))
        assert one.covers(identity(NOW + 30))
        assert not one.covers(identity(NOW, "ben"))
        assert (list(one.blocked), one.blocked_until("ana")) == (["ana"], NOW + 60)
        assert one.refusal(identity(NOW)).retry_after_s == 60.0
        assert one.refusal(identity(NOW, "ben")).retry_after_s is None
    bench.clock.advance(61.0)
    bench.one.sweep()
    assert not bench.one.covers(identity(NOW))
    assert not (await bench.restarted()).blocked


@pytest.mark.gen_test
async def test_a_block_and_a_revocation_of_the_same_user_stand_beside_each_other() -> None:
    bench = Bench()
    await bench.revoke(user_id="ana")
    for seconds in (600.0, 60.0):
        await bench.one.store(bench.one.add(bench.one.make_block("ana", seconds)))
    assert bench.one.blocked_until("ana") == NOW + 600, "one that says less undoes nothing"
    assert {each.spelling for each in await bench.stored()} == {"user ana", "block ana"}
    assert bench.one.lift("ana")
    assert not bench.one.lift("ana")
    assert await bench.one.forget_block("ana")
    for one in (bench.one, await bench.restarted()):
        assert one.covers(identity(NOW - 5))
        assert not one.covers(identity(NOW + 5))


@pytest.mark.gen_test
async def test_a_block_lasts_as_long_as_was_said_however_short_revocations_are_kept() -> None:
    bench = Bench(revocation_s=10.0)
    await bench.one.store(bench.one.add(bench.one.make_block("ana", 100_000.0)))
    bench.clock.advance(50_000.0)
    bench.one.sweep()
    assert bench.one.covers(identity(NOW + 50_000))
    assert bench.one.refusal(identity(NOW)).retry_after_s == 3600.0, "it may be lifted before"
