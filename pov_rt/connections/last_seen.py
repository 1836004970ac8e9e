"""When users were here last who are not any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pov_rt.runtime.clock import Clock


class LastSeen:
    """When the last connection of each user ended. Owner: the directory.

    That is of those who left since the node began, and of those before whom the trace's file still
    knows (`restore`). Of more than `most` users those are forgotten who are away for longest.
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._left_at: dict[str, float] = {}  # in the order in which they left

    @property
    def left_at(self) -> Mapping[str, float]:
        """When each was here last, in seconds since 1970."""
        return self._left_at

    def came(self, user_id: str) -> None:
        """Take note that a user is here."""
        self._left_at.pop(user_id, None)

    def left(self, user_id: str) -> None:
        """Take note that a user's last connection has ended."""
        self._left_at[user_id] = self._clock.time()
        if len(self._left_at) > self._most:
            del self._left_at[next(iter(self._left_at))]

    def restore(self, left_at: Mapping[str, float], here: Collection[str]) -> None:
        """Add those who left before, but for whom is known better, or is `here`."""
        known = {each: at for each, at in left_at.items() if each not in here}
        both = {**known, **self._left_at}
        newest = sorted(both.items(), key=lambda each: each[1])[-self._most :]
        self._left_at = dict(newest)

    forget = came
