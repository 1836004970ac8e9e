"""Who on this node gets what: topics, their subscribers, and the engine's news for them.

How it works. A topic is followed from its first subscriber until a while after its last. A
publication costs what its subscribers cost: it touches its topic's groups and nothing else.

A subscriber is in one of three states, and is sent every entry once, in order, without a gap:

    joining      It is sent nothing, for it has asked for something and is not answered yet. In
                 `catching_up`, `asked`.
    catching up  It is sent what it missed, at its pace (`replay`), until its place is the topic's
                 offset: then it is live. In `catching_up`.
    live         It is sent what is published, at the end of the turn. In `groups`.

`join` makes it joining, from whichever state, so that no answer speaks of a place that it is not
at. `confirm`, with the answer, does what was asked for: filter and place change in that instant.
`undo` leaves all as it was, and ends what no answer has confirmed. Both make it catching up, or
live if it misses nothing. `hold` takes a live one back: it reads slowly, or a turn has too much for
it. `leave`, or the end of the connection, ends each state. A subscriber that would have a gap is
closed with 4004, to come back.

Who is not live gets no signals. Of those that tell of a state it is sent the newest of each name
when it is (`remember`).

The turn. What is published in a turn of the event loop waits in its topic (`pending`) and leaves at
the turn's end (`flush`), joined. Who is sent anything else before that is sent first what waits for
it (`settle`): connections do so by themselves, so that what they send comes after all that was
delivered to them before. What waits for one connection, of all its topics, is bounded; who would be
sent more is held. A topic's entries come in their order; topics have none among each other.

The log. The engine tells of entries once they are durable, per topic in order. While a topic's
state is being read, what is told is only remembered (`seen`); where something may have been missed,
the topic is compared with its log (`uncertain`), and a hole closes its subscribers. If the log has
another epoch, in which all is held that was taken over (`places`), they go on and are told of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from pov_rt.connections.borders import Borders, Flushed, Joined, Left
from pov_rt.connections.connection import Connection
from pov_rt.delivery.filters import Only, Since
from pov_rt.delivery.others import OtherLogs
from pov_rt.delivery.pieces import Shares, Spread, send_share
from pov_rt.delivery.places import sought
from pov_rt.delivery.replay import (
    PAGE,
    POSITION_ENTRIES,
    AfterMarks,
    Joining,
    Replay,
    Start,
    contiguous,
    position_of,
    recover,
)
from pov_rt.delivery.stored import Reader
from pov_rt.delivery.topic import NOTHING, Expected, Pending, Topic, choose
from pov_rt.engine.base import Engine, Entry, Lease, Position, Top
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, LimitExceeded, RateLimited, Unavailable
from pov_rt.protocol.messages import Message
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
"""How often those with a filter are told the offset that they have reached, at least."""
MAX_INSTEAD = 256
"""Answers that may wait for their place in what a connection missed of a topic."""


class Hub:
    """The subscriptions of this node; the engine's follower. Owner: the server."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        borders: Borders | None = None,
        *,
        feeds_fade: bool = False,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._borders = borders = borders or Borders()
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
        self.replay = Replay(
            engine, clock, self.tasks, self.stored, borders, self._compare, feeds_fade=feeds_fade
        )
        self.others = OtherLogs()
        self._positions_at = 0.0
        self._expected: dict[str, Expected] = {}
        self._waiting_bytes = 0  # of all entries that wait for the end of the turn
        self.delivered = self._spread.delivered
        self.subscriptions = 0
        """Subscriptions of all connections: inboxes and plugins' channels do not count."""

    def all(self) -> list[Topic]:
        """Return every topic that is followed."""
        return list(self._topics.values())

    @property
    def topics(self) -> int:
        """How many topics are followed."""
        return len(self._topics)

    @property
    def expected(self) -> int:
        """How many entries are to be replaced by answers to their publishers (`expect`)."""
        return len(self._expected)

    def find_room(self, connection: Connection, name: str, most: int) -> None:
        """Raise `LimitExceeded` if a topic would be one subscription too many."""
        if name not in connection.topics:
            count = sum(topic.is_subscription for topic in connection.topics.values())
            if count >= most:
                raise LimitExceeded(f"A connection has at most {most} subscriptions", field="povId")

    async def join(
        self,
        connection: Connection,
        name: str,
        since: Since | AfterMarks | None = None,
        only: Only | None = None,
        *,
        most: int | None = None,
    ) -> Joining:
        """Register a connection on a topic and find out from where it will be served.

        Nothing of the topic is delivered to it until `confirm` or `undo`, one of which must follow.
        Who joins again without `since` goes on from where it is. Raises `LimitExceeded` if it would
        have more than `most` subscriptions, and `Unavailable`, also for a connection that is gone;
        then nothing has changed.
        """
        joining = self._enter(connection, name, only, most)
        topic, progress = joining.topic, joining.progress
        try:
            if topic.opening is not None:
                # Shielded: one waiter that is cancelled must not take the topic from the others.
                await asyncio.shield(topic.opening)
            known = await self._engine.log.top(name)
            if known.epoch != topic.epoch:
                # A place may be of that one, which this node has not heard of yet.
                await self._compare(topic)
            if since is not None:
                joining.since = since = await sought(self._engine.log, topic, since)
        except BaseException:
            self.undo(joining)
            raise
        top = Top(topic.epoch, topic.offset, known.oldest)
        if since is not None:
            if isinstance(since, Position):
                self.others.look(connection.identity.owner, since.epoch, top.epoch)
            joining.start = recover(top, since)
            joining.moves = True
        else:
            if progress.offset < 0:
                progress.offset = progress.told = top.offset
            joining.start = Start(top, progress.offset)
        return joining

    def stands(self, joining: Joining) -> bool:
        """Tell whether it can be confirmed: what it is about has not been ended meanwhile."""
        return joining.topic.catching_up.get(joining.connection) is joining.progress

    def confirm(self, joining: Joining) -> bool:
        """Do what was asked for, in the step of the answer; what is to come follows.

        Returns whether the subscription is new.
        """
        connection, topic, progress = joining.connection, joining.topic, joining.progress
        if not self.stands(joining):
            return False
        if joining.only is not None:
            topic.only[connection] = joining.only
        else:
            topic.only.pop(connection, None)
        if joining.moves:
            for answer in topic.move(connection, progress, joining.start.start):
                connection.send(answer)
            progress.paid_to = topic.offset
        sent, is_new, progress.stands = progress.highest, not progress.stands, True
        progress.highest = progress.offset if is_new else max(progress.highest, progress.offset)
        progress.asked -= 1
        if (joined := self._borders.joined) is not None:
            _, _, recovered, missed = joining.start
            place = topic.epoch, progress.offset, topic.offset
            new = is_new, 0 if is_new else sent
            joined(connection, Joined(topic.name, *place, recovered, missed, joining.only, *new))
        if joining.start.top.epoch != topic.epoch:  # since the answer was made
            self._tell_epoch(topic, connection, progress.offset)
        self.replay.start(topic, connection)
        return is_new

    def undo(self, joining: Joining) -> None:
        """Leave a subscription as it was; end one that nobody has confirmed."""
        if not self.stands(joining):
            return
        progress = joining.progress
        progress.asked -= 1
        if progress.stands:
            self.replay.start(joining.topic, joining.connection)
        elif not progress.asked:
            self.leave(joining.connection, joining.topic.name)

    def audience(self, *names: str) -> int:
        """Return how many times this node sends what happens on all of these topics."""
        return sum([self._topics[name].users for name in names if name in self._topics])

    def live(self, name: str) -> Sequence[Connection]:
        """Return the connections that get what happens on a topic as it happens."""
        topic = self._topics.get(name)
        return () if topic is None else topic.live

    def delivered_to(self, connection: Connection, name: str) -> Position | None:
        """Return up to where a connection was sent everything; None if it is not subscribed."""
        topic = self._topics.get(name)
        if topic is None or name not in connection.topics or topic.opening is not None:
            return None
        if connection.close_reason is not None:  # its place may have been in another epoch
            return None
        return Position(topic.epoch, topic.delivered(connection))

    def holds(self, name: str, place: Position) -> bool:
        """Tell whether a place in a followed topic that was given out is one, as far as is known.

        It is one of the topic's epoch then (`delivered_to`).
        """
        topic = self._topics.get(name)
        return topic is not None and topic.holds(place)

    def hold(self, connection: Connection) -> None:
        """Replay to a connection that reads slowly, at its pace, instead of piling it up.

        Not what plugins tell their listeners: it is in no log, and would be missed in silence.
        """
        for topic in self._joined(connection):
            if topic.has_log and connection in topic.group(connection):
                self.replay.hold(topic, connection)

    def leave(self, connection: Connection, name: str) -> bool:
        """Remove a connection from a topic; return whether an answer said that it was there."""
        topic = cast("Topic | None", connection.topics.pop(name, None))
        if topic is None:
            return False
        progress = topic.catching_up.get(connection)
        stood = progress is None or progress.stands
        if stood and (left := self._borders.left) is not None:
            left(connection, Left(name, topic.epoch, topic.delivered(connection)))
        self.subscriptions -= topic.is_subscription
        if answers := topic.remove(connection):
            # After the answer to what ended it: they have no place in what it was sent.
            asyncio.get_running_loop().call_soon(self._send_all, connection, answers)
        self._release(topic)
        return stood

    def promote(self, connection: Connection) -> None:
        """Move a client that asked for more than the first block to the groups that get signals."""
        self.settle(connection)
        moved = [(topic, topic.leave_group(connection)) for topic in self._joined(connection)]
        connection.plain = False
        for topic, send in moved:
            if send is not None:
                topic.group(connection)[connection] = send

    def broadcast(
        self, name: str, body: bytes, spare: Connection | None = None, *, here: bool = False
    ) -> None:
        """Send a signal to a topic's subscribers on all nodes; `body` is one encoded message.

        With `here` to those of this node alone.
        """
        self._deliver_signal(name, body, spare)
        if here:
            return
        self._engine.signals.send(name, body, spare.id if spare else "")

    def spare(self, connection: Connection, name: str, body: bytes) -> None:
        """Do not send a connection this signal, for its answer says the same, if it still waits."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.spare(connection, body)

    def remember(self, name: str, states: Mapping[str, Message]) -> None:
        """Keep what signals tell, by name, for those subscribers who do not get them now."""
        topic = self._topics.get(name)
        if topic is not None and topic.catching_up:
            for each, message in states.items():
                topic.remember(each, encode(message))

    # What the engine tells its follower:

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Take over durable entries of a topic."""
        known = self._topics.get(topic)
        if known is None:
            return
        if known.opening is not None or known.repairing is not None:
            # The log's state is being read. What it may not have in it yet is remembered.
            known.seen = entries[-1].offset
            return
        fresh = entries
        if entries[0].offset <= known.offset:
            fresh = [entry for entry in entries if entry.offset > known.offset]
        if epoch != known.epoch or (fresh and fresh[0].offset != known.offset + 1):
            self.uncertain(topic)
        elif fresh:
            self._take(known, fresh)

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Deliver another node's signal to this node's subscribers."""
        self._deliver_signal(topic, body, None)

    def uncertain(self, topic: str) -> None:
        """Compare a topic with its log and deliver what was missed; close clients on a gap."""
        known = self._topics.get(topic)
        if known is not None and known.opening is None and known.repairing is None:
            known.repairing = self.tasks.spawn(self._repair(known))

    async def _compare(self, topic: Topic) -> None:
        """Compare a topic with its log, as `uncertain`, and wait until that is done."""
        self.uncertain(topic.name)
        if topic.repairing is not None:
            await asyncio.shield(topic.repairing)

    def left(self, topic: str, leases: Sequence[Lease]) -> None:
        """Leave it to plugins, whose the leases are."""

    def rewritten(self, topic: str) -> None:
        """Read the topic's newest messages from the log again when somebody has missed some."""
        known = self._topics.get(topic)
        if known is not None:
            self.replay.drop(known)

    # The end of a turn, and of time:

    def settle(self, connection: Connection) -> None:
        """Send a connection what waits for it, so that what follows comes after."""
        if self._spread.shares:
            self._spread.settle(connection)
        mine, dirty = connection.topics, self._dirty
        # Whichever are fewer: neither a busy node nor a busy client makes each reply dear.
        if len(dirty) <= len(mine):
            for topic in [each for each in dirty if each.name in mine]:
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
                self._dirty, self._waiting_bytes = [], 0
                self._flush(topic)
                return
        few, many, self._dirty = choose(self._dirty, turns.SENDS, is_free=not self._spread.shares)
        self._waiting_bytes = sum(topic.pending_bytes for topic in self._dirty)
        left = turns.SENDS - sum(topic.users for topic in few)
        try:
            shares: Shares = {}
            for topic in few:
                self._flush(topic, shares)
            for connection, share in shares.items():
                self._spread.settle(connection)
                send_share(connection, share)
            if many:
                shares = {}
                for topic in many:
                    self._flush(topic, shares)
                self._spread.fill(shares)
            self._spread.drain(max(left, turns.SENDS // 4, 1))
        finally:
            if self._dirty or self._spread.shares:
                self._flush_soon()

    def _flush(self, topic: Topic, shares: Shares | None = None) -> None:
        messages = topic.flush(shares)
        if (flushed := self._borders.flushed) is not None:
            waited_s = self._clock.monotonic() - topic.waits_since
            flushed(Flushed(topic.name, topic.epoch, topic.offset, messages, waited_s))

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

    def expect(
        self, origin: str, connection: Connection, answer: Callable[[Position], bytes]
    ) -> None:
        """Have the entry of this origin replaced for its publisher by the answer to it.

        `answer` makes that from the entry's position. It takes the entry's place in the stream,
        whether that is sent live or replayed, so that the publisher misses no offset; `withdraw`
        tells whether it does. If `answer` raises, nothing is replaced. In a team's feed the entry
        is replaced by its position. Raises `RateLimited` if too many wait for their place.
        """
        if self.replay.is_behind(connection) and any(
            len(topic.instead.get(connection, ())) >= MAX_INSTEAD
            for topic in self._joined(connection)
        ):
            raise RateLimited(retry_after_s=1.0)
        self._expected[origin] = Expected(connection, answer)

    async def taken_over(self, connection: Connection, names: Sequence[str]) -> None:
        """Wait until none of these topics is being compared with its log: it has what is in it.

        What is published meanwhile the hub takes over from the log, and not when it is told.
        """
        for name in names:
            topic = cast("Topic | None", connection.topics.get(name))
            if topic is not None and topic.repairing is not None:
                await asyncio.shield(topic.repairing)

    def withdraw(self, origin: str) -> bool:
        """Expect it no more; return whether it was replaced, or will be."""
        return self._expected.pop(origin).is_answered

    def answer_at(self, connection: Connection, name: str, offset: int, answer: bytes) -> bool:
        """Put an answer in the place of an older entry that a connection is still to be sent.

        Returns whether it is; else the connection has been sent the entry, or is not subscribed.
        """
        topic = self._topics.get(name)
        progress = topic.catching_up.get(connection) if topic is not None else None
        if topic is None or progress is None or not 0 <= progress.offset < offset <= topic.offset:
            return False
        topic.put_instead(connection, offset, answer)
        return True

    # Inside:

    def _joined(self, connection: Connection) -> list[Topic]:
        return cast("list[Topic]", list(connection.topics.values()))

    def _send_all(self, connection: Connection, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            connection.send(body)

    def _enter(
        self, connection: Connection, name: str, only: Only | None, most: int | None
    ) -> Joining:
        """Make a connection joining."""
        if connection.closed:  # nobody would release it
            raise Unavailable("the connection is closed")
        topic = cast("Topic | None", connection.topics.get(name))
        if topic is not None:
            progress = topic.hold(connection)
        else:
            if most is not None:
                self.find_room(connection, name, most)
            topic = self._follow(name)
            topic.users += 1
            connection.topics[name] = topic
            self.subscriptions += topic.is_subscription
            progress = topic.enter(connection)
        progress.asked += 1
        return Joining(connection, topic, progress, only)

    def _follow(self, name: str) -> Topic:
        if (topic := self._topics.get(name)) is None:
            topic = self._topics[name] = Topic(name, self._spread)
            opening = self.tasks.begin(self._open(topic))
            topic.opening = None if topic.epoch else opening  # the engine may know at once
        return topic

    def _tell_position(self, topic: Topic) -> None:
        """Tell those with a filter how far they are, for they cannot see it."""
        topic.positioned = topic.offset
        body = position_of(topic, topic.offset)
        for connection in topic.only:
            if connection not in topic.catching_up and connection.gets_positions:
                connection.tell_position(body)

    def _deliver_signal(self, name: str, body: bytes, spare: Connection | None) -> None:
        topic = self._topics.get(name)
        if topic is not None and topic.has_listeners:
            self._add(topic, Pending(body, None, spare))

    def _take(self, topic: Topic, entries: Sequence[Entry], *, is_new: bool = True) -> None:
        """Deliver what follows; unless it is new, it was read from the log."""
        bodies: Sequence[bytes] = ()
        has_live = any(topic.groups.values())
        if topic.ring is not None or has_live:
            as_message = self.replay.message if is_new else self.replay.read
            bodies = [as_message(topic, entry) for entry in entries]
            if topic.ring is not None:
                topic.ring.add(bodies)
            size = sum(map(len, bodies))
            if has_live and self._waiting_bytes + size > turns.SENT_BYTES:
                has_live = self._make_room(topic, size)
            if has_live:
                topic.pending_bytes += size
                self._waiting_bytes += size
        instead = self._answer(topic, entries) if self._expected else {}
        for body, entry in zip(bodies, entries, strict=True) if has_live else ():
            if instead and entry.offset in instead:
                self._add(topic, Pending(body, entry.body, *instead[entry.offset]))
            elif body:
                self._add(topic, Pending(body, entry.body))
        topic.offset = entries[-1].offset
        if topic.only and topic.offset - topic.positioned >= POSITION_ENTRIES:
            self._tell_position(topic)

    def _make_room(self, topic: Topic, size: int) -> bool:
        """Replay what comes to those for whom too much of this turn waits.

        Return whether anybody is left who gets it as it comes.
        """
        for connection in topic.live:
            waits = sum(each.pending_bytes for each in self._joined(connection))
            if waits + size > turns.SENT_BYTES:
                self.replay.hold(topic, connection)
        return any(topic.groups.values())

    def _answer(
        self, topic: Topic, entries: Sequence[Entry]
    ) -> Mapping[int, tuple[Connection, bytes]]:
        """Replace entries for their publishers, by the answer to each or in a feed by its position.

        Returns by offset what those are sent who are live; the others get it in their replay.
        """
        live: dict[int, tuple[Connection, bytes]] = {}
        for entry in entries:
            expected = self._expected.get(entry.origin)
            if expected is None or topic.name not in expected.connection.topics:
                continue
            connection = expected.connection
            progress = topic.catching_up.get(connection)
            if progress is not None and progress.offset < 0:
                continue  # it is not subscribed yet
            if topic.kind == "team":
                instead = position_of(topic, entry.offset)
            else:
                try:
                    instead = expected.answer(Position(topic.epoch, entry.offset))
                except BaseException as error:
                    # A plugin's, in the engine's delivery: raised here, it would leave all
                    # publishers of the commit without an answer. Its own one is told by who
                    # expects the entry.
                    containment.contain(error)
                    continue
                expected.is_answered = True
            if progress is None:
                live[entry.offset] = connection, instead
            else:
                topic.put_instead(connection, entry.offset, instead)
        return live

    def _add(self, topic: Topic, item: Pending) -> None:
        if not topic.pending:
            if self._borders.flushed is not None:
                topic.waits_since = self._clock.monotonic()
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
        """Read what was missed; on a hole, or an epoch without it, close the clients."""
        try:
            while self._topics.get(topic.name) is topic:
                seen = topic.seen
                try:
                    page = await self._engine.log.read(topic.name, topic.offset, PAGE)
                    is_held = page.top.epoch == topic.epoch or await self._is_held(topic)
                except Unavailable as error:
                    log.warning("cannot compare a topic with its log: %s", error)
                    await asyncio.sleep(RETRY_S)
                    continue
                if page.top.epoch != topic.epoch:
                    if is_held:
                        self._adopt(topic, page.top.epoch)
                        continue
                elif page.entries:
                    if contiguous(topic.offset, page.entries):
                        self._take(topic, page.entries, is_new=False)
                        continue
                elif page.top == Top(topic.epoch, topic.offset, page.top.oldest):
                    if topic.seen <= topic.offset:
                        return
                    if seen <= topic.offset:
                        continue  # it was told of while the log was being read: read again
                # And look at it once more: it may have more by now, which was told of meanwhile.
                self._reset(topic, page.top)
        finally:
            topic.repairing = None

    async def _is_held(self, topic: Topic) -> bool:
        """Tell whether the log has all up to where a topic is; nothing stands in a channel's."""
        if not topic.has_log:
            return True
        return await self._engine.log.holds(topic.name, Position(topic.epoch, topic.offset))

    def _adopt(self, topic: Topic, epoch: str) -> None:
        """Go on under another epoch, and tell of it all who know the one before."""
        topic.adopt(epoch)
        # What was told of meanwhile is in the log, which is read next.
        topic.seen = 0
        if topic.is_subscription and topic.has_listeners:
            self._add(topic, Pending(position_of(topic, topic.offset, epoch), None))
        for connection in topic.live:
            if connection.is_exact:
                self._tell_epoch(topic, connection, topic.offset)
        for connection, progress in topic.catching_up.items():
            if not progress.asked:  # an answer comes first
                self._tell_epoch(topic, connection, progress.offset)

    def _tell_epoch(self, topic: Topic, connection: Connection, offset: int) -> None:
        """Tell a connection that all it was sent, up to an offset, is in the topic's epoch now."""
        # An inbox has a name in streams alone; in sessions nobody is told its epoch.
        if connection.is_exact or (topic.is_subscription and connection.gets_positions):
            connection.tell_position(position_of(topic, offset, topic.epoch))

    def _reset(self, topic: Topic, top: Top) -> None:
        members = [*topic.live, *topic.catching_up]
        self.replay.drop(topic)
        for connection in members:
            topic.settle(connection)  # as places of the old epoch
        topic.epoch, topic.offset, topic.seen = top.epoch, top.offset, 0
        topic.before = NOTHING
        if members:
            log.warning("the log of a topic has a gap", extra={"topic": topic.name})
        for connection in members:
            connection.close(CloseCode.GAP)

    def _release(self, topic: Topic) -> None:
        topic.users -= 1
        if topic.users == 0 and self._topics.get(topic.name) is topic:
            topic.idle_since = None
            self._idle[topic.name] = topic
