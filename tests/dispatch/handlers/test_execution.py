"""Order, bounds and deadlines of handlers, on connections whose bytes are looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.connections.connection import Connection
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.turns import HANDLERS
from pov_rt.server.server import Server
from pov_rt.testing import make_settings
from tests.server.test_server import connect, nothing
from tests.transports import Recorder

PLUGIN = '''
"""Handlers that wait until they are let go."""
import asyncio
from pov_rt.plugin import Context, Message, Plugin, Rejected

plugin = Plugin[asyncio.Event]("gate")

class Wait(Message, tag="gate.wait"):
    n: int

class Hurry(Message, tag="gate.hurry"):
    n: int

class Pass(Message, tag="gate.pass"):
    n: int

class Odd(Message, tag="gate.odd"):
    n: int

class Say(Message, tag="gate.say"):
    n: int

class Said(Message, tag="gate.said"):
    n: int

@plugin.lifespan
async def gate(host):
    yield asyncio.Event()

@plugin.on(Wait)
async def wait(message: Wait, context: Context[asyncio.Event]) -> Said:
    await context.state.wait()
    return Said(n=message.n)

@plugin.on(Hurry, unordered=True)
async def hurry(message: Hurry, context: Context[asyncio.Event]) -> Said:
    await context.state.wait()
    return Said(n=message.n)

@plugin.on(Pass, pipelined=True)
async def let_pass(message: Pass, context: Context[asyncio.Event]) -> Said:
    context.send(Said(n=-message.n))
    if message.n % 3:
        await context.state.wait()
    if message.n == 5:
        await asyncio.sleep(0)
        raise Rejected("odd", "This one is odd")
    return Said(n=message.n)

@plugin.on(Odd, pipelined=True)
async def odd(message: Odd, context: Context[asyncio.Event]) -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(0)

@plugin.on(Say, rate="3/s")
def say(message: Say, context: Context[asyncio.Event]) -> Said:
    return Said(n=message.n)
'''

SLOW_HOOK = """
import asyncio
from pov_rt.plugin import Activity, Host, Plugin

plugin = Plugin("slow")

@plugin.before_publish
async def ask(activity: Activity, host: Host) -> Activity:
    for _ in range(10 - 2 * activity.details["n"]):  # the later, the sooner it is done
        await asyncio.sleep(0)
    return activity
