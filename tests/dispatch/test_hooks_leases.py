"""The leases of a node are renewed whatever happens, and each that ends is told to its plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from pov_rt.config.settings import EngineSettings, Settings
from pov_rt.dispatch import hooks
from pov_rt.dispatch.hooks import Hooks
from pov_rt.engine.local import LEASE_S, MemoryLeases
from pov_rt.engine.state import MemoryStore
from pov_rt.plugin import Host, Plugin
from pov_rt.protocol.messages import Event, Message
from pov_rt.registry.build import Registry
from pov_rt.registry.discovery import Found
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.turns import LEASES


def registry(*plugins: Plugin[Any]) -> Registry:
    found = tuple(Found(plugin, "built-in", ModuleType(plugin.name)) for plugin in plugins)
    return Registry(found, (), {}, (), {}, msgspec.json.Decoder(Message))


class Stage:
    """A runtime whose time stands still, and its leases."""

    def __init__(self, *plugins: Plugin[Any]) -> None:
        self.clock = ManualClock()
        self.leases = MemoryLeases(self.clock, "n")
        services = SimpleNamespace(
            registry=registry(*plugins),
            clock=self.clock,
            fetch=None,
            engine=SimpleNamespace(leases=self.leases, store=MemoryStore(EngineSettings())),
            settings=Settings(),
        )
        self.runtime = Hooks(cast("Any", services))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Awaitable[None]], None]:
    monkeypatch.setattr(hooks, "EXPIRE_S", 0)
    return lambda test: asyncio.run(cast("Any", test))


async def some_turns() -> None:
    """Let the watcher, which does not wait in these tests, look several times."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_leases_are_renewed_by_the_clock_even_if_no_plugin_hears_of_their_end(
    run: Callable[[Awaitable[None]], None],
) -> None:
    async def test() -> None:
        stage = Stage()
        await stage.leases.put("mine/acme", "ana", b"")
        await stage.runtime.start()
        for _ in range(8):
            await some_turns()
            stage.clock.advance(LEASE_S * 0.9)
        await some_turns()
        assert [each.member for each in await stage.leases.members("mine/acme")] == ["ana"]
        await stage.runtime.stop()

    run(test())


def test_after_a_stall_the_lease_is_renewed_before_its_members_are_taken_for_gone(
    run: Callable[[Awaitable[None]], None],
) -> None:
    plugin = Plugin[None]("mine")
    ended: list[str] = []

    @plugin.expired
    def expired(pov_id: str, member: str, host: Host) -> None:
        ended.append(member)

    async def test() -> None:
        stage = Stage(plugin)
        await stage.leases.put("mine/acme", "ana", b"")
        await stage.runtime.start()
        await some_turns()
        stage.clock.advance(LEASE_S + 1)
        await some_turns()
        assert not ended
        stage.clock.advance(LEASE_S + 1)
        assert await stage.leases.members("mine/acme") == []
        await some_turns()
        assert ended == ["ana"], "who was said to be gone is gone"
        await stage.leases.put("mine/acme", "ana", b"")
        await some_turns()
        assert len(await stage.leases.members("mine/acme")) == len(ended) == 1
        await stage.runtime.stop()

    run(test())


def test_a_crowd_whose_leases_end_is_told_of_in_turns_and_in_full(
    run: Callable[[Awaitable[None]], None],
) -> None:
    plugin = Plugin[None]("mine")
    ended: list[str] = []

    @plugin.expired
    def expired(pov_id: str, member: str, host: Host) -> None:
        ended.append(member)

    async def test() -> None:
        stage = Stage(plugin)
        people = [f"u{number}" for number in range(10 * LEASES)]
        for member in people:
            await stage.leases.put("mine/acme", member, b"")
            await stage.leases.leave("mine/acme", member, 0)
        await stage.runtime.start()
        told = 0
        while len(ended) < len(people):
            await asyncio.sleep(0)
            assert len(ended) - told <= LEASES
            told = len(ended)
        assert ended == people
        await stage.runtime.stop()

    run(test())


def test_what_is_still_to_be_told_at_the_end_is_told(
    run: Callable[[Awaitable[None]], None],
) -> None:
    plugin = Plugin[None]("mine")
    ended: list[str] = []

    @plugin.expired
    def expired(pov_id: str, member: str, host: Host) -> None:
        ended.append(member)

    async def test() -> None:
        stage = Stage(plugin)
        for number in range(2 * LEASES):
            await stage.leases.put("mine/acme", f"u{number}", b"")
            await stage.leases.leave("mine/acme", f"u{number}", 0)
        await stage.runtime.start()
        while not ended:  # noqa: ASYNC110  (stops it between two turns)
            await asyncio.sleep(0)
        assert len(ended) == LEASES
        await stage.runtime.stop()
        assert len(ended) == 2 * LEASES

    run(test())


class Said(Event, tag="middle.said"):
    pass


class Begun(Event, tag="zoo.begun"):
    pass


def ends(*, zoo_hears: bool = False, middle_hears: bool = False) -> list[str]:
    """Return the order in which the lifespans of plugins end that are started by their names."""
    ended: list[str] = []
    plugins = {name: Plugin[None](name) for name in ("ant", "cat", "middle", "zoo")}

    def add_lifespan(plugin: Plugin[None]) -> None:
        @plugin.lifespan
        async def life(host: Host) -> AsyncIterator[None]:
            yield None
            ended.append(plugin.name)

    for plugin in plugins.values():
        add_lifespan(plugin)
    if zoo_hears:

        @plugins["zoo"].hears(Said)
        def hear(event: Said, host: Host) -> None: ...

    if middle_hears:

        @plugins["middle"].hears(Begun)
        def answer(event: Begun, host: Host) -> None: ...

    async def run() -> None:
        stage = Stage(*plugins.values())
        await stage.runtime.start()
        await stage.runtime.stop()

    asyncio.run(run())
    return ended


def test_who_hears_ends_after_who_announces() -> None:
    assert ends() == ["zoo", "middle", "cat", "ant"]
    assert ends(zoo_hears=True) == ["middle", "zoo", "cat", "ant"]
    assert ends(zoo_hears=True, middle_hears=True) == ["cat", "ant", "zoo", "middle"]
