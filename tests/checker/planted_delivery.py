"""Bugs in the delivery: what is sent, when, and from where on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from pov_rt.connections.connection import Connection
from pov_rt.delivery import hub as hub_module
from pov_rt.delivery import replay as replay_module
from pov_rt.delivery import topic as topic_module
from pov_rt.delivery.entries import ActivityEncoder
from pov_rt.delivery.filters import Head, Only
from pov_rt.delivery.hub import Hub
from pov_rt.delivery.replay import Replay, Start
from pov_rt.delivery.topic import Pending, Topic
from pov_rt.engine.base import Entry, Position
from tests.checker.planting import find, one_in, replace

LATE_S = 0.1
Recover = Callable[[Any, Any], Start]


def skip_one(kind: str = "pov") -> None:
    """Have one of many entries be sent as nothing."""
    message = ActivityEncoder.message

    def skip(encoder: ActivityEncoder, entry: Entry, of: str) -> bytes:
        return b"" if of == kind and one_in(300) else message(encoder, entry, of)

    replace(ActivityEncoder, "message", skip)


def skip_in_feed() -> None:
    """As `skip_one`, in the team feeds alone."""
    skip_one("team")


def alter_body() -> None:
    """Have one of many be sent with another letter."""
    message = ActivityEncoder.message

    def alter(encoder: ActivityEncoder, entry: Entry, kind: str) -> bytes:
        body = message(encoder, entry, kind)
        return body.replace(b"xx", b"xy", 1) if one_in(300) else body

    replace(ActivityEncoder, "message", alter)


def swap_two() -> None:
    """Join two messages in the wrong order."""
    join = find(topic_module, "join")

    def swap(framing: Any, bodies: Sequence[bytes]) -> Any:
        if len(bodies) > 1 and one_in(20):
            bodies = [bodies[1], bodies[0], *bodies[2:]]
        return join(framing, bodies)

    replace(topic_module, "join", swap)


def begin_too_early() -> None:
    """Serve those who come back from one before their position."""
    recover: Recover = find(hub_module, "recover")

    def begin(top: Any, since: Any) -> Start:
        start = recover(top, since)
        if isinstance(since, Position) and start.recovered and start.start > 0:
            return start._replace(start=start.start - 1)
        return start

    replace(hub_module, "recover", begin)


def deny_recovery() -> None:
    """Recover one of many positions not."""
    recover: Recover = find(hub_module, "recover")

    def deny(top: Any, since: Any) -> Start:
        start = recover(top, since)
        if isinstance(since, Position) and start.recovered and one_in(10):
            missed = top.offset - since.offset
            return Start(top, top.offset, recovered=False, missed=missed)
        return start

    replace(hub_module, "recover", deny)


def lose_at_start() -> None:
    """Forget what came since the connection joined."""
    start = Replay.start

    def lose(replay: Replay, topic: Topic, connection: Connection) -> None:
        progress = topic.catching_up.get(connection)
        if progress is not None and 0 < topic.offset - progress.offset < 4:
            progress.offset = topic.offset
        start(replay, topic, connection)

    replace(Replay, "start", lose)


def lose_at_border() -> None:
    """Replay pages without their last entry."""
    bodies = Replay._bodies

    async def lose(replay: Replay, topic: Topic, *rest: Any) -> Any:
        found = await bodies(replay, topic, *rest)
        if topic.kind == "pov" and found and len(found) > 5:
            return [*found[:-1], b""]
        return found

    replace(Replay, "_bodies", lose)


def lose_when_held() -> None:
    """Leave out one for a connection that was taken back, once something came meanwhile."""
    hold = Topic.hold

    def lose(topic: Topic, connection: Connection, *rest: Any) -> Any:
        held = hold(topic, connection, *rest)
        progress = topic.catching_up[connection]

        def skip() -> None:
            if topic.catching_up.get(connection) is progress and progress.offset < topic.offset:
                progress.offset += 1

        asyncio.get_running_loop().call_later(LATE_S, skip)
        return held

    replace(Topic, "hold", lose)


def go_on_behind_hole() -> None:
    """Take whatever a page has for what follows."""

    def contiguous(after: int, entries: Sequence[Entry]) -> bool:
        return bool(entries)

    replace(replay_module, "contiguous", contiguous)


def name_ahead() -> None:
    """Answer a subscription without `since` with one offset too many."""
    reply = Connection.reply

    def name(connection: Connection, body: bytes) -> None:
        if body.startswith(b'{"type":"subscribed"') and b'"recovered"' not in body:
            message = json.loads(body)
            if "offset" in message:
                body = json.dumps({**message, "offset": message["offset"] + 1}).encode()
        reply(connection, body)

    replace(Connection, "reply", name)


def stay() -> None:
    """Answer to `unsubscribe`, and stay subscribed."""

    def leave(hub: Hub, connection: Connection, name: str) -> bool:
        return name in connection.topics

    replace(Hub, "leave", leave)


def ignore_return() -> None:
    """Never start what was left before on the same connection."""
    left: set[tuple[Connection, str]] = set()
    leave, start = Hub.leave, Replay.start

    def note(hub: Hub, connection: Connection, name: str) -> bool:
        left.add((connection, name))
        return leave(hub, connection, name)

    def ignore(replay: Replay, topic: Topic, connection: Connection) -> None:
        if (connection, topic.name) not in left:
            start(replay, topic, connection)

    replace(Hub, "leave", note)
    replace(Replay, "start", ignore)


def filter_some() -> None:
    """Leave out some of what a filter wants."""
    wants = Only.wants

    def want(only: Only, head: Head) -> bool:
        return wants(only, head) and not one_in(20)

    replace(Only, "wants", want)


def filter_late() -> None:
    """Have a filter leave out nothing for a while."""
    select = find(topic_module, "_select")
    begun: dict[Any, float] = {}

    def late(waiting: Any, key: Any) -> Any:
        now = time.monotonic()
        if key.only is not None and now - begun.setdefault(key.only, now) < LATE_S:
            key = key._replace(only=None)
        return select(waiting, key)

    replace(topic_module, "_select", late)


def filter_early() -> None:
    """Deliver nothing any more once another filter is asked for, though it is not answered yet."""
    join = Hub.join

    async def early(hub: Hub, connection: Connection, name: str, *rest: Any, **more: Any) -> Any:
        topic = hub._topics.get(name)
        if topic is not None and name in connection.topics:
            topic.settle(connection)
            send = topic.leave_group(connection)
            await asyncio.sleep(LATE_S)
            if send is not None and name in connection.topics:
                topic.group(connection)[connection] = send
        return await join(hub, connection, name, *rest, **more)

    replace(Hub, "join", early)


def tell_ahead() -> None:
    """Tell positions that lie ahead."""
    send = Connection.send

    def tell(connection: Connection, body: bytes) -> None:
        if body.startswith(b'{"type":"position"'):
            message = json.loads(body)
            body = json.dumps({**message, "offset": message["offset"] + 20}).encode()
        send(connection, body)

    replace(Connection, "send", tell)


def answer_late() -> None:
    """Send the answer that stands for an echo some time after its place."""
    send_share = Topic._send_share

    def late(topic: Topic, connection: Connection, pending: Sequence[Pending], *rest: Any) -> None:
        for item in pending:
            if item.spare is connection and item.instead:
                loop = asyncio.get_running_loop()
                loop.call_later(LATE_S, connection.send, item.instead)
        kept = [
            structs.replace(item, instead=b"") if item.spare is connection else item
            for item in pending
        ]
        send_share(topic, connection, kept, *rest)

    replace(Topic, "_send_share", late)
