"""What was found out and need not be again, bounded in bytes, with a share for each owner."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

from pov_rt.runtime.clock import Clock

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

SHARE = 16
"""One owner may have this part of the room."""


class _Known(msgspec.Struct, Generic[ValueT], frozen=True, gc=False):
    """A value that is good until then (seconds since 1970)."""

    value: ValueT
    owner: str
    size: int
    until: float


class Remembered(Generic[KeyT, ValueT]):
    """Values by key, the oldest first. Owner: whoever finds them out.

    An owner who has more than a share loses the oldest of it, and nobody else does. Where all is
    full, those that have expired leave first.
    """

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._known: dict[KeyT, _Known[ValueT]] = {}
        self._held: dict[str, int] = {}
        self.used = 0
        """Bytes, more or less."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: KeyT) -> ValueT | None:
        """Return a value that is still good."""
        known = self._known.get(key)
        if known is None:
            return None
        if known.until <= self._clock.time():
            self._drop(key)
            return None
        return known.value

    def add(self, key: KeyT, value: ValueT, owner: str, size: int, until: float) -> None:
        """Remember a value of so many bytes, unless that is more than a share."""
        share = self._max_bytes // SHARE
        if size > share:
            return
        if self._held.get(owner, 0) + size > share:
            # Looked for, not kept: nearly every owner has one (docs/measurements.md, idle parts).
            mine = [each for each, known in self._known.items() if known.owner == owner]
            self._drop_half(mine, share)
        if self.used + size > self._max_bytes:
            now = self._clock.time()
            for old in [each for each, known in self._known.items() if known.until <= now]:
                self._drop(old)
            if self.used > self._max_bytes // 2:
                self._drop_half(list(self._known), self._max_bytes)
        self._known[key] = _Known(value, owner, size, until)
        self._held[owner] = self._held.get(owner, 0) + size
        self.used += size

    def _drop_half(self, oldest: Iterable[KeyT], room: int) -> None:
        """Forget the oldest until half of the room is free.

        Many at once: a dict is slow at losing its first entry again and again.
        """
        left = room // 2
        for key in oldest:
            if left <= 0:
                return
            left -= self._known[key].size
            self._drop(key)

    def _drop(self, key: KeyT) -> None:
        known = self._known.pop(key)
        self._held[known.owner] -= known.size
        self.used -= known.size
        if not self._held[known.owner]:
            del self._held[known.owner]
