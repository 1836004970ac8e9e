"""What passes a node's inner borders, told to whoever wants to know: the one hook object.

A message and an activity cross six borders between rooms, and each is told here as it is crossed:

    received   bytes in: a whole message has arrived, and is not looked into yet
    admitted   it is understood and allowed; its handler comes next, at once or in line
    handled    its handler is done, or it was refused on the way; the answer is about to leave
    stored     activities or notifications are durable, and their publisher is about to be answered
    flushed    what was published on a topic has been handed to all who are live on it
    written    bytes out: what is sent leaves for the kernel at once, or begins to wait, or has left

Beside them the begin and the end of what lasts: `opened` and `closed` of connections, `joined`,
`replayed`, `held`, `lost` and `left` of their topics; `marked` and `shown`, which clients say of
what they were sent; and what did not get in: `refused` requests, `rejected` activities, `failed`
messages, `withheld` PoVs, `denied` questions. `failed` is `handled` for those alone that were
answered an error.

Nobody has to want anything. Each slot is None until an observer is added whose class has a method
of that name; whoever crosses a border looks first:

    if (received := self._borders.received) is not None:
        received(connection, len(payload))

so that what nobody wants costs one look. The slots may change at any time, and are not kept.

An observer is called in the midst of things. It must be quick, keep no connection, send nothing and
call nothing back. What it raises is logged, and its observer is told of nothing more: it breaks
nobody's delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pov_rt.engine.base import Appended, Conflict, NewEntry, Position
from pov_rt.protocol.errors import ClientError

if TYPE_CHECKING:
    from pov_rt.connections.connection import Connection

log = logging.getLogger(__name__)


class Handled(NamedTuple):
    """What became of a message.

    `tag` is its type, "" where it was not understood; `message` is None then. `result` is what the
    handler returned: None for nothing, and where there is an `error`. `took_s` is how long the
    handler took, without the time in line; None if it was not called, for the message was not
    admitted.
    """

    tag: str
    message: Any
    result: object
    error: ClientError | None
    took_s: float | None


class Stored(msgspec.Struct, frozen=True):
    """Entries of one append, with where each of them is, in order.

    A `Conflict` was not appended, a duplicate was there before. `commit_s` is how long the engine
    took, and `whole_s` the time since what is published arrived, checks and plugins included.
    """

    entries: Sequence[NewEntry]
    places: Sequence[Appended | Conflict]
    commit_s: float
    whole_s: float


class Rejected(NamedTuple):
    """What was not published, and why; `id` is "" where its publisher gave none.

    `by_plugin`: a `before_publish` hook refused it.
    """

    topic: str
    id: str
    publisher: str
    user_id: str
    error: ClientError
    by_plugin: bool


class Flushed(NamedTuple):
    """What a topic's live connections were handed at the end of a turn, up to `offset`.

    `messages` counts all that was handed out, over all of them. `waited_s` is how long the first of
    it waited since the engine told of it, or since it was broadcast.
    """

    topic: str
    epoch: str
    offset: int
    messages: int
    waited_s: float


class Joined(NamedTuple):
    """A subscription that was confirmed; `is_new` unless it replaces one.

    It is served after `offset`, of a log whose newest entry is `top`; where it was before, it was
    sent everything up to `sent`. `recovered` is None where no
    position was asked for; `missed` is how much lies between that position and `offset`. `only` is
    its filter, or None.
    """

    topic: str
    epoch: str
    offset: int
    top: int
    recovered: bool | None
    missed: int | None
    only: Any
    is_new: bool
    sent: int = 0


class Replayed(NamedTuple):
    """A connection was brought up to date on a topic and is live, at `offset`, after `took_s`."""

    topic: str
    offset: int
    took_s: float


class Left(NamedTuple):
    """A connection gets nothing of a topic any more; it was sent everything up to `offset`."""

    topic: str
    epoch: str
    offset: int


class Refused(NamedTuple):
    """A request that was refused; `user_id` is "" where no token says whose it was."""

    user_id: str
    ip: str
    path: str
    error: ClientError


class Observer:
    """What is told of the borders. A subclass has the methods of those it wants to be told of.

    The others are never called, and cost nothing.
    """

    def received(self, connection: Connection, size: int) -> None:
        """Note that a message of so many bytes has arrived."""

    def admitted(self, connection: Connection, tag: str, message: Any) -> None:
        """Note that a message of this type is handled next, at once or in line."""

    def handled(self, connection: Connection, done: Handled) -> None:
        """Note that a message was handled, or refused."""

    def stored(self, done: Stored) -> None:
        """Note that entries are durable."""

    def failed(self, connection: Connection, done: Handled) -> None:
        """Note that a message was answered an error."""

    def withheld(self, connection: Connection, pov_id: str, why: ClientError) -> None:
        """Note that one of the PoVs of a message was refused, for which the others were not."""

    def denied(self, user_id: str, topic: str, why: ClientError) -> None:
        """Note that a plugin that authorises said no of a log, or that nobody could say."""

    def marked(self, connection: Connection, topic: str, name: str, position: Position) -> None:
        """Note where a mark is that a client moved: `acked`, `read` or `seen`."""

    def shown(
        self, connection: Connection, topic: str, position: Position, reason: str | None
    ) -> None:
        """Note that a client showed its user what is there, or with a reason that it did not."""

    def rejected(self, done: Rejected) -> None:
        """Note that a check or a plugin refused an activity; a `Conflict` is `stored`."""

    def flushed(self, done: Flushed) -> None:
        """Note that a topic's live connections were handed what was published."""

    def written(self, connection: Connection, unsent: int) -> None:
        """Note that bytes begin to wait for the client to read; 0: all that waited has left.

        What the kernel takes at once is not told of: it is nearly everything.
        """

    def opened(self, connection: Connection) -> None:
        """Note that a connection was opened."""

    def closed(self, connection: Connection, reason: str) -> None:
        """Note that a connection has ended; what it had joined it has left."""

    def joined(self, connection: Connection, done: Joined) -> None:
        """Note that a subscription, or following the inbox, was confirmed."""

    def replayed(self, connection: Connection, done: Replayed) -> None:
        """Note that a connection that was behind is live."""

    def held(self, connection: Connection, topic: str, offset: int) -> None:
        """Note that a live connection reads slowly: behind `offset` it is replayed to."""

    def lost(self, connection: Connection, topic: str, why: ClientError) -> None:
        """Note that the server ends a subscription and says why; `left` comes first."""

    def left(self, connection: Connection, done: Left) -> None:
        """Note that a connection has left a topic, by whosever will."""

    def refused(self, done: Refused) -> None:
        """Note that a request was refused."""


