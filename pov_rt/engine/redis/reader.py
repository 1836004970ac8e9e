"""What is told of the topics that this node watches: one connection, one channel a topic.

Redis tells once, and not who is away. So whenever something may have been missed, positions are
compared: all of them when the connection has come back, and every `CHECK_S` seconds anyhow. The
follower is told `uncertain` of those topics alone that are not where they were left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from pov_rt.engine.base import Entry, Follower, Top
from pov_rt.engine.redis.client.address import Place
from pov_rt.engine.redis.client.connection import Away, Connection, Reply, ServerError, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.link import Link
from pov_rt.engine.redis.health.measuring import Measuring
from pov_rt.engine.redis.layout import State, parse_entry, parse_state
from pov_rt.protocol.errors import Unavailable

log = logging.getLogger(__name__)

_ItemT = TypeVar("_ItemT")

SUBSCRIBED = 512
"""Channels of one command: far fewer take longer together, many more hold up what others ask."""
CHECK_S, DENIED_S = 10.0, 1.0
"""How often positions are compared, and those of topics whose channel we may not hear."""
OVERLAP_US = 5_000_000
"""What was rewritten is told once more of so long before a connection was lost."""
CHECKED = 5000
"""Topics whose positions are asked for at a time."""
SIGNAL, LOST = b"s", b"u"
"""Kinds of messages on a topic's channel; `LOST`: its log is another one."""
REWRITTEN, TOKEN, BEAT = b"r", b"t", b"b"
"""Kinds of messages on the channel that all nodes hear; a node's own `TOKEN` says what is past."""


class Known:
    """Where a watched topic is, as this node has been told; `oldest_at` is when its oldest came."""

    __slots__ = ("epoch", "offset", "oldest", "oldest_at")

    def __init__(self, top: Top, oldest_at: float) -> None:
        self.epoch = top.epoch
        self.offset = top.offset
        self.oldest = top.oldest
        self.oldest_at = oldest_at


class _Subscribing:
    """A command that was sent: which channels it is about, and how many were confirmed."""

    __slots__ = ("channels", "confirmed")

    def __init__(self, channels: Sequence[bytes]) -> None:
        self.channels = channels
        self.confirmed = 0


