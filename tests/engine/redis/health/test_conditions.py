"""Whatever ails Redis is said in a line with what mends it, and is over when it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from pov_rt.engine.base import Health
from pov_rt.engine.redis import engine as engine_module
from pov_rt.engine.redis.client.connection import ServerError
from pov_rt.engine.redis.health import canary
from pov_rt.engine.redis.health import conditions as module
from pov_rt.engine.redis.health.conditions import Conditions
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock
from tests.engine.redis.certificates import make_certificate
from tests.engine.redis.engines import A, appended, entries, opened, until
from tests.redis_servers import RedisServer, Start, free_port


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine look often, so that nobody waits for it."""
    monkeypatch.setattr(canary, "BEAT_S", 0.05)
    monkeypatch.setattr(engine_module, "LOOK_S", 0.05)


Step = Callable[[RedisServer], object]


def command(*words: str | int) -> Step:
    return lambda server: server.command(*words)


def steps(*each: Step) -> Step:
    return lambda server: [step(server) for step in each]


def never_end(server: RedisServer) -> None:
    """Run a script that does not end, until somebody ends it."""
    script = ("EVAL", "while true do end", "0")
    Thread(target=server.command, args=script, daemon=True).start()


def break_snapshots(server: RedisServer) -> None:
    """Have a folder be where the file is to be; it is as if the disk took nothing."""
    (server.folder / "dump.rdb").mkdir()
    server.command("CONFIG", "SET", "save", "3600 1000000")
    server.command("BGSAVE")


def mend_snapshots(server: RedisServer) -> None:
    (server.folder / "dump.rdb").rmdir()
    server.command("BGSAVE")


def evict(server: RedisServer) -> None:
    server.command("SET", "somebody:else", "x", "EX", 1000)
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-random")
    server.command("CONFIG", "SET", "maxmemory", "1")
    server.command("SET", "somebody:else", "y")
    server.command("CONFIG", "SET", "maxmemory", "0")
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


class Case(NamedTuple):
    """What is done to Redis, what is said of it then, and what ends it."""

    name: str
    plant: Step
    words: tuple[str, ...]
    mend: Step
    refuses: bool = True
    """Whether publishers are told to come again."""


def user(*rules: str) -> Step:
    return command("ACL", "SETUSER", "app", *rules)


