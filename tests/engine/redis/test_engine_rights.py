"""The rights that docs/operations.md names are enough for all that the engine does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.engine.base import Amendment, NewEntry, NewMember, Position, Rewrite
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.runtime.clock import SystemClock
from pov_rt.suites import Recorder
from tests.redis_servers import RedisServer, Start

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "pov_rt/engine/redis"
PAGE = (ROOT / "docs/operations.md").read_text()
A, FEED = "pov/a", "team/main"
WAIT_S = 20.0


def rights() -> list[str]:
    """Return what the page has behind the user's name and password."""
    (line,) = re.findall(r"^ACL SETUSER pov-rt on >PASSWORD (.*)$", PAGE, re.M)
    return str(line).split()


def commands() -> set[str]:
    """Return the commands that the functions call, and that are sent."""
    lua = "".join(path.read_text() for path in PACKAGE.glob("functions/*.lua"))
    python = "".join(path.read_text() for path in PACKAGE.glob("**/*.py"))
    called = re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", lua)
    named = re.findall(r"sum_of\('([A-Z]+)'", lua)
    sent = re.findall(r'(?:pack|_ask|call)\(\s*(?:link, )?"([A-Z]+)"', python)
    written = re.findall(r'_write\(link, "([A-Z]+)"', python)
    return {*called, *named, *sent, *written}


def server_with_user(start_redis: Start, name: str) -> RedisServer:
    server = start_redis("--appendonly", "yes", name=name)
    answer = server.command("ACL", "SETUSER", "pov-rt", "on", ">secret", *rights())
    assert answer == b"+OK\r\n"
    return server


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_every_command_is_among_the_rights(start_redis: Start, name: str) -> None:
    server = server_with_user(start_redis, name)
    allowed = rights()
    assert len(commands()) > 40
    for command in sorted(commands()):
        by_name = any(right.split("|")[0] == f"+{command.lower()}" for right in allowed)
        categories = re.findall(rb"@(\w+)", server.command("COMMAND", "INFO", command))
        assert by_name or {f"+@{each.decode()}" for each in categories} & {*allowed}, command


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_user_with_those_rights_can_do_everything(start_redis: Start, name: str) -> None:
    server = server_with_user(start_redis, name)
    url = server.url.replace("redis://", "redis://pov-rt:secret@")

    async def work() -> None:
        settings = EngineSettings(redis=RedisSettings(deadline_s=WAIT_S))
        engine = RedisEngine(parse_address(url), settings, SystemClock(), "node-1")
        told = Recorder()
        await engine.start(told)
        try:
            assert engine.health().state == "ok"
            await engine.watch(A)
            batch = [NewEntry(A, "p", key, key.encode(), FEED) for key in ("1", "2")]
            (first, _) = await engine.log.append(batch)
            assert told.offsets(A) == [1, 2]
            change = NewEntry("", "p", "3", b"3", producer="spool", seq=1)
            await engine.log.amend(Amendment(Rewrite(A, 1, b"1", b"one"), change))
            await engine.log.edit([Rewrite(FEED, 2, b"2", b"two")])
            assert [each.body for each in (await engine.log.read(A, 0, 9)).entries] == [
                b"one",
                b"two",
                b"3",
            ]
            await engine.marks.advance(A, "ana", "read", Position(first.epoch, 1))
            await engine.marks.carry(A, "read", Position(first.epoch, 1), Position(first.epoch, 2))
            assert await engine.marks.all(A, "read") == {"ana": (first.epoch, 2)}
            await engine.leases.put(A, "ana", b"")
            await engine.leases.leave(A, "ana", 0.0)
            assert [each.member for _, each in await engine.leases.expire()] == ["ana"]
            await engine.sets.update([NewMember("s", "a"), NewMember("t", "a")], [("s", "b")])
            assert await engine.sets.having("a") == ["s", "t"]
            await engine.store.put("poll", "a", b"1", "ana")
            assert await engine.store.erase("ana") == 1
            engine.signals.send(A, b"signal")
            assert len(await engine.log.locate("1")) == 1
            assert await engine.log.disown("p") == 3
            assert len((await engine.log.search("", lambda _: True)).found) == 3
            await engine.log.drop(A, lambda body: body)
            await engine.marks.tidy()
            await engine.sets.tidy()
            await engine.scrub()
            await engine.unwatch(A)
            assert engine.health().state == "ok"
        finally:
            await engine.close()

    asyncio.run(work())
