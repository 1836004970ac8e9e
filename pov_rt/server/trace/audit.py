"""The delivery audit: who was sent what of a PoV, and when, for PoVs whose settings want it.

It is kept as entries of a log of its own for each PoV (`audit/`), in the same database: so it is as
old at most as the PoV's own log, is erased by user and deleted with the PoV, and is in backups. An
entry is one activity that one connection was handed. Positions are told at the borders: a
connection that is live has been handed all that its topic flushed; one that was behind, all up to
where it is live, or left. They are worked off by a task a moment later, which reads the log for
what they mean. What a crash leaves undone is missing, and nothing is there that was not sent.
"""

from __future__ import annotations

import asyncio
import csv
import io
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from pov_rt.connections.borders import Flushed, Joined, Left, Observer, Replayed
from pov_rt.connections.connection import Connection
from pov_rt.delivery.filters import Head, Only
from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Entry, NewEntry
from pov_rt.engine.keeping import AUDITS, Keeping
from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import Part
from pov_rt.protocol.tenants import team_of, wire_of
from pov_rt.protocol.topics import pov_topic
from pov_rt.runtime.clock import rfc3339
from pov_rt.runtime.containment import Tasks

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Hand-outs that wait to be noted; past that they are not, and the log says so."""
FINISH_S = 5.0
"""How long a server that stops notes what waits."""
PAGE, PAGE_BYTES = 100, 256 * 1024
BATCH = 500
PUBLISHER = "audit"
COLUMNS = ("at", "activityId", "offset", "userId", "device", "connectionId", "how")

How = Literal["live", "replayed"]


class Sent(Part):
    """That one connection was sent one activity, as it is kept. `offset` is its PoV's."""

    user_id: str
    device: str
    connection_id: str
    id: str
    offset: int
    at: str
    how: How


class _Handed(NamedTuple):
    """That a connection was sent a topic's entries between two offsets, these included."""

    at: float
    topic: str
    first: int
    last: int
    user_id: str
    device: str
    connection_id: str
    only: Only | None
    how: How


class _Named(msgspec.Struct, rename="camel"):
    id: str
    type: str
    action: str
    user_id: str
    pov_id: str


_decode = msgspec.json.Decoder(_Named).decode
_decode_sent = msgspec.json.Decoder(Sent).decode


def audit_topic(pov_id: str) -> str:
    """Return the topic of a PoV's audit."""
    return AUDITS + pov_id