"""

Test = Callable[[Server, Connection, Recorder, asyncio.Event], Coroutine[Any, Any, None]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gate.py").write_text(PLUGIN)
    return tmp_path


def run(folder: Path, test: Test, **limits: Any) -> None:
    async def work() -> None:
        settings = make_settings(limits=LimitSettings(**limits))
        registry = build_registry({}, folder)
        server = Server(settings, registry, fetch=nothing, clock=ManualClock())
        await server.start()
        connection, recorder = connect(server, "ana")
        recorder.sends.clear()
        try:
            await test(server, connection, recorder, server.hooks.hosts["gate"].state)
        finally:
            await server.stop()

    asyncio.run(work())


def send(server: Server, connection: Connection, kind: str, n: int = 0) -> None:
    body = json.dumps({"type": kind, "n": n, "id": n}).encode()
    server.dispatcher.receive(connection, body, True)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_nothing_overtakes_a_waiting_handler_but_what_is_unordered(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        send(server, connection, "gate.say", 1)
        send(server, connection, "gate.wait", 2)
        send(server, connection, "gate.say", 3)
        send(server, connection, "gate.nothing", 4)
        send(server, connection, "ping", 5)
        await turns()
        assert [each["id"] for each in out.messages] == [1, 5]
        gate.set()
        await turns()
        assert [each["id"] for each in out.messages] == [1, 5, 2, 3, 4]
        assert connection.line is None

    run(folder, test)


def test_pipelined_handlers_overlap_and_answer_in_order(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        def said() -> list[Any]:
            return [each.get("n", each.get("code")) for each in out.messages]

        for n in range(1, 8):
            send(server, connection, "gate.pass", n)
        await turns()
        assert said() == [-1, -2, -3, -4, -5, -6, -7], "each began, 3 and 6 are done"
        out.sends.clear()
        send(server, connection, "gate.say", 10)
        send(server, connection, "ping", 11)
        send(server, connection, "gate.pass", 12)
        send(server, connection, "gate.wait", 13)
        await turns()
        assert said() == [None], "but for the ping, nothing overtakes"
        out.sends.clear()
        gate.set()
        await turns(60)
        assert said() == [1, 2, 3, 4, "odd", 6, 7, 10, -12, 12, 13]
        assert connection.line is None
        assert not connection.works
        send(server, connection, "gate.pass", 2)
        await turns()
        assert said()[-2:] == [-2, 2]

    run(folder, test)


def test_pipelined_handlers_are_bounded_and_end_with_their_connection(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        for n in range(1, 12):
            send(server, connection, "gate.pass", n)
            assert out.paused == (n >= 4), "it has had its turn"
        await turns()
        assert out.paused, "three are at work, and more than three wait"
        assert [each["n"] for each in out.messages] == [-1, -2, -3]
        tasks = connection.works
        assert len(tasks) == 2, "the third is done, and waits for its turn"
        connection.lost("gone")
        await turns()
        assert all(task.cancelled() or task.done() for task in tasks)
        gate.set()
        await turns()
        assert len(out.messages) == 3

    run(folder, test, inbox_messages=3)


def test_what_did_not_fit_beside_the_others_overlaps_too_when_its_turn_comes(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        numbers = (1, 2, 4, 7, 8, 10, 11, 13)
        for n in numbers:
            send(server, connection, "gate.pass", n)
        await turns()
        assert [each["n"] for each in out.messages] == [-1, -2, -4]
        begun = []
        while len(out.messages) < 2 * len(numbers):
            gate.set()  # for those who wait now
            gate.clear()
            await turns()
            begun.append(sum(each["n"] < 0 for each in out.messages))
        assert begun == [6, 8, 8]
        assert [each["n"] for each in out.messages if each["n"] > 0] == list(numbers)
        assert connection.line is None
        assert not out.paused

    run(folder, test, inbox_messages=3)


def test_one_that_cancels_itself_leaves_its_connection_alive(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        send(server, connection, "gate.odd", 1)
        await turns()
        assert connection.line is None
        gate.set()
        send(server, connection, "gate.wait", 2)
        await turns()
        assert out.messages[-1]["n"] == 2

    run(folder, test)


def test_a_connection_that_sends_much_at_once_waits_for_the_next_turn(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        paused = []
        for n in range(HANDLERS):
            paused.append(out.paused)
            send(server, connection, "gate.pass", 3 * n)
        paused.append(out.paused)
        assert len(out.messages) == 2 * HANDLERS, "each was over at once"
        await turns(2)
        paused.append(out.paused)
        send(server, connection, "gate.pass", 3)
        paused.append(out.paused)
        assert paused == [False] * HANDLERS + [True, False, False]

    run(folder, test)


def test_a_plugin_that_is_asked_before_publishing_keeps_one_publication_behind_the_other(
    folder: Path,
) -> None:
    (folder / "slow.py").write_text(SLOW_HOOK)

    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        for n in range(6):
            data = {"type": "t", "action": "a", "povId": "acme", "details": {"n": n}}
            body = json.dumps({"type": "publish", "id": n, "data": data}).encode()
            server.dispatcher.receive(connection, body, True)
        await turns(200)
        assert [each["id"] for each in out.messages] == list(range(6))
        assert [each.get("offset", each) for each in out.messages] == list(range(1, 7))

    run(folder, test)


def test_a_full_inbox_pauses_the_socket_and_a_half_full_one_resumes_it(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        for n in range(5):
            send(server, connection, "gate.wait", n)
            assert out.paused == (n == 4), "one is at work, four wait"
            await turns()
        gate.set()
        await turns(40)
        assert not out.paused
        assert [each["n"] for each in out.messages] == [0, 1, 2, 3, 4]

    run(folder, test, inbox_messages=4)


def test_unordered_handlers_are_bounded_too(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        for n in range(8):
            send(server, connection, "gate.hurry", n)
        await turns()
        assert len(connection.works) == 4, "three beside, and the first of the line"
        assert out.paused
        gate.set()
        await turns(60)
        assert sorted(each["n"] for each in out.messages) == list(range(8))
        assert not connection.works

    run(folder, test, inbox_messages=3)


def test_a_closed_connections_handlers_are_cancelled(folder: Path) -> None:
    async def test(
        server: Server, connection: Connection, out: Recorder, gate: asyncio.Event
    ) -> None:
        send(server, connection, "gate.wait", 1)
        send(server, connection, "gate.hurry", 2)
        await turns()
        tasks = connection.works
        connection.lost("gone")
        await turns()
        assert [each is not None and each.cancelled() for each in tasks] == [True, True]
        gate.set()
        await turns()
        assert out.messages == []

    run(folder, test)
