"""What is wrong with a Redis and its sentinels is found, each with the line that mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from pov_rt.cli.doctor.findings import Finding
from pov_rt.cli.doctor.redis import check, judge_clock, judge_info
from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.testing import make_settings
from tests.engine.redis.engines import opened
from tests.redis_sentinels import NAME, Sentinel
from tests.redis_servers import HOW, PROGRAMS, RedisServer, find_program, free_port, redis_running

WELL = (
    "--appendonly", "yes", "--maxmemory", "1gb", "--lazyfree-lazy-expire", "yes",
)  # fmt: skip
Start = Callable[..., RedisServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a server of the test's own."""
    if find_program(PROGRAMS[0]) is None:
        pytest.skip(f"there is no {PROGRAMS[0]}; {HOW[PROGRAMS[0]]}")
    with ExitStack() as stack:

        def begin(*options: str) -> RedisServer:
            folder = tmp_path / uuid4().hex[:8]
            return stack.enter_context(redis_running(PROGRAMS[0], folder, *options))

        yield begin


def look(url: str, **own: object) -> list[Finding]:
    """Return what is found of the Redis at a URL."""
    redis = RedisSettings(**own)  # type: ignore[arg-type]
    return list(check(make_settings(engine=EngineSettings(url=url, redis=redis))))


def told(found: list[Finding]) -> dict[str, str]:
    """Return what mends what is not well, by its first words."""
    return {each.what.partition(" is ")[0]: each.mend for each in found if each.level != "ok"}


def test_a_redis_that_is_set_up_well_is_and_nothing_is_changed_there(start: Start) -> None:
    server = start(*WELL)
    *skipped, last = look(server.url)
    assert [each.level for each in skipped] == ["skipped"]
    assert "no node of this version was here yet" in skipped[0].what
    assert (last.level, last.what) == ("ok", "7.0; an acknowledged activity survives: second")
    assert server.command("KEYS", "*") == b"*0\r\n"
    assert server.command("FUNCTION", "LIST") == b"*0\r\n"

    async def work() -> None:
        async with opened(server):
            pass

    asyncio.run(work())
    assert [each.level for each in look(server.url)] == ["ok"]


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("appendonly", "no", "CONFIG SET appendonly yes"),
        ("appendfsync", "no", "CONFIG SET appendfsync everysec"),
        ("maxmemory", "0", "CONFIG SET maxmemory 4gb"),
        ("lazyfree-lazy-expire", "no", "CONFIG SET lazyfree-lazy-expire yes"),
        ("client-output-buffer-limit", "pubsub 1mb 1mb 10", 'limit "pubsub 32mb 8mb 60"'),
        ("timeout", "60", "CONFIG SET timeout 0"),
        ("tcp-keepalive", "0", "CONFIG SET tcp-keepalive 300"),
        ("min-replicas-to-write", "0", "CONFIG SET min-replicas-to-write 1"),
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ],
)
def test_a_setting_that_is_not_as_it_should_be_is_found_and_the_line_mends_it(
    start: Start, name: str, value: str, mend: str
) -> None:
    server = start(*WELL, "--min-replicas-to-write", "1", f"--{name}", *value.split(" ", 0))
    replica = {"replicas": 1} if name == "min-replicas-to-write" else {}
    mends = [each.mend for each in look(server.url, **replica) if each.mend]
    assert any(mend in each for each in mends), mends
    if not replica:
        assert len(mends) == 1


def test_without_the_right_to_ask_it_says_what_it_did_not_see(start: Start) -> None:
    server = start(*WELL)
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config")
    found = look(f"redis://app:secret@127.0.0.1:{server.port}")
    assert "its settings cannot be seen (NOPERM" in found[0].what
    assert found[-1].level == "ok"
    refused = look(f"redis://app:wrong@127.0.0.1:{server.port}")
    assert [each.level for each in refused] == ["bad"]
    assert "password that Redis has" in refused[0].mend


def test_rights_that_are_missing_are_named(start: Start) -> None:
    server = start(*WELL)

    async def work() -> None:
        async with opened(server):
            pass

    asyncio.run(work())
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-zscan")
    (found,) = look(f"redis://app:secret@127.0.0.1:{server.port}")
    assert "does not allow ZSCAN" in found.what
    assert found.mend == "ACL SETUSER NAME ~pr:* &pr:* +zscan"


def test_one_that_is_away_is_bad() -> None:
    (found,) = look(f"redis://127.0.0.1:{free_port()}")
    assert (found.level, found.mend) == ("bad", "see that it runs, and that engine.url names it")
    (found,) = look("redis://127.0.0.1:port")
    assert "has a port that is not a number" in found.what


def test_what_it_says_of_its_files_and_replicas_is_judged() -> None:
    assert judge_info({"aof_last_write_status": "ok", "slave0": "ip=a,port=1,state=online"}) == []
    (files,) = judge_info({"aof_last_write_status": "err"})
    assert (files.level, "aof_last_write_status is err" in files.what) == ("bad", True)
    (replica,) = judge_info({"slave0": "ip=10.0.0.2,port=6379,state=wait_bgsave,offset=0"})
    assert replica.what == "the replica 10.0.0.2:6379 is being brought up to date (wait_bgsave)"
    assert judge_clock(1.5) == []
    assert [each.what[:25] for each in judge_clock(-90.0)] == ["its clock is 90 s behind "]


def test_sentinels_are_asked_one_by_one(start: Start, tmp_path: Path) -> None:
    primary = start(*WELL)
    with ExitStack() as stack:
        trio = [
            Sentinel(primary.program, tmp_path / f"sentinel{at}", primary, *more)
            for at, more in enumerate([(), (f"sentinel down-after-milliseconds {NAME} 30000",), ()])
        ]
        for each in trio:
            stack.callback(each.kill)
            each.start()
        places = ",".join(f"127.0.0.1:{each.port}" for each in trio)
        slow = told(look(f"redis+sentinel://{places}/{NAME}"))
        (key,) = (each for each in slow if "calls a primary down after 30000 ms" in each)
        assert slow[key] == f"SENTINEL SET {NAME} down-after-milliseconds 1000, there"
        trio[1].kill()
        gone = told(look(f"redis+sentinel://{places}/{NAME}"))
        assert any(f"127.0.0.1:{trio[1].port} says nothing of" in each for each in gone)
        trio[2].kill()
        none = [each for each in look(f"redis+sentinel://{places}/{NAME}") if each.level == "bad"]
        assert any("1 of 3 answer, which is no majority" in each.what for each in none)
        few = told(look(f"redis+sentinel://127.0.0.1:{trio[0].port}/{NAME}"))
        assert any(each.startswith("engine.url names 1") for each in few)