class Reader:
    """Watches topics over a connection of its own; `functions` are those of another one.

    `on` has who takes messages of other kinds, by their first byte: of a topic, and what follows
    the byte. `on_all` has it of what all nodes hear.
    """

    follower: Follower | None = None

    def __init__(
        self,
        address: Place,
        functions: Functions,
        node: str,
        deadline_s: float,
        measuring: Measuring,
    ) -> None:
        self.watched: dict[str, Known | None] = {}
        """What is watched; None where the state is being read."""
        self.on: dict[bytes, Callable[[str, bytes], None]] = {
            SIGNAL: self._signal,
            LOST: lambda topic, _: self.doubt(topic),
        }
        self.on_all: dict[bytes, Callable[[bytes], None]] = {
            REWRITTEN: self._hear_rewritten,
            TOKEN: self._hear_token,
        }
        self.unknown = 0
        """Messages of kinds that this version does not know."""
        self.link = Link(address, f"pov-rt-reader-{node}", deadline_s, self._prepare)
        self._functions = functions
        self._measuring = measuring
        self._partitions = functions.partitions
        self._all = self._partitions.key("all").encode()
        self._node = node.encode()
        self._deadline_s = deadline_s
        self._topics: dict[bytes, str] = {}
        """The topics of the channels that are watched."""
        self._expected: deque[_Subscribing] = deque()
        self._confirming: dict[bytes, asyncio.Future[None]] = {}
        self._joining: list[bytes] = []
        self._leaving: list[bytes] = []
        self._echoes: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        self._denied: set[bytes] = set()
        self._suspects: dict[str, int] = {}
        """Topics that were behind at the last look, and where their logs were."""
        self._tokens: dict[bytes, asyncio.Future[None]] = {}
        self._token = 0
        self._sure_us = 0
        """When it was last sure that nothing was missed, by Redis's clock; 0: never yet."""
        self._connection: Connection | None = None
        """The one that is listened on, also while it is being prepared."""
        self._tasks: list[asyncio.Task[None]] = []
        self._has_come_back = asyncio.Event()
        self._is_deaf = False
        self._is_sure = False
        """Whether positions were compared since the connection was made."""
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        self.link.on_lost = self._lost
        self.link.start()
        self._tasks = [
            self._loop.create_task(self._keep_checking(), name="redis positions"),
            self._loop.create_task(self._keep_alive(), name="redis reader"),
        ]

    async def close(self) -> None:
        """End it. May be called twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.link.close()
        self._lost("the engine is closed")

    # To watch:

    @property
    def is_sure(self) -> bool:
        """Whether nothing can have been missed that was told."""
        return self._is_sure and self.link.is_up and not self._is_deaf

    @property
    def denied(self) -> int:
        """How many channels of what is watched Redis does not let this node hear."""
        return len(self._denied)

    def set_deaf(self, is_deaf: bool) -> None:
        """Take over whether nothing is heard: then positions say what is new, each second."""
        self._is_deaf = is_deaf
        self.look()

    def look(self) -> None:
        """Compare all positions now, and not only when it is time to."""
        self._has_come_back.set()

    async def watch(self, topic: str) -> None:
        """Hear of a topic from now on. Raises `Unavailable`."""
        channel = self._partitions.channel(topic)
        self.watched.setdefault(topic, None)
        self._topics[channel] = topic
        try:
            await self._confirmed(channel)
        except BaseException:
            self._forget(topic, channel)
            raise

    async def _confirmed(self, channel: bytes) -> None:
        """Ask to hear on a channel; return when that is confirmed, or was refused."""
        connection = await self.link.ready(self._deadline_s)
        if channel in self._denied:
            return
        future = self._confirming.get(channel)
        if future is None:
            future = self._confirming[channel] = self._loop.create_future()
            self._join(channel)
        try:
            async with asyncio.timeout(self._deadline_s):
                await asyncio.shield(future)
        except TimeoutError:
            connection.abort("Redis did not confirm that this node hears of a topic")
            raise Away("Redis did not confirm in time that this node hears of the topic") from None

    def unwatch(self, topic: str) -> None:
        """Hear no more of a topic."""
        channel = self._partitions.channel(topic)
        if topic in self.watched:
            self._forget(topic, channel)
            if not self._leaving and not self._joining:
                self._loop.call_soon(self._send_changes)
            self._leaving.append(channel)

    def _forget(self, topic: str, channel: bytes) -> None:
        self.watched.pop(topic, None)
        self._topics.pop(channel, None)
        self._denied.discard(channel)
        self._suspects.pop(topic, None)
        self._end_echoes(topic)

    def _join(self, channel: bytes) -> None:
        if not self._leaving and not self._joining:
            self._loop.call_soon(self._send_changes)
        self._joining.append(channel)

    def _send_changes(self) -> None:
        """Send what this turn wants to hear, and no more to hear."""
        joining, self._joining = self._joining, []
        leaving, self._leaving = self._leaving, []
        connection = self.link.connection
        if connection is None:
            return  # whoever waits is told, and a new connection hears of all that is watched
        # First those: who left and came back in one turn wants to hear.
        gone = [channel for channel in leaving if channel not in self._topics]
        for channels in _parts(gone):
            connection.write(pack("UNSUBSCRIBE", *channels))
        self._subscribe(connection, joining)

    def _subscribe(self, connection: Connection, channels: Sequence[bytes]) -> None:
        for some in _parts(channels):
            self._expected.append(_Subscribing(some))
            connection.write(pack("SUBSCRIBE", *some))

    # The connection:

    async def _prepare(self, connection: Connection) -> None:
        """Hear on a new connection of all that is watched."""
        self._expected.clear()
        self._denied.clear()
        self._connection = connection
        connection.on_message = self._read
        channels = [self._all, *self._topics]
        last = channels[-1]
        future = self._confirming.get(last)
        if future is None:
            future = self._confirming[last] = self._loop.create_future()
        self._subscribe(connection, channels)
        ended = self._loop.create_task(connection.ended())
        either: list[asyncio.Future[Any]] = [future, ended]
        try:
            async with asyncio.timeout(max(self._deadline_s, len(channels) / 5000)):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise Away("Redis did not confirm what this node hears of") from None
        finally:
            ended.cancel()
        if not connection.is_open:
            raise Away("the connection ended while this node began to listen")
        self._is_sure = not self.watched
        self._has_come_back.set()

    def _lost(self, reason: str) -> None:
        self._is_sure = False
        confirming, self._confirming = self._confirming, {}
        for future in confirming.values():
            if not future.done():
                future.set_exception(Away(reason))
                future.exception()  # perhaps nobody waits
        for topic in list(self._echoes):
            self._end_echoes(topic)
        tokens, self._tokens = self._tokens, {}
        for future in tokens.values():
            if not future.done():
                future.set_exception(Away(reason))
                future.exception()

    async def _keep_alive(self) -> None:
        """Leave a connection that says nothing, though it is asked."""
        while True:
            connection = self.link.connection
            if connection is not None:
                asked_at = self._loop.time()
                connection.write(pack("PING"))
                await asyncio.sleep(self._deadline_s)
                if connection.heard_at < asked_at:
                    connection.abort(f"Redis did not answer for {self._deadline_s:g} s")
            else:
                await asyncio.sleep(self._deadline_s / 2)

    # What is heard:

    def _read(self, replies: Sequence[Reply]) -> None:
        fresh: dict[str, tuple[str, list[Entry]]] = {}
        for reply in replies:
            if isinstance(reply, ServerError):
                self._deny(reply)
            elif reply[0] == b"message":
                self._hear(reply[1], reply[2], fresh)
            elif reply[0] == b"subscribe":
                self._confirm(reply[1])
        self._tell(fresh)

    def _hear(self, channel: bytes, data: bytes, fresh: dict[str, tuple[str, list[Entry]]]) -> None:
        topic = self._topics.get(channel)
        if topic is None:
            if channel == self._all:
                self._tell(fresh)
                self._hear_all(data)
            return
        kind = data[:1]
        if kind == b"e":
            epoch_bytes, value = data[1:].split(b" ", 1)
            epoch, entry = epoch_bytes.decode(), parse_entry(value).entry
            before = fresh.get(topic)
            if before is not None and before[0] == epoch:
                before[1].append(entry)
                return
            if before is not None:
                self._tell(fresh)
            fresh[topic] = epoch, [entry]
            return
        self._tell(fresh)
        handler = self.on.get(kind)
        if handler is None:
            self.unknown += 1
        else:
            handler(topic, data[1:])

    def _signal(self, topic: str, message: bytes) -> None:
        node, origin, body = message.split(b"\0", 2)
        if node != self._node and self.follower is not None:
            self.follower.signal(topic, body, origin.decode())

    def _tell(self, fresh: dict[str, tuple[str, list[Entry]]]) -> None:
        """Tell the follower of entries, and who waits for their echo."""
        for topic, (epoch, entries) in fresh.items():
            if topic not in self.watched:
                continue
            known, first, last = self.watched[topic], entries[0], entries[-1]
            if known is None:
                known = self.watched[topic] = Known(Top(epoch, last.offset, 1), 0.0)
            elif known.epoch != epoch or first.offset > known.offset + 1:
                self._measuring.epochs_changed += known.epoch != epoch
                self.doubt(topic)
                known = self.watched[topic] = Known(Top(epoch, last.offset, 1), 0.0)
            elif known.oldest > known.offset:
                known.oldest, known.oldest_at = first.offset, first.at
            known.offset = max(known.offset, last.offset)
            if self.follower is not None:
                self.follower.entries(topic, epoch, entries)
            waiting = self._echoes.get(topic)
            while waiting and waiting[0][0] <= known.offset:
                _, future = waiting.popleft()
                if not future.done():
                    future.set_result(None)
        fresh.clear()

    # Confirmations and refusals of SUBSCRIBE:

    def _confirm(self, channel: bytes) -> None:
        if channel in self._denied:  # it was asked for again
            self._denied.discard(channel)
            self.doubt(self._topics.get(channel, ""))
        command = self._expected[0]
        command.confirmed += 1
        if command.confirmed == len(command.channels):
            self._expected.popleft()
        future = self._confirming.pop(channel, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _deny(self, error: ServerError) -> None:
        """Go on without what we may not hear: of several, one of them was enough to refuse all."""
        connection = self._connection
        command = self._expected.popleft() if self._expected else None
        if command is None or error.code != "NOPERM":
            log.error("Redis refuses what this node asked for to listen: %s", error)
            return
        if len(command.channels) > 1 and connection is not None:
            for channel in command.channels:
                self._subscribe(connection, [channel])
            return
        (channel,) = command.channels[:1]
        if channel not in self._denied:
            self._denied.add(channel)
            log.error("this node may not hear on the channel %r: %s", channel, error)
        future = self._confirming.pop(channel, None)
        if future is not None and not future.done():
            future.set_result(None)

    # Echoes, and what may have been missed:

    async def echo(self, topic: str, epoch: str, offset: int, due: float) -> None:
        """Return when the follower was told of an entry, or that it is uncertain of the topic.

        At once where nobody watches it, and at `due` by the loop's clock at the latest.
        """
        if topic not in self.watched:
            return
        known = self.watched[topic]
        if known is not None and known.epoch == epoch and known.offset >= offset:
            return
        channel = self._partitions.channel(topic)
        if not self.is_sure or channel in self._denied:
            self.doubt(topic)
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._echoes.setdefault(topic, deque()).append((offset, future))
        try:
            async with asyncio.timeout_at(due):
                await future
        except TimeoutError:
            self.doubt(topic)

    async def settle(self) -> None:
        """Return when the follower was told of whatever had happened before."""
        self._token += 1
        token = b"%b %d" % (self._node, self._token)
        future = self._tokens[token] = self._loop.create_future()
        call = pack("PUBLISH", self._all, TOKEN + token)
        try:
            if self.link.is_up:
                await self._functions.call_all([call])
                async with asyncio.timeout(self._deadline_s):
                    await future
            else:
                await self._tell_rewritten()
        except (TimeoutError, Away):
            await self._tell_rewritten()
        finally:
            self._tokens.pop(token, None)

    async def _tell_rewritten(self) -> None:
        """Tell the follower what was rewritten since it was last sure to hear of it."""
        _, now = await self._functions.call("probe", "")
        since = self._sure_us or int(now)
        for topic in await self._functions.call("rewritten_since", "", since - OVERLAP_US):
            if self.follower is not None:
                self.follower.rewritten(topic.decode())
        self._sure_us = int(now)

    def _hear_all(self, message: bytes) -> None:
        handler = self.on_all.get(message[:1])
        if handler is None:
            self.unknown += 1
        else:
            handler(message[1:])

    def _hear_rewritten(self, topic: bytes) -> None:
        if self.follower is not None:
            self.follower.rewritten(topic.decode())

    def _hear_token(self, token: bytes) -> None:
        future = self._tokens.get(token)
        if future is not None and not future.done():
            future.set_result(None)

    def doubt(self, topic: str) -> None:
        """Have the follower compare a topic with its log."""
        if topic in self.watched:
            self.watched[topic] = None
            self._end_echoes(topic)
            if self.follower is not None:
                self.follower.uncertain(topic)

    def _end_echoes(self, topic: str) -> None:
        for _, future in self._echoes.pop(topic, ()):
            if not future.done():
                future.set_result(None)

    async def _keep_checking(self) -> None:
        """Compare positions: when the connection has come back, and from time to time."""
        checked_at = self._loop.time()
        while True:
            is_close = self._denied or self._suspects or self._is_deaf
            wait_s = DENIED_S if is_close else CHECK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._has_come_back.wait()
            has_come_back = self._has_come_back.is_set()
            self._has_come_back.clear()
            self._ask_again()
            is_late = self._is_deaf or self._loop.time() - checked_at >= CHECK_S
            is_due = has_come_back or is_late
            topics: Iterable[str] = self.watched
            if not is_due:
                topics = {
                    *self._suspects,
                    *(self._topics[each] for each in self._denied & self._topics.keys()),
                }
            try:
                if has_come_back:
                    await self._tell_rewritten()
                elif is_due and self.link.is_up:
                    _, now = await self._functions.call("probe", "")
                    self._sure_us = int(now) if self._is_sure else self._sure_us
                await self.check(list(topics), is_sure=has_come_back or self._is_deaf)
            except Unavailable:
                if has_come_back:
                    self._has_come_back.set()  # once more, when the other connection is back, too
                    await asyncio.sleep(DENIED_S)
                continue
            except Exception:  # a bug: what may have been missed must be looked for all the same
                log.exception("positions could not be compared")
                await asyncio.sleep(DENIED_S)
                continue
            if is_due:
                checked_at = self._loop.time()
            if has_come_back:
                self._is_sure = self.link.is_up

    def _ask_again(self) -> None:
        """Ask for some of the channels that this node was not allowed to hear on."""
        connection = self.link.connection
        if connection is not None:
            for channel in list(islice(self._denied, SUBSCRIBED)):
                self._subscribe(connection, [channel])

    async def check(self, topics: Sequence[str], *, is_sure: bool) -> None:
        """Compare topics with their logs; the follower is told of those that are elsewhere.

        What one has just been told of may still be on its way to this node. So a topic that is only
        behind counts if it is behind the same place at the next look, unless `is_sure`.
        """
        for some in _parts(topics, CHECKED):
            found = await self._positions(some)
            for topic, there in zip(some, found, strict=True):
                known = self.watched.get(topic)
                if known is None:
                    continue
                suspect = self._suspects.pop(topic, None)
                if there is None or there.epoch != known.epoch:
                    outcome = "rotated"
                elif there.offset <= known.offset:
                    outcome = "same"
                elif is_sure or (suspect is not None and known.offset < suspect):
                    outcome = "missed"
                else:
                    outcome = "coming"
                    self._suspects[topic] = there.offset
                self._measuring.positions[outcome] += 1
                if outcome in ("rotated", "missed"):
                    self._measuring.epochs_changed += outcome == "rotated"
                    self.doubt(topic)

    async def _positions(self, topics: Sequence[str]) -> list[State | None]:
        """Return where logs are; None where one has to go over to another epoch."""
        by_partition: dict[bytes, list[str]] = {}
        for topic in topics:
            by_partition.setdefault(self._partitions.of(topic), []).append(topic)
        packed = []
        for prefix, names in by_partition.items():
            packed += [pack("HMGET", prefix + b"m", *names), pack("GET", prefix + b"base")]
        # In the same pipeline: which process it is that answers.
        packed.append(self._functions.pack("probe", self._partitions.all[0]))
        *replies, (run, _) = await self._functions.call_all(packed)
        found: dict[str, State | None] = {}
        for (_, names), states, base in zip(
            by_partition.items(), replies[::2], replies[1::2], strict=True
        ):
            for topic, value in zip(names, states, strict=True):
                state = value or base
                parsed = parse_state(state) if state else None
                is_current = parsed is not None and parsed.run == run.decode()
                found[topic] = parsed if is_current else None
        return [found[topic] for topic in topics]


def _parts(channels: Sequence[_ItemT], size: int = SUBSCRIBED) -> Iterator[Sequence[_ItemT]]:
    for start in range(0, len(channels), size):
        yield channels[start : start + size]
