"""Keeps what happened to each user and on each PoV: the observer behind `pov-rt explain`.

In memory each user and each PoV has a ring of the newest events; of too many events in all, those
of whoever was heard of longest ago go. What is rare is also handed to a file (`spill`), which
outlives the node. An event is kept as the line that it has there: its objects would take twice the
memory. What is not rare, entries stored and handed out, is kept in memory alone, by
PoV: two numbers say who was sent what, for a subscriber that is live is sent all (`delivery/hub`).

No event has a token in it: nothing here is ever handed one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from pov_rt.config.settings import TraceSettings
from pov_rt.connections.borders import (
    Flushed,
    Handled,
    Joined,
    Left,
    Observer,
    Refused,
    Rejected,
    Replayed,
    Stored,
)
from pov_rt.connections.connection import Connection
from pov_rt.engine.base import Conflict, Position
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import ClientError
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock, rfc3339
from pov_rt.server.trace.events import (
    Event,
    Kind,
    Rings,
    cut,
    filter_of,
    read_line,
    read_those,
    without,
)

PASSES = 64
"""Appends and flushes of a PoV that are kept."""
MAX_POVS = 5_000
"""PoVs whose appends and flushes are kept; the longest known go."""
MAX_UNWRITTEN = 20_000
"""Events that wait for the file; past that the oldest are in memory alone."""
MAX_PATH = 100


class Append(NamedTuple):
    """Entries of one append to a PoV, up to `last`: when, whose, and how long it took (s)."""

    at: float
    first: int
    last: int
    publisher: str
    commit_s: float
    whole_s: float


class Handout(NamedTuple):
    """What the live subscribers of a PoV were handed, up to `offset`: when, after how long (s)."""

    at: float
    offset: int
    messages: int
    waited_s: float


class _Passes:
    """What passed on one PoV."""

    __slots__ = ("appends", "handouts")

    def __init__(self) -> None:
        self.appends: list[Append] = []
        self.handouts: list[Handout] = []


class Trace(Observer):
    """Keeps events. Owner: the server, which adds it to the borders if the settings want it."""

    def __init__(self, settings: TraceSettings, clock: Clock) -> None:
        self._clock = clock
        self._passes: dict[str, _Passes] = {}
        self._number = 0
        self._ignored: set[str] = set()
        """Connections of users who were forgotten, until they end."""
        self.run = clock.new_id()[-12:]
        self._rings = Rings(self.run, settings.events_each, settings.events)
        self.unwritten: deque[bytes] = deque(maxlen=MAX_UNWRITTEN)
        """The lines that are to be written to the file, if there is one."""
        self.listeners: list[Callable[[Event], None]] = []
        """Who is told of each event as it comes."""
        self.bound = Bound(
            "trace_events", "trace.events", settings.events, lambda: float(self._rings.count)
        )

    @property
    def kept(self) -> int:
        """How many events are in memory."""
        return self._rings.count

    def of(self, key: str) -> Sequence[Event]:
        """Return what is in memory of a user's id, or of a topic; "" for the node itself."""
        return tuple(map(read_line, self._rings.lines(key)))

    def about(self, activity_id: str) -> list[Event]:
        """Return the attempts to publish an id that were refused, as far as they are in memory."""
        needle = encode(activity_id)
        return [
            event
            for _, lines in self._rings.having(needle)
            for event in read_those(lines, (needle,))
            if event.kind in ("rejected", "conflict") and event.more.get("id") == activity_id
        ]

    def append_of(self, topic: str, offset: int) -> Append | None:
        """Return the append that an entry came with, if it is still known."""
        passes = self._passes.get(topic)
        found = (
            (each for each in passes.appends if each.first <= offset <= each.last) if passes else ()
        )
        return next(iter(found), None)

    def handout_of(self, topic: str, offset: int) -> Handout | None:
        """Return when an entry was handed to those who were live, if it is still known."""
        passes = self._passes.get(topic)
        if passes is None:
            return None
        before = None
        for each in passes.handouts:
            if each.offset >= offset:
                # One that a ring has lost could have been the one.
                is_first = before is not None or len(passes.handouts) < PASSES
                return each if is_first else None
            before = each
        return None

    def forget(self, user_id: str, connections: Collection[str] = ()) -> None:
        """Forget what happened to a user, and what is still to happen to their `connections`.

        Those end a moment after the user is erased, and that would be kept again.
        """
        ring = self.of(user_id)
        self._rings.keep(user_id)
        ended = {event.connection for event in ring if event.kind == "closed"}
        here = {event.connection for event in ring if event.connection}
        self._ignored |= here.union(connections) - ended
        kept = list(without(self.unwritten, user_id))
        self.unwritten.clear()
        self.unwritten.extend(kept)
        for key, lines in self._rings.having(encode(user_id)[1:-1]):
            self._rings.keep(key, list(without(lines, user_id)))

    def note(
        self,
        kind: Kind,
        user: str,
        *,
        device: str = "",
        connection: str = "",
        topic: str = "",
        offset: int = 0,
        key: str | None = None,
        **more: Any,
    ) -> None:
        """Keep an event: in the ring of its user, or of `key`."""
        self._number += 1
        if None in more.values():
            more = {name: value for name, value in more.items() if value is not None}
        event = Event(
            self._clock.time(), kind, self.run, self._number,
            user, device, connection, topic, offset, more,
        )  # fmt: skip
        line = self._rings.add(user if key is None else key, event)
        self.unwritten.append(line)
        if self.listeners:
            for listener in tuple(self.listeners):
                listener(event)

    # What the borders tell:

    def opened(self, connection: Connection) -> None:
        self._of(
            connection,
            "opened",
            by=connection.transport.framing.transport,
            ip=connection.remote_ip,
            agent=cut(connection.user_agent),
            tokenExpiresAt=rfc3339(connection.identity.expires_at),
        )

    def closed(self, connection: Connection, reason: str) -> None:
        now = self._clock.monotonic()
        _, sent = connection.transport.traffic
        self._of(
            connection,
            "closed",
            reason=cut(reason),
            expired=True if now >= connection.expires_at else None,
            ageS=round(now - connection.opened_at, 1),
            sentBytes=sent,
        )

    def joined(self, connection: Connection, done: Joined) -> None:
        self._of(
            connection, "joined", done.topic, done.offset,
            epoch=done.epoch, top=done.top, recovered=done.recovered, missed=done.missed or None,
            only=filter_of(done.only), sent=None if done.is_new else done.sent,
        )  # fmt: skip

    def replayed(self, connection: Connection, done: Replayed) -> None:
        self._of(connection, "replayed", done.topic, done.offset, tookS=round(done.took_s, 4))

    def held(self, connection: Connection, topic: str, offset: int) -> None:
        unsent = connection.transport.unsent_bytes
        self._of(connection, "held", topic, offset, unsentBytes=unsent)

    def lost(self, connection: Connection, topic: str, why: ClientError) -> None:
        self._of(connection, "lost", topic, code=why.code, message=cut(why.message))

    def left(self, connection: Connection, done: Left) -> None:
        ended = True if connection.closed else None
        self._of(connection, "left", done.topic, done.offset, epoch=done.epoch, ended=ended)

    def marked(self, connection: Connection, topic: str, name: str, position: Position) -> None:
        kind: Kind = "acked" if name == "acked" else "read" if name == "read" else "seen"
        self._of(connection, kind, topic, position.offset, epoch=position.epoch)

    def shown(
        self, connection: Connection, topic: str, position: Position, reason: str | None
    ) -> None:
        self._of(connection, "shown", topic, position.offset, reason=reason)

    def failed(self, connection: Connection, done: Handled) -> None:
        pov_id, activity_id = _about(done.message)
        grants, error = connection.identity.grants, done.error
        topic = grants.topic(pov_id) if isinstance(pov_id, str) else ""
        if error is not None:
            self._of(
                connection, "failed", topic,
                type=done.tag or None, id=activity_id,
                code=error.code, message=cut(error.message), field=error.field,
            )  # fmt: skip
            if done.tag == "publish" and topic:
                self.note(
                    "rejected", connection.identity.user_id, topic=topic, key=topic,
                    id=activity_id, code=error.code, message=cut(error.message),
                )  # fmt: skip

    def withheld(self, connection: Connection, pov_id: str, why: ClientError) -> None:
        topic = connection.identity.grants.topic(pov_id)
        self._of(connection, "failed", topic, code=why.code, message=cut(why.message))

    def denied(self, user_id: str, topic: str, why: ClientError) -> None:
        self.note("denied", str(user_id), topic=topic, code=why.code, message=cut(why.message))

    def refused(self, done: Refused) -> None:
        if not done.user_id:
            return
        error = done.error
        why = str(error.__cause__ or error.message)
        self.note(
            "refused", str(done.user_id),
            ip=done.ip, path=done.path[:MAX_PATH], code=error.code, message=cut(why),
        )  # fmt: skip

    def rejected(self, done: Rejected) -> None:
        error = done.error
        self.note(
            "rejected", str(done.user_id), topic=done.topic, key=done.topic,
            id=done.id or None, publisher=done.publisher, code=error.code, field=error.field,
            message=cut(error.message), byPlugin=True if done.by_plugin else None,
        )  # fmt: skip

    def stored(self, done: Stored) -> None:
        runs: dict[str, tuple[int, int, str]] = {}
        """Those of each topic that follow one another: from, to, whose."""
        for entry, place in zip(done.entries, done.places, strict=True):
            topic, offset = entry.topic, place.offset
            if isinstance(place, Conflict):
                self.note(
                    "conflict", "", topic=topic, key=topic, offset=offset,
                    id=entry.key, publisher=entry.publisher,
                )  # fmt: skip
            elif not place.duplicate:
                first, last, publisher = runs.get(topic) or (offset, offset - 1, entry.publisher)
                if last != offset - 1:
                    self._keep(topic, (first, last, publisher), done)
                    first, publisher = offset, entry.publisher
                runs[topic] = first, offset, publisher
        for topic, run in runs.items():
            self._keep(topic, run, done)

    def _keep(self, topic: str, run: tuple[int, int, str], done: Stored) -> None:
        appends = self._pass(topic).appends
        appends.append(Append(self._clock.time(), *run, done.commit_s, done.whole_s))
        if len(appends) > PASSES:
            del appends[0]

    def flushed(self, done: Flushed) -> None:
        handouts = self._pass(done.topic).handouts
        if handouts and handouts[-1].offset == done.offset:
            return  # signals alone
        now = self._clock.time()
        handouts.append(Handout(now, done.offset, done.messages, done.waited_s))
        if len(handouts) > PASSES:
            del handouts[0]

    def _pass(self, topic: str) -> _Passes:
        passes = self._passes.get(topic)
        if passes is None:
            if len(self._passes) >= MAX_POVS:
                del self._passes[next(iter(self._passes))]
            passes = self._passes[topic] = _Passes()
        return passes

    def _of(
        self, connection: Connection, kind: Kind, topic: str = "", offset: int = 0, **more: Any
    ) -> None:
        if connection.id in self._ignored:
            if kind == "closed":
                self._ignored.remove(connection.id)
            return
        self.note(
            kind, str(connection.identity.user_id),
            device=connection.device, connection=connection.id, topic=topic, offset=offset, **more,
        )  # fmt: skip


def _about(message: Any) -> tuple[str | None, str | None]:
    """Return the PoV and the activity that a message is about, as far as it says."""
    data = getattr(message, "data", message)
    pov_id, own = getattr(data, "pov_id", UNSET), getattr(data, "id", UNSET)
    is_activity = data is not message and isinstance(own, str)
    return (pov_id if isinstance(pov_id, str) else None), (str(own) if is_activity else None)
