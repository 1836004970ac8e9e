"""What was removed is in none of Redis's files after a scrub."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.redis.past.scrubbing import scrub
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis_parts import ask, calling
from tests.redis_servers import RedisServer, Start

SECRET = b"nobody may read this"


def content(server: RedisServer) -> bytes:
    """Return all that is in a server's files, but what it says of itself."""
    files = (path for path in server.folder.rglob("*") if path.is_file() and path.name != "log")
    return b"".join(path.read_bytes() for path in sorted(files))


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
@pytest.mark.parametrize(
    "options", [("--appendonly", "yes"), ("--rdbcompression", "no"), ()], ids=" ".join
)
def test_what_was_removed_is_in_no_file_after_a_scrub(
    start_redis: Start, name: str, options: tuple[str, ...]
) -> None:
    server = start_redis(*options, name=name)

    async def work() -> None:
        async with calling(server, "pr") as functions:
            await ask(functions, "SET", "pr:a", SECRET)
            await ask(functions, "SET", "pr:b", b"kept")
            if "--rdbcompression" in options:
                await ask(functions, "SAVE")
            assert (SECRET in content(server)) == bool(options)
            await ask(functions, "SET", "pr:a", b"removed")
            assert (SECRET in content(server)) == bool(options)
            await scrub(functions.link)
            assert SECRET not in content(server)
            assert (b"kept" in content(server)) == bool(options), "and no file where none was"
            await scrub(functions.link)

    asyncio.run(work())


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_what_redis_does_not_allow_is_said_with_what_to_allow(
    start_redis: Start, name: str
) -> None:
    server = start_redis("--appendonly", "yes", name=name)
    server.command("ACL", "SETUSER", "default", "-bgrewriteaof")

    async def work() -> None:
        async with calling(server, "pr") as functions:
            with pytest.raises(Unavailable, match=r"BGREWRITEAOF .*\+bgrewriteaof"):
                await scrub(functions.link)

    asyncio.run(work())


def test_a_redis_that_cannot_write_its_files_is_said_so(start_redis: Start) -> None:
    server = start_redis("--appendonly", "yes", "--rename-command", "BGREWRITEAOF", "")

    async def work() -> None:
        async with calling(server, "pr") as functions:
            with pytest.raises(Unavailable, match="unknown command"):
                await scrub(functions.link)

    asyncio.run(work())
