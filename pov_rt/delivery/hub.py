"""Who on this node gets what: topics, their subscribers, and the engine's news for them.

How it works. A topic is followed from its first subscriber until a while after its last. A
publication costs what its subscribers cost: it touches its topic's groups and nothing else.

A subscriber is in one of four states, and is sent every entry once, in order, without a gap:

    joining      It is sent nothing, for the answer to its request comes first. Then `start` makes
                 it live, if it misses nothing, or catching up. In `catching_up`, not started.
    catching up  It is sent what it missed, at its pace (`replay`), until its place is the topic's
                 offset: then it is live. In `catching_up`, started.
    live         It is sent what is published, at the end of the turn. In `groups`.
    held         It was live and reads slowly, or a turn had too much for it: catching up anew.

`leave`, or the end of the connection, ends each; to join again while it is subscribed makes it
joining from where it asks for. A subscriber that would have a gap is closed with 4004, to come
back.

The turn. What is published in a turn of the event loop waits in its topic (`pending`) and leaves at
the turn's end (`flush`), joined. Who is sent anything else before that is sent first what waits for
it (`settle`): connections do so by themselves, so that what they send comes after all that was
delivered to them before. A topic's entries come in their order; topics have none among each other.

The log. The engine tells of entries once they are durable, per topic in order. While a topic's
state is being read, what is told is only remembered (`seen`); where something may have been missed,
the topic is compared with its log (`uncertain`), and a hole closes its subscribers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from pov_rt.connections.connection import Connection
from pov_rt.delivery.filters import Only, Since
from pov_rt.delivery.pieces import Shares, Spread, send_share
from pov_rt.delivery.replay import PAGE, AfterMarks, Replay, Start, contiguous, recover
from pov_rt.delivery.stored import Reader
from pov_rt.delivery.topic import Pending, Topic, choose
from pov_rt.engine.base import Engine, Entry, Position, Top
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.runtime import containment, turns
from pov_rt.runtime.clock import Clock

log = logging.getLogger(__name__)

RETRY_S = 1.0
LINGER_S = 15.0
"""A topic nobody is subscribed to any more is still followed for this long: with its ring, for
those who come back after a reload or a broken network."""
MAX_IDLE = 20_000
"""Of more of them the oldest are followed no longer: a client can subscribe to many, and leave."""
POSITION_S = 5.0
"""How often those with a filter are told the offset that they have reached."""


class Hub:
    """The subscriptions of this node; the engine's follower. Owner: the server."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._topics: dict[str, Topic] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._dirty: list[Topic] = []
        self._spread = Spread()
        self.unsettled = False
        """Whether anything waits for the end of the turn."""
        self._idle: dict[str, Topic] = {}
        self.tasks = containment.Tasks(log, "a task of the hub")
        """What joins topics, and what the engine's news cause; they end with the hub."""
        self.stored = Reader(clock)
        self.replay = Replay(engine, clock, self.tasks, self.stored)
        self._positions_at = 0.0
        self._stand_ins: dict[str, tuple[Connection, Callable[[int], bytes]]] = {}
        self.delivered = 0
        """Messages handed to sockets since the start."""
        self.subscriptions = 0
        """Subscriptions of all connections: inboxes and plugins' channels do not count."""

    @property
    def topics(self) -> int:
        """How many topics are followed."""
        return len(self._topics)

    @property
    def expected(self) -> int:
        """How many entries are to be replaced by answers to their publishers (`expect`)."""
        return len(self._stand_ins)

    async def join(
        self,
        connection: Connection,
        name: str,
        since: Since | AfterMarks | None = None,
        only: Only | None = None,
    ) -> Start:
        """Register a connection on a topic and return the position from which it will be served.

        Nothing is delivered to it before `start`, and never what `only` leaves out. Joining again
        returns the current position, or serves it anew from where it asks for. Raises
        `Unavailable`; the connection is then not registered.
        """
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name, self._spread)
            topic.opening = self.tasks.spawn(self._open(topic))
        topic.users += 1
        try:
            if topic.opening is not None:
                # Shielded: one waiter that is cancelled must not take the topic from the others.
                await asyncio.shield(topic.opening)
            oldest = (await self._engine.log.top(name)).oldest
        except BaseException:
            self._release(topic)
            raise
        joined = recover(Top(topic.epoch, topic.offset, oldest), since)
        if connection.closed or name in connection.topics:
            self._release(topic)
            if not connection.closed:
                topic.set_filter(connection, only)
                if since is not None:
                    topic.hold(connection, joined.start)
            self.settle(connection)
        else:
            connection.topics[name] = topic
            self.subscriptions += topic.is_subscription
            topic.enter(connection, joined.start, only)
        return joined

    def start(self, connection: Connection, name: str) -> None:
        """Deliver from now on; what was missed since where it was joined comes first."""
        if name in connection.topics:
            self.replay.start(self._topics[name], connection)

    def delivered_to(self, connection: Connection, name: str) -> Position | None:
        """Return up to where a connection was sent everything; None if it is not subscribed."""
        if name not in connection.topics:
            return None
        topic = self._topics[name]
        return Position(topic.epoch, topic.delivered(connection))

    def hold(self, connection: Connection) -> None:
        """Replay to a connection that reads slowly, at its pace, instead of piling it up.

        Not what plugins tell their listeners: it is in no log, and would be missed in silence.
        """
        for topic in self._joined(connection):
            if topic.has_log and connection in topic.group(connection):
                self.replay.hold(topic, connection)

    def leave(self, connection: Connection, name: str) -> bool:
        """Remove a connection from a topic; return whether it was there."""
        if connection.topics.pop(name, None) is None:
            return False
        topic = self._topics[name]
        self.subscriptions -= topic.is_subscription
        topic.remove(connection)
        self._release(topic)
        return True

    def promote(self, connection: Connection) -> None:
        """Move a client that asked for more than the first block to the groups that get signals."""
        self.settle(connection)
        moved = [(topic, topic.leave_group(connection)) for topic in self._joined(connection)]
        connection.plain = False
        for topic, send in moved:
            if send is not None:
                topic.group(connection)[connection] = send

    def broadcast(self, name: str, body: bytes, spare: Connection | None = None) -> None:
        """Send a signal to a topic's subscribers on all nodes; `body` is one encoded message."""
        self._deliver_signal(name, body, spare)
        self._engine.signals.send(name, body, spare.id if spare else "")

    # What the engine tells its follower:

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Take over durable entries of a topic."""
        known = self._topics.get(topic)
        if known is None:
            return
        if known.opening is not None or known.repairing:
            # The log's state is being read. What it may not have in it yet is remembered.
            known.seen = entries[-1].offset
            return
        fresh = [entry for entry in entries if entry.offset > known.offset]
        if epoch != known.epoch or (fresh and fresh[0].offset != known.offset + 1):
            self.uncertain(topic)
        else:
            self._take(known, fresh)

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Deliver another node's signal to this node's subscribers."""
        self._deliver_signal(topic, body, None)

    def uncertain(self, topic: str) -> None:
        """Compare a topic with its log and deliver what was missed; close clients on a gap."""
        known = self._topics.get(topic)
        if known is not None and known.opening is None and not known.repairing:
            known.repairing = True
            self.tasks.spawn(self._repair(known))

    # The end of a turn, and of time:

    def settle(self, connection: Connection) -> None:
        """Send a connection what waits for it, so that what follows comes after."""
        if self._spread.shares:
            self._spread.settle(connection)
        mine, dirty = connection.topics, self._dirty
        # Whichever are fewer: neither a busy node nor a busy client makes each reply dear.
        if len(dirty) <= len(mine):
            for topic in dirty:
                topic.settle(connection)
        else:
            for followed in mine.values():
                followed.settle(connection)

    def flush(self) -> None:
        """Send what this turn produced, in one piece to each connection.

        Topics with few subscribers go first, as many as fit the turn (`choose`). Those with many
        take several turns, one after the other; what comes for these meanwhile waits, joined.
        """
        self.unsettled = False
        if len(self._dirty) == 1 and not self._spread.shares:
            (topic,) = self._dirty
            if topic.users <= turns.SENDS:  # which is nearly always all there is
                self._dirty = []
                self.delivered += topic.flush()
                return
        is_free = not self._spread.shares
        few, many, self._dirty = choose(self._dirty, turns.SENDS, is_free=is_free)
        left = turns.SENDS - sum(topic.users for topic in few)
        try:
            shares: Shares = {}
            for topic in few:
                self.delivered += topic.flush(shares)
            for connection, share in shares.items():
                self._spread.settle(connection)
                send_share(connection, share)
            if many:
                shares = {}
                for topic in many:
                    self.delivered += topic.flush(shares)
                self._spread.fill(shares)
            self._spread.drain(max(left, turns.SENDS // 4, 1))
        finally:
            if self._dirty or self._spread.shares:
                self._flush_soon()

    def _flush_soon(self) -> None:
        self.unsettled = True
        asyncio.get_running_loop().call_soon(self.flush)

    def sweep(self, now: float) -> None:
        """Stop following topics without subscribers; called about once a second."""
        too_many = len(self._idle) - MAX_IDLE
        for number, (name, topic) in enumerate(list(self._idle.items())):
            if topic.users:
                del self._idle[name]
            elif topic.idle_since is None:
                topic.idle_since = now
            elif now - topic.idle_since >= LINGER_S or number < too_many:
                del self._idle[name], self._topics[name]
                self.replay.drop(topic)
                self._closing[name] = self.tasks.spawn(self._unwatch(name))
        self.replay.sweep(now)
        if now - self._positions_at >= POSITION_S:
            self._positions_at = now
            for topic in self._topics.values():
                if topic.only and topic.offset != topic.positioned:
                    self._tell_position(topic)

    async def close(self) -> None:
        """Send what waits and end every task."""
        while self.unsettled:
            self.flush()
        await self.tasks.end()

    def expect(self, origin: str, connection: Connection, answer: Callable[[int], bytes]) -> None:
        """Have the entry of this origin replaced for its publisher by the answer to it.

        `answer` makes that from the offset. It takes the entry's place in the stream, so that the
        publisher misses no offset; `withdraw` tells whether it did. If it raises, nothing is
        replaced.
        """
        self._stand_ins[origin] = (connection, answer)

    def withdraw(self, origin: str) -> bool:
        """Expect it no more; return whether it was replaced."""
        return self._stand_ins.pop(origin, None) is None

    # Inside:

    def _joined(self, connection: Connection) -> list[Topic]:
        return [self._topics[name] for name in connection.topics]

    def _tell_position(self, topic: Topic) -> None:
        """Tell those with a filter how far they are, for they cannot see it."""
        topic.positioned = topic.offset
        body = encode({"type": "position", "povId": topic.pov_id, "offset": topic.offset})
        for connection in topic.only:
            if connection not in topic.catching_up:
                connection.send(body)

    def _deliver_signal(self, name: str, body: bytes, spare: Connection | None) -> None:
        topic = self._topics.get(name)
        if topic is not None and topic.has_listeners:
            self._add(topic, Pending(body, None, spare))

    def _take(self, topic: Topic, entries: Sequence[Entry], *, is_new: bool = True) -> None:
        """Deliver what follows; unless it is new, it was read from the log."""
        if not entries:
            return
        is_live = any(topic.groups.values())
        if is_live or topic.ring is not None:
            as_message = self.replay.message if is_new else self.replay.read
            bodies = [as_message(topic, entry) for entry in entries]
            if topic.ring is not None:
                topic.ring.add(bodies)
            if is_live:
                topic.pending_bytes += sum(map(len, bodies))
                if topic.pending_bytes > turns.SENT_BYTES:
                    self._hold_all(topic, entries[-1].offset)
                    return
                for body, entry in zip(bodies, entries, strict=True):
                    if entry.origin in self._stand_ins:
                        self._add(topic, self._stand_in(topic, entry, body))
                    elif body:
                        self._add(topic, Pending(body, entry.body))
        topic.offset = entries[-1].offset

    def _stand_in(self, topic: Topic, entry: Entry, body: bytes) -> Pending:
        """Replace an entry by its publisher's answer, for the publisher, if it gets it live."""
        connection, answer = self._stand_ins[entry.origin]
        # Not in the team feed, which has the entry at another offset.
        if topic.kind != "pov" or connection not in topic.group(connection):
            return Pending(body, entry.body)
        try:
            instead = answer(entry.offset)
        except BaseException as error:
            # A plugin's, in the engine's delivery: raised here, it would leave all publishers of
            # the commit without an answer. Its own publisher is told by who expects the entry.
            containment.contain(error)
            return Pending(body, entry.body)
        del self._stand_ins[entry.origin]
        return Pending(body, entry.body, connection, instead)

    def _hold_all(self, topic: Topic, offset: int) -> None:
        """Replay the entries up to `offset` to all subscribers, each at its pace."""
        topic.pending_bytes = 0
        for connection in topic.live:
            self.replay.hold(topic, connection)
        topic.offset = offset

    def _add(self, topic: Topic, item: Pending) -> None:
        if not topic.pending:
            self._dirty.append(topic)
            if not self.unsettled:
                self._flush_soon()
        topic.pending.append(item)

    async def _open(self, topic: Topic) -> None:
        try:
            if (closing := self._closing.get(topic.name)) is not None:
                await closing
            top = await self._engine.watch(topic.name)
        except BaseException:
            self._topics.pop(topic.name, None)
            raise
        topic.epoch, topic.offset = top.epoch, top.offset
        topic.opening = None
        if topic.seen > topic.offset:
            self.uncertain(topic.name)

    async def _unwatch(self, name: str) -> None:
        try:
            await self._engine.unwatch(name)
        finally:
            del self._closing[name]

    async def _repair(self, topic: Topic) -> None:
        """Read what was missed; on another epoch or a hole tell the clients by closing them."""
        try:
            while self._topics.get(topic.name) is topic:
                seen = topic.seen
                try:
                    page = await self._engine.log.read(topic.name, topic.offset, PAGE)
                except Unavailable as error:
                    log.warning("cannot compare a topic with its log: %s", error)
                    await asyncio.sleep(RETRY_S)
                    continue
                if page.entries and page.top.epoch == topic.epoch:
                    if contiguous(topic.offset, page.entries):
                        self._take(topic, page.entries, is_new=False)
                        continue
                elif page.top == Top(topic.epoch, topic.offset, page.top.oldest):
                    if topic.seen <= topic.offset:
                        return
                    if seen <= topic.offset:
                        continue  # it was told of while the log was being read: read again
                self._reset(topic, page.top)
                return
        finally:
            topic.repairing = False

    def _reset(self, topic: Topic, top: Top) -> None:
        members = [*topic.live, *topic.catching_up]
        self.replay.drop(topic)
        topic.epoch, topic.offset, topic.seen = top.epoch, top.offset, 0
        log.warning("the log of a topic has a gap", extra={"topic": topic.name})
        for connection in members:
            topic.settle(connection)
            connection.close(CloseCode.GAP)

    def _release(self, topic: Topic) -> None:
        topic.users -= 1
        if topic.users == 0 and self._topics.get(topic.name) is topic:
            topic.idle_since = None
            self._idle[topic.name] = topic
