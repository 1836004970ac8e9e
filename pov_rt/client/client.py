"""The client: requests with deadlines, and PoVs that are followed, on a connection that comes back.

A request is its caller's coroutine, which sends it once more on the next line if it may be sent
twice. What is followed is subscribed to by one task for each line. `follow` has what happens to a
PoV; who takes its activities holds up the reading alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, TypeVar, overload

import msgspec
from msgspec import UNSET

from pov_rt.client.connection import Connection, Settings, Status
from pov_rt.client.errors import (
    Closed,
    ConnectionLost,
    PovError,
    Refused,
    RequestTimeout,
    SessionEnded,
)
from pov_rt.client.follow import Followed, Gap, Item, Joined, Only, Position, question
from pov_rt.client.lines import AnyLine, Opener
from pov_rt.client.subscription import Channel, Messages, Room, Subscription
from pov_rt.client.tokens import Token, TokenSource, source_of
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import Message, NewActivity
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.runtime.clock import Clock, SystemClock, new_id

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)

TIMEOUT_S = 10.0
MOST_POVS = 200
"""Of one message."""
MOST_REQUESTS = 1000
PAGE = 500
REPEATABLE = frozenset(
    {"unsubscribe", "ack", "read", "seen", "unread", "mute", "mutes", "history", "presence"}
    | {"publish", "amend", "retract", "ping"}
)
"""What may be sent once more after a break: it says how things are to be, or has an id."""
CHANGES = ("amend", "retract")
"""What is given an id of its own for that, `changeId`, if it has none."""
FINAL = ("forbidden", "not_found", "invalid", "unknown", "limit_exceeded")
"""What a subscription is refused for without being tried again; other errors pass."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Published(NamedTuple):
    """Where an activity is; `duplicate`: it was there before."""

    id: str
    pov_id: str
    position: Position
    duplicate: bool


