"""What Redis says: whether it will do, how it is set up, and whether it is well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pov_rt.cli.doctor.findings import Finding, bad, doubt, ok, skipped
from pov_rt.config.settings import RedisSettings, Settings
from pov_rt.engine.redis.client.address import Address, BadAddress, Place, SentinelAddress
from pov_rt.engine.redis.client.connection import Away, Connection, ServerError, connect, pack
from pov_rt.engine.redis.client.library import is_missing
from pov_rt.engine.redis.client.link import Unfit
from pov_rt.engine.redis.client.sentinels import Sentinels, by_name, parse_place
from pov_rt.engine.redis.health.mending import trouble
from pov_rt.engine.redis.layout import Partitions
from pov_rt.engine.redis.server import (
    check_rights,
    find_dangers,
    find_faults,
    look,
    parse_info,
    survives,
)
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import SystemClock

NAME, TRIO = "Redis", "sentinels"
OFF_S = 2.0
"""How far its clock may be from this machine's."""
MIB = 1024 * 1024
LEAST_PUBSUB_BYTES = 32 * MIB
"""What may wait for a node that listens: Redis's own default."""
MOST_DOWN_AFTER_MS = 5000
LEAST_SENTINELS = 3
ASK_S = 2.0


class Wish(NamedTuple):
    """How a setting of Redis should be, what comes of it as it is, and the value that mends it."""

    name: str
    is_good: Callable[[str], bool]
    why: str
    value: str


def _pubsub_bytes(text: str) -> int:
    """Return what may wait for who listens, in `normal 0 0 0 ... pubsub HARD SOFT SECONDS`."""
    words = text.split()
    return int(words[words.index("pubsub") + 1])


WISHES = (
    Wish("appendonly", lambda value: value == "yes", "a restart of Redis loses everything", "yes"),
    Wish(
        "appendfsync",
        lambda value: value != "no",
        "a loss of power takes what the system has not written yet, half a minute or so",
        "everysec",
    ),
    Wish(
        "maxmemory",
        lambda value: int(value) > 0,
        "when its machine has no memory left it is killed, instead of refusing",
        "4gb  (less than the machine has)",
    ),
    Wish(
        "lazyfree-lazy-expire",
        lambda value: value == "yes",
        "ids that expire are freed at once, which holds everybody up for some 40 ms",
        "yes",
    ),
    Wish(
        "client-output-buffer-limit",
        lambda value: not 0 < _pubsub_bytes(value) < LEAST_PUBSUB_BYTES,
        "a node that reads late for a moment is cut off, and has to look what it missed",
        '"pubsub 32mb 8mb 60"',
    ),
    Wish("timeout", lambda value: value == "0", "nodes that are quiet are cut off", "0"),
    Wish(
        "tcp-keepalive",
        lambda value: value != "0",
        "it never finds out that the machine of a node is gone, and writes to it for ever",
        "300",
    ),
)
FOR_REPLICAS = Wish(
    "min-replicas-to-write",
    lambda value: value != "0",
    "a primary that is cut off from its replicas goes on taking what nobody else will have",
    "1",
)
WRITES = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status")


def check(settings: Settings) -> Iterator[Finding]:
    """Ask the Redis that `engine.url` names, and its sentinels. It changes nothing there."""
    own = settings.engine.redis
    try:
        place = parse_place(settings.engine.url, own, "doctor")
    except BadAddress as error:
        yield bad(NAME, f"engine.url {error}", "engine.url = redis://USER:PASSWORD@HOST:6379/0")
        return
    if isinstance(place, Sentinels):
        yield from asyncio.run(_ask_sentinels(place.where))
    yield from asyncio.run(_ask_found(place, own))


async def _ask_found(place: Place, own: RedisSettings) -> list[Finding]:
    """Find Redis, and ask it."""
    if isinstance(place, Sentinels):
        place.start()
    connection: Connection | None = None
    try:
        connection = await connect(await place.find(), ASK_S, "pov-rt-doctor")
        return await _ask(connection, own, str(place))
    except (Unavailable, ServerError) as error:
        found = trouble(str(error))
        mend = found.mend or "see that it runs, and that engine.url names it"
        return [bad(NAME, found.what, mend)]
    finally:
        if connection is not None:
            await connection.close()
        if isinstance(place, Sentinels):
            await place.close()


