"""Ids and producers in Redis, looked for everywhere and forgotten before their time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Found, Located
from pov_rt.engine.redis.client.connection import Reply
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.walking import walk
from pov_rt.engine.redis.layout import hash_of

MOST_LOCATED = 100
"""Places that `locate` returns; there may be more."""
WINDOWS = (0, 1)
"""Ids that are remembered are of this window or of the one before it."""

Find = Callable[[str, str], Awaitable[Sequence[Found]]]
"""`Log.find`."""


class Disowning:
    """What is remembered of keys and producers; see `base.Log`."""

    def __init__(self, functions: Functions, settings: EngineSettings, find: Find) -> None:
        self._functions = functions
        self._partitions = functions.partitions
        self._window = round(settings.id_window_s * 1e6)
        self._find = find

    async def locate(self, key: str) -> Sequence[Located]:
        own, hits = hash_of(key), dict[bytes, set[bytes]]()
        async for prefix, ids in self._walk_ids("ids_ending", self._partitions.all, own):
            if ids:
                hits.setdefault(prefix, set()).update(each[: -len(own)] for each in ids)
        located: list[Located] = []
        async for prefix, names in walk(self._functions, "topics", hits):
            for topic in (name.decode() for name in names):
                if hash_of(topic) in hits[prefix] and len(located) < MOST_LOCATED:
                    found = await self._find(topic, key)
                    located += [Located(topic, *each) for each in found]
        return sorted(set(located))

    async def disown(self, publisher: str) -> int:
        _, now = await self._functions.call("probe", "")
        gone = 0
        own = ("ids_disown", self._partitions.all, publisher, now)
        async for _, (number,) in self._walk_ids(*own, repeats=False):
            gone += number
        async for _ in walk(
            self._functions, "producers_disown", self._partitions.all, publisher, repeats=False
        ):
            pass
        return gone

    async def _walk_ids(
        self,
        function: str,
        prefixes: Sequence[bytes],
        *args: bytes | str | int,
        repeats: bool = True,
    ) -> AsyncIterator[tuple[bytes, list[Reply]]]:
        for window in WINDOWS:
            steps = walk(
                self._functions, function, prefixes, self._window, window, *args, repeats=repeats
            )
            async for step in steps:
                yield step
