"""Appending and signals: what comes in a turn of the loop goes out as one pipeline, two at a time.

The entries of a batch go one by one, in their order, and the function that appends does one only
after those before it: so what is refused, or lost with a connection, is not overtaken. A batch
whose replies were lost goes out again from the first entry of which nothing is known; what was
appended of it is found by its ids.

Where replicas must have it (`client/replicas`), replies wait until that is so: in the order in
which they came, for what is confirmed up to an offset is so up to all before. While they wait,
other pipelines go out. What is not confirmed within `engine.redis.wait_ms` is refused, and what
waits when its connection ends goes out again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

from pov_rt.engine.base import Conflict, NewEntry, Room
from pov_rt.engine.redis.appending import Appending, Done
from pov_rt.engine.redis.client.connection import Away, Connection, Reply, ServerError, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.library import is_missing
from pov_rt.engine.redis.client.link import TURNED_AWAY, refusal
from pov_rt.engine.redis.client.replicas import COMMANDS, Replicas, Unconfirmed
from pov_rt.engine.redis.health.measuring import Measuring
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Shares

IN_FLIGHT, MOST_COMMANDS, MOST_BYTES = 2, 512, 1024 * 1024
"""Pipelines that wait for their replies, and what one has at most."""
ENTRY_BYTES = 400
"""What an entry that waits costs beside its body."""
LOOK_S = 0.05
"""How exact deadlines are."""
LATE = "Redis did not answer in time; what was to be appended may be there, so try again"


class _Batch:
    """A batch that is being appended: `done` of it are known, those before `sent` went out."""

    __slots__ = (
        "done", "due", "entries", "error", "flying", "future", "is_queued", "number", "sent",
        "size", "start",
    )  # fmt: skip

    def __init__(self, entries: Sequence[NewEntry], size: int, due: float) -> None:
        self.entries = entries
        self.size = size
        self.due = due
        self.future: asyncio.Future[list[Done]] = asyncio.get_running_loop().create_future()
        self.done: list[Done] = []
        self.error: Exception | None = None
        self.start = self.sent = self.flying = self.number = 0
        self.is_queued = False


class _Pipeline(NamedTuple):
    """Replies that wait until replicas have what they tell of: all up to `offset`."""

    connection: Connection
    slots: Sequence[_Batch]
    replies: Sequence[Reply]
    offset: int
    due: float


class Writer:
    """Sends batches over one link; `replicas` says when replicas have what was appended."""

    def __init__(
        self,
        functions: Functions,
        appending: Appending,
        backlog_bytes: int,
        deadline_s: float,
        replicas: Replicas,
        measuring: Measuring,
    ) -> None:
        self.backlog = Shares(
            "backlog_bytes", "engine.backlog_bytes", backlog_bytes, backlog_bytes / 2
        )
        """What waits to be appended; one publisher's is half of it at most."""
        self.dropped = 0
        """Signals that were not sent: Redis was away, or behind."""
        self._functions = functions
        self._appending = appending
        self._node = uuid4().hex
        self._deadline_s = deadline_s
        self._replicas = replicas
        self._measuring = measuring
        self._queue: deque[_Batch] = deque()
        self._all: dict[_Batch, None] = {}
        self._signals: list[bytes] = []
        self._signal_bytes: Counter[Room] = Counter()
        self._numbers = 0
        self._flying = 0
        self._is_due = False
        self._reviving: asyncio.Task[None] | None = None
        self._unsure: deque[_Pipeline] = deque()
        """Pipelines of which not all that is needed is known to be on replicas."""
        self._confirming: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = True
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin to take what is to be sent."""
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    async def append(self, entries: Sequence[NewEntry]) -> list[Done]:
        """Append a batch; return what became of each entry. Raises `Unavailable`."""
        if not entries:
            return []
        if self._is_closed:
            raise Unavailable("The engine is closed")
        owner = entries[0].publisher
        size = sum(len(new.body) for new in entries) + ENTRY_BYTES * len(entries)
        if not self.backlog.take(owner, size):
            raise Unavailable("The log is behind with writing; try again", retry_after_s=1.0)
        batch = _Batch(entries, size, self._loop.time() + self._deadline_s)
        self._all[batch] = None
        self._idle.clear()
        self._begin(batch)
        self._queue.append(batch)
        self._wake()
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._expire)
        # A caller that is cancelled leaves the batch: it may be on its way.
        return await asyncio.shield(batch.future)

    def publish(self, channel: bytes, message: bytes, room: Room) -> bool:
        """Send a message that may be lost; return whether it is taken. Never blocks."""
        is_full = self._signal_bytes[room] > room.value
        if self._is_closed or is_full or not self._functions.link.is_up:
            self.dropped += 1
            return False
        packed = pack("PUBLISH", channel, message)
        self._signals.append(packed)
        self._signal_bytes[room] += len(packed)
        self._wake()
        return True

    async def close(self) -> None:
        """Finish what was accepted, as far as Redis answers in time. May be called twice."""
        self._is_closed = True
        await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in (self._reviving, self._confirming):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    def _wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush)

    def _begin(self, batch: _Batch) -> None:
        """Have a batch begin, or begin anew, behind what is done; it is to be queued."""
        self._numbers += 1
        batch.number = self._numbers
        batch.start = batch.sent = len(batch.done)
        batch.is_queued = True

    def _flush(self) -> None:
        self._is_due = False
        link = self._functions.link
        connection = link.connection
        if connection is None or not connection.is_open:
            if self._queue and self._reviving is None:
                self._reviving = self._loop.create_task(self._revive())
            return
        while self._flying < IN_FLIGHT and (self._queue or self._signals):
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        packed, self._signals = self._signals, []
        signals, size = len(packed), self._signal_bytes.total()
        self._signal_bytes.clear()
        slots: list[_Batch] = []
        while self._queue and len(slots) < MOST_COMMANDS and size < MOST_BYTES:
            batch = self._queue[0]
            if batch.error is not None:
                self._unqueue(batch)
                continue
            new = batch.entries[batch.sent]
            call = self._functions.pack(
                "append",
                self._functions.partitions.of(new.topic),
                self._node,
                batch.number,
                batch.sent - batch.start,
                *self._appending.args(new),
            )
            packed.append(call)
            size += len(call)
            slots.append(batch)
            batch.sent += 1
            batch.flying += 1
            if batch.sent == len(batch.entries):
                self._unqueue(batch)
        count = len(packed)
        if not count:
            return
        is_asked = bool(slots) and self._replicas.least > 0
        self._flying += 1
        sent_at = self._loop.time()
        replies = connection.send(b"".join(packed), count)
        last = replies
        if is_asked:
            last = connection.send(self._replicas.question(), COMMANDS)
        if slots:
            self._measuring.batch_entries.add(len(slots))
            replies.add_done_callback(lambda _: self._time(sent_at, replies, last))
        last.add_done_callback(lambda _: self._take(connection, signals, slots, replies, last))

    def _time(
        self,
        sent_at: float,
        replies: asyncio.Future[list[Reply]],
        last: asyncio.Future[list[Reply]],
    ) -> None:
        """Note how long Redis took for entries, and then for its replicas."""
        answered_at = self._loop.time()
        self._measuring.append_s.add(answered_at - sent_at)
        if last is not replies:
            last.add_done_callback(
                lambda _: self._measuring.replicas_s.add(self._loop.time() - answered_at)
            )

    def _take(
        self,
        connection: Connection,
        signals: int,
        slots: Sequence[_Batch],
        replies: asyncio.Future[list[Reply]],
        last: asyncio.Future[list[Reply]],
    ) -> None:
        """Take the replies of a pipeline, or learn that there will be none."""
        self._flying -= 1
        if any([replies.exception(), last.exception()]):
            self._release(slots)
        else:
            self._functions.link.check(connection, replies.result())
            found = replies.result()[signals:]
            if last is replies:
                self._judge(slots, found)
            else:
                self._confirm(connection, slots, found, last.result())
        if self._reviving is None:
            self._wake()

    def _confirm(
        self,
        connection: Connection,
        slots: Sequence[_Batch],
        replies: Sequence[Reply],
        answer: Sequence[Reply],
    ) -> None:
        """Judge replies if replicas have what they tell of, else as soon as they do."""
        if not connection.is_open:
            self._release(slots)
            return
        due = self._loop.time() + self._replicas.wait_ms / 1000
        try:
            offset = self._replicas.read(answer)
        except Unconfirmed as error:
            self._refuse(slots, error)
            return
        self._unsure.append(_Pipeline(connection, slots, replies, offset, due))
        self._take_sure()
        if self._unsure and self._confirming is None:
            self._confirming = self._loop.create_task(self._keep_confirming())

    def _take_sure(self) -> None:
        """Judge what all replicas have, and let go of what a connection that ended has left."""
        while self._unsure:
            first = self._unsure[0]
            if not first.connection.is_open:
                self._release(self._unsure.popleft().slots)
            elif self._replicas.are_sure(first.offset):
                self._unsure.popleft()
                self._judge(first.slots, first.replies)
            else:
                return

    async def _keep_confirming(self) -> None:
        """Ask about what not all replicas have, until nothing is left of it."""
        try:
            while self._unsure:
                await self._look_again(list(self._unsure))
        finally:
            self._confirming = None

    async def _look_again(self, appended: Sequence[_Pipeline]) -> None:
        """Judge what is safe as the sentinels say now that it has been appended."""
        unknown = ""
        try:
            await self._replicas.electors.look()
        except Unavailable as error:
            unknown = str(error)
        self._take_sure()
        for each in appended:
            if not self._unsure or each is not self._unsure[0]:
                continue
            lack = unknown or self._replicas.lack(each.offset)
            if lack and each.due > self._loop.time():
                with contextlib.suppress(Unavailable):  # then the next look finds that out
                    question = self._replicas.question()
                    self._replicas.read(await each.connection.send(question, COMMANDS))
                self._take_sure()
                return
            self._unsure.popleft()
            if lack:
                self._refuse(each.slots, Unconfirmed(lack))
            else:
                self._judge(each.slots, each.replies)

    def _judge(self, slots: Sequence[_Batch], replies: Sequence[Reply]) -> None:
        """Take what became of entries, in their order."""
        for batch, reply in zip(slots, replies, strict=True):
            if batch.error is None:
                self._judge_entry(batch, reply)
        self._release(slots)
        if any(map(is_missing, replies)) and self._reviving is None:
            self._reviving = self._loop.create_task(self._reload())

    def _judge_entry(self, batch: _Batch, reply: Reply) -> None:
        if isinstance(reply, ServerError):
            if not is_missing(reply) and reply.code not in TURNED_AWAY:
                batch.error = refusal(reply)
        elif reply[0] != b"s":
            publisher = batch.entries[len(batch.done)].publisher
            try:
                batch.done.append(self._appending.judge(reply, publisher))
            except Unavailable as error:
                batch.error = error

    def _refuse(self, slots: Sequence[_Batch], error: Unavailable) -> None:
        """Answer that entries are not where they have to be."""
        for batch in slots:
            batch.error = batch.error or error
        self._release(slots)

    def _release(self, slots: Sequence[_Batch]) -> None:
        """Go on with batches of which a pipeline is no longer on its way."""
        for batch in slots:
            batch.flying -= 1
        for batch in reversed(dict.fromkeys(slots)):
            self._settle(batch)

    def _settle(self, batch: _Batch) -> None:
        """Answer a batch of which nothing is on its way, or queue what is left of it."""
        if batch.flying:
            return
        if batch.error is None and len(batch.done) < len(batch.entries):
            if len(batch.done) < batch.sent:
                was_queued = batch.is_queued
                self._begin(batch)
                if not was_queued:
                    self._queue.appendleft(batch)
            return
        if not batch.future.done():
            if batch.error is not None:
                batch.future.set_exception(batch.error)
                batch.future.exception()  # its caller may have been cancelled
            else:
                batch.future.set_result(batch.done)
        if batch in self._all:
            del self._all[batch]
            self._count(batch)
            self.backlog.give(batch.entries[0].publisher, batch.size)
            if not self._all:
                self._idle.set()

    def _count(self, batch: _Batch) -> None:
        """Count what became of entries. One that was done counts so whatever its batch was told."""
        appends = self._measuring.appends
        for each in batch.done:
            if isinstance(each.result, Conflict):
                appends["conflict"] += 1
            else:
                appends["duplicate" if each.result.duplicate else "appended"] += 1
        if (left := len(batch.entries) - len(batch.done)) > 0:
            late = "late" if isinstance(batch.error, Away) else "refused"
            appends["unconfirmed" if isinstance(batch.error, Unconfirmed) else late] += left

    def _unqueue(self, batch: _Batch) -> None:
        """Take the first batch from the queue."""
        self._queue.popleft()
        batch.is_queued = False

    def _expire(self) -> None:
        """Answer those whose time is over; what is on its way is waited for all the same."""
        now = self._loop.time()
        for batch in list(self._all):
            if batch.due > now:
                break
            if batch.error is None:
                why = LATE if batch.flying or batch.done else self._functions.link.problem
                batch.error = Away(why or LATE)
                if not batch.future.done():
                    batch.future.set_exception(batch.error)
                    batch.future.exception()
            self._settle(batch)
        self._timer = self._loop.call_later(LOOK_S, self._expire) if self._all else None

    async def _revive(self) -> None:
        """Go on when the connection has come back."""
        with contextlib.suppress(Away):
            await self._functions.link.ready(self._deadline_s)
        self._reviving = None
        if self._queue:
            self._wake()

    async def _reload(self) -> None:
        """Go on when Redis has the library again."""
        try:
            await self._functions.load()
        except Unavailable:
            await asyncio.sleep(LOOK_S)
        self._reviving = None
        self._wake()
