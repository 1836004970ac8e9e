"""What the app iterates over: the activities of a PoV, or messages of one kind.

What waits for it is bounded: while one consumer is full, the server is not read.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec

from pov_rt.client.errors import Missed
from pov_rt.client.follow import Followed, Gap, Item, Joined, PlacedActivity, Position, Start, State
from pov_rt.protocol.messages import Message

ItemT = TypeVar("ItemT")
MessageT = TypeVar("MessageT", bound=Message)

MOST_AT_ALL = 100_000
"""While an answer is waited for, which comes behind what is on its way, so many may wait."""


class Room:
    """Whether there is room in all channels of a client. Owner: the client."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._full: set[Channel[object]] = set()
        self._changed = asyncio.Event()

    def note(self, channel: Channel[object]) -> None:
        """Take note of how many items wait in a channel now."""
        if channel.waiting >= self.most:
            self._full.add(channel)
        elif channel in self._full:
            self._full.discard(channel)
            self._changed.set()

    def look(self) -> None:
        """Have `wait` look again at whether an answer is waited for."""
        self._changed.set()

    async def wait(self, is_asking: Callable[[], bool]) -> None:
        """Wait until the server may be read.

        Without a request under way, until no channel is full. Whoever asks from within its own loop
        would else wait for an answer that is not read.
        """
        while self._full and (not is_asking() or self._is_over()):
            self._changed.clear()
            await self._changed.wait()

    def _is_over(self) -> bool:
        return any(channel.waiting >= MOST_AT_ALL for channel in self._full)


class Channel(Generic[ItemT]):
    """Items on their way to one consumer."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._items: deque[ItemT] = deque()
        self._change = asyncio.Event()
        self._error: Exception | None = None
        self.is_ended = False

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._items)

    def put(self, item: ItemT) -> None:
        """Add an item."""
        if not self.is_ended:
            self._items.append(item)
            self._change.set()
            self._room.note(self)  # type: ignore[arg-type]

    def end(self, error: Exception | None = None) -> None:
        """End it behind what waits; `error` is then raised for the consumer, once."""
        if not self.is_ended:
            self.is_ended, self._error = True, error
            self._change.set()

    def drop(self) -> None:
        """End it at once."""
        self.end()
        self._error = None
        self._items.clear()
        self._change.set()
        self._room.note(self)  # type: ignore[arg-type]

    async def take(self) -> ItemT:
        """Return the next item. Raises what it ended with, or StopAsyncIteration."""
        while not self._items:
            if self.is_ended:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            self._change.clear()
            await self._change.wait()
        item = self._items.popleft()
        self._room.note(self)  # type: ignore[arg-type]
        return item


class Owner(Protocol):
    """What a subscription needs of its client."""

    def leave(self, followed: Followed) -> None:
        """Follow a PoV no more."""

    async def request(
        self, message: dict[str, Any], *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Send a message and return its answer."""


class Subscription:
    """The activities of one PoV, in order, each once. For one consumer.

    It ends when it, or the client, is closed; what ends it otherwise is raised. Close it, or leave
    its `async with`, to unsubscribe; one that nobody holds any more is closed, too.
    """

    def __init__(
        self,
        client: Owner,
        followed: Followed,
        channel: Channel[Item],
        get_state: Callable[[Gap | None], Awaitable[object]] | None,
        on_gap: Callable[[Gap], object] | None,
        on_joined: Callable[[Joined], object] | None,
    ) -> None:
        self.pov_id = followed.pov_id
        self._client = client
        self._followed = followed
        self._channel = channel
        self._get_state = get_state
        self._on_gap = on_gap
        self._due: Start | None = None
        """What the app was not told of yet, because its function failed or was cancelled."""
        self._position = followed.position
        followed.on_joined = on_joined
        loop = asyncio.get_running_loop()
        self._finalizer = weakref.finalize(self, _leave, loop, client, followed)
        self._finalizer.atexit = False

    @property
    def position(self) -> Position | None:
        """Up to where its activities were given: what to keep, and give as `since` next time."""
        return self._position

    @property
    def repeated(self) -> int:
        """How many activities the server sent once more than it should; they were given once."""
        return self._followed.repeated

    @property
    def state(self) -> State:
        """What it is doing: `live`, or one of those of `follow`."""
        return self._followed.state

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PlacedActivity:
        """Return the next activity. If this is cancelled, the next call returns it."""
        while True:
            if self._due is not None:
                await self._tell(self._due)
                self._due = None
            item = await self._channel.take()
            if isinstance(item, Start):
                self._position, self._due = item.at, item
            elif isinstance(item, Position):
                self._position = item
            else:
                self._position = item.position
                return item

    async def ack(self) -> None:
        """Have the server remember, for this device, that all that was given is done with."""
        if self._position is not None:
            place = self._position._asdict()
            await self._client.request({"type": "ack", "povId": self.pov_id, **place})

    async def close(self) -> None:
        """Unsubscribe; what waits is dropped."""
        self._finalizer.detach()
        self._client.leave(self._followed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _tell(self, start: Start) -> None:
        if self._get_state is not None:
            await self._get_state(start.gap)
        if start.gap is None:
            return
        if self._on_gap is not None:
            told = self._on_gap(start.gap)
            if inspect.isawaitable(told):
                await told
        elif self._get_state is None:
            self._due = None  # it is told by that, once
            raise Missed(start.gap)


class Messages(Generic[MessageT]):
    """What the server pushes of one kind. Close it when you need no more."""

    def __init__(
        self, kind: type[MessageT], channel: Channel[dict[str, Any]], leave: Callable[[], None]
    ) -> None:
        self._kind = kind
        self._channel = channel
        self._leave = leave

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MessageT:
        """Return the next one."""
        return msgspec.convert(await self._channel.take(), self._kind)

    async def close(self) -> None:
        """Take no more; what waits is dropped."""
        if not self._channel.is_ended:
            self._leave()
        self._channel.drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _leave(loop: asyncio.AbstractEventLoop, client: Owner, followed: Followed) -> None:
    """Close a subscription that nobody holds any more: it would fill up and stop the client."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(client.leave, followed)
