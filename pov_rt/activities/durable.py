"""Subscriptions that outlast connections: what a user is subscribed to, and who follows a PoV."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from pov_rt.activities.kept import KeptByPov
from pov_rt.delivery.filters import Only
from pov_rt.engine.base import Engine, NewMember

MAX_DURABLE = 200
"""Durable subscriptions of one user."""

_decode = msgspec.json.Decoder(Only).decode


class Kept(NamedTuple):
    """How a subscription is remembered: with which filter, as it is stored; None: it is not."""

    body: bytes | None


class Durable:
    """The durable subscriptions of all users, in the engine's sets. Owner: the server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept = KeptByPov(engine.sets, "durable", "durable subscriptions")

    async def add(self, user_id: str, pov_id: str, only: Only | None = None) -> Kept:
        """Remember a subscription, with its filter; return what was remembered before.

        Raises `LimitExceeded`.
        """
        # At once, so that the PoV's followers are those who are subscribed, whatever happens.
        before = await self._kept.put(
            user_id,
            pov_id,
            msgspec.json.encode(only) if only else b"",
            most=MAX_DURABLE,
            beside=[NewMember(f"followers/{pov_id}", user_id)],
        )
        return Kept(before)

    async def put_back(self, user_id: str, pov_id: str, kept: Kept) -> None:
        """Undo an `add`: remember what was remembered before."""
        if kept.body is None:
            await self.remove(user_id, pov_id)
        else:
            await self.add(user_id, pov_id, _decode(kept.body) if kept.body else None)

    async def remove(self, user_id: str, pov_id: str) -> None:
        """Forget a subscription; nothing happens if there is none."""
        await self._kept.remove(user_id, pov_id, [(f"followers/{pov_id}", user_id)])

    async def unfollow(self, user_id: str, pov_ids: Iterable[str]) -> None:
        """Count a user no more among those who follow PoVs, who may not see them now.

        The subscriptions are kept, for the day when they may again: whoever adds one once more
        counts.
        """
        for pov_id in pov_ids:
            # Most often it was done before, and to look costs less than to write.
            if await self._engine.sets.get(f"followers/{pov_id}", user_id) is not None:
                await self._engine.sets.remove(f"followers/{pov_id}", user_id)

    async def clear(self, user_id: str) -> int:
        """Forget all of a user's; return how many there were."""
        sets = self._engine.sets
        following = await sets.having(user_id, "followers/")
        await sets.update(remove=[(name, user_id) for name in following])
        return await self._kept.clear(user_id)

    async def drop(self, pov_id: str) -> int:
        """Forget all to a PoV; return how many there were."""
        sets = self._engine.sets
        theirs = await sets.having(pov_id, "durable/")
        await sets.update(remove=[(name, pov_id) for name in theirs])
        await sets.drop(f"followers/{pov_id}")
        return len(theirs)

    async def of(self, user_id: str) -> Mapping[str, Only | None]:
        """Return the PoVs that a user is subscribed to, in the order of their ids."""
        mine = await self._kept.of(user_id)
        return {pov_id: _decode(body) if body else None for pov_id, body in mine.items()}

    async def followers(self, pov_id: str) -> Collection[str]:
        """Return the users who are subscribed to a PoV."""
        return (await self._engine.sets.members(f"followers/{pov_id}")).keys()
