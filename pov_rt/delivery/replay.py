"""What a subscriber missed, sent before anything live: from a ring of recent messages, or the log.

How it works. A subscriber has a place, the offset up to which it was sent everything (`Progress`).
A connection that missed something, on however many topics, has one task that brings it up to date,
and one for what it pays for: read what follows a place, wait until little is unsent, and in that
step send a piece and move the place on. So the bound on what waits for a client holds however many
topics it has missed, much to replay is no slow client, and its topics go on in turn, a page each.
What is published meanwhile only moves the topic's offset. The step that finds the place at that
offset, with no `await` in between, makes the subscriber live. Where little was missed, the ring has
it and there is nothing to wait for, all of this is done in the step of the answer, without a task.

What ends it instead: the place cannot be followed without a hole (the log does not hold it, or
retention took entries), or the log cannot be read. Then the connection is closed, to come back and
recover: never is anything left out in silence. A place that was replaced (the client asked for
something once more, or left) is passed over.

Where it is read. From a ring, which a topic has from the first client that missed something until a
minute after the last one: when everybody reconnects at once, the log is read once for a topic and
not once for each of them. From the log itself where the ring does not reach, for inboxes, whose
entries expire, and for those with filters, which look into the entries.

All that want to go on at once share a turn's sends (`Slots`), and rings are loaded a few at a time,
for their owners in turn. What was missed before the subscription is paid for by its user, whose
replays wait while little is left of the budget. What comes after it is not: it costs what it would
have cost live.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from pov_rt.connections.borders import Borders, Replayed
from pov_rt.connections.budgets import BYTE, ROW
from pov_rt.connections.connection import Connection
from pov_rt.delivery.entries import ActivityEncoder, Log, has_expired
from pov_rt.delivery.filters import Only, Since
from pov_rt.delivery.pieces import divide
from pov_rt.delivery.ring import RING_ENTRIES, RING_IDLE_S, RINGS_BYTES, Page, Ring
from pov_rt.delivery.stored import Reader
from pov_rt.delivery.topic import Progress, Topic
from pov_rt.engine.base import Engine, Entry, Position, Top
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.runtime import turns
from pov_rt.runtime.bounds import FairSlots, payer
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.containment import Tasks
from pov_rt.transport.bounds import Framing

log = logging.getLogger(__name__)

MAX_REPLAY = 1000
"""Activities replayed at once; whoever missed more is told so, and pages through the history."""
PAGE = 100
PAGE_BYTES = 256 * 1024
"""What is read at once for a connection: what waits until its client has read is in memory."""
ROUNDS = 8
"""Of a topic that is nearly up to date so many pieces are sent before another has its turn: while
that one has it, more is published here."""
POSITION_ENTRIES = 256
"""Those with a filter are told how far they are after so many entries of which they were sent none.
A fraction of `MAX_REPLAY`: who comes back must not be too far behind."""
LOADS = 4
"""Rings loaded at a time. Each wakes all who wait for it, and everybody else waits for them
(docs/measurements.md, rings)."""


POSITION = b'{"type":"position",'


class Start(NamedTuple):
    """A subscription as it begins: `start` is the offset after which it gets everything.

    `recovered` is None where nothing was asked for. `missed` is how many entries lie between the
    position asked for and `start`, None where nobody can know.
    """

    top: Top
    start: int
    recovered: bool | None = None
    missed: int | None = None


Behind = deque[tuple[Topic, Progress]]
"""What a connection has to be brought up to date on, in turn."""


class AfterMarks(NamedTuple):
    """Everything that is kept after the furthest of these places, however much that is."""

    places: Sequence[Position]


def recover(top: Top, since: Since | AfterMarks | None) -> Start:
    """Decide from where a subscriber is served: never from somewhere in between."""
    if since is None:
        return Start(top, top.offset)
    if isinstance(since, AfterMarks):
        read = max((each.offset for each in since.places if each.epoch == top.epoch), default=0)
        # A place may be ahead of what this node has taken over: then that comes once more.
        start = min(max(read, top.oldest - 1), top.offset)
        return Start(top, start, recovered=start <= read, missed=max(start - read, 0))
    if isinstance(since, int):
        start = max(top.offset - min(since, MAX_REPLAY), top.oldest - 1)
        return Start(top, start, recovered=True, missed=0)
    if since.epoch != top.epoch or since.offset > top.offset:
        return Start(top, top.offset, recovered=False)
    missed = top.offset - since.offset
    if since.offset < top.oldest - 1 or missed > MAX_REPLAY:
        return Start(top, top.offset, recovered=False, missed=missed)
    return Start(top, since.offset, recovered=True, missed=0)


class Joining:
    """What a connection asked for of a topic, until `Hub.confirm` or `Hub.undo`.

    `start` says from where it will be served, and `since` what was asked for, with the log's epoch
    where that holds it. The hub's own, save for that.
    """

    __slots__ = ("connection", "moves", "only", "progress", "since", "start", "topic")

    def __init__(
        self, connection: Connection, topic: Topic, progress: Progress, only: Only | None
    ) -> None:
        self.connection = connection
        self.topic = topic
        self.progress = progress
        self.only = only
        self.moves = False
        self.since: Since | AfterMarks | None = None
        self.start = Start(Top("", 0, 1), 0)


class Replay:
    """Brings subscribers of all topics up to date. Owner: the hub, which ends the tasks."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        tasks: Tasks,
        stored: Reader,
        borders: Borders,
        compare: Callable[[Topic], Awaitable[None]],
        *,
        feeds_fade: bool,
    ) -> None:
        self._engine = engine
        self._compare = compare
        self._borders = borders
        self._feeds_fade = feeds_fade
        self._stored = stored
        self._encoder = ActivityEncoder()
        self._clock = clock
        self._tasks = tasks
        self._rings: dict[Topic, None] = {}  # the longest unused first
        self._swept_at = 0.0
        self._loads = FairSlots(LOADS)
        self._slots = turns.Slots(turns.SENDS)
        # Twice for a connection: what it does not pay for waits for no budget.
        self._behind: dict[tuple[Connection, bool], Behind] = {}
        self._at_work: dict[tuple[Connection, bool], asyncio.Task[None]] = {}

    def message(self, topic: Log, entry: Entry) -> bytes:
        """Return an entry as a message; empty for a notification that has expired."""
        if topic.kind == "user" and has_expired(entry.body, self._clock.time()):
            return b""
        return self._encoder.message(entry, topic.kind)

    def is_behind(self, connection: Connection) -> bool:
        """Tell whether a connection is being brought up to date, on any topic."""
        return (connection, True) in self._behind or (connection, False) in self._behind

    def start(self, topic: Topic, connection: Connection) -> None:
        """Bring a connection up to date, unless it has to be answered first."""
        progress = topic.catching_up[connection]
        if progress.asked:
            return
        if progress.offset == topic.offset:
            topic.go_live(connection)
        elif not self._replay_now(topic, connection, progress):
            self._begin(topic, connection, progress)

    def hold(self, topic: Topic, connection: Connection) -> None:
        """Take a live connection back to where the topic is, until it has read what waits."""
        self._begin(topic, connection, topic.hold(connection))
        if (held := self._borders.held) is not None:
            held(connection, topic.name, topic.offset)

    def forget(self, connection: Connection) -> None:
        """End what is under way for a connection that is gone: it may be waiting for a budget."""
        for is_paid in (True, False):
            self._behind.pop((connection, is_paid), None)
            task = self._at_work.pop((connection, is_paid), None)
            if task is not None:
                task.cancel()

    def _begin(self, topic: Topic, connection: Connection, progress: Progress) -> None:
        progress.since = self._clock.monotonic()
        key = connection, progress.offset < progress.paid_to
        behind = self._behind.get(key)
        if behind is None:
            behind = self._behind[key] = deque()
            self._at_work[key] = self._tasks.spawn(self._catch_up(key, behind))
        behind.append((topic, progress))

    def _replay_now(self, topic: Topic, connection: Connection, progress: Progress) -> bool:
        """Send all that is missing and go live, if it is little, at hand and to wait for nothing.

        Returns whether it was; else nothing has happened. It leaves together with the answer.
        """
        ring, transport, now = topic.ring, connection.transport, self._clock.monotonic()
        is_paid = progress.offset < progress.paid_to
        if (
            ring is None
            or ring.loading is not None
            or not self._is_same_for_all(topic)
            or connection in topic.only
            or connection.is_exact
            or connection in topic.instead
            or connection.close_reason is not None
            or transport.unsent_bytes
            or self.is_behind(connection)
            or (is_paid and not connection.budget.has_spare(now))
        ):
            return False
        page = _page_of(ring, progress.offset, transport.framing, plain=connection.plain)
        if page is None or not self._slots.take_now():
            return False
        self._use(topic, ring)
        if is_paid:
            connection.budget.charge(page.cost, now)
        if page.data:
            transport.send(page.data)
        topic.go_live(connection)
        if (replayed := self._borders.replayed) is not None:
            replayed(connection, Replayed(topic.name, topic.offset, 0.0))
        return True

    def sweep(self, now: float) -> None:
        """Release rings that nobody used for a while, and the longest unused of too many."""
        idle = now - self._swept_at >= RING_IDLE_S
        if idle:
            self._swept_at = now
        size = sum(topic.ring.held for topic in self._rings if topic.ring is not None)
        for topic in list(self._rings):
            ring = topic.ring
            if ring is None or size > RINGS_BYTES or (idle and not ring.used):
                size -= ring.held if ring is not None else 0
                self.drop(topic)
            elif idle:
                ring.used = False

    def drop(self, topic: Topic) -> None:
        """Release a topic's ring."""
        topic.ring = None
        self._rings.pop(topic, None)

    async def _catch_up(self, key: tuple[Connection, bool], behind: Behind) -> None:
        """Bring a connection up to date on its topics, in turn; each key has one such task."""
        connection = key[0]
        payer.set(connection.budget.owner)
        try:
            while behind and not connection.closed:
                topic, progress = behind.popleft()
                for _ in range(ROUNDS):
                    if await self._go_on(topic, connection, progress):
                        break
                if topic.catching_up.get(connection) is progress and not connection.close_reason:
                    behind.append((topic, progress))
        except Unavailable:
            connection.close(CloseCode.GAP)
        except Exception:  # a bug; its client must not wait for the rest for ever
            log.exception("a replay failed")
            connection.close(CloseCode.GAP)
        finally:
            self._behind.pop(key, None)
            self._at_work.pop(key, None)

    async def _go_on(self, topic: Topic, connection: Connection, progress: Progress) -> bool:
        """Send some of what is missing, or go live; return whether it is another topic's turn.

        Going live is decided with no await in between: `progress` is at the top now.
        """

        def is_wanted() -> bool:
            # One that has asked for something meanwhile has another place, and one that is being
            # closed may have none any more.
            is_place = topic.catching_up.get(connection) is progress
            return is_place and connection.close_reason is None

        transport = connection.transport
        await transport.drained()
        if not is_wanted():
            return True
        if progress.offset == topic.offset:
            topic.go_live(connection)
            if (replayed := self._borders.replayed) is not None:
                took_s = self._clock.monotonic() - progress.since
                replayed(connection, Replayed(topic.name, topic.offset, took_s))
            return True
        only = topic.only.get(connection)
        is_paid = progress.offset < progress.paid_to
        if is_paid:
            await connection.budget.spare(self._clock.monotonic)
        bodies = await self._bodies(topic, progress.offset, only)
        if not is_wanted():
            return True
        if bodies is None:
            raise Unavailable("there is a hole")
        pieces = list(divide(bodies))
        # Drained before each piece: a page of large activities is more than may wait.
        for piece in pieces:
            await self._slots.take()
            await transport.drained()
            if not is_wanted():
                return True
            if is_paid:
                cost = len(piece) * ROW + sum(map(len, piece)) * BYTE
                connection.budget.charge(cost, self._clock.monotonic())
            if sent := self._put_instead(topic, connection, progress, piece):
                up_to_date = progress.offset == topic.offset
                transport.send(transport.framing.join(sent, up_to_date=up_to_date))
        return len(pieces) > 1 or len(bodies) >= PAGE

    def _put_instead(
        self, topic: Topic, connection: Connection, progress: Progress, piece: Sequence[bytes]
    ) -> list[bytes]:
        """Move the place on by a piece; return what of it is sent, and in the place of it."""
        instead, start = topic.instead.get(connection), progress.offset
        progress.offset += len(piece)
        progress.highest = max(progress.highest, progress.offset)
        if connection.plain:  # it does not know what a position is
            piece = [b"" if body.startswith(POSITION) else body for body in piece]
        if not (instead or connection in topic.only or connection.is_exact):
            return [body for body in piece if body]
        sent: list[bytes] = []
        for offset, body in enumerate(piece, start + 1):
            found = instead.pop(offset, None) if instead else None
            if found is None:
                found = [body] if body else []
            if found:
                sent += found
                progress.told = offset
        is_told = connection.gets_positions and (connection in topic.only or connection.is_exact)
        untold = 1 if connection.is_exact else POSITION_ENTRIES
        if is_told and progress.offset - progress.told >= untold:
            progress.told = progress.offset
            sent.append(position_of(topic, progress.offset))
        return sent

    async def _bodies(self, topic: Topic, after: int, only: Only | None) -> Sequence[bytes] | None:
        """Return some messages after an offset, one for each entry; None if there is a hole.

        None of them if the log has just got another epoch. One is empty for an entry that is not
        sent: the count has to be right before anything else.
        """
        # Nor for filters, which look into the entries.
        if only is None and self._is_same_for_all(topic):
            found = await self._from_ring(topic, after)
            if found:
                return found
        page = await self._engine.log.read(topic.name, after, PAGE, max_bytes=PAGE_BYTES)
        # What the topic has not taken over yet (it is being repaired) will come live.
        entries = [entry for entry in page.entries if entry.offset <= topic.offset]
        if page.top.epoch != topic.epoch:
            # Another epoch, which the hub adopts, or it ends the subscription.
            await self._compare(topic)
            return []
        if not contiguous(after, entries):
            return None
        return [self._body(topic, entry, only) for entry in entries]

    def read(self, topic: Log, entry: Entry, only: Only | None = None) -> bytes:
        """Return what was read from the log as a message; empty for what is not sent."""
        if not entry.body:  # nothing is left of it (`stored`)
            return b""
        if only is None:
            wanted = self._stored.is_good(topic.name, entry)
        else:
            head = self._stored.head(topic.name, entry)
            wanted = head is not None and only.wants(head)
        return self.message(topic, entry) if wanted else b""

    def _body(self, topic: Topic, entry: Entry, only: Only | None = None) -> bytes:
        """Return what `read` does; but whoever wants all is told where nothing is left of one."""
        if only is None and not entry.body and topic.kind != "user":
            return position_of(topic, entry.offset)  # or it would be a hole
        return self.read(topic, entry, only)

    def _is_same_for_all(self, topic: Topic) -> bool:
        """Tell whether what all of an entry are sent who want it is the same, whenever it is read.

        Not in inboxes, whose entries expire, nor in feeds with some that are too old for their
        PoVs.
        """
        return topic.kind != "user" and not (self._feeds_fade and topic.kind == "team")

    def _use(self, topic: Topic, ring: Ring) -> None:
        """Put a ring to the end of those that are released."""
        self._rings.pop(topic, None)
        self._rings[topic] = None
        ring.used = True

    async def _from_ring(self, topic: Topic, after: int) -> Sequence[bytes] | None:
        ring = topic.ring
        if ring is None:
            ring = topic.ring = Ring(topic.offset + 1)
            ring.loading = self._tasks.spawn(self._load(topic, ring))
        self._use(topic, ring)
        if ring.loading is not None:
            # Shielded: one waiter that is cancelled must not take the ring from the others.
            await asyncio.shield(ring.loading)
        return ring.after(after)

    async def _load(self, topic: Topic, ring: Ring) -> None:
        """Fill a new ring with what came before it; what comes meanwhile is in it already."""
        try:
            async with self._loads:
                page = await self._engine.log.read(
                    topic.name, ring.first, RING_ENTRIES, reverse=True
                )
            entries = page.entries[::-1]
            if page.top.epoch == topic.epoch and contiguous(ring.first - 1 - len(entries), entries):
                ring.fill([self._body(topic, entry) for entry in entries])
        except Unavailable:
            self.drop(topic)  # the log itself will say so to those who wait
        finally:
            ring.loading = None


