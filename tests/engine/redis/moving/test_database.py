"""A Redis that is copied from or to is nobody else's meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.moving.database import source, target
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis.engines import entries, opened
from tests.redis_servers import RedisServer


def settings(prefix: str) -> EngineSettings:
    return EngineSettings(redis=RedisSettings(prefix=prefix))


def kept(own: EngineSettings) -> Keeping:
    return Keeping(own)


def test_no_node_and_no_other_copy_begins_while_one_is_at_work(
    shared_redis: RedisServer, prefix: str
) -> None:
    own, address = settings(prefix), parse_address(shared_redis.url)

    async def work() -> None:
        async with source(address, own, kept(own)):
            with pytest.raises(Unavailable, match=r"pov-rt db copy on .* is at work on this Redis"):
                async with opened(shared_redis, prefix):
                    pass
            for open_ in (source, target):
                with pytest.raises(Unavailable, match="is in use by pov-rt db copy on"):
                    async with open_(address, own, kept(own)):
                        pass
        async with opened(shared_redis, prefix) as (engine, _):
            await engine.log.append(entries(1))

    asyncio.run(work())


def test_a_node_that_is_there_is_named_and_one_that_has_left_does_not_matter(
    shared_redis: RedisServer, prefix: str
) -> None:
    own, address = settings(prefix), parse_address(shared_redis.url)

    async def work() -> None:
        async with opened(shared_redis, prefix, node="node-7"):
            with pytest.raises(Unavailable, match=r"is in use by node-7 on .*: stop all nodes"):
                async with source(address, own, kept(own)):
                    pass
        async with source(address, own, kept(own)):
            pass

    asyncio.run(work())


def test_what_a_copy_left_that_failed_is_gone_with_the_next_one_and_no_one_elses_keys(
    shared_redis: RedisServer, prefix: str
) -> None:
    own, address = settings(prefix), parse_address(shared_redis.url)
    shared_redis.command("SET", f"{prefix}-other", "1")

    async def work() -> None:
        async with opened(shared_redis, prefix) as (engine, _):
            await engine.log.append(entries(3))
        shared_redis.command("HSET", f"{prefix}:meta", "schema", "copying")
        with pytest.raises(Unavailable, match="has begun and not ended"):
            async with source(address, own, kept(own)):
                pass
        with pytest.raises(ZeroDivisionError):
            async with target(address, own, kept(own)):
                raise ZeroDivisionError
        with pytest.raises(Unavailable, match="has begun and not ended"):
            async with opened(shared_redis, prefix):
                pass
        async with target(address, own, kept(own)):
            pass
        async with opened(shared_redis, prefix) as (engine, _):
            assert (await engine.log.topics("")).names == []
        assert shared_redis.command("GET", f"{prefix}-other") == b"$1\r\n1\r\n"

    asyncio.run(work())


def test_what_is_of_another_schema_is_copied_to_once_its_keys_are_deleted(
    shared_redis: RedisServer, prefix: str
) -> None:
    own, address = settings(prefix), parse_address(shared_redis.url)
    shared_redis.command("HSET", f"{prefix}:meta", "schema", "1", "partitions", "128")

    async def work() -> None:
        with pytest.raises(Unavailable, match=f"once all of {prefix}:.* is deleted, also .*:meta"):
            async with target(address, own, kept(own)):
                pass
        shared_redis.command("DEL", f"{prefix}:meta")
        async with target(address, own, kept(own)):
            pass
        async with opened(shared_redis, prefix):
            pass

    asyncio.run(work())


def test_one_that_cannot_be_reached_is_named_without_its_password() -> None:
    own = settings("pr")

    async def work() -> None:
        address = parse_address("redis://u:secret@127.0.0.1:1")
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be reached") as error:
            async with source(address, own, kept(own)):
                pass
        assert "secret" not in str(error.value)

    asyncio.run(work())
