"""An activity is found in its team's feed, and who follows that over HTTP is judged by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pov_rt.config.settings import Settings
from pov_rt.engine.base import Engine, Entry, NewEntry
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.open import open_engine
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.trace import places
from pov_rt.server.trace.events import Event
from pov_rt.server.trace.places import offset_in, under_epoch
from pov_rt.suites import stub
from pov_rt.suites.support import Recorder
from pov_rt.testing import make_settings
from tests.engine.losing import LosingEngine
from tests.events import follow
from tests.server.trace.plant import planted
from tests.server.trace.test_explain import on_disk
from tests.web.routes.test_session import session

POV, FEED = "pov/acme", "team/main"
STREAM = "/api/activities/stream?offset=now&live=sse&device=wall"


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    return f"{request.param}://"


def on_engine(
    work: Callable[[Engine, ManualClock], Awaitable[None]], folder: Path, url: str, **more: object
) -> None:
    """Do some work on a new engine."""
    clock = ManualClock()
    server = {"port": 0, "admin_port": 0, "data": str(folder)}
    settings: Settings = make_settings(server=server, engine={"url": url, **more})
    keeping = Keeping(settings.engine, settings.pov, stub)

    async def run() -> None:
        engine = open_engine(settings, clock, "node-1", keeping)
        await engine.start(Recorder())
        try:
            await work(engine, clock)
        finally:
            await engine.close()

    asyncio.run(run())


def new(number: int, feed: str = FEED) -> NewEntry:
    return NewEntry(POV, "p", f"k{number}", b'{"n":%d}' % number, feed)


async def entry(engine: Engine, offset: int) -> Entry:
    page = await engine.log.read(POV, offset - 1, 1)
    return page.entries[0]


def test_each_entry_is_found_whatever_is_around_it(tmp_path: Path, url: str) -> None:
    async def work(engine: Engine, clock: ManualClock) -> None:
        expected: dict[int, int] = {}
        at = 0
        for number in range(1, 40):
            await engine.log.append([new(number)])
            at += 1
            expected[number] = at
            if number % 3 == 0:  # another PoV's, at the same instant
                await engine.log.append([NewEntry("pov/b", "p", f"b{number}", b"{}", FEED)])
                at += 1
            if number % 2:
                clock.advance(1)
        for offset, place in expected.items():
            assert await offset_in(engine.log, FEED, await entry(engine, offset)) == place

    on_engine(work, tmp_path, url)


def test_many_of_one_instant_are_looked_through_in_pages(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PAGE", 2)

    async def work(engine: Engine, clock: ManualClock) -> None:
        await engine.log.append([new(number) for number in range(1, 20)])
        assert await offset_in(engine.log, FEED, await entry(engine, 9)) == 9
        assert await offset_in(engine.log, FEED, await entry(engine, 19)) is None, "too many"

    on_engine(work, tmp_path, url)


def test_what_is_not_in_a_feed_is_told_from_what_the_feed_has_lost(
    tmp_path: Path, url: str
) -> None:
    async def work(engine: Engine, clock: ManualClock) -> None:
        await engine.log.append([new(1), new(2, "team/north")])
        clock.advance(1)
        await engine.log.append([new(3, "team/north"), new(4)])
        for offset in (2, 3):
            assert await offset_in(engine.log, FEED, await entry(engine, offset)) == 0
        assert await offset_in(engine.log, "team/none", await entry(engine, 1)) == 0
        clock.advance(1)
        await engine.log.append(
            [NewEntry("pov/b", "p", f"b{number}", b"{}", FEED) for number in range(30)]
        )
        top = await engine.log.top(FEED)
        assert top.oldest > 1
        assert await offset_in(engine.log, FEED, await entry(engine, 1)) is None

    on_engine(work, tmp_path, url, max_entries=10)


# Over HTTP:


def test_who_follows_the_feed_as_a_stream_has_it() -> None:
    with (
        planted() as plant,
        follow(plant.server, STREAM, plant.token("ana")) as events,
    ):
        plant.wait("joined")
        plant.publish("elsewhere", povId="beta")
        plant.publish()
        events.items(2)
        plant.says("written")
        (lane,) = plant.ask().lanes
        assert (lane.device, lane.connected) == ("wall", True)
        assert lane.answer.startswith("it was sent to wall")


def test_the_filter_of_a_stream_of_the_feed_is_its_own() -> None:
    with (
        planted() as plant,
        follow(plant.server, f"{STREAM}&types=comment", plant.token("ana")) as events,
    ):
        plant.wait("joined")
        plant.publish()
        plant.publish("seen", type="comment")
        assert events.items(1)[0]["data"]["id"] == "seen"
        plant.says("filter")


def test_a_stream_of_the_feed_that_has_ended_is_not_there() -> None:
    with planted() as plant:
        with follow(plant.server, STREAM, plant.token("ana")):
            plant.wait("joined")
        plant.wait("closed")
        plant.publish()
        assert plant.ask().cause in ("away", "cut")
        assert plant.ask().lanes[0].connected is False


@pytest.mark.parametrize("way", ["", "&live=long-poll"])
def test_who_follows_the_feed_in_a_session_has_what_it_acknowledged(way: str) -> None:
    with planted() as plant, session(plant.server, plant.http, more=way) as ana:
        assert ana.request({"type": "subscribe", "povId": "*"})["type"] == "subscribed"
        plant.publish("elsewhere", povId="beta")
        plant.publish()
        place = _offset(ana.receive(), ana.receive())
        assert ana.request({"type": "ack", "povId": "*", "offset": place})["type"] == "acked"
        plant.says("delivered")


def _offset(*messages: dict[str, object]) -> object:
    (found,) = (each["offset"] for each in messages if each["data"]["id"] == "x")  # type: ignore[index]
    return found


def test_it_is_known_over_a_restart_who_had_it_by_the_feed(tmp_path: Path) -> None:
    with planted(**on_disk(tmp_path)) as plant:
        ana = plant.follow(pov="*")
        plant.publish("elsewhere", povId="beta")
        plant.publish()
        plant.get(ana)
        plant.hang_up(ana)
    with planted(**on_disk(tmp_path)) as plant:
        plant.says("written")


def test_what_a_feed_follower_is_told_to_do_names_the_feed() -> None:
    with planted() as plant:
        ana = plant.follow(pov="*")
        ana.request({"type": "unsubscribe", "povId": "*"})
        plant.publish()
        found = plant.ask()
        assert found.answer == "laptop had unsubscribed from the team feed"


def test_what_happened_under_an_older_epoch_counts_where_the_log_holds_its_place() -> None:
    async def work() -> None:
        clock = ManualClock()
        engine = LosingEngine(make_settings().engine, clock, "node")
        await engine.start(Recorder())
        await engine.log.append([NewEntry(POV, "p", f"{n}", b"{}") for n in range(6)])
        older = (await engine.log.top(POV)).epoch
        engine.lose(2)
        await engine.log.append([NewEntry(POV, "p", "anew", b"{}")])
        newer = (await engine.log.top(POV)).epoch
        assert newer != older

        def joined(topic: str, offset: int, epoch: str) -> Event:
            return Event(
                0.0, "joined", "run", offset, "ana", "", "c", topic, offset, {"epoch": epoch}
            )

        events = [
            *(joined(POV, offset, older) for offset in range(7)),
            joined(POV, 5, newer),
            joined("pov/other", 1, older),
        ]
        found = await under_epoch(engine.log, POV, newer, events)
        assert [each.more["epoch"] == newer for each in found] == [
            *[True] * 5, False, False, True, False,
        ]  # fmt: skip
        assert [(each.topic, each.offset) for each in found] == [
            (each.topic, each.offset) for each in events
        ]
        await engine.close()

    asyncio.run(work())
