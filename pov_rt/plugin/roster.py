"""Members of PoVs that all nodes see, told of in diffs: what presence is made of."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from pov_rt.plugin.interfaces import Host
from pov_rt.protocol.encoding import encode
from pov_rt.runtime import containment, turns
from pov_rt.runtime.texts import shared

log = logging.getLogger(__name__)

MemberT = TypeVar("MemberT", bound=msgspec.Struct)

MAX_NAMED = 500
"""Members that an answer names unless told otherwise."""
LATE_S = 5.0
"""Longer than it takes from a lease's end until a node hears of it."""

Key = tuple[str, str]
"""A PoV and a member."""


@dataclass(slots=True)
class Diff(Generic[MemberT]):
    """What became of a PoV's members since the last one, on this node; those dropped by name.

    Whose lease has ended is not among them: every node hears of that by itself (`Roster.ended`).
    """

    joined: list[MemberT] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    changed: list[MemberT] = field(default_factory=list)


class Roster(Generic[MemberT]):
    """The members of each PoV, each with a struct that describes it. Owner: a plugin's lifespan.

    `describe(pov_id, member, last)` returns a member's description, made from the last one if there
    is any, which is as JSON has it; None if the member is not on this node. A member has left when
    it was on no node for `grace_s`, or when its node has died. The members are kept as the plugin's
    leases: a plugin has one roster at most, and no other leases beside it.
    """

    def __init__(
        self,
        host: Host[Any],
        kind: type[MemberT],
        describe: Callable[[str, str, MemberT | None], MemberT | None],
        *,
        grace_s: float,
    ) -> None:
        self._host = host
        self._decode = msgspec.json.Decoder(kind).decode
        self._describe = describe
        self._grace_s = grace_s
        # As they were encoded for the leases: what is decoded takes twice as much
        # (docs/measurements.md, idle parts).
        self._told: dict[Key, bytes] = {}
        self._leaving: dict[Key, float] = {}  # until when, the first to go first
        self._touched: dict[Key, dict[str, Any]] = {}
        self._back: set[Key] = set()  # their leases have ended, and they are here
        self._diffs: dict[str, Diff[MemberT]] = {}
        self._left_untold: set[Key] = set()
        self._in_doubt: set[Key] = set()  # the engine may have done what it failed to answer
        self._lock = asyncio.Lock()

    @property
    def remembered(self) -> int:
        """Of how many members this node knows, or was the last to know."""
        return len(self._told.keys() | self._leaving.keys())

    def touch(self, pov_id: str, member: str, **fields: Any) -> None:
        """Have the next `look` ask about a member; `fields` are what is known to have changed."""
        # One text for all who are on the PoV: each message brings another.
        key = (shared(pov_id) if type(pov_id) is str else pov_id), member
        self._touched.setdefault(key, {}).update(fields)

    def ended(self, pov_id: str, members: Sequence[str]) -> None:
        """Count leases as ended; to be called by `@plugin.gone`, which tells who listens here.

        Who is here all the same is entered again by the next `look`, and has joined.
        """
        for member in members:
            key = pov_id, member
            if self._describe_now(key) is None:
                self._forget(key)
            else:
                # Told of again even if that was done a moment before this was heard.
                self._back.add(key)
                self.touch(pov_id, member)

    def enter_again(self) -> None:
        """Have the next `look` enter everybody who is here; to be called by `@plugin.lapsed`."""
        for key in self._told:
            self._in_doubt.add(key)
            self.touch(*key)

    async def drop(self, member: str) -> None:
        """Have a member leave every PoV at once, of those that this node knows; `look` tells of it.

        Who is still there is back with the next `touch`.
        """
        async with self._lock:
            for key in [each for each in self._told if each[1] == member]:
                pov_id = key[0]
                await self._host.leases.remove(self._host.channel(pov_id), member)
                self._diff(pov_id).left.append(member)
                self._forget(key)

    async def members(self, pov_id: str, limit: int = MAX_NAMED) -> tuple[list[MemberT], int]:
        """Return up to `limit` members of a PoV, on all nodes, and how many more there are."""
        found = await self._host.leases.members(self._host.channel(pov_id))
        return [self._decode(lease.body) for lease in found[:limit]], max(0, len(found) - limit)

    async def look(self) -> Mapping[str, Diff[MemberT]]:
        """Ask about all that were touched; return what changed, by PoV.

        Who came back before it was told that they left has only changed. A member that cannot be
        described is passed over until it is touched again. Raises `Unavailable`; the next call
        then goes on where this one failed.
        """
        async with self._lock:
            long_ago = self._host.clock.monotonic() - LATE_S
            while self._leaving and self._leaving[key := next(iter(self._leaving))] < long_ago:
                self._forget(key)  # another node may have told of it, or taken it over
            # In the diff of a call that failed: nobody was told, so who is back has only changed.
            self._left_untold = {
                (pov_id, member) for pov_id, diff in self._diffs.items() for member in diff.left
            }
            for number, key in enumerate(list(self._touched), 1):
                if number % turns.MEMBERS == 0:
                    await asyncio.sleep(0)
                fields = self._touched.pop(key)
                try:
                    await self._look_at(key, fields)
                except BaseException:
                    self._in_doubt.add(key)
                    self._touched[key] = fields | self._touched.get(key, {})
                    raise
            diffs, self._diffs = self._diffs, {}
            return diffs

    async def _look_at(self, key: Key, fields: dict[str, Any]) -> None:
        pov_id, member = key
        channel, leases = self._host.channel(pov_id), self._host.leases
        told = self._told.get(key)
        body = b""
        try:
            now = self._describe(pov_id, member, self._decoded(told))
            if now is not None:
                now = msgspec.structs.replace(now, **fields) if fields else now
                body = encode(now)
                self._decode(body)  # or it could not be looked at any more, nor leave
        except BaseException as error:
            failure = containment.contain(error)
            log.exception("a member could not be described", exc_info=failure)
            return
        if now is not None:
            is_new = await leases.put(channel, member, body)
            # An answer in between may have lacked them, though nobody was told that they left.
            was_over = key in self._in_doubt or self._is_over(key)
            self._in_doubt.discard(key)
            self._told[key] = body
            self._leaving.pop(key, None)
            if key in self._left_untold:
                self._diff(pov_id).left.remove(member)
                self._diff(pov_id).changed.append(now)
            elif is_new or key in self._back:
                self._diff(pov_id).joined.append(now)
            elif was_over or body != told:
                self._diff(pov_id).changed.append(now)
        elif not self._is_over(key):  # or they would be back for those who were answered without
            # Before the lease's own time begins, so that it is over here no later than there.
            until = self._host.clock.monotonic() + self._grace_s
            is_unseen = told is None and key not in self._in_doubt
            if is_unseen or not await leases.leave(channel, member, self._grace_s):
                self._forget(key)  # came and went before anybody was told, or is on another node
            else:
                self._leaving.pop(key, None)
                self._leaving[key] = until
        self._back.discard(key)

    def _describe_now(self, key: Key) -> MemberT | None:
        """Return a member that is on this node; nobody who cannot be described is."""
        try:
            return self._describe(*key, self._decoded(self._told.get(key)))
        except BaseException as error:
            failure = containment.contain(error)
            log.exception("a member could not be described", exc_info=failure)
            return None

    def _decoded(self, told: bytes | None) -> MemberT | None:
        return None if told is None else self._decode(told)

    def _is_over(self, key: Key) -> bool:
        return self._leaving.get(key, math.inf) <= self._host.clock.monotonic()

    def _diff(self, pov_id: str) -> Diff[MemberT]:
        return self._diffs.setdefault(pov_id, Diff())

    def _forget(self, key: Key) -> None:
        self._told.pop(key, None)
        self._leaving.pop(key, None)
        self._in_doubt.discard(key)