class Audit(Observer):
    """Notes who was sent what. Owner: the server, which adds it where a PoV's settings want it."""

    def __init__(self, services: Services, keeping: Keeping) -> None:
        self._services = services
        self._keeping = keeping
        self._clock = services.clock
        self._waiting: deque[_Handed] = deque()
        self._tasks = Tasks(log, "noting the audit")
        self._is_at_work = False
        self._places: dict[str, dict[Connection, tuple[int, Only | None]]] = {}
        """Up to where each connection's share of each topic was noted, and its filter."""
        self.missing = 0
        """Hand-outs that were not noted: too many waited, or the engine could not be written."""

    def joined(self, connection: Connection, done: Joined) -> None:
        if self._is_audited(done.topic):
            places = self._places.setdefault(done.topic, {})
            if connection in places:
                self._advance(connection, done.topic, done.sent, "live")
            places[connection] = done.offset, done.only

    def replayed(self, connection: Connection, done: Replayed) -> None:
        self._advance(connection, done.topic, done.offset, "replayed")

    def flushed(self, done: Flushed) -> None:
        places = self._places.get(done.topic)
        if places is not None:
            for connection in self._services.hub.live(done.topic):
                if connection in places:
                    self._advance(connection, done.topic, done.offset, "live")

    def left(self, connection: Connection, done: Left) -> None:
        self._advance(connection, done.topic, done.offset, "replayed")
        places = self._places.get(done.topic)
        if places is not None:
            places.pop(connection, None)
            if not places:
                del self._places[done.topic]

    async def close(self) -> None:
        """Note what waits, and what is being noted, as far as there is time."""
        self._begin()
        await self._tasks.finish(FINISH_S)
        if self._waiting:
            self._lose(len(self._waiting))
            self._waiting.clear()

    async def lines(self, pov_id: str) -> AsyncIterator[bytes]:
        """Yield a PoV's audit as lines of CSV, the heads first. Raises `Unavailable`."""
        yield _csv([COLUMNS])
        topic, after = audit_topic(pov_id), 0
        while True:
            page = await self._services.engine.log.read(topic, after, PAGE, max_bytes=PAGE_BYTES)
            if not page.entries:
                return
            after = page.entries[-1].offset
            sent = [_decode_sent(entry.body) for entry in page.entries if entry.body]
            yield _csv(
                [
                    (each.at, each.id, each.offset, each.user_id, each.device, each.connection_id,
                     each.how)
                    for each in sent
                ]
            )  # fmt: skip

    def _is_audited(self, topic: str) -> bool:
        if topic.startswith("team/"):  # what is in it is looked at one by one
            return True
        return topic.startswith("pov/") and self._keeping.audits(topic)

    def _advance(self, connection: Connection, topic: str, offset: int, how: How) -> None:
        places = self._places.get(topic)
        place = None if places is None else places.get(connection)
        if places is None or place is None or place[0] >= offset:
            return
        noted, only = place
        places[connection] = offset, only
        if len(self._waiting) >= MAX_WAITING:
            self._lose(1)
            return
        user_id = wire_of(connection.identity.user_id)
        at = self._clock.time()
        self._waiting.append(
            _Handed(
                at, topic, noted + 1, offset, user_id, connection.device, connection.id, only, how
            )
        )
        self._begin()

    def _begin(self) -> None:
        if self._waiting and not self._is_at_work:
            self._is_at_work = True
            self._tasks.spawn(self._work_off())

    def _lose(self, count: int) -> None:
        if not self.missing:
            log.error("the audit cannot keep up or cannot be written: some of it is missing")
        self.missing += count

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                # Those of one flush are of the same entries.
                first = self._waiting.popleft()
                same = [first]
                while self._waiting and self._waiting[0][1:4] == first[1:4] and len(same) < BATCH:
                    same.append(self._waiting.popleft())
                try:
                    await self._note(first, same)
                except Unavailable:
                    self._lose(len(same))
                except asyncio.CancelledError:
                    self._lose(len(same))
                    raise
        finally:
            self._is_at_work = False

    async def _note(self, span: _Handed, receivers: Sequence[_Handed]) -> None:
        after = span.first - 1
        while after < span.last:
            page = await self._services.engine.log.read(
                span.topic, after, min(PAGE, span.last - after), max_bytes=PAGE_BYTES
            )
            if not page.entries:
                return
            for entry in page.entries:
                if entry.offset <= span.last:
                    await self._note_entry(span.topic, entry, receivers)
            after = page.entries[-1].offset

    async def _note_entry(self, topic: str, entry: Entry, receivers: Sequence[_Handed]) -> None:
        try:
            said = _decode(entry.body)
        except DECODE_ERRORS:  # nothing is left of it
            return
        pov_id, is_feed = self._pov_of(topic, said.pov_id), topic.startswith("team/")
        if is_feed and not self._keeping.audits(pov_topic(pov_id)):
            return
        head = Head(said.type, said.action, said.user_id)
        batch = [
            NewEntry(
                audit_topic(pov_id),
                PUBLISHER,
                self._clock.new_id(),
                encode(
                    Sent(
                        user_id=each.user_id,
                        device=each.device,
                        connection_id=each.connection_id,
                        id=said.id,
                        offset=entry.offset if not is_feed else 0,
                        at=rfc3339(each.at),
                        how=each.how,
                    )
                ),
            )
            for each in receivers
            if each.only is None or each.only.wants(head)
        ]
        if batch:
            await self._services.engine.log.append(batch)

    def _pov_of(self, topic: str, wire_id: str) -> str:
        """Return the PoV of an entry, as the node knows it."""
        kind, _, name = topic.partition("/")
        if kind == "pov":
            return name
        team = name if self._services.settings.auth.tenants else team_of(name)
        return wire_id if team is None else f"{team}\x1f{wire_id}"


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
