"""What users keep by PoV, so much of it each, such as durable subscriptions: a set for each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

from pov_rt.engine.base import NewMember, Sets
from pov_rt.protocol.errors import LimitExceeded
from pov_rt.protocol.tenants import restore


class KeptByPov:
    """Something that each user may keep for PoVs, under a name of its own in the engine's sets.

    `what` says in the plural what it is, for whoever has too many.
    """

    def __init__(self, sets: Sets, name: str, what: str) -> None:
        self._sets = sets
        self._name = name
        self._what = what
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(
        self,
        user_id: str,
        pov_id: str,
        body: bytes,
        *,
        most: int,
        expires_at: float | None = None,
        instead_of: bytes | None = None,
        beside: Sequence[NewMember] = (),
    ) -> bytes | None:
        """Keep something for a PoV; return what was kept for it before.

        With `instead_of` only in place of that: it may be something else, or nothing, meanwhile.
        What is `beside` is written with it, or neither is. Raises `LimitExceeded` if there is
        something for `most` other PoVs.
        """
        # One of a user's at a time: else several together would get past the limit.
        async with self._locks.setdefault(user_id, asyncio.Lock()):
            mine = await self._sets.members(self._set_of(user_id))
            before = mine.get(pov_id)
            if instead_of not in (None, before):
                return before
            if before is None and len(mine) >= most:
                raise LimitExceeded(f"A user has at most {most} {self._what}")
            entered = NewMember(self._set_of(user_id), pov_id, body, expires_at)
            await self._sets.update([entered, *beside])
        return before

    async def remove(
        self, user_id: str, pov_id: str, beside: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Forget what is kept for a PoV, with what is beside it."""
        await self._sets.update(remove=[(self._set_of(user_id), pov_id), *beside])

    async def clear(self, user_id: str) -> int:
        """Forget all that a user keeps; return how much there was."""
        return await self._sets.drop(self._set_of(user_id))

    async def of(self, user_id: str) -> Mapping[str, bytes]:
        """Return what a user keeps, by PoV in the order of their ids."""
        mine = await self._sets.members(self._set_of(user_id))
        return {restore(pov_id): body for pov_id, body in sorted(mine.items())}

    def _set_of(self, user_id: str) -> str:
        return f"{self._name}/{user_id}"
