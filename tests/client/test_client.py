"""A client over real sockets: what it follows, asks, and does when the server goes and comes."""

from __future__ import annotations

import asyncio
import gc
from contextlib import ExitStack
from pathlib import Path

import pytest

from pov_rt.client import (
    Closed,
    Gap,
    Missed,
    NotificationMessage,
    Only,
    Position,
    PovClient,
    PovError,
    Refused,
    RequestTimeout,
    Subscription,
)
from pov_rt.config.settings import Settings
from pov_rt.plugins.typing import Typing, Typists
from pov_rt.protocol.messages import MarksMessage, Message
from pov_rt.testing import RunningServer, make_settings
from tests.client.support import cut, kept_server, new, offsets, run, settled, take
from tests.clients import notify, publish, span


class Ping(Message, tag="ping"):
    """What a plugin's author has as a class."""


class Pong(Message, tag="pong"):
    """Its answer."""


def test_what_is_published_comes_to_whoever_follows(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            following = rt.subscribe("acme")
            done = await rt.publish(new(title="Audit log"))
            (activity,) = await take(following, 1)
            assert (activity.id, activity.position) == (done.id, done.position)
            assert (activity.user_id, activity.details) == ("ana", {"title": "Audit log"})
            assert following.position == activity.position
            again = await rt.publish(new(title="Audit log", id=done.id))
            assert (again.position, again.duplicate) == (done.position, True)

    run(work)


def test_what_has_no_answer_is_sent(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            typing = rt.messages(Typists)
            async with rt.subscribe("acme"):
                await rt.send(Typing(pov_id="acme", active=True))
                assert [each.user_id for each in (await anext(typing)).users] == ["ana"]
        with pytest.raises(Closed):
            await rt.send({"type": "ping"})

    run(work)


def test_what_cannot_be_sent_in_time_is_said() -> None:
    async def work() -> None:
        async with PovClient("127.0.0.1:1", "x", timeout_s=0.05) as rt:
            with pytest.raises(RequestTimeout, match="no answer to 'typing'"):
                await rt.send({"type": "typing", "povId": "acme", "active": True})

    run(work)


def test_a_restart_costs_nothing_however_much_was_missed(tmp_path: Path) -> None:
    async def work(servers: ExitStack) -> None:
        first = servers.enter_context(kept_server(tmp_path))
        port = first.web.port
        async with PovClient(f"127.0.0.1:{port}", first.token("ana")) as rt:
            following = rt.subscribe("acme")
            await settled(rt)
            publish(first, 3)
            assert await offsets(following, 3) == span(1, 3)
            await asyncio.to_thread(servers.close)
            second = servers.enter_context(kept_server(tmp_path, port))
            for _ in range(5):
                publish(second, 500)
            assert await offsets(following, 2500) == span(4, 2503)
            await settled(rt)
            publish(second, 1)
            assert await offsets(following, 1) == [2504]
            assert following.state == "live"

    with ExitStack() as servers:
        run(lambda: work(servers))


def test_many_povs_come_back_together(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            all_of_them = [rt.subscribe(f"p{number}") for number in range(100)]
            await settled(rt)
            cut(server)
            for number in range(100):
                publish(server, 1, pov=f"p{number}")
            assert [await offsets(each, 1) for each in all_of_them] == [[1]] * 100

    run(work)


class TestGaps:
    @pytest.fixture
    def settings(self) -> Settings:
        """A server that keeps ten activities."""
        return make_settings(engine={"max_entries": 10})

    def gap_of(self, server: RunningServer, rt: PovClient, **how: object) -> Subscription:
        publish(server, 1)
        page = server.run(lambda: server.web.server.engine.log.top("pov/acme"))
        publish(server, 40)
        return rt.subscribe("acme", since=Position(page.epoch, 1), **how)  # type: ignore[arg-type]

    def test_what_is_there_no_more_is_raised_and_the_rest_follows(
        self, server: RunningServer
    ) -> None:
        async def work() -> None:
            async with PovClient(server.address, server.token("ana")) as rt:
                following = self.gap_of(server, rt)
                with pytest.raises(
                    Missed, match="activities are missing, for 40 were missed"
                ) as it:
                    await anext(following)
                gap: Gap = it.value.gap
                assert (gap.missed, gap.to.offset, gap.since) == (40, 41, Position(gap.to.epoch, 1))
                publish(server, 1)
                assert await offsets(following, 1) == [42]

        run(work)

    def test_a_function_is_told_before_what_comes_later(self, server: RunningServer) -> None:
        told: list[object] = []

        async def work() -> None:
            async with PovClient(server.address, server.token("ana")) as rt:
                following = self.gap_of(server, rt, on_gap=told.append)
                await settled(rt)
                publish(server, 1)
                assert await offsets(following, 1) == [42]

        run(work)
        (gap,) = told
        assert isinstance(gap, Gap)

    def test_the_apps_state_is_loaded_first_and_after_a_gap_and_again_if_that_failed(
        self, server: RunningServer
    ) -> None:
        told: list[object] = []

        async def get_state(gap: Gap | None) -> None:
            told.append(gap)
            if len(told) == 1:
                raise OSError("the app's database is away")

        async def work() -> None:
            async with PovClient(server.address, server.token("ana")) as rt:
                following = rt.subscribe("acme", get_state=get_state)
                await settled(rt)
                publish(server, 1)
                with pytest.raises(OSError, match="is away"):
                    await anext(following)
                assert await offsets(following, 1) == [1]
                assert told == [None, None]

        run(work)


def test_a_slow_consumer_loses_nothing_and_may_ask_from_within_its_loop(
    server: RunningServer,
) -> None:
    async def work() -> None:
        token = server.token("ana")
        async with PovClient(server.address, token, max_waiting=5) as rt:
            following = rt.subscribe("acme")
            await settled(rt)
            for _ in range(6):
                publish(server, 500)
            seen: list[int] = []
            async for activity in following:
                seen.append(activity.offset)
                if activity.offset % 100 == 0:
                    await following.ack()
                if activity.offset == 3000:
                    break
            assert seen == span(1, 3000)

    run(work)


def test_a_filter_leaves_out_the_rest(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            following = rt.subscribe("acme", only=Only(users=["cy"]))
            await settled(rt)
            publish(server, 300, user="bo")
            publish(server, 1, user="cy")
            assert await offsets(following, 1) == [301]
            cut(server)
            publish(server, 1500, user="bo")
            publish(server, 1, user="cy")
            assert await offsets(following, 1) == [1802]

    run(work)


def test_a_cancelled_wait_takes_nothing(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            following = rt.subscribe("acme")
            await settled(rt)
            waiting = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            publish(server, 2)
            assert await offsets(following, 2) == [1, 2]

    run(work)


def test_a_pov_that_the_token_does_not_cover_is_refused(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana", povs=["acme"])) as rt:
            with pytest.raises(Refused) as it:
                await anext(rt.subscribe("other"))
            assert it.value.code == "forbidden"
            several = [rt.subscribe(name) for name in ("acme", "others")]
            with pytest.raises(Refused):
                await anext(several[1])
            publish(server, 1)
            assert await offsets(several[0], 1) == [1]

    run(work)


def test_what_nobody_holds_any_more_is_left(server: RunningServer) -> None:
    hub = server.web.server.hub

    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            async for _ in rt.subscribe("acme", last=1):
                break  # and the subscription is gone
            gc.collect()
            await settled(rt)
            assert server.call(lambda: hub.subscriptions) == 0
            async with rt.subscribe("acme"):
                await settled(rt)
                assert server.call(lambda: hub.subscriptions) == 1
                with pytest.raises(ValueError, match="is followed already"):
                    rt.subscribe("acme")
            await settled(rt)
            assert server.call(lambda: hub.subscriptions) == 0

    publish(server, 1)
    run(work)


def test_notifications_and_a_plugins_messages_have_their_types(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            assert isinstance(await rt.request(Ping(), Pong), Pong)
            with pytest.raises(PovError, match="the answer is no MarksMessage"):
                await rt.request(Ping(), MarksMessage)
            async with rt.messages(NotificationMessage) as notifications:
                await asyncio.to_thread(notify, server, details={"n": 1})
                assert (await anext(notifications)).data.details == {"n": 1}

    run(work)


def test_requests_have_deadlines_and_say_why_they_were_missed(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient("127.0.0.1:1", "token", timeout_s=0.2) as rt:
            with pytest.raises(RequestTimeout, match=r"'ping' within 0\.2 s \(nobody listens"):
                await rt.request({"type": "ping"})
        async with PovClient(server.address, server.token("ana")) as rt:
            with pytest.raises(Refused, match=r"Unknown message type \(unknown_type\)"):
                await rt.request({"type": "nothing"})

    run(work)


def test_closing_ends_loops_and_requests(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            following = rt.subscribe("acme")
            await settled(rt)

            came = asyncio.Event()

            async def loop() -> list[int]:
                found = []
                async for activity in following:
                    found.append(activity.offset)
                    came.set()
                return found

            looping = asyncio.ensure_future(loop())
            publish(server, 1)
            await came.wait()
        assert await looping == [1]
        with pytest.raises(Closed):
            await rt.request({"type": "ping"})
        with pytest.raises(Closed):
            rt.subscribe("acme")

    run(work)


def test_a_request_outlives_a_break_if_it_may_be_sent_twice(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            await settled(rt)
            cut(server)
            done = await asyncio.gather(*(rt.publish(new(n=number)) for number in range(20)))
            assert sorted(each.position.offset for each in done) == span(1, 20)

    run(work)


def test_a_change_is_made_once_whatever_becomes_of_the_connection(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            one = (await rt.publish(new(n=0))).id
            change = {"type": "amend", "povId": "acme", "activityId": one}
            cut(server)
            found = await asyncio.gather(
                *(rt.request({**change, "details": {"n": number}}) for number in range(10))
            )
            assert sorted(each["offset"] for each in found) == span(2, 11)
            assert len({each["changeId"] for each in found}) == 10
            again = {**change, "details": {"n": 1}, "changeId": "mine"}
            first, second = [await rt.request(again) for _ in range(2)]
            assert (first["changeId"], first["duplicate"]) == ("mine", False)
            assert (second["offset"], second["duplicate"]) == (12, True)
            cut(server)
            retracted = await rt.request({**change, "type": "retract"})
            assert (retracted["offset"], (await rt.history("acme"))["offset"]) == (13, 13)

    run(work)
