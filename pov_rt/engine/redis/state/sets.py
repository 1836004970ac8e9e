"""Sets in Redis: functions/52_sets.lua says how they lie there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pov_rt.engine.base import NewMember
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.walking import START, walk


class RedisSets:
    """Sets whose members may expire; see `base.Sets`. When, Redis's clock says.

    Of a set with many members, and of many sets, some are looked at in a step: what comes or goes
    meanwhile is found or not.
    """

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._partitions = functions.partitions

    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        await self.update([NewMember(name, member, body, expires_at)])

    async def update(
        self, add: Sequence[NewMember] = (), remove: Sequence[tuple[str, str]] = ()
    ) -> None:
        args: list[bytes | str | int] = [len(remove)]
        for name, member in remove:
            args += (self._partitions.of(name), name, member)
        for name, member, body, expires_at in add:
            until = 0 if expires_at is None else max(1, round(expires_at * 1e6))
            args += (self._partitions.of(name), name, member, until, body)
        await self._functions.call("sets_update", "", *args)

    async def remove(self, name: str, member: str) -> bool:
        return bool(await self._functions.call("sets_remove", name, name, member, repeats=False))

    async def drop(self, name: str) -> int:
        number: int = await self._functions.call("sets_drop", name, name, repeats=False)
        return number

    async def get(self, name: str, member: str) -> bytes | None:
        body: bytes | None = await self._functions.call("sets_get", name, name, member)
        return body

    async def members(self, name: str) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        prefixes = (self._partitions.of(name),)
        async for _, page in walk(self._functions, "sets_members", prefixes, name):
            members = zip(*[iter(page)] * 3, strict=True)
            found |= {member.decode(): body for member, body, _ in members}
        return found

    async def having(self, member: str, prefix: str = "") -> Sequence[str]:
        found: set[str] = set()
        prefixes = self._partitions.all
        async for _, names in walk(self._functions, "sets_having", prefixes, member, prefix):
            found |= {name.decode() for name in names}
        return sorted(found)

    async def tidy(self) -> None:
        """Remove members that have expired. For one node at a time."""
        fresh = (b"", START, b"0")
        left = dict.fromkeys(self._partitions.all, fresh)
        while left:
            calls = [
                self._functions.pack("sets_tidy", partition, *at) for partition, at in left.items()
            ]
            replies = await self._functions.call_all(calls)
            for partition, (name, cursor, first) in zip(list(left), replies, strict=True):
                left[partition] = fresh if cursor == START else (name, cursor, first)
                if not name:
                    del left[partition]