def _page_of(ring: Ring, after: int, framing: Framing, *, plain: bool) -> Page | None:
    """Return all that follows an offset, in one piece; None if it is not there, or too much.

    Who lost the network at once, or the server, has missed the same: it is joined once for them.
    """
    page = ring.page
    if page is not None and page.of == (after, framing, plain):
        return page
    bodies = ring.after(after)
    if not bodies or len(list(divide(bodies))) > 1:
        return None
    told = [each for each in bodies if each and not (plain and each.startswith(POSITION))]
    data = framing.join(told) if told else b""
    cost = len(bodies) * ROW + sum(map(len, bodies)) * BYTE
    page = ring.page = Page((after, framing, plain), data, cost)
    return page


def position_of(topic: Topic, offset: int, epoch: str = "") -> bytes:
    """Return the message that says how far a subscription has come that is not sent all.

    With an epoch: that the log has this one now, in which the subscription is where it was.
    """
    more = {"epoch": epoch} if epoch else {}
    return encode({"type": "position", "povId": topic.pov_id, **more, "offset": offset})


def contiguous(after: int, entries: Sequence[Entry]) -> bool:
    """Tell whether entries follow an offset without a hole; none at all is a hole."""
    return bool(entries) and all(
        entry.offset == after + index for index, entry in enumerate(entries, 1)
    )
