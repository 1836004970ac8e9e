"""Members under leases in Redis: functions/51_leases.lua says how they lie there."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush

from pov_rt.engine.base import Follower, Lease
from pov_rt.engine.local import LEASE_S
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.walking import walk
from pov_rt.runtime.clock import Clock

MOST_ENDED = 128
"""Members that one call of `expire` removes: Redis does nothing else meanwhile."""
HEAR_S = 2.0
"""How long a sweep's own publications may take to come back."""
REMEMBERED = 1000
"""Publications of sweeps that did not come back in time, and may yet."""
SWEEPER_MS = 3000
"""Who sweeps is the one to do so for this long after each time: three turns of a node's."""

_Member = tuple[str, str]
"""A topic and a member of it."""


class RedisLeases:
    """Members under this node's lease; see `base.Leases`. What has run out, Redis's clock says.

    A lease is this process's, not the node's: after a restart what the node had entered before it
    ends with the lease of then, unless it is entered again. `watched` has the topics of whose
    endings the follower is told.
    """

    follower: Follower | None = None

    def __init__(
        self, functions: Functions, clock: Clock, node: str, watched: Container[str] = ()
    ) -> None:
        self._functions = functions
        self._watched = watched
        self._partitions = functions.partitions
        self._clock = clock
        self._lease = f"{node}/{clock.new_id()}"
        self._entered: dict[str, set[str]] = {}
        self._leaving: list[tuple[float, _Member]] = []
        """Those that this node has marked, by when they go; some may have come back since."""
        self._until: dict[_Member, float] = {}
        self._sweeps = 0
        self._sweep = ""
        self._heard: set[str] = set()
        """Topics of the last sweep whose publications have come back."""
        self._told: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        """Sweeps and topics that did not come back in time, and were told of from here."""
        self._has_heard = asyncio.Event()

    @property
    def held(self) -> Mapping[str, int]:
        self._forget_left()
        found: Counter[str] = Counter()
        for topic, members in self._entered.items():
            found[topic.partition("/")[0]] += len(members)
        return found

    async def put(self, topic: str, member: str, body: bytes) -> bool:
        is_new = await self._functions.call(
            # Done a second time it would answer that the member was there before.
            "leases_put",
            topic,
            topic,
            member,
            self._lease,
            body,
            repeats=False,
        )
        self._entered.setdefault(topic, set()).add(member)
        self._until.pop((topic, member), None)
        return bool(is_new)

    async def leave(self, topic: str, member: str, after_s: float) -> bool:
        is_held = await self._functions.call(
            "leases_leave", topic, topic, member, self._lease, round(after_s * 1e6)
        )
        if not is_held:
            self._forget(topic, member)
        elif member in self._entered.get(topic, ()):
            self._forget_left()
            until = self._clock.monotonic() + after_s
            self._until[topic, member] = until
            heappush(self._leaving, (until, (topic, member)))
        return bool(is_held)

    async def remove(self, topic: str, member: str) -> bool:
        was_there = await self._functions.call("leases_remove", topic, topic, member, repeats=False)
        self._forget(topic, member)
        return bool(was_there)

    async def members(self, topic: str) -> Sequence[Lease]:
        found: dict[str, Lease] = {}
        prefixes = (self._partitions.of(topic),)
        async for _, (now, *page) in walk(self._functions, "leases_members", prefixes, topic):
            ahead = self._clock.monotonic() - int(now) / 1e6
            for member, lease, leaving_us, body in zip(*[iter(page)] * 4, strict=True):
                leaving_at = int(leaving_us) / 1e6 + ahead if leaving_us != b"0" else None
                name = member.decode()
                found[name] = Lease(name, body, node_of(lease), leaving_at)
        return list(found.values())

    async def expire(self) -> Sequence[tuple[str, Lease]]:
        dead = await self._functions.call("leases_dead", "", self._lease, SWEEPER_MS)
        if dead is None:
            return []  # another node sweeps
        pack, partitions = self._functions.pack, self._partitions.all
        due = await self._functions.call_all(
            [pack("leases_due", prefix, *dead) for prefix in partitions]
        )
        self._sweeps += 1
        self._sweep = sweep = f"{self._lease}/{self._sweeps}"
        self._heard.clear()
        calls, room = [], MOST_ENDED
        for prefix, number in zip(partitions, due, strict=True):
            if number and room > 0:
                calls.append(pack("leases_sweep", prefix, sweep, min(number, room), *dead))
                room -= number
        if not calls:
            if dead:
                await self._functions.call("leases_forget", "", *dead)
            return []
        # Not repeated: who was removed by the first try is told of by the publication alone.
        pages = await self._functions.call_all(calls, repeats=False)
        gone = [
            (topic.decode(), Lease(member.decode(), body, node_of(lease)))
            for page in pages
            for topic, member, lease, body in zip(*[iter(page)] * 4, strict=True)
        ]
        await self._see_told(sweep, gone)
        return gone

    def hear(self, topic: str, message: bytes) -> None:
        """Tell the follower of members of a topic that have ended, as another node was, or this."""
        sweep, rest = unpair(message)
        told = sweep.decode(), topic
        if told in self._told:
            return  # from here, for this came too late
        if self._sweep == told[0]:
            self._heard.add(topic)
            self._has_heard.set()
        self._tell(topic, list(_leases(rest)))

    async def _see_told(self, sweep: str, gone: Sequence[tuple[str, Lease]]) -> None:
        """Return once the follower knows who is gone: by the publication, or at last from here."""
        left: dict[str, list[Lease]] = {}
        for topic, lease in gone:
            if topic in self._watched:
                left.setdefault(topic, []).append(lease)
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAR_S):
                while not left.keys() <= self._heard:
                    self._has_heard.clear()
                    await self._has_heard.wait()
        for topic in left.keys() - self._heard:
            self._told.append((sweep, topic))
            self._tell(topic, left[topic])

    def _tell(self, topic: str, leases: Sequence[Lease]) -> None:
        if self.follower is not None:
            self.follower.left(topic, leases)

    async def renew(self) -> bool:
        return bool(
            await self._functions.call("leases_renew", "", self._lease, round(LEASE_S * 1e6))
        )

    def _forget(self, topic: str, member: str) -> None:
        self._until.pop((topic, member), None)
        members = self._entered.get(topic, set())
        members.discard(member)
        if not members:
            self._entered.pop(topic, None)

    def _forget_left(self) -> None:
        """Count those no more whose time has come."""
        now = self._clock.monotonic()
        while self._leaving and self._leaving[0][0] <= now:
            until, member = heappop(self._leaving)
            if self._until.get(member) == until:
                self._forget(*member)


def unpair(joined: bytes) -> tuple[bytes, bytes]:
    """Return the two texts that functions/01_names.lua has joined."""
    length, _, rest = joined.partition(b":")
    return rest[: int(length)], rest[int(length) :]


def _leases(told: bytes) -> Iterator[Lease]:
    while told:
        member, told = unpair(told)
        lease, told = unpair(told)
        body, told = unpair(told)
        yield Lease(member.decode(), body, node_of(lease))


def node_of(lease: bytes) -> str:
    """Return whose a lease is."""
    return lease.decode().rpartition("/")[0]
