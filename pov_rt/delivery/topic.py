"""One topic's subscribers on this node, and what waits to be sent to them.

What one turn of the event loop publishes is framed and joined once per group, and leaves in one
send per connection. Some connections are special until the end of the turn: one that got its share
of what waits already (`settle`), one that is spared a message, one that has joined meanwhile. The
others are sent to in a tight loop. What goes to many leaves over several turns (`Spread`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from pov_rt.connections.connection import Connection, Transport
from pov_rt.delivery.filters import Only, read_head
from pov_rt.delivery.pieces import Shares, Spread, join
from pov_rt.delivery.ring import Ring
from pov_rt.engine.base import Position
from pov_rt.protocol.topics import pov_of
from pov_rt.transport.bounds import Framing

MAX_BEFORE = 8
"""Older epochs of its log that a topic remembers."""
NOTHING: Final[Any] = MappingProxyType({})
"""What topics have in common that lack something rare: a dict is made for the first of it, for an
empty one in each would be memory (docs/measurements.md, idle parts)."""
MAX_STATES = 1000
"""Names of signals that a topic remembers for those who are not live."""


class Pending(msgspec.Struct, frozen=True):
    """A message that waits for the end of the turn; `spare` is the connection not to send it to.

    That one gets `instead` in its place. `stored` is the activity in it as the log has it, for
    filters to look at; None makes it a signal.
    """

    body: bytes
    stored: bytes | None
    spare: Connection | None = None
    instead: bytes = b""


class Expected:
    """Whose publication is to be answered in its place, and how."""

    __slots__ = ("answer", "connection", "is_answered")

    def __init__(self, connection: Connection, answer: Callable[[Position], bytes]) -> None:
        self.connection = connection
        self.answer = answer
        self.is_answered = False


class GroupKey(NamedTuple):
    """What the members of a group have in common, so that they are sent the same bytes.

    How their transports write messages; whether they know the first block of the contract alone,
    and so get no signals; and what they want.
    """

    framing: Framing
    plain: bool
    only: Only | None


class Progress:
    """Where a connection is that is not live. Another one takes its place when it is taken back.

    It was sent everything up to `offset`, and once up to `highest`, which is further if it asked
    for some of it again. As long as `asked`, the number of its requests that are not answered, is
    not 0, it is sent nothing; `stands` tells whether any ever was. `told` is the offset of what it
    was sent last, and `states` which of its topic's states came before this one. What is not beyond
    `paid_to` is paid for. `since` is when it fell behind (monotonic).
    """

    __slots__ = ("asked", "highest", "offset", "paid_to", "since", "stands", "states", "told")

    def __init__(self, offset: int, highest: int, states: int, *, stands: bool) -> None:
        self.offset = self.told = offset
        self.highest = highest
        self.states = states
        self.stands = stands
        self.asked = self.paid_to = 0
        self.since = 0.0


class Topic:
    """A topic with subscribers on this node. Owner: the hub.

    The constructor says what each slot is. The hub writes them, but the subscribers only by the
    methods here, save for one that is promoted; the replay moves the places of those catching up.
    """

    __slots__ = (
        "before",
        "catching_up",
        "epoch",
        "groups",
        "idle_since",
        "instead",
        "kind",
        "name",
        "offset",
        "only",
        "opening",
        "pending",
        "pending_bytes",
        "positioned",
        "repairing",
        "ring",
        "seen",
        "special",
        "spread",
        "states",
        "states_told",
        "users",
        "waits_since",
    )

    def __init__(self, name: str, spread: Spread) -> None:
        self.name = name
        self.kind = name.partition("/")[0]
        # The hub's: which log it is and the newest entry that was taken over from the engine; the
        # last epochs that it had while it was followed, each with the offset up to which it is the
        # same log; the newest that the engine told of while none could be taken over, because the
        # log's state was being read for the first time (`opening`) or once more (`repairing`).
        self.epoch = ""
        self.offset = 0
        self.before: Mapping[str, int] = NOTHING
        self.seen = 0
        self.opening: asyncio.Future[None] | None = None
        self.repairing: asyncio.Task[None] | None = None
        # How many connections have joined or are about to, and since when it is none.
        self.users = 0
        self.idle_since: float | None = None
        # The subscribers: those who are live, by what they have in common (the values are their
        # transports), and those who are not. `only` has the filters;
        # `positioned` is the offset that those with one were told last. `instead` has what some who
        # are not live are sent in the place of entries, by offset; `states` the newest signal of
        # each name, with its number, for all who are not live, and `states_told` the last number.
        self.groups: dict[GroupKey, dict[Connection, Transport]] = {}
        self.catching_up: dict[Connection, Progress] = {}
        self.only: dict[Connection, Only] = {}
        self.positioned = 0
        self.instead: dict[Connection, dict[int, list[bytes]]] = NOTHING
        self.states: dict[str, tuple[int, bytes]] = NOTHING
        self.states_told = 0
        # What waits for the end of the turn, the bytes of its entries (not of its signals), and
        # from which of it on the special connections are to be sent. `waits_since` is when the
        # first of it came (monotonic), if anybody wants to know. `spread` has what was flushed and
        # has not been sent yet, of all topics.
        self.pending: list[Pending] = []
        self.pending_bytes = 0
        self.waits_since = 0.0
        self.special: dict[Connection, int] = {}
        self.spread = spread
        # The replay's: its newest messages, while somebody missed some.
        self.ring: Ring | None = None

    @property
    def is_subscription(self) -> bool:
        """Whether a client subscribed to it: not its inbox, nor a plugin's channel."""
        return self.kind in ("pov", "team")

    @property
    def has_log(self) -> bool:
        """Whether what its subscribers get can be replayed: not so a plugin's channel."""
        return self.is_subscription or self.kind == "user"

    def adopt(self, epoch: str) -> None:
        """Go on under a log's new epoch, which holds all up to the offset."""
        known = [*self.before.items(), (self.epoch, self.offset)]
        self.before = dict(known[-MAX_BEFORE:])
        self.epoch = epoch

    def holds(self, place: Position) -> bool:
        """Tell whether a place that was given out here is still one, as far as is known here.

        Not beyond what was taken over from the log under that epoch, though the log may hold more.
        """
        if place.epoch == self.epoch:
            return True
        end = self.before.get(place.epoch)
        return end is not None and place.offset <= end

    @property
    def pov_id(self) -> str:
        """What clients call it: the PoV's id, or `*`."""
        return pov_of(self.name)

    @property
    def live(self) -> list[Connection]:
        """The connections that get everything as it happens."""
        return [connection for group in self.groups.values() for connection in group]

    @property
    def has_listeners(self) -> bool:
        """Whether anybody gets signals."""
        return any(group for key, group in self.groups.items() if not key.plain)

    def behind(self, connection: Connection) -> int:
        """Return how many of its entries a connection has not been sent yet.

        Of one that has only begun to join, whose place is not known, none.
        """
        progress = self.catching_up.get(connection)
        if progress is None or progress.offset < 0:
            return 0
        return max(0, self.offset - progress.offset)

    def key_of(self, connection: Connection) -> GroupKey:
        """Return what a connection has in common with others."""
        return GroupKey(connection.transport.framing, connection.plain, self.only.get(connection))

    def group(self, connection: Connection) -> dict[Connection, Transport]:
        """Return the group that the connection belongs to."""
        return self.groups.setdefault(self.key_of(connection), {})

    def leave_group(self, connection: Connection) -> Transport | None:
        """Take a connection out of its group; return its transport if it was there."""
        key = self.key_of(connection)
        group = self.groups.get(key, {})
        transport = group.pop(connection, None)
        if not group and key.only is not None:
            self.groups.pop(key, None)  # there may be as many filters as subscribers
        return transport

    def enter(self, connection: Connection) -> Progress:
        """Take a new subscriber; where it begins is not known yet."""
        made = Progress(-1, 0, self.states_told, stands=False)
        self.catching_up[connection] = made
        return made

    def hold(self, connection: Connection) -> Progress:
        """Deliver nothing live to a connection until it has caught up from where it is."""
        before = self.catching_up.get(connection)
        if before is None:
            self.settle(connection)
            self.special.pop(connection, None)
            self.leave_group(connection)
            made = Progress(self.offset, self.offset, self.states_told, stands=True)
        elif before.asked:
            return before
        else:
            made = Progress(before.offset, before.highest, before.states, stands=True)
            made.told, made.paid_to = before.told, before.paid_to
        self.catching_up[connection] = made
        return made

    def move(self, connection: Connection, progress: Progress, offset: int) -> list[bytes]:
        """Serve a connection that is not live from elsewhere on; return what it would miss now.

        That are answers to it which had their place in between.
        """
        progress.offset = progress.told = offset
        kept = self.instead.get(connection, {})
        passed = {each: kept.pop(each) for each in list(kept) if each <= offset}
        return self._answers(passed)

    def put_instead(self, connection: Connection, offset: int, body: bytes) -> None:
        """Send one who is not live this in the place of an entry; a retry has an answer, too."""
        if not self.instead:
            self.instead = {}
        self.instead.setdefault(connection, {}).setdefault(offset, []).append(body)

    def _answers(self, instead: dict[int, list[bytes]]) -> list[bytes]:
        """Return what somebody waits for of what has lost its place: not positions in a feed."""
        if self.kind != "pov":
            return []
        return [body for offset in sorted(instead) for body in instead[offset]]

    def go_live(self, connection: Connection) -> None:
        """Deliver to a connection that has everything up to `offset`, and tell it the states."""
        progress = self.catching_up.pop(connection)
        if self.instead:
            self.instead.pop(connection, None)
        if self.states and not connection.plain:
            states = [body for number, body in self.states.values() if number > progress.states]
            if states:
                transport = connection.transport
                transport.send(transport.framing.join(states))
        self._forget_the_past()
        if connection in self.only:
            self.positioned = -1  # it is told its position, whatever the others were
        if self.pending:
            self.special[connection] = len(self.pending)
        self.group(connection)[connection] = connection.transport

    def remember(self, name: str, body: bytes) -> None:
        """Keep a signal for those who are not live; it takes the place of the last of its name."""
        self.states_told += 1
        if not self.states:
            self.states = {}
        self.states.pop(name, None)
        self.states[name] = (self.states_told, body)
        if len(self.states) > MAX_STATES:
            del self.states[next(iter(self.states))]

    def _forget_the_past(self) -> None:
        if not self.catching_up:
            # Though it is empty: a dict keeps its room until it is cleared, and every topic has had
            # somebody who joined (docs/measurements.md, idle parts).
            self.catching_up.clear()
            self.states = NOTHING

    def delivered(self, connection: Connection) -> int:
        """Return up to which offset a connection was sent everything, if not just now."""
        progress = self.catching_up.get(connection)
        return self.offset if progress is None else progress.highest

    def remove(self, connection: Connection) -> list[bytes]:
        """Send a connection its share of what waits, and nothing after it.

        Returns the answers to it whose place had not come yet.
        """
        self.settle(connection)
        self.leave_group(connection)
        self.catching_up.pop(connection, None)
        self.special.pop(connection, None)
        self.only.pop(connection, None)
        self._forget_the_past()
        return self._answers(self.instead.pop(connection, {}) if self.instead else {})

    def spare(self, connection: Connection, body: bytes) -> None:
        """Do not send a connection the last signal with this very body, unless it was already."""
        for index in reversed(range(self.special.get(connection, 0), len(self.pending))):
            item = self.pending[index]
            if item.body is body and item.spare is None:
                self.pending[index] = msgspec.structs.replace(item, spare=connection)
                return

    def settle(self, connection: Connection) -> None:
        """Send a connection now what waits for it."""
        if self.spread.shares:
            self.spread.settle(connection)
        if self.pending and connection in self.group(connection):
            self._send_share(connection, self.pending[self.special.get(connection, 0) :])
            self.special[connection] = len(self.pending)

    def flush(self, shares: Shares | None = None) -> int:
        """Send everything that waits, or add it to the shares; return the number of messages."""
        if not self.pending:
            return 0
        # Taken first: whatever happens, nothing is sent twice, nor waits for ever.
        pending, self.pending, self.pending_bytes = self.pending, [], 0
        special, self.special = self.special, {}
        for item in pending:
            if item.spare is not None:
                special.setdefault(item.spare, 0)
        sent = 0
        for key, group in self.groups.items():
            if group:
                bodies = _select(pending, key)
                self._send_group(group, tuple(join(key.framing, bodies)), special, shares)
                count = len(bodies) * len(group)
                self.spread.delivered[key.framing.transport] += count
                sent += count
        for connection, start in special.items():
            self._send_share(connection, pending[start:], shares)
        return sent

    def _send_group(
        self,
        group: dict[Connection, Transport],
        pieces: tuple[bytes, ...],
        special: Collection[Connection],
        shares: Shares | None,
    ) -> None:
        if shares is not None:
            if special or shares:
                for connection in group:
                    if connection not in special:
                        shares[connection] = shares.get(connection, ()) + pieces
            else:
                shares.update(dict.fromkeys(group, pieces))
        elif special:
            for connection, transport in group.items():
                if connection not in special:
                    for data in pieces:
                        transport.send(data)
        else:
            for data in pieces:
                for transport in group.values():
                    transport.send(data)

    def _send_share(
        self, connection: Connection, pending: Sequence[Pending], shares: Shares | None = None
    ) -> None:
        key = self.key_of(connection)
        transport = self.groups.get(key, {}).get(connection)
        if transport is None:
            return
        bodies: list[bytes] = []
        for item in pending:
            if item.spare is connection:
                bodies += [item.instead] if item.instead else []
            else:
                bodies += _select([item], key)
        if shares is not None:
            shares[connection] = shares.get(connection, ()) + tuple(join(key.framing, bodies))
            return
        for data in join(key.framing, bodies):
            transport.send(data)


