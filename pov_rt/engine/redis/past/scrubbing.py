"""Redis's files without what was replaced or removed: each is written anew, from memory.

What Redis was told stays in its append-only file, and what it had in its snapshot, until Redis
writes them anew. Files of replicas are theirs, and so are copies: whoever runs Redis has to see to
those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pov_rt.engine.redis.client.connection import Reply, ServerError, pack
from pov_rt.engine.redis.client.link import Link
from pov_rt.protocol.errors import Unavailable

SCRUB_S, LOOK_S = 600.0, 0.1
"""How long Redis may take to write its files, and how often it is asked whether it has."""


async def scrub(link: Link) -> None:
    """Have Redis write its files anew; return when it has. Raises `Unavailable` with the reason."""
    before = await _persistence(link)
    try:
        async with asyncio.timeout(SCRUB_S):
            if before["aof_enabled"] == "1":
                await _write(link, "BGREWRITEAOF", "aof_rewrite", "aof_last_bgrewrite_status")
            if await _has_snapshots(link, before):
                await _write(link, "BGSAVE", "rdb_bgsave", "rdb_last_bgsave_status")
    except TimeoutError:
        raise Unavailable(
            f"Redis has not written its files anew within {SCRUB_S:g} s; what was removed may "
            "still be in them"
        ) from None


async def _write(link: Link, command: str, doing: str, status: str) -> None:
    """Have one of the files written, and not by a process that was begun before."""
    await _end(link)
    await _ask(link, command)
    await _end(link)
    if (found := (await _persistence(link))[status]) != "ok":
        raise Unavailable(f"Redis could not write its files anew: {status}:{found} ({command})")


async def _end(link: Link) -> None:
    """Return when Redis writes no file, and is not about to."""
    while True:
        now = await _persistence(link)
        if {now[each] for each in _BUSY if each in now} == {"0"}:
            return
        await asyncio.sleep(LOOK_S)


_BUSY = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")


async def _has_snapshots(link: Link, before: Mapping[str, str]) -> bool:
    """Tell whether there is, or may be, a snapshot that Redis keeps beside its memory."""
    if before.get("rdb_saves", "1") != "0":
        return True
    _, save = await _ask(link, "CONFIG", "GET", "save")
    return bool(save)


async def _persistence(link: Link) -> Mapping[str, str]:
    """Return what Redis says of its files."""
    found = (await _ask(link, "INFO", "persistence")).decode()
    return dict(line.split(":", 1) for line in found.splitlines() if ":" in line)


async def _ask(link: Link, *command: str) -> Reply:
    (reply,) = await link.send(pack(*command), 1)
    if isinstance(reply, ServerError):
        if reply.code == "NOPERM":
            raise Unavailable(
                f"what was removed may still be in Redis's files: we may not use "
                f"{command[0]} ({reply}); have it done, or allow +bgrewriteaof +bgsave +info "
                "+config|get"
            )
        raise Unavailable(f"what was removed may still be in Redis's files: {reply} ({command[0]})")
    return reply
