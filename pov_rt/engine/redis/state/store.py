"""What plugins keep, in Redis: functions/53_store.lua says how it lies there."""

from __future__ import annotations

from collections.abc import Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Stored
from pov_rt.engine.bounds import StoreRules
from pov_rt.engine.redis.client.functions import Functions

WHATEVER, NOTHING, THIS = "", "0", "1"
"""What is to be there before a value is put."""


class RedisStore:
    """Values by key; see `base.Store`. Each change is one step in Redis, of spaces together too."""

    def __init__(self, functions: Functions, settings: EngineSettings) -> None:
        self.rules = StoreRules(settings)
        self._functions = functions
        self._partitions = functions.partitions

    async def get(self, space: str, key: str) -> bytes | None:
        body: bytes | None = await self._functions.call("store_get", space, space, key)
        return body

    async def put(self, space: str, key: str, body: bytes, owner: str = "") -> None:
        await self._put(space, key, body, owner, WHATEVER)

    async def swap(
        self, space: str, key: str, old: bytes | None, new: bytes | None, owner: str = ""
    ) -> bool:
        if new is not None:
            before = (NOTHING,) if old is None else (THIS, old)
            return await self._put(space, key, new, owner, *before)
        if old is None:
            return await self.get(space, key) is None
        return await self._remove(space, key, old)

    async def remove(self, space: str, key: str) -> bool:
        return await self._remove(space, key)

    async def read(
        self, space: str, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[tuple[str, bytes]]:
        page = await self._functions.call("store_read", space, space, prefix, after, limit)
        return [(key.decode(), body) for key, body, _ in zip(*[iter(page)] * 3, strict=True)]

    async def owned(
        self, owner: str, after: tuple[str, str] = ("", ""), limit: int = 100
    ) -> Sequence[Stored]:
        page = await self._functions.call("store_owned", owner, owner, *after, limit)
        return [
            Stored(space.decode(), key.decode(), body)
            for space, key, body in zip(*[iter(page)] * 3, strict=True)
        ]

    async def erase(self, owner: str) -> int:
        gone: int
        gone, free = await self._functions.call("store_erase", owner, owner, repeats=False)
        self.rules.used -= free
        return gone

    async def count(self) -> None:
        """Learn how many bytes there are of all nodes' plugins."""
        before = self.rules.used
        used = await self._functions.call("store_count", "", self._partitions.number)
        if self.rules.used == before:  # else something newer is known
            self.rules.used = used

    async def _put(
        self, space: str, key: str, body: bytes, owner: str, *before: bytes | str
    ) -> bool:
        done, more, used = await self._functions.call(
            "store_put",
            space,
            space,
            key,
            self._partitions.of(owner),
            owner,
            body,
            self.rules.each,
            int(self.rules.bound.limit),
            self._partitions.number,
            *before,
            # A swap that was done finds something else when it is done again.
            repeats=before == (WHATEVER,),
        )
        if used != b"":
            self.rules.used = used
        self.rules.used += more
        if done < 0:
            raise self.rules.full(space, is_share=done == -2)
        return bool(done)

    async def _remove(self, space: str, key: str, *old: bytes) -> bool:
        free = await self._functions.call("store_remove", space, space, key, *old, repeats=False)
        self.rules.used -= max(0, free)
        return bool(free > 0)
