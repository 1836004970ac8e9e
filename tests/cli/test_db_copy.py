"""`pov-rt db copy`: from a file to Redis and back, with a real server on each side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pov_rt.cli.main import main
from pov_rt.config.settings import EngineSettings, RedisSettings, Settings
from pov_rt.protocol.errors import Unavailable
from pov_rt.testing import Client, RunningServer, make_settings
from tests.clients import notify, offsets, place, publish, span, subscribe
from tests.redis_servers import HOW, RedisServer, find_program, redis_running

PROGRAM = "redis-server"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if find_program(PROGRAM) is None:
        pytest.skip(f"there is no {PROGRAM}; {HOW[PROGRAM]}")
    with redis_running(PROGRAM, tmp_path / "redis", "--appendonly", "yes") as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pov-rt.db"


def settings_on(url: str) -> Settings:
    engine = EngineSettings(url=url, redis=RedisSettings(deadline_s=20.0))
    return make_settings(engine=engine, limits={"handler_deadline_s": 60.0})


def running(url: str | Path) -> RunningServer:
    where = f"sqlite://{url}" if isinstance(url, Path) else url
    return RunningServer(settings_on(where), None)


def run(source: str | Path, target: str | Path, *more: str) -> Result:
    urls = [f"sqlite://{each}" if isinstance(each, Path) else each for each in (source, target)]
    command = ["db", "copy", "--from", urls[0], "--to", urls[1], *more]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def succeed(source: str | Path, target: str | Path, *more: str) -> str:
    result = run(source, target, *more)
    assert result.exit_code == 0, result.output
    assert "and compared: all of it is there" in result.output
    return result.output


def fail(source: str | Path, target: str | Path) -> str:
    """Return the one line that says why."""
    result = run(source, target)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    return result.output


def recover(server: RunningServer, since: dict[str, Any], top: int, pov: str = "acme") -> Client:
    """Have a client come back from where it was; it misses nothing and gets nothing twice."""
    client = server.connect("ben")
    answer = subscribe(client, pov, since=since)
    assert (answer["recovered"], answer["offset"]) == (True, top)
    if top > since["offset"]:
        assert offsets(client, top - since["offset"]) == span(since["offset"] + 1, top)
    return client


def move_to_redis(path: Path, redis: RedisServer) -> dict[str, Any]:
    """Publish on a file and copy it; return where a client began."""
    with running(path) as server:
        start = place(subscribe(server.connect("ben")))
        publish(server, 5)
    succeed(path, redis.url)
    return start


def test_clients_go_on_from_where_they_were_on_redis_and_back_in_a_file(
    path: Path, redis: RedisServer, tmp_path: Path
) -> None:
    with running(path) as server:
        phone = server.connect("ana", device="phone")
        start = place(subscribe(phone, durable=True))
        empty = place(subscribe(phone, "empty"))
        publish(server, 5)
        assert offsets(phone, 5) == span(1, 5)
        for number in range(3):
            notify(server, id=str(number))
        assert [phone.receive()["offset"] for _ in range(3)] == span(1, 3)
        phone.request({"type": "ack", "povId": "acme", "offset": 4})
        phone.request({"type": "read", "povId": "acme", "offset": 3})
        phone.request({"type": "read", "inbox": True, "offset": 2})
    output = succeed(path, redis.url, "--positions")
    assert f"pov/acme: {start['epoch']} 5\n" in output
    with running(redis.url) as server:
        readers = [recover(server, {**start, "offset": n}, 5) for n in (0, 3, 5)]
        recover(server, empty, 0, "empty")
        phone = server.connect("ana", device="phone")
        (result,) = phone.request({"type": "resume"})["results"]
        assert (result["recovered"], result["readOffset"], result["unread"]) == (True, 3, 2)
        assert [(each["type"], each["offset"]) for each in (phone.receive(), phone.receive())] == [
            ("notification", 3), ("activity", 5),
        ]  # fmt: skip
        publish(server, 2)
        assert [offsets(each, 2) for each in readers] == [[6, 7]] * 3
        new = subscribe(server.connect("ben"), "new")
        publish(server, 1, "new")
    redis.kill()
    redis.start()  # its logs have another epoch from now on
    with running(redis.url) as server:
        later = place(subscribe(server.connect("ben")))
        assert later["epoch"] != start["epoch"]
        publish(server, 1)
    back = tmp_path / "back" / "pov-rt.db"
    succeed(redis.url, back)
    with running(back) as server:
        readers = [recover(server, {**start, "offset": n}, 8) for n in (0, 7)]
        readers += [recover(server, {**later, "offset": n}, 8) for n in (6, 8)]
        recover(server, place(new), 1, "new")
        publish(server, 1)
        assert [offsets(each, 1) for each in readers] == [[9]] * 4
        lost = subscribe(server.connect("ben"), since={**start, "offset": 8})
        assert lost["recovered"] is False, "the old epoch had no such place"


def test_what_is_in_use_is_not_copied(path: Path, redis: RedisServer, tmp_path: Path) -> None:
    with running(path) as server:
        publish(server, 1)
        assert f"is in use by another process (pid {os.getpid()})" in fail(path, redis.url)
    with running(redis.url):
        assert "stop all nodes, then copy again" in fail(redis.url, tmp_path / "new.db")
        assert "is in use by" in fail(path, redis.url)
    assert not (tmp_path / "new.db").exists()


def test_nothing_is_overwritten(path: Path, redis: RedisServer) -> None:
    start = move_to_redis(path, redis)
    assert "has logs, marks or values under pr:* already" in fail(path, redis.url)
    assert f"{path} is there already, and a copy overwrites nothing" in fail(redis.url, path)
    with running(redis.url) as server:
        recover(server, {**start, "offset": 2}, 5)


def test_what_was_left_goes_on_under_another_epoch_if_it_is_used_again(
    path: Path, redis: RedisServer, tmp_path: Path
) -> None:
    """For what is published on one side is not on the other, under the same numbers."""
    start = move_to_redis(path, redis)
    succeed(redis.url, tmp_path / "back.db")
    with running(tmp_path / "back.db") as server:
        publish(server, 2)
        gone = subscribe(server.connect("ben"))
        assert place(gone) == {**start, "offset": 7}
    for url, is_held in ((path, False), (redis.url, True)):
        with running(url) as server:
            publish(server, 3)
            answer = subscribe(server.connect("ben"), since=place(gone))
            assert (answer["recovered"], answer["offset"]) == (False, 8)
            assert answer["epoch"] != start["epoch"]
            answer = subscribe(server.connect("ana"), since={**start, "offset": 5})
            assert answer["recovered"] is is_held


def test_a_copy_to_redis_that_was_interrupted_is_refused_by_servers_and_done_again(
    path: Path, redis: RedisServer
) -> None:
    with running(path) as server:
        start = place(subscribe(server.connect("ben")))
        publish(server, 300)
        publish(server, 2, "gone")
        store = server.web.server.engine.store
        for number in range(3):
            server.run(partial(store.put, "space", str(number), b"x" * 1_000_000))
    used = int(redis.command("INFO", "memory").split(b"used_memory:")[1].split()[0])
    redis.command("CONFIG", "SET", "maxmemory", used + 2_000_000)
    assert "OOM" in fail(path, redis.url)
    redis.command("CONFIG", "SET", "maxmemory", "0")
    with pytest.raises(Unavailable, match="has begun and not ended"), running(redis.url):
        pass
    assert "has begun and not ended" in fail(redis.url, path.with_name("other.db"))
    succeed(path, redis.url)
    with running(redis.url) as server:
        recover(server, {**start, "offset": 2}, 300)


def test_a_copy_to_a_file_that_was_interrupted_leaves_none(
    path: Path, redis: RedisServer, tmp_path: Path
) -> None:
    start = move_to_redis(path, redis)
    back = tmp_path / "back.db"
    partial = Path(f"{back}.copied")
    partial.write_bytes(b"half of it")
    Path(f"{partial}-wal").write_bytes(b"and its journal")
    succeed(redis.url, back)
    assert sorted(each.name for each in tmp_path.glob("back.db*")) == ["back.db", "back.db.lock"]
    assert back.stat().st_mode & 0o777 == 0o600
    with running(back) as server:
        recover(server, {**start, "offset": 2}, 5)


def test_from_one_redis_to_another(path: Path, redis: RedisServer) -> None:
    start = move_to_redis(path, redis)
    succeed(f"{redis.url}/0", f"{redis.url}/1")
    with running(f"{redis.url}/1") as server:
        recover(server, {**start, "offset": 2}, 5)


def test_a_copied_file_that_is_renewed_voids_what_clients_hold(
    path: Path, redis: RedisServer, tmp_path: Path
) -> None:
    start = move_to_redis(path, redis)
    with running(redis.url) as server:
        ana = server.connect("ana")
        subscribe(ana)
        ana.request({"type": "read", "povId": "acme", "offset": 3})
    back = tmp_path / "back" / "pov-rt.db"
    succeed(redis.url, back)
    result = CliRunner().invoke(main, ["db", "renew", "--data", str(back.parent)])
    assert result.exit_code == 0, result.output
    with running(back) as server:
        answer = subscribe(server.connect("ana"), since={**start, "offset": 5})
        assert answer["recovered"] is False
        assert (answer["offset"], answer["readOffset"], answer["unread"]) == (5, 3, 2)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("redis://h", "redis://h", "has to name another database"),
        ("sqlite:///a.db", "sqlite:///b.db", "pov-rt db backup, and pov-rt db restore"),
        ("memory://", "redis://h", "only sqlite:// and Redis can be copied"),
        ("sqlite:///nowhere/a.db", "redis://h", "there is no database /nowhere/a.db"),
        ("sqlite:///nowhere/a.db", "redis://u:secret@h:x", "has a port that is not a number"),
    ],
)
def test_what_cannot_be_copied_is_said(source: str, target: str, words: str) -> None:
    text = fail(source, target)
    assert words in text
    assert "secret" not in text
