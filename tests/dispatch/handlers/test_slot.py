"""The order of answers: whatever kinds of handlers a connection's messages have, and however long.

A model: messages of all kinds come, handlers are let go in any order, and what begins and what is
answered is compared with the rules of `Plugin.on`.
"""

from __future__ import annotations

import asyncio
import json
import random
from asyncio import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.connections.connection import Connection
from pov_rt.plugin import Rejected
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.testing import make_settings
from tests.server.test_server import connect, nothing
from tests.transports import Recorder

PLUGIN = '''
"""Handlers of each kind, each of which is over when the test says so."""
from asyncio import Future, get_running_loop
from pov_rt.plugin import Context, Message, Plugin

class State:
    def __init__(self):
        self.begun, self.futures = [], {}

plugin = Plugin[State]("kinds")

class Said(Message, tag="kinds.said"):
    n: int

@plugin.lifespan
async def state(host):
    yield State()

def begin(message, context):
    context.state.begun.append(message.n)
    future = context.state.futures[message.n] = get_running_loop().create_future()
    if message.n % 5 == 0:  # it is over at once
        future.set_result(Said(n=message.n))
    return future

def declare(name, *, is_async, **options):
    class Ask(Message, tag=f"kinds.{name}"):
        n: int

    if is_async:
        async def handle(message: Ask, context: Context[State]) -> Said:
            return await begin(message, context)
    else:
        def handle(message: Ask, context: Context[State]) -> Future[Said]:
            return begin(message, context)
    handle.__annotations__ = {"message": Ask, "context": Context[State], "return": (
        Said if is_async else Future[Said])}
    plugin.on(Ask, **options)(handle)

declare("task", is_async=True)
declare("future", is_async=False)
declare("task_pipelined", is_async=True, pipelined=True)
declare("future_pipelined", is_async=False, pipelined=True)
declare("task_unordered", is_async=True, unordered=True)
declare("future_unordered", is_async=False, unordered=True)

class Now(Message, tag="kinds.now"):
    n: int

@plugin.on(Now)
def now(message: Now, context: Context[State]) -> Said:
    context.state.begun.append(message.n)
    return Said(n=message.n)
'''
KINDS = (
    "task", "future", "task_pipelined", "future_pipelined", "task_unordered", "future_unordered",
    "now", "nothing",
)  # fmt: skip


@dataclass
class Sent:
    """A message of the model."""

    n: int
    kind: str

    @property
    def is_ordered(self) -> bool:
        return "unordered" not in self.kind

    @property
    def overlaps(self) -> bool:
        """What need not wait for others that overlap; to refuse something takes no time."""
        return "pipelined" in self.kind or self.kind == "nothing"


@dataclass
class Model:
    """What has begun and was answered, and what may begin now, by the rules alone."""

    sent: list[Sent] = field(default_factory=list)
    over: set[int] = field(default_factory=set)

    def settle(self) -> tuple[set[int], list[int]]:
        """Return what must have begun, and the ordered answers that must have left, in order."""
        begun, answered = set[int](), list[int]()
        line = [each for each in self.sent if each.is_ordered]
        begun |= {each.n for each in self.sent if not each.is_ordered}
        is_free = True  # all before it were answered
        are_open = True  # all before it that were not overlap
        for each in line:
            if not (is_free or (are_open and each.overlaps)):
                break
            if each.kind != "nothing":
                begun.add(each.n)
            is_over = each.kind in ("now", "nothing") or each.n in self.over
            if is_over and is_free:
                answered.append(each.n)
                continue
            is_free = False
            are_open = are_open and each.overlaps
        return begun, answered


def receive(server: Server, connection: Connection, sent: Sent) -> None:
    body = json.dumps({"type": f"kinds.{sent.kind}", "n": sent.n, "id": sent.n}).encode()
    server.dispatcher.receive(connection, body, True)


