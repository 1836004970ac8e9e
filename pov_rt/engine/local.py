"""What concerns running nodes, for engines of which there is only one: `memory://` and `sqlite://`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from itertools import islice

from pov_rt.engine.base import Follower, Lease, Room
from pov_rt.runtime.clock import Clock

LEASE_S = 30.0
"""A node that has not renewed for this long is gone: three missed renewals of 10 s."""
MAX_EXPIRED = 512
"""Members that one call of `expire` returns: a whole crowd would hold up the loop
(docs/measurements.md, leases)."""


class MemorySignals:
    """Signals to the other nodes, of which a memory engine has none."""

    def send(self, topic: str, body: bytes, origin: str = "", *, room: Room = Room.USERS) -> bool:
        """Reach every other node: nobody."""
        return True


class MemoryLeases:
    """Members under the lease of the only node; see `base.Leases`.

    `watched` has the topics of whose endings the follower is told.
    """

    follower: Follower | None = None

    def __init__(self, clock: Clock, node: str, watched: Container[str] = ()) -> None:
        self._clock = clock
        self._node = node
        self._watched = watched
        self._renewed_at = clock.monotonic()
        # Whether somebody was told that all members are gone: then they are.
        self._was_gone = False
        self._members: dict[str, dict[str, Lease]] = {}
        # Apart, so that looking for those whose time is over does not go through all the others.
        self._leaving: dict[tuple[str, str], Lease] = {}

    @property
    def held(self) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        for topic, members in self._members.items():
            found[topic.partition("/")[0]] += len(members)
        return found

    async def put(self, topic: str, member: str, body: bytes) -> bool:
        members = self._members.setdefault(topic, {})
        is_new = member not in members
        members[member] = Lease(member, body, self._node)
        self._leaving.pop((topic, member), None)
        return is_new

    async def leave(self, topic: str, member: str, after_s: float) -> bool:
        lease = self._members.get(topic, {}).get(member)
        if lease is None:
            return False
        lease = lease._replace(leaving_at=self._clock.monotonic() + after_s)
        self._members[topic][member] = self._leaving[topic, member] = lease
        return True

    async def remove(self, topic: str, member: str) -> bool:
        return self._take(topic, member) is not None

    async def members(self, topic: str) -> Sequence[Lease]:
        members = self._members.get(topic, {}).values()
        if self._is_gone():
            return []
        now = self._clock.monotonic()
        return [each for each in members if each.leaving_at is None or each.leaving_at > now]

    async def expire(self) -> Sequence[tuple[str, Lease]]:
        now = self._clock.monotonic()
        if self._is_gone():
            gone = [
                (topic, lease)
                for topic, members in self._members.items()
                for lease in members.values()
            ]
        else:
            due = (
                (topic, lease)
                for (topic, _), lease in self._leaving.items()
                if lease.leaving_at is not None and lease.leaving_at <= now
            )
            gone = list(islice(due, MAX_EXPIRED))
        told: dict[str, list[Lease]] = {}
        for topic, lease in gone:
            self._take(topic, lease.member)
            if topic in self._watched:
                told.setdefault(topic, []).append(lease)
        self._was_gone = False
        if self.follower is not None:
            for topic, leases in told.items():
                self.follower.left(topic, leases)
        return gone

    async def renew(self) -> bool:
        now = self._clock.monotonic()
        was_alive = now - self._renewed_at <= LEASE_S
        self._renewed_at = now
        if self._was_gone:
            # So they are, but for those that are entered again.
            self._was_gone = was_alive = False
            for topic, members in self._members.items():
                for member, lease in members.items():
                    gone = lease._replace(leaving_at=now)
                    members[member] = self._leaving[topic, member] = gone
        return was_alive

    def _is_gone(self) -> bool:
        if self._clock.monotonic() - self._renewed_at > LEASE_S:
            self._was_gone = True
        return self._was_gone

    def _take(self, topic: str, member: str) -> Lease | None:
        members = self._members.get(topic, {})
        lease = members.pop(member, None)
        self._leaving.pop((topic, member), None)
        if not members:
            self._members.pop(topic, None)
        return lease