async def _ask(connection: Connection, own: RedisSettings, where: str) -> list[Finding]:
    """Ask Redis. Raises `Away`, `ServerError`."""
    facts = await look(connection, own, only_reads=True)
    found = [bad(NAME, *each) for each in find_faults(facts, own)]
    found += [bad(NAME, *each) for each in find_dangers(facts, own)]
    found += judge_info(parse_info(await connection.call("INFO")))
    seconds, _ = await connection.call("TIME")
    found += judge_clock(int(seconds) - SystemClock().time())
    wanted = [*WISHES, FOR_REPLICAS] if own.replicas else WISHES
    names = [wish.name for wish in wanted]
    try:
        reply = await connection.call("CONFIG", "GET", *names)
    except ServerError as error:
        what = f"its settings cannot be seen ({error}): compare them with docs/operations.md"
        found.append(skipped(NAME, what))
    else:
        given = [each.decode() for each in reply]
        found += judge_settings(dict(zip(given[::2], given[1::2], strict=True)), wanted)
    try:
        await check_rights(connection, Partitions(own.prefix, own.partitions).all[0], where)
    except Unfit as error:
        what, _, mend = str(error).partition(": ")
        found.append(bad(NAME, what, mend))
    except ServerError as error:
        if not is_missing(error):
            raise
        found.append(skipped(NAME, "this user's rights: no node of this version was here yet"))
    if all(each.level == "skipped" for each in found):
        version = ".".join(map(str, facts.version))
        what = f"{version}; an acknowledged activity survives: {survives(facts, own)}"
        found.append(ok(NAME, what))
    return found


def judge_settings(given: Mapping[str, str], wanted: Sequence[Wish] = WISHES) -> list[Finding]:
    """Say which settings of Redis are not as they should be."""
    return [
        doubt(
            NAME,
            f"{wish.name} is {given[wish.name] or 'nothing'}: {wish.why}",
            f"CONFIG SET {wish.name} {wish.value}\nCONFIG REWRITE",
        )
        for wish in wanted
        if wish.name in given and not wish.is_good(given[wish.name])
    ]


def judge_info(info: Mapping[str, str]) -> list[Finding]:
    """Say what INFO tells of what goes wrong."""
    found = [
        bad(
            NAME,
            f"it cannot write its files ({name} is {info[name]})",
            "make room on its disk, and read its log; then BGREWRITEAOF, or BGSAVE",
        )
        for name in WRITES
        if info.get(name, "ok") != "ok"
    ]
    for name, text in info.items():
        facts = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        if name.startswith("slave") and facts.get("state", "online") != "online":
            place = f"{facts.get('ip')}:{facts.get('port')}"
            what = f"the replica {place} is being brought up to date ({facts['state']})"
            found.append(doubt(NAME, what, "plan no failover until INFO replication says online"))
    return found


def judge_clock(ahead_s: float) -> list[Finding]:
    """Say whether Redis's clock, so far ahead of this machine's, is right."""
    if abs(ahead_s) <= OFF_S:
        return []
    where = "ahead of" if ahead_s > 0 else "behind"
    what = (
        f"its clock is {abs(ahead_s):.0f} s {where} this machine's, and what is too old goes by it"
    )
    return [bad(NAME, what, "timedatectl set-ntp true, on both machines")]


async def _ask_sentinels(where: SentinelAddress) -> list[Finding]:
    """Ask each sentinel for itself."""
    found, answered = [], 0
    for each in where.sentinels:
        try:
            found += await _ask_sentinel(each, where.name)
            answered += 1
        except (Away, ServerError) as error:
            said = trouble(f"the one at {each} says nothing of {where.name}: {error}")
            mend = said.mend or f"SENTINEL MONITOR {where.name} HOST PORT QUORUM, there"
            found.append(doubt(TRIO, said.what, mend))
    number = len(where.sentinels)
    if answered <= number // 2:
        what = f"{answered} of {number} answer, which is no majority: no primary can be found"
        found.append(bad(TRIO, what, "start them, and name all of them in engine.url"))
    elif number < LEAST_SENTINELS:
        what = (
            f"engine.url names {number}: with one gone there is no majority to change the primary"
        )
        found.append(doubt(TRIO, what, "have three, on three machines, and name them all"))
    elif not found:
        found.append(ok(TRIO, f"all {number} know {where.name}, and could change the primary"))
    return found


async def _ask_sentinel(place: Address, name: str) -> list[Finding]:
    """Ask one. Raises `Away`, `ServerError`."""
    connection = await connect(place, ASK_S, "pov-rt-doctor")
    try:
        commands = [("MASTER", name), ("REPLICAS", name), ("CKQUORUM", name)]
        packed = b"".join(pack("SENTINEL", *each) for each in commands)
        primary, replicas, quorum = await connection.send(packed, len(commands))
    finally:
        await connection.close()
    if isinstance(primary, ServerError):
        raise primary
    found = []
    if isinstance(quorum, ServerError):
        mend = "start the others, and see that they reach each other"
        found.append(bad(TRIO, f"the one at {place} cannot change the primary: {quorum}", mend))
    slow_ms = int(by_name(primary)[b"down-after-milliseconds"])
    if slow_ms > MOST_DOWN_AFTER_MS:
        what = (
            f"the one at {place} calls a primary down after {slow_ms} ms, and nothing is published"
        )
        found.append(doubt(TRIO, what, f"SENTINEL SET {name} down-after-milliseconds 1000, there"))
    priorities = {int(by_name(each)[b"slave-priority"]) for each in replicas} - {0}
    if len(priorities) > 1:
        what = (
            f"replicas have several priorities ({sorted(priorities)}): one that is behind may win"
        )
        found.append(doubt(TRIO, what, "CONFIG SET replica-priority 100, on each, or 0"))
    return found
