"""What server one talks to: whether it will do, and what an acknowledgement is worth there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pov_rt.config.settings import RedisSettings
from pov_rt.engine.base import Survives
from pov_rt.engine.redis.client.connection import Connection, Reply, ServerError, pack
from pov_rt.engine.redis.client.library import library
from pov_rt.engine.redis.client.link import Unfit
from pov_rt.engine.redis.health.mending import Trouble

SCHEMA = "2"
"""What the keys are made of (functions/*.lua)."""
UNFINISHED = "copying"
"""What stands for the schema of keys while they are copied there."""
OLDEST = (7, 0)
"""The first version with functions."""
KEEP_ALL = "noeviction"
FULL = 0.95
"""From this part of its memory on it is said that there is little left."""


class Facts(NamedTuple):
    """What a server says of itself; `policy` and `fsync` are empty where we may not ask."""

    version: tuple[int, ...]
    is_cluster: bool
    role: str
    policy: str
    has_file: bool
    fsync: str
    replicas: int
    evicted: int
    used_bytes: int
    most_bytes: int
    schema: str
    partitions: int


def parse_info(text: bytes) -> dict[str, str]:
    """Return the lines of INFO by their names."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def look(
    connection: Connection, settings: RedisSettings, *, only_reads: bool = False
) -> Facts:
    """Ask a server what it is, and enter what its keys are if there are none yet.

    Raises `ServerError`, `Away`.
    """
    meta = f"{settings.prefix}:meta"
    entering = (
        pack("HSETNX", meta, "schema", SCHEMA),
        pack("HSETNX", meta, "partitions", settings.partitions),
    )
    asking = (
        pack("INFO"),
        pack("HMGET", meta, "schema", "partitions"),
        pack("CONFIG", "GET", "maxmemory-policy"),
        pack("CONFIG", "GET", "appendfsync"),
    )
    commands = asking if only_reads else (*entering, *asking)
    replies = await connection.send(b"".join(commands), len(commands))
    info, kept, policy, fsync = replies[-len(asking) :]
    if isinstance(info, ServerError):
        raise info
    found = parse_info(info)
    is_cluster = found.get("cluster_enabled") == "1"
    if isinstance(kept, ServerError):
        if not is_cluster:  # which has the keys on another node, and is refused for what it is
            raise kept
        kept = (None, None)
    schema, partitions = (b"" if value is None else value for value in kept)
    return Facts(
        version=tuple(int(part) for part in found["redis_version"].split(".")[:2]),
        is_cluster=is_cluster,
        role=found.get("role", ""),
        policy=_setting(policy) or found.get("maxmemory_policy", ""),
        has_file=found.get("aof_enabled") == "1",
        fsync=_setting(fsync),
        replicas=sum(
            name.startswith("slave") and "state=online" in value for name, value in found.items()
        ),
        evicted=int(found.get("evicted_keys", "0")),
        used_bytes=int(found.get("used_memory", "0")),
        most_bytes=int(found.get("maxmemory", "0")),
        schema=schema.decode() or SCHEMA,
        partitions=int(partitions or settings.partitions),
    )


def _setting(reply: Reply) -> str:
    if isinstance(reply, ServerError) or not reply:
        return ""
    return str(reply[1].decode())


async def check_rights(connection: Connection, prefix: bytes, where: str) -> None:
    """Try all that the functions do. Raises `Unfit` with what is not allowed, `ServerError`."""
    call = ("FCALL", library().function("rights"), 1, prefix, 0)
    if denied := await connection.call(*call):
        missing = ", ".join(dict.fromkeys(each.decode() for each in denied))
        rights = " ".join(f"+{each.decode().lower()}" for each in dict.fromkeys(denied))
        own = prefix.decode().partition(":")[0]
        raise Unfit(
            f"Redis at {where} does not allow {missing} to this user: "
            f"ACL SETUSER NAME ~{own}:* &{own}:* {rights}"
        )


def find_faults(facts: Facts, settings: RedisSettings) -> Iterator[Trouble]:
    """Yield why a server will not do."""
    keys = f"its keys {settings.prefix}:*"
    if facts.version < OLDEST:
        version = ".".join(map(str, facts.version))
        yield Trouble(
            f"it is version {version}, and functions need 7.0", "install Redis >= 7.0 or Valkey"
        )
    if facts.is_cluster:
        yield Trouble("it is a node of a cluster", "name a Redis that is none (cluster-enabled no)")
    if facts.role not in ("master", ""):
        yield Trouble(f"it is a {facts.role}", "name the primary in engine.url")
    if facts.policy not in (KEEP_ALL, ""):
        yield Trouble(
            f"it throws away what it likes when memory is full (maxmemory-policy {facts.policy})",
            f"CONFIG SET maxmemory-policy {KEEP_ALL}, and the same in redis.conf",
        )
    if facts.schema == UNFINISHED:
        yield Trouble(
            f"a copy into {keys} has begun and not ended",
            "wait for it, or run pov-rt db copy once more, which begins anew",
        )
    elif facts.schema != SCHEMA:
        yield Trouble(
            f"{keys} are of schema {facts.schema}, this version knows {SCHEMA}",
            "have a version that knows it copy them to a file (pov-rt db copy), and this one from "
            f"there to another database, or here once all of {settings.prefix}:* is deleted, also "
            f"{settings.prefix}:meta; or set engine.redis.prefix to another one",
        )
    if facts.partitions != settings.partitions:
        yield Trouble(
            f"{keys} are in {facts.partitions} partitions",
            f"set engine.redis.partitions = {facts.partitions}",
        )


def find_dangers(facts: Facts, settings: RedisSettings) -> Iterator[Trouble]:
    """Yield what makes a server that works unsafe."""
    if facts.replicas < settings.replicas:
        yield Trouble(
            f"it has {facts.replicas} replicas, and engine.redis.replicas = {settings.replicas} "
            "must have each entry",
            "start replicas, or lower engine.redis.replicas",
        )
    if facts.evicted:
        yield Trouble(
            f"it has thrown away {facts.evicted} keys (evicted_keys), ours perhaps",
            f"maxmemory-policy {KEEP_ALL}, and CONFIG RESETSTAT when you know whose they were",
        )
    if facts.most_bytes and facts.used_bytes >= FULL * facts.most_bytes:
        yield Trouble(
            f"{facts.used_bytes} of {facts.most_bytes} bytes are in use",
            "raise maxmemory, or keep less (engine.max_entries, engine.max_age_s)",
        )


def admit(facts: Facts, settings: RedisSettings, where: str) -> None:
    """Raise `Unfit` with all that is to be mended, if anything is."""
    if faults := "; ".join(map(str, find_faults(facts, settings))):
        raise Unfit(f"Redis at {where} will not do: {faults}")


def survives(facts: Facts, settings: RedisSettings) -> Survives:
    """Return what an acknowledged append survives."""
    if 0 < settings.replicas <= facts.replicas:
        return "replicated"
    if not facts.has_file:
        return "primary"
    if facts.fsync == "always":
        return "disk"
    if facts.fsync == "everysec":
        return "second"
    return "primary" if facts.fsync or not settings.guarantee else settings.guarantee
