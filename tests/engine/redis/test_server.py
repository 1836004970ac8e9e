"""A server is asked what it is: some will not do, and each is worth what it says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from pov_rt.config.settings import RedisSettings
from pov_rt.engine.base import Survives
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.client.connection import connect
from pov_rt.engine.redis.client.library import library
from pov_rt.engine.redis.client.link import Unfit
from pov_rt.engine.redis.server import (
    SCHEMA,
    Facts,
    admit,
    find_dangers,
    find_faults,
    look,
    survives,
)
from pov_rt.protocol.errors import Unavailable
from tests.engine.redis.engines import A, entries, opened
from tests.redis_servers import RedisServer, Start, free_port

WAIT_S = 20.0
GOOD = Facts((7, 0), False, "master", "noeviction", True, "everysec", 0, 0, 1, 0, SCHEMA, 128)
OWN = RedisSettings()


async def asked(server: RedisServer, own: RedisSettings = OWN) -> Facts:
    connection = await connect(parse_address(server.url), WAIT_S, "test", WAIT_S)
    try:
        return await look(connection, own)
    finally:
        await connection.close()


def test_a_server_is_asked(shared_redis: RedisServer, prefix: str) -> None:
    facts = asyncio.run(asked(shared_redis, RedisSettings(prefix=prefix, partitions=7)))
    assert facts.version >= (7, 0)
    assert facts.used_bytes > 0
    assert facts[1:8] == (False, "master", "noeviction", False, "everysec", 0, 0)
    assert facts[9:] == (0, SCHEMA, 7)
    again = asyncio.run(asked(shared_redis, RedisSettings(prefix=prefix, partitions=9)))
    assert again.partitions == 7, "what is there stays"


def test_a_node_of_a_cluster_is_known_for_one(start_redis: Start) -> None:
    server = start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    facts = asyncio.run(asked(server))
    assert [each for each in find_faults(facts, OWN) if "cluster" in each.what]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (GOOD._replace(version=(6, 2)), r"version 6\.2.*install Redis >= 7\.0 or Valkey"),
        (GOOD._replace(is_cluster=True), "a node of a cluster"),
        (GOOD._replace(role="slave"), "name the primary"),
        (GOOD._replace(policy="allkeys-lru"), "CONFIG SET maxmemory-policy noeviction"),
        (GOOD._replace(schema="3"), "or here once all of pr:.* is deleted, also pr:meta; or set"),
        (GOOD._replace(partitions=16), "set engine.redis.partitions = 16"),
    ],
)
def test_what_will_not_do_is_named_with_what_mends_it(facts: Facts, words: str) -> None:
    with pytest.raises(Unfit, match=rf"Redis at there will not do: .*{words}"):
        admit(facts, OWN, "there")


def test_what_will_do_is_admitted_also_where_we_may_not_ask_for_all() -> None:
    admit(GOOD, OWN, "there")
    admit(GOOD._replace(policy="", fsync=""), OWN, "there")


@pytest.mark.parametrize(
    ("facts", "own", "expected"),
    [
        (GOOD, OWN, "second"),
        (GOOD._replace(fsync="always"), OWN, "disk"),
        (GOOD._replace(fsync="no"), OWN, "primary"),
        (GOOD._replace(has_file=False, fsync="always"), OWN, "primary"),
        (GOOD._replace(fsync="no"), RedisSettings(guarantee="disk"), "primary"),
        (GOOD._replace(fsync=""), OWN, "primary"),
        (GOOD._replace(fsync=""), RedisSettings(guarantee="disk"), "disk"),
        (GOOD._replace(has_file=False, fsync=""), RedisSettings(guarantee="disk"), "primary"),
        (GOOD, RedisSettings(replicas=1), "second"),
        (GOOD._replace(replicas=1), RedisSettings(replicas=1), "replicated"),
    ],
)
def test_an_acknowledgement_is_worth_what_the_server_says(
    facts: Facts, own: RedisSettings, expected: Survives
) -> None:
    assert survives(facts, own) == expected


def test_what_makes_it_unsafe_is_said() -> None:
    assert list(find_dangers(GOOD, OWN)) == []
    (few,) = find_dangers(GOOD, RedisSettings(replicas=2))
    assert few.what == "it has 0 replicas, and engine.redis.replicas = 2 must have each entry"
    (gone,) = find_dangers(GOOD._replace(evicted=3), OWN)
    assert "3 keys (evicted_keys)" in gone.what
    (full,) = find_dangers(GOOD._replace(most_bytes=100, used_bytes=95), OWN)
    assert str(full).startswith("95 of 100 bytes are in use. To mend it: raise maxmemory")


# What the user may do there:

PAGE = (Path(__file__).parents[3] / "docs/operations.md").read_text()
(RIGHTS,) = re.findall(r"^ACL SETUSER pov-rt on >PASSWORD (.*)$", PAGE, re.M)


def test_a_user_with_the_rights_that_the_page_names_is_enough(start_redis: Start) -> None:
    server = start_redis()
    server.command("ACL", "SETUSER", "app", "on", ">secret", *RIGHTS.split())

    async def work() -> None:
        url = f"redis://app:secret@127.0.0.1:{server.port}"
        async with opened(server, url=url) as (engine, told):
            await engine.watch(A)
            await engine.log.append(entries(3))
            assert told.offsets(A) == [1, 2, 3]
            assert engine.health().state == "ok"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        (("-hset", "-zscan"), r"does not allow HSET, ZSCAN to this user: .* \+hset \+zscan"),
        (("resetchannels", "&other"), r"does not allow PUBLISH to this user: ACL .*&pr:\*"),
        (("resetkeys", "~other"), r"refuses us: NOPERM .*key"),
        (("-fcall",), r"refuses us: NOPERM .*fcall"),
    ],
)
def test_a_right_that_is_missing_is_named_at_the_start(
    start_redis: Start, taken: tuple[str, ...], words: str
) -> None:
    server = start_redis()
    server.command("ACL", "SETUSER", "app", "on", ">secret", *RIGHTS.split(), *taken)

    async def work() -> None:
        url = f"redis://app:secret@127.0.0.1:{server.port}"
        with pytest.raises(Unavailable, match=words):
            async with opened(server, url=url):
                pass

    asyncio.run(work())


def test_all_that_the_functions_do_is_tried() -> None:
    code = library().code.decode()
    done = set(re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", code))
    done |= {"HLEN", "ZCARD"}  # by way of `sum_of`
    tried = re.search(r"local TRIED = \{(.*?)\n\}", code, re.S)
    assert tried is not None
    assert {line.split()[0] for line in re.findall(r"'([^']+)'", tried[1])} == done