KILL = command("CLIENT", "KILL", "USER", "app")
CASES = (
    Case("busy", never_end, ("BUSY", "not ours to end"), command("SCRIPT", "KILL")),
    Case(
        "read-only",
        command("REPLICAOF", "127.0.0.1", "1"),
        ("name the primary in engine.url",),
        command("REPLICAOF", "NO", "ONE"),
    ),
    Case(
        "memory is full",
        command("CONFIG", "SET", "maxmemory", "1"),
        ("OOM", "raise maxmemory"),
        command("CONFIG", "SET", "maxmemory", "0"),
    ),
    Case("disk", break_snapshots, ("MISCONF", "make room on its disk"), mend_snapshots),
    Case(
        "replicas",
        command("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("NOREPLICAS", "lower min-replicas-to-write"),
        command("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    Case(
        "policy",
        command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        ("CONFIG SET maxmemory-policy noeviction",),
        command("CONFIG", "SET", "maxmemory-policy", "noeviction"),
        refuses=False,
    ),
    Case(
        "evicted",
        evict,
        ("evicted_keys", "CONFIG RESETSTAT"),
        command("CONFIG", "RESETSTAT"),
        refuses=False,
    ),
    Case(
        "password",
        steps(user("resetpass", ">other"), KILL),
        ("WRONGPASS", "the password that Redis has into engine.url"),
        user(">secret"),
    ),
    Case(
        "a right",
        user("-hset"),
        ("does not allow HSET", "ACL SETUSER NAME"),
        user("+hset"),
    ),
    Case(
        "a channel",
        user("resetchannels", "&somebody:else"),
        ("does not let this node hear on", "What a node may do on Redis"),
        user("allchannels"),
        refuses=False,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_ails_it_is_said_with_what_mends_it_until_it_is_mended(
    start_redis: Start, case: Case
) -> None:
    server = start_redis("--busy-reply-threshold", "50")
    user("on", ">secret", "~*", "&*", "+@all")(server)

    async def work() -> None:
        url = f"redis://app:secret@127.0.0.1:{server.port}"
        async with opened(server, url=url, redis={"deadline_s": 1.0}) as (engine, _):
            await engine.watch(A)
            await appended(engine, entries(1)[0])
            await until(lambda: engine.health() == Health())
            case.plant(server)
            await until(lambda: all(words in engine.health().line for words in case.words))
            health = engine.health()
            assert health.state == "degraded"
            assert health.since > 0
            (new,) = entries(1, start=2)
            if case.refuses:
                with pytest.raises(Unavailable):
                    await engine.log.append([new])
            else:
                await engine.log.append([new])
            await until(lambda: engine.waiting_bytes == 0)
            assert engine.health().since == health.since
            case.mend(server)
            await until(lambda: engine.health() == Health())
            assert (await appended(engine, new)).offset == 2

    asyncio.run(work())


def test_while_it_loads_its_data_that_is_said(start_redis: Start) -> None:
    server = start_redis()
    keys = [word for number in range(40_000) for word in (f"k{number}", "x" * 100)]
    server.command("MSET", *keys)
    server.command("SAVE")

    async def work() -> None:
        async with opened(server, redis={"deadline_s": 1.0}) as (engine, _):
            server.kill()
            slowly = (
                "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024",
            )  # fmt: skip
            loading = asyncio.create_task(asyncio.to_thread(server.start, *slowly))
            await until(lambda: "LOADING" in engine.health().line)
            assert "wait until it has" in engine.health().line
            with pytest.raises(Unavailable):
                await engine.log.append(entries(1))
            server.command("CONFIG", "SET", "key-load-delay", "0")
            await loading
            await until(lambda: engine.health() == Health())
            await appended(engine, entries(1)[0])

    asyncio.run(work())


def test_a_certificate_that_has_expired_is_said(start_redis: Start, tmp_path: Path) -> None:
    good, expired = make_certificate(tmp_path / "good"), make_certificate(tmp_path / "old", -1)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(good[0].read_bytes() + expired[0].read_bytes())
    port = free_port()
    server = start_redis(
        "--tls-port", str(port), "--tls-auth-clients", "no",
        "--tls-cert-file", str(good[0]), "--tls-key-file", str(good[1]),
        "--tls-ca-cert-file", str(trusted),
    )  # fmt: skip

    async def work() -> None:
        url = f"rediss://127.0.0.1:{port}"
        async with opened(server, url=url, ca_file=str(trusted), redis={"deadline_s": 1.0}) as (
            engine,
            _,
        ):
            assert engine.health() == Health()
            for (certificate, key), is_good in ((expired, False), (good, True)):
                answer = server.command(
                    "CONFIG", "SET", "tls-cert-file", str(certificate), "tls-key-file", str(key)
                )
                assert answer == b"+OK\r\n"
                server.command("CLIENT", "KILL", "TYPE", "normal")
                if is_good:
                    await until(lambda: engine.health() == Health())
                    break
                await until(lambda: "certificate has expired" in engine.health().line)
                assert "renew Redis's certificate" in engine.health().line
                with pytest.raises(Unavailable):
                    await engine.log.append(entries(1))
            assert (await appended(engine, entries(1)[0])).offset == 1

    asyncio.run(work())


def test_one_that_answers_slowly_is_said_to_and_not_for_long(
    start_redis: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.2)
    server = start_redis()

    async def work() -> None:
        clock = ManualClock()
        async with opened(server, clock=clock) as (engine, _):
            while "it is slow" not in engine.health().line:
                server.command("CLIENT", "PAUSE", "400", "ALL")
                await appended(engine, entries(1)[0])
            assert "SLOWLOG GET" in engine.health().line
            monkeypatch.setattr(module, "SLOW_S", 20.0)
            clock.advance(module.WINDOW_S + 1)
            await until(lambda: engine.health() == Health())

    asyncio.run(work())


def test_a_clock_that_is_wrong_is_said(shared_redis: RedisServer, prefix: str) -> None:
    async def work() -> None:
        clock = ManualClock()
        async with opened(shared_redis, prefix, clock=clock) as (engine, _):
            clock.step(-3)
            await engine.canary.beat()
            assert "its clock is 3.0 s ahead of this node's" in engine.health().line
            clock.step(3)
            await engine.canary.beat()
            assert engine.health() == Health()
            real = engine.functions.now
            engine.functions.now = lambda: real() + 61_000_000
            clock.step(61)
            await engine.canary.beat()
            assert "its clock has jumped by +61 s" in engine.health().line
            clock.advance(module.REMEMBERED_S)
            assert engine.health() == Health()

    asyncio.run(work())


# How they are judged:


def test_a_refusal_stands_until_a_write_after_it_goes_well() -> None:
    conditions = Conditions(ManualClock())
    before = conditions.refusals
    conditions.refused(ServerError("OOM command not allowed"))
    conditions.accepted(before)
    (line,) = conditions.lines()
    assert line.startswith("it refuses: OOM command not allowed. To mend it: raise maxmemory")
    conditions.accepted(conditions.refusals)
    assert list(conditions.lines()) == []
    conditions.refused(ServerError("WRONGTYPE is about the command"))
    assert list(conditions.lines()) == []


@pytest.mark.parametrize(
    ("quick", "slow", "is_slow"), [(0, 2, False), (0, 3, True), (300, 3, False)]
)
def test_a_few_slow_answers_are_none(
    quick: int, slow: int, *, is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.2)
    conditions = Conditions(ManualClock())
    for seconds in [0.001] * quick + [0.3] * slow:
        conditions.answered(seconds)
    assert bool(list(conditions.lines())) == is_slow