class PovClient:
    """A connection to a server that comes back by itself.

    - `token` is a socket token, what returns one, or an `Exchange`. It is asked for one at each
      connection, and when the server says that the one in use expires.
    - `retry` is asked whether to come back after a connection was lost or could not be had.
    - `on_status` is told what the client is doing; `status` says it, too.
    - `max_waiting` activities wait for each consumer. While one has as many, the server is not
      read, which then keeps the rest: a slow consumer loses nothing, but holds up the others of
      this client. Give it a client of its own.

    Used on one event loop. Owner: whoever opens it.
    """

    def __init__(
        self,
        url: str | Address,
        token: Token | TokenSource,
        *,
        device: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_waiting: int = 1000,
        retry: Callable[[ConnectionLost], bool] = lambda lost: True,
        on_status: Callable[[Status], None] = lambda status: None,
        opener: Opener | None = None,
        clock: Clock | None = None,
    ) -> None:
        address = parse_url(url) if isinstance(url, str) else url
        self._timeout_s = timeout_s
        self._room = Room(max_waiting)
        self._connection = Connection(
            Settings(
                address,
                source_of(token),
                device,
                timeout_s,
                opener or AnyLine(),
                retry,
                on_status,
                clock or SystemClock(),
            ),
            self._room,
            self,
        )
        self._follows: dict[str, tuple[Followed, Channel[Item]]] = {}
        self._leaving: list[str] = []
        self._listeners: dict[str, list[Channel[dict[str, Any]]]] = {}
        self._requests = 0
        """How many are under way, or wait for a line."""
        self._ready = asyncio.Event()
        """A line is open, and all that is followed was asked for on it; or the client has ended."""
        self._wanted = asyncio.Event()
        """Something is to be subscribed to, or left."""
        self._main: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to connect; whoever asks for something waits until that is done."""
        work = self._connection.work()
        self._main = asyncio.get_running_loop().create_task(work, name="pov-rt client")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection: loops over activities end, requests raise `Closed`."""
        if self._main is not None and not self._main.done():
            self._main.cancel()
            await asyncio.wait([self._main])
        self._connection.end(Closed("the client is closed"))

    @property
    def status(self) -> Status:
        """What the client is doing."""
        return self._connection.status

    def subscribe(
        self,
        pov_id: str,
        *,
        since: Position | Literal["cursor"] | None = None,
        last: int | None = None,
        only: Only | None = None,
        durable: bool = False,
        get_state: Callable[[Gap | None], Awaitable[object]] | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        on_joined: Callable[[Joined], object] | None = None,
    ) -> Subscription:
        """Follow a PoV, or `*` for the team feed; iterate over what is returned.

        From now on; or behind a position, from what this device has acknowledged, or with the last
        n (at most 1,000). After a break it goes on from where it was; what the server does not send
        again by itself, because it is too much, is read from the history. What is missing then is
        no longer there: `get_state`, which loads the app's own state, is called when the position
        is known and after each gap, and `on_gap` after each; what comes later waits for them. With
        neither, `Missed` is raised.
        """
        self._check()
        if pov_id in self._follows:
            raise ValueError(f"{pov_id} is followed already; close that subscription first")
        followed = Followed(pov_id, since, last, only, durable=durable)
        channel: Channel[Item] = Channel(self._room)
        self._follows[pov_id] = followed, channel
        self._ready.clear()
        self._wanted.set()
        return Subscription(self, followed, channel, get_state, on_gap, on_joined)

    def messages(self, kind: type[MessageT]) -> Messages[MessageT]:
        """Iterate over what the server pushes of one kind, such as `NotificationMessage`."""
        self._check()
        channel: Channel[dict[str, Any]] = Channel(self._room)
        self._listeners.setdefault(_tag(kind), []).append(channel)
        return Messages(kind, channel, lambda: self._listeners[_tag(kind)].remove(channel))

    @overload
    async def request(
        self, message: Message | Mapping[str, Any], *, timeout_s: float | None = None
    ) -> dict[str, Any]: ...

    @overload
    async def request(
        self,
        message: Message | Mapping[str, Any],
        answer: type[MessageT],
        *,
        timeout_s: float | None = None,
    ) -> MessageT: ...

    async def request(
        self,
        message: Message | Mapping[str, Any],
        answer: type[MessageT] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> MessageT | dict[str, Any]:
        """Send a message and return its answer, as a class of messages if one is given.

        It waits for a connection, and for what is being subscribed to. If the connection breaks,
        what may be sent twice is; else `ConnectionLost`. Raises `Refused`, `RequestTimeout` after
        `timeout_s` in all, `SessionEnded` and `Closed`.
        """
        if self._requests >= MOST_REQUESTS:
            raise PovError(f"{MOST_REQUESTS} requests wait for an answer already")
        fields = _decode(encode(message))
        if fields.get("type") in CHANGES:
            fields.setdefault("changeId", new_id())
        within_s = self._timeout_s if timeout_s is None else timeout_s
        self._requests += 1
        try:
            async with asyncio.timeout(within_s):
                found = await self._request(fields)
        except TimeoutError as error:
            raise self._connection.late(fields, within_s) from error
        finally:
            self._requests -= 1
        return found if answer is None else _convert(found, answer)

    async def send(self, message: Message | Mapping[str, Any]) -> None:
        """Send a message that has no answer, such as `typing`; nobody knows whether it arrives.

        It waits for a connection as `request` does. What the server has against it is in the log.
        Raises `ConnectionLost`, `RequestTimeout`, `SessionEnded` and `Closed`.
        """
        fields = _decode(encode(message))
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._ready.wait()
                self._check()
                await self._connection.send(fields)
        except TimeoutError as error:
            raise self._connection.late(fields, self._timeout_s) from error

    async def publish(self, activity: NewActivity, *, timeout_s: float | None = None) -> Published:
        """Publish as the token's user; it is as safe as `guarantee` says when this returns.

        Without an id it gets one, so that a retry publishes nothing twice.
        """
        if activity.id is UNSET:
            activity = msgspec.structs.replace(activity, id=new_id())
        data = msgspec.to_builtins(activity)
        found = await self.request({"type": "publish", "data": data}, timeout_s=timeout_s)
        position = Position(found["epoch"], found["offset"])
        return Published(found["activityId"], found["povId"], position, found["duplicate"])

    async def history(
        self,
        pov_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """Return a page of a PoV's history, a `history_page`; `before=0` is the newest first."""
        where = {"after": after, "before": before}
        given = {name: value for name, value in where.items() if value is not None}
        return await self.request({"type": "history", "povId": pov_id, "limit": limit, **given})

    def leave(self, followed: Followed) -> None:
        """Follow a PoV no more; for its `Subscription`."""
        found = self._follows.get(followed.pov_id)
        if found is not None and found[0] is followed:
            del self._follows[followed.pov_id]
            followed.state = "ended"
            found[1].drop()
            self._leaving.append(followed.pov_id)
            self._wanted.set()

    def _follow(self, pov_id: str, step: Callable[..., None], *what: Any) -> None:
        """Do a step with a PoV, give its consumer what comes of it, and join it if it has to be."""
        if pov_id not in self._follows:
            return
        followed, channel = self._follows[pov_id]
        step(followed, *what)
        for item in followed.given:
            channel.put(item)
        followed.given.clear()
        if followed.state == "joining":
            self._wanted.set()

    def refused(self, pov_id: str, error: PovError) -> None:
        """End a subscription with an error; for the connection."""
        if pov_id in self._follows:
            followed, channel = self._follows.pop(pov_id)
            followed.state = "ended"
            channel.end(error)

    def received(self, message: dict[str, Any]) -> None:
        """Take what the server says by itself; for the connection."""
        kind = message["type"]
        if kind == "activity":
            pov_id = message.get("feed") or message["data"]["povId"]
            self._follow(pov_id, Followed.received, message["offset"], message["data"])
        elif kind == "position":
            self._follow(message["povId"], Followed.moved, message["offset"], message.get("epoch"))
        elif kind == "unsubscribed" and "code" in message:
            self.refused(message["povId"], Refused(message))
        for channel in self._listeners.get(kind, ()):
            channel.put(message)

    def lost(self) -> None:
        """Have all that is followed joined on the next line; for the connection."""
        self._ready.clear()
        for followed, _ in self._follows.values():
            followed.lost()

    def ended(self, error: PovError) -> None:
        """End everything, for good; for the connection."""
        told = None if isinstance(error, Closed) else error
        for followed, channel in self._follows.values():
            followed.state = "ended"
            channel.end(told)
        self._follows.clear()
        for channels in self._listeners.values():
            for each in channels:
                each.end(told)
        self._ready.set()

    async def opened(self) -> None:
        """Subscribe to what is to be followed, and leave what is not; for the connection."""
        while True:
            self._wanted.clear()
            while self._leaving:
                pov_id = self._leaving.pop()
                if pov_id not in self._follows:
                    await self._connection.ask({"type": "unsubscribe", "povId": pov_id})
            for group in _groups([each for each, _ in self._follows.values()]):
                await self._join(group)
            if not self._wanted.is_set():
                self._ready.set()
            await self._wanted.wait()

    async def _join(self, group: Sequence[Followed]) -> None:
        for each in group:
            each.state = "asked"
        asked = {each.pov_id: each for each in group}

        def on_answer(answer: dict[str, Any]) -> None:
            for result in answer.get("results", [answer]):
                followed = asked.get(result.get("povId"))
                if followed is not None and followed.state == "asked":
                    self._answered(followed, result)

        try:
            await self._connection.ask(question(group), on_answer)
        except (Refused, RequestTimeout) as error:
            for each in group:
                if each.state == "asked":
                    self._postpone(each, error)

    def _answered(self, followed: Followed, result: dict[str, Any]) -> None:
        if "code" in result:
            self._postpone(followed, Refused(result))
            return
        joined = _convert_part(result)
        self._follow(followed.pov_id, Followed.answered, joined)
        if followed.state == "paging":
            self._connection.start(self._page(followed))
        elif followed.on_joined is not None:
            followed.on_joined(joined)

    def _postpone(self, followed: Followed, error: Refused | RequestTimeout) -> None:
        """Try a subscription again later, unless that is of no use."""
        if isinstance(error, Refused) and error.code.startswith(FINAL):
            self.refused(followed.pov_id, error)
            return
        log.warning("%s is not subscribed to yet: %s", followed.pov_id, error)
        followed.state = "waiting"
        wait_s = error.retry_after_s if isinstance(error, Refused) else None
        self._connection.start(self._join_later(followed, 1.0 if wait_s is None else wait_s))

    async def _join_later(self, followed: Followed, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if followed.state == "waiting":
            followed.state = "joining"
            self._wanted.set()

    async def _page(self, followed: Followed) -> None:
        """Read what was missed from the history, as fast as its consumer takes it."""
        try:
            await self._read_pages(followed)
        except (Refused, RequestTimeout) as error:
            self._postpone(followed, error)
        else:
            self._wanted.set()

    async def _read_pages(self, followed: Followed) -> None:
        while followed.state == "paging" and followed.position is not None:
            await self._room.wait(lambda: False)
            after = followed.position.offset
            page = await self._connection.ask(
                {"type": "history", "povId": followed.pov_id, "after": after, "limit": PAGE}
            )
            found = [(each["offset"], each["data"]) for each in page["activities"]]
            upto, oldest = page.get("next", page["offset"]), page["oldestOffset"]
            self._follow(followed.pov_id, Followed.paged, page["epoch"], oldest, found, upto)
            if "next" not in page and followed.state == "paging":
                followed.state = "joining"

    async def _request(self, fields: dict[str, Any]) -> dict[str, Any]:
        while True:
            await self._ready.wait()
            self._check()
            line = self._connection.line
            try:
                return await self._connection.exchange(line, fields)
            except ConnectionLost:
                if line is self._connection.line:  # who reads it has not come to its end yet
                    self._ready.clear()
                if fields.get("type") not in REPEATABLE:
                    raise

    def _check(self) -> None:
        if self._connection.failure is not None:
            raise self._connection.failure


def _groups(follows: Sequence[Followed]) -> Iterator[Sequence[Followed]]:
    """Yield those that are to be joined, such as one message can name together."""
    found: dict[bytes, list[Followed]] = {}
    for each in follows:
        if each.state == "joining":
            found.setdefault(encode([each.position is None, each.common]), []).append(each)
    for group in found.values():
        for start in range(0, len(group), MOST_POVS):
            yield group[start : start + MOST_POVS]


def _tag(kind: type[Message]) -> str:
    return str(kind.__struct_config__.tag)


def _convert(found: dict[str, Any], answer: type[MessageT]) -> MessageT:
    try:
        return msgspec.convert(found, answer)
    except msgspec.ValidationError as error:
        raise PovError(f"the answer is no {answer.__name__}: {error}") from error


def _convert_part(result: dict[str, Any]) -> Joined:
    try:
        return msgspec.convert(result, Joined)
    except msgspec.ValidationError as error:
        raise SessionEnded(f"the server's answer cannot be read: {error}") from error