BORDERS = tuple(name for name in vars(Observer) if not name.startswith("_"))


class Borders:
    """The slots of a node. Owner: the server; `add` and `remove` change them at any time."""

    __slots__ = (*BORDERS, "_observers")

    received: Callable[[Connection, int], None] | None
    admitted: Callable[[Connection, str, Any], None] | None
    handled: Callable[[Connection, Handled], None] | None
    stored: Callable[[Stored], None] | None
    failed: Callable[[Connection, Handled], None] | None
    withheld: Callable[[Connection, str, ClientError], None] | None
    denied: Callable[[str, str, ClientError], None] | None
    marked: Callable[[Connection, str, str, Position], None] | None
    shown: Callable[[Connection, str, Position, str | None], None] | None
    rejected: Callable[[Rejected], None] | None
    flushed: Callable[[Flushed], None] | None
    written: Callable[[Any, int], None] | None
    opened: Callable[[Connection], None] | None
    closed: Callable[[Connection, str], None] | None
    joined: Callable[[Connection, Joined], None] | None
    replayed: Callable[[Connection, Replayed], None] | None
    held: Callable[[Connection, str, int], None] | None
    lost: Callable[[Connection, str, ClientError], None] | None
    left: Callable[[Connection, Left], None] | None
    refused: Callable[[Refused], None] | None

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._fill()

    @property
    def observers(self) -> Sequence[Observer]:
        """Who is told."""
        return tuple(self._observers)

    def add(self, observer: Observer) -> None:
        """Tell an observer from now on, after those before it."""
        self._observers.append(observer)
        self._fill()

    def remove(self, observer: Observer) -> None:
        """Tell an observer no more; nothing happens if it is not told."""
        self._observers = [each for each in self._observers if each is not observer]
        self._fill()

    def _fill(self) -> None:
        for name in BORDERS:
            wanted = [each for each in self._observers if _wants(each, name)]
            setattr(self, name, self._teller(name, wanted) if wanted else None)

    def _teller(self, name: str, observers: Sequence[Observer]) -> Callable[..., None]:
        calls = [(observer, getattr(observer, name)) for observer in observers]

        def tell(*what: Any) -> None:
            for observer, call in calls:
                try:
                    call(*what)
                except Exception:
                    log.exception("an observer of %r failed, and is told of nothing more", name)
                    self.remove(observer)

        return tell


def _wants(observer: Observer, name: str) -> bool:
    return getattr(type(observer), name) is not getattr(Observer, name)
