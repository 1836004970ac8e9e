"""The library is named by what it contains."""

from __future__ import annotations

import asyncio
from importlib.resources import files

import pytest

from pov_rt.engine.redis import engine, server
from pov_rt.engine.redis.client import functions
from pov_rt.engine.redis.client.library import COMMON, Library, library
from tests.engine.redis.engines import A, Heard, appended, entries, make, opened
from tests.redis_servers import RedisServer


def test_another_function_makes_another_library() -> None:
    one = Library({COMMON: "local a = 1", "10_x.lua": "define('x', {}, x)"})
    two = Library({COMMON: "local a = 1", "10_x.lua": "define('x', {}, y)"})
    assert one.name != two.name
    assert one.function("x") == f"{one.name}_x".encode()
    assert one.code.startswith(f"#!lua name={one.name}\n".encode())
    assert one.name == Library({"10_x.lua": "define('x', {}, x)", COMMON: "local a = 1"}).name


def test_the_package_has_its_functions() -> None:
    assert b"define('probe'" in library().code


def older_library() -> Library:
    """Return the functions as they might have been in a version before: they do the same."""
    folder = files("pov_rt.engine.redis") / "functions"
    parts = {each.name: each.read_text() for each in folder.iterdir()}
    return Library(parts | {"99_gone.lua": "define('gone_since', {}, function() return 1 end)"})


def test_nodes_of_two_versions_each_have_their_functions_in_one_redis(
    shared_redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = older_library()

    async def play() -> None:
        with monkeypatch.context() as patch:
            for module in (engine, functions, server):
                patch.setattr(module, "library", lambda: older)
            one = make(shared_redis, prefix, "node-1")
            await one.start(Heard())
        async with opened(shared_redis, prefix, node="node-2") as (two, _):
            listed = shared_redis.command("FUNCTION", "LIST")
            assert older.name.encode() in listed
            assert library().name.encode() in listed
            first, second, third = entries(3)
            assert [(await appended(each, first)).offset for each in (one, two)] == [1, 1]
            assert (await appended(two, second)).offset == 2
            # Whoever needs them brings them back, and nobody the other's.
            assert shared_redis.command("FUNCTION", "FLUSH") == b"+OK\r\n"
            assert (await appended(one, third)).offset == 3
            assert library().name.encode() not in shared_redis.command("FUNCTION", "LIST")
            assert (await appended(two, third)).offset == 3
            for each in (one, two):
                page = await each.log.read(A, 0, 10)
                assert [entry.body for entry in page.entries] == [b"1", b"2", b"3"]
        await one.close()

    asyncio.run(play())
