"""What a subscriber missed, sent before anything live: from a ring of recent frames, or the log.

A topic has a ring from the first client that missed something until a minute after the last one:
when everybody reconnects at once, the log is read once for a topic and not once for each of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from pov_rt.connections.connection import Connection
from pov_rt.delivery.entries import ActivityEncoder, has_expired
from pov_rt.delivery.filters import Only, Since, read_head
from pov_rt.delivery.pieces import pieces
from pov_rt.delivery.ring import RING_ENTRIES, Progress, Ring
from pov_rt.delivery.topic import TURN_SENDS, Topic
from pov_rt.engine.base import Entry, Log, Position, Top
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.runtime.clock import Clock
from pov_rt.transport.frames import text_frame

log = logging.getLogger(__name__)

MAX_REPLAY = 1000
"""Activities replayed at once; whoever missed more is told so, and pages through the history."""
PAGE = 100
RINGS_BYTES = 64 * 1024 * 1024
"""What all rings may hold together; the longest unused one goes first."""
RING_IDLE_S = 60.0
LOADS = 4
"""Rings loaded at a time. Each wakes all who wait for it, and everybody else waits for them: with
1,000 under way a turn of the loop took up to 0.25 s."""


class Joined(NamedTuple):
    """A subscription as it begins: `start` is the offset after which it gets everything.

    `recovered` is None where nothing was asked for. `missed` is how many entries lie between the
    position asked for and `start`, None where nobody can know.
    """

    top: Top
    start: int
    recovered: bool | None = None
    missed: int | None = None


class Unread(NamedTuple):
    """Everything that is kept after the furthest of these places, however much that is."""

    places: Sequence[Position]


def recover(top: Top, since: Since | Unread | None) -> Joined:
    """Decide from where a subscriber is served: never from somewhere in between."""
    if since is None:
        return Joined(top, top.offset)
    if isinstance(since, Unread):
        read = max((each.offset for each in since.places if each.epoch == top.epoch), default=0)
        # A place may be ahead of what this node has taken over: then that comes once more.
        start = min(max(read, top.oldest - 1), top.offset)
        return Joined(top, start, recovered=start <= read, missed=max(start - read, 0))
    if isinstance(since, int):
        start = max(top.offset - min(since, MAX_REPLAY), top.oldest - 1)
        return Joined(top, start, recovered=True, missed=0)
    if since.epoch != top.epoch or since.offset > top.offset:
        return Joined(top, top.offset, recovered=False)
    missed = top.offset - since.offset
    if since.offset < top.oldest - 1 or missed > MAX_REPLAY:
        return Joined(top, top.offset, recovered=False, missed=missed)
    return Joined(top, since.offset, recovered=True, missed=0)


class Replay:
    """Brings subscribers of all topics up to date. Owner: the hub.

    `close` is how it ends connections that would have a gap, `spawn` how it starts tasks.
    """

    def __init__(
        self,
        read_log: Callable[[], Log],
        clock: Clock,
        *,
        close: Callable[[Connection, CloseCode], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._log = read_log
        self._encoder = ActivityEncoder()
        self._clock = clock
        self._close = close
        self._spawn = spawn
        self._rings: dict[Topic, None] = {}  # the longest unused first
        self._swept_at = 0.0
        self._loads = asyncio.Semaphore(LOADS)
        self._slots = asyncio.Semaphore(TURN_SENDS)
        self._used = 0
        self.reads = 0
        """Pages read from the log since the start."""

    def frame(self, topic: Topic, entry: Entry) -> bytes:
        """Return an entry as it is sent; empty for a notification that has expired."""
        if topic.kind == "user" and has_expired(entry.body, self._clock.time()):
            return b""
        return text_frame(self._encoder.message(entry, topic.kind))

    def start(self, topic: Topic, connection: Connection) -> None:
        """Begin to bring a connection up to date; without effect if that is under way."""
        progress = topic.catching_up.get(connection)
        if progress is None or progress.started:
            return
        if progress.offset == topic.offset:
            topic.go_live(connection)
        else:
            progress.started = True
            self._spawn(self._catch_up(topic, connection, progress))

    def hold(self, topic: Topic, connection: Connection) -> None:
        """Take a live connection back to where the topic is, until it has read what waits."""
        topic.hold(connection, topic.offset)
        progress = topic.catching_up[connection]
        progress.started = True
        self._spawn(self._catch_up(topic, connection, progress))

    def sweep(self, now: float) -> None:
        """Let go of rings that nobody used for a while, and of the longest unused of too many."""
        idle = now - self._swept_at >= RING_IDLE_S
        if idle:
            self._swept_at = now
        size = sum(topic.ring.size for topic in self._rings if topic.ring is not None)
        for topic in list(self._rings):
            ring = topic.ring
            if ring is None or size > RINGS_BYTES or (idle and not ring.used):
                size -= ring.size if ring is not None else 0
                self.drop(topic)
            elif idle:
                ring.used = False

    def drop(self, topic: Topic) -> None:
        """Let go of a topic's ring."""
        topic.ring = None
        self._rings.pop(topic, None)

    async def _catch_up(self, topic: Topic, connection: Connection, progress: Progress) -> None:
        """Replay until nothing is missing with no await in between, then go live.

        `progress` is this task's own: one that was replaced meanwhile ends it.
        """

        def is_wanted() -> bool:
            return topic.catching_up.get(connection) is progress

        try:
            await connection.transport.drained()
            while is_wanted():
                if progress.offset == topic.offset:
                    topic.go_live(connection)
                    return
                only = topic.filter_of(connection)
                frames = await self._frames(topic, progress.offset, only)
                if not is_wanted():
                    return
                if frames is None:
                    self._close(connection, CloseCode.GAP)
                    return
                # Drained after each piece: a page of large activities is more than may wait.
                for piece in pieces(frames):
                    await self._take_slot()
                    if not is_wanted():
                        return
                    if data := b"".join(piece):
                        connection.transport.send(data)
                    # Before the wait, during which the client may acknowledge it.
                    progress.offset += len(piece)
                    await connection.transport.drained()
        except Unavailable:
            self._close(connection, CloseCode.GAP)
        except Exception:  # a bug; its client must not wait for the rest for ever
            log.exception("a replay failed", extra={"topic": topic.name})
            self._close(connection, CloseCode.GAP)

    async def _take_slot(self) -> None:
        """Wait for one of the sends of a turn; after a large batch thousands want one at once."""
        await self._slots.acquire()
        if not self._used:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._used += 1

    def _end_turn(self) -> None:
        used, self._used = self._used, 0
        for _ in range(used):
            self._slots.release()

    async def _frames(self, topic: Topic, after: int, only: Only | None) -> Sequence[bytes] | None:
        """Return some frames after an offset, one for each entry; None if there is a hole.

        One is empty for an entry that is not sent: the count has to be right before anything else.
        """
        # Not for inboxes, whose entries expire, nor for filters, which look into the entries.
        if topic.kind != "user" and only is None:
            found = await self._from_ring(topic, after)
            if found:
                return found
        self.reads += 1
        page = await self._log().read(topic.name, after, PAGE)
        # What the topic has not taken over yet (it is being repaired) will come live.
        entries = [entry for entry in page.entries if entry.offset <= topic.offset]
        if page.top.epoch != topic.epoch or not contiguous(after, entries):
            return None
        return [
            self.frame(topic, entry) if only is None or only.wants(read_head(entry.body)) else b""
            for entry in entries
        ]

    async def _from_ring(self, topic: Topic, after: int) -> Sequence[bytes] | None:
        ring = topic.ring
        if ring is None:
            ring = topic.ring = Ring(topic.offset + 1)
            ring.loading = self._spawn(self._load(topic, ring))
        # Used: to the end of those that are let go.
        self._rings.pop(topic, None)
        self._rings[topic] = None
        ring.used = True
        if ring.loading is not None:
            # Shielded: one waiter that is cancelled must not take the ring from the others.
            await asyncio.shield(ring.loading)
        return ring.after(after)

    async def _load(self, topic: Topic, ring: Ring) -> None:
        """Fill a new ring with what came before it; what comes meanwhile is in it already."""
        try:
            async with self._loads:
                self.reads += 1
                page = await self._log().read(topic.name, ring.first, RING_ENTRIES, reverse=True)
            entries = page.entries[::-1]
            if page.top.epoch == topic.epoch and contiguous(ring.first - 1 - len(entries), entries):
                ring.fill([self.frame(topic, entry) for entry in entries])
        except Unavailable:
            self.drop(topic)  # the log itself will say so to those who wait
        finally:
            ring.loading = None


def contiguous(after: int, entries: Sequence[Entry]) -> bool:
    """Tell whether entries follow an offset without a hole; none at all is a hole."""
    return bool(entries) and all(
        entry.offset == after + index for index, entry in enumerate(entries, 1)
    )
