"""Bugs in what clients are told of themselves: marks, grants, inboxes, answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from pov_rt.activities import inbox as inbox_module
from pov_rt.activities.cursors import acked
from pov_rt.activities.durable import Durable
from pov_rt.connections.connection import Connection
from pov_rt.connections.directory import Directory
from pov_rt.delivery.filters import Only
from pov_rt.dispatch.handlers.context import ConnectionContext
from pov_rt.dispatch.host import PluginHost
from pov_rt.dispatch.permissions import Permissions
from pov_rt.engine.base import Position
from pov_rt.engine.sqlite.state import SqliteMarks
from tests.checker.planting import one_in, replace

LATE_S = 0.05


def forget_filters() -> None:
    """Resume without filters."""
    of = Durable.of

    async def forget(durable: Durable, user_id: str) -> Mapping[str, Only | None]:
        return dict.fromkeys(await of(durable, user_id))

    replace(Durable, "of", forget)


def forget_durable() -> None:
    """Keep durable subscriptions in memory."""
    kept: dict[str, dict[str, Only | None]] = {}

    async def add(_: Durable, user_id: str, pov_id: str, only: Only | None = None) -> None:
        kept.setdefault(user_id, {})[pov_id] = only

    async def of(_: Durable, user_id: str) -> Mapping[str, Only | None]:
        return dict(kept.get(user_id, {}))

    replace(Durable, "add", add)
    replace(Durable, "of", of)


def echo() -> None:
    """Publish as if an echo was wanted."""
    publish = ConnectionContext.publish

    def with_echo(context: ConnectionContext, activity: Any, **more: Any) -> Any:
        return publish(context, activity, **{**more, "instead": None})

    replace(ConnectionContext, "publish", with_echo)


def move_back(prefix: str) -> None:
    """Move marks wherever they are put."""
    advance = SqliteMarks.advance

    async def move(
        marks: SqliteMarks, topic: str, user: str, name: str, position: Position
    ) -> Position:
        if name.startswith(prefix):
            await marks.drop(topic, user, name)
        return await advance(marks, topic, user, name, position)

    replace(SqliteMarks, "advance", move)


def move_cursors_back() -> None:
    """Have cursors go back."""
    move_back("acked")


def move_reads_back() -> None:
    """Have read marks go back."""
    move_back("read")


def lose_receipts() -> None:
    """Tell nobody how far others have read."""

    def lose(*_: Any, **__: Any) -> None:
        return

    replace(PluginHost, "broadcast", lose)


def share_inbox_cursors() -> None:
    """Follow an inbox from what the user's first device acknowledged."""

    def share(device: str) -> str:
        return acked(device.removesuffix("-b") + "-a" if device.endswith("-b") else device)

    replace(inbox_module, "acked", share)


def forget_inbox_cursors() -> None:
    """Follow the inbox of a second device from what nobody acknowledged."""

    def forget(device: str) -> str:
        return acked("nobody" if device.endswith("-b") else device)

    replace(inbox_module, "acked", forget)


def keep_revoked() -> None:
    """Leave connections open whose tokens are void."""

    def keep(_: Directory, are_void: Any, connections: Any) -> int:
        return 0

    replace(Directory, "_close_those", keep)


def keep_lost() -> None:
    """Say what a refresh takes away, and take nothing away."""
    regrant, leave = PluginHost.regrant, Permissions.leave

    def keep(host: PluginHost, connection_id: str, identity: Any) -> Any:
        setattr(Permissions, "leave", lambda *_: False)  # noqa: B010  (as `replace`, for a moment)
        try:
            return regrant(host, connection_id, identity)
        finally:
            setattr(Permissions, "leave", leave)  # noqa: B010

    replace(PluginHost, "regrant", keep)


def delay_answers() -> None:
    """Send one of many answers a while later."""
    reply = Connection.reply

    def delay(connection: Connection, body: bytes) -> None:
        if one_in(20):
            asyncio.get_running_loop().call_later(LATE_S, reply, connection, body)
        else:
            reply(connection, body)

    replace(Connection, "reply", delay)


def count_too_much() -> None:
    """Count in digests what there is not."""
    reply = Connection.reply

    def count(connection: Connection, body: bytes) -> None:
        if b'"digest"' in body:
            message = json.loads(body)
            for each in message.get("results", [message]):
                if "digest" in each:
                    each["digest"]["counted"] += 7
            body = json.dumps(message).encode()
        reply(connection, body)

    replace(Connection, "reply", count)