class Running:
    """A server with the plugin, one connection, and what it was sent."""

    def __init__(self, folder: Path, *, plugin: str = PLUGIN, **limits: Any) -> None:
        (folder / "kinds.py").write_text(plugin)
        settings = make_settings(limits=LimitSettings(**limits))
        registry = build_registry({}, folder)
        self.clock = ManualClock()
        self.server = Server(settings, registry, fetch=nothing, clock=self.clock)

    async def __aenter__(self) -> Running:
        await self.server.start()
        self.connection, self.out = connect(self.server, "ana")
        self.out.sends.clear()
        self.state = self.server.hooks.hosts["kinds"].state
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    def receive(self, n: int, kind: str) -> None:
        receive(self.server, self.connection, Sent(n, kind))

    def future(self, n: int) -> Future[object]:
        found: Future[object] = self.state.futures[n]
        return found


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def ids(out: Recorder) -> list[int]:
    return [each["id"] for each in out.messages]


@pytest.mark.parametrize("seed", range(60))
def test_answers_leave_in_order_and_handlers_begin_when_they_may(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    kinds = chance.sample(KINDS, chance.randint(2, len(KINDS)))

    async def work() -> None:
        # Fewer messages than a line holds: what waits for room is tested by itself.
        async with Running(tmp_path) as running:
            model = Model()
            for n in range(1, 41):
                if chance.random() < 0.7:
                    sent = Sent(n, chance.choice(kinds))
                    model.sent.append(sent)
                    if n % 5 == 0:
                        model.over.add(n)
                    receive(running.server, running.connection, sent)
                waiting = [n for n, each in running.state.futures.items() if not each.done()]
                if waiting and chance.random() < 0.5:
                    one = chance.choice(waiting)
                    if chance.random() < 0.3:
                        running.future(one).set_exception(Rejected("odd", "This one is odd"))
                    else:
                        running.future(one).set_result(said_of(running)(n=one))
                    model.over.add(one)
                await turns()
                begun, answered = model.settle()
                assert set(running.state.begun) == begun
                unordered = {each.n for each in model.sent if not each.is_ordered}
                assert [each for each in ids(running.out) if each not in unordered] == answered
                assert set(ids(running.out)) & unordered == unordered & model.over
                assert (running.connection.line is None) == (
                    len(answered) == len(model.sent) - len(unordered)
                )
            for n in list(running.state.futures):
                model.over.add(n)
            while waiting := [each for each in running.state.futures.values() if not each.done()]:
                for each in waiting:
                    each.set_result(said_of(running)(n=0))
                await turns()
            assert sorted(ids(running.out)) == [each.n for each in model.sent], "each once"
            assert running.connection.line is None
            assert not running.connection.works

    asyncio.run(work())


def said_of(running: Running) -> type:
    handler = next(
        each for each in running.server.registry.handlers.values() if each.tag == "kinds.now"
    )
    (said,) = handler.replies
    return said


@pytest.mark.parametrize("kind", ["future", "future_pipelined", "future_unordered"])
def test_a_future_that_fails_is_answered_as_a_handler_that_raises(
    kind: str, tmp_path: Path
) -> None:
    async def work() -> None:
        async with Running(tmp_path) as running:
            for n, error in ((1, Rejected("odd", "So it is")), (2, ValueError("a bug"))):
                running.receive(n, kind)
                running.future(n).set_exception(error)
                await turns()
            running.receive(3, kind)
            running.future(3).cancel()  # by the plugin's own hand
            running.receive(4, kind)
            await turns()
            running.future(4).set_result(7)  # which is no message
            await turns()
            codes = [each["code"] for each in running.out.messages]
            assert codes == ["odd", "internal", "internal", "internal"]
            assert running.connection.line is None

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["future", "future_pipelined", "future_unordered"])
def test_a_future_whose_time_is_over_is_cancelled_and_answered(kind: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(tmp_path, handler_deadline_s=0.05) as running:
            running.receive(1, kind)
            late = running.future(1)
            with pytest.raises(asyncio.CancelledError):
                await late
            await turns()
            running.receive(5, kind)
            await turns()
            assert [each.get("code", each["id"]) for each in running.out.messages] == ["timeout", 5]
            assert "outcome" not in running.out.messages[0], "it published nothing"

    asyncio.run(work())


def test_what_is_published_too_slowly_has_an_unknown_outcome(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(tmp_path, handler_deadline_s=0.05) as running:
            stored: Future[list[Any]] = asyncio.get_running_loop().create_future()
            running.server.publishing.log.append = lambda _: stored  # type: ignore[method-assign,assignment]
            data = {"type": "t", "action": "a", "povId": "acme"}
            body = json.dumps({"type": "publish", "id": 1, "data": data}).encode()
            running.server.dispatcher.receive(running.connection, body, True)
            while not running.out.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            (answer,) = running.out.messages
            assert (answer["code"], answer["outcome"]) == ("timeout", "unknown")
            assert not stored.cancelled(), "it is left to finish"
            stored.set_result([])

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["future", "future_pipelined", "future_unordered"])
def test_a_connection_that_ends_cancels_what_it_waits_for(kind: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(tmp_path) as running:
            for n in (1, 2):
                running.receive(n, kind)
            works = running.connection.works
            running.connection.lost("gone")
            await turns()
            assert works
            assert all(each.cancelled() for each in works)
            assert running.connection.line is None
            assert not running.connection.beside
            assert running.out.messages == []

    asyncio.run(work())


def test_futures_that_are_over_at_once_have_their_turn_as_others(tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(tmp_path) as running:
            paused = []
            for n in (5, 10, 15, 20):
                paused.append(running.out.paused)
                running.receive(n, "future")
            paused.append(running.out.paused)
            await turns()
            paused.append(running.out.paused)
            assert paused == [False] * 4 + [True, False]
            assert ids(running.out) == [5, 10, 15, 20]

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["task_unordered", "future_unordered"])
def test_few_are_at_work_beside_a_line(kind: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with Running(tmp_path, inbox_messages=3) as running:
            for n in (1, 2, 3, 4, 6, 7, 8, 9):
                running.receive(n, kind)
                await turns()
            assert len(running.connection.beside or ()) == 3
            assert running.state.begun == [1, 2, 3, 4], "three beside, and the first of the line"
            assert running.out.paused
            running.server.dispatcher.receive(running.connection, b'{"type":"ping","id":0}', True)
            assert ids(running.out) == [0], "what never waits need not wait for room"
            running.out.sends.clear()
            while waiting := [each for each in running.state.futures.values() if not each.done()]:
                for each in waiting:
                    each.set_result(said_of(running)(n=0))
                await turns()
            assert sorted(ids(running.out)) == [1, 2, 3, 4, 6, 7, 8, 9]
            assert not running.out.paused

    asyncio.run(work())


def test_a_future_that_was_not_declared_is_a_mistake_of_the_plugin(tmp_path: Path) -> None:
    undeclared = (
        PLUGIN
        + """
class Odd(Message, tag="kinds.odd"):
    n: int

@plugin.on(Odd)
def odd(message: Odd, context: Context[State]):
    return get_running_loop().create_future()
"""
    )

    async def work() -> None:
        async with Running(tmp_path, plugin=undeclared) as running:
            running.receive(1, "odd")
            running.receive(2, "now")
            await turns()
            assert [each.get("code", each["id"]) for each in running.out.messages] == [
                "internal",
                2,
            ]

    asyncio.run(work())


def test_who_is_told_of_a_timeout_is_told_nothing_else(tmp_path: Path) -> None:
    """Though the activity is published in the end, and had an answer that stood for its echo."""

    async def work() -> None:
        async with Running(tmp_path, handler_deadline_s=0.05) as running:
            subscribe = b'{"type":"subscribe","povId":"acme","id":0}'
            running.server.dispatcher.receive(running.connection, subscribe, True)
            await turns(20)
            running.out.sends.clear()
            log = running.server.publishing.log
            append, go_on = log.append, asyncio.Event()

            async def slow(batch: Any) -> Any:
                await go_on.wait()
                return await append(batch)

            log.append = slow  # type: ignore[method-assign]
            data = {"type": "t", "action": "a", "povId": "acme"}
            body = {"type": "publish", "id": 1, "echo": False, "data": data}
            running.server.dispatcher.receive(running.connection, json.dumps(body).encode(), True)
            while not running.out.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            go_on.set()
            await turns(20)
            said = [(each["type"], each.get("id")) for each in running.out.messages]
            assert said == [("error", 1), ("activity", None)]

    asyncio.run(work())