def _select(waiting: Sequence[Pending], key: GroupKey) -> list[bytes]:
    """Return the messages that are for a group."""
    _, plain, only = key
    if only is None:
        if plain:
            return [item.body for item in waiting if item.stored is not None]
        return [item.body for item in waiting]
    return [
        item.body
        for item in waiting
        if (not plain if item.stored is None else only.wants(read_head(item.stored)))
    ]


def choose(
    dirty: Sequence[Topic], sends: int, *, is_free: bool
) -> tuple[list[Topic], list[Topic], list[Topic]]:
    """Return the topics with few subscribers to serve now, those with many, and those to wait.

    `dirty` begins with the longest waiting. The newest go first, or what happens on one PoV would
    wait for all that a plugin's timer has to tell hundreds of others; a quarter of the sends, at
    least, is for the oldest. Those with many subscribers are served when it `is_free`.
    """
    few, many, later = dict[Topic, None](), list[Topic](), list[Topic]()
    left = sends
    for topic in reversed(dirty):
        if topic.users > left:
            break
        left -= topic.users
        few[topic] = None
    left = max(left, sends // 4)
    for topic in dirty:
        if topic in few:
            continue
        if topic.users <= left:
            left -= topic.users
            few[topic] = None
        elif topic.users > sends and is_free:
            many.append(topic)
        else:
            later.append(topic)
    return list(few), many, later
