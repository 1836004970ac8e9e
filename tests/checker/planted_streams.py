"""Bugs in logs over HTTP, and in the numbers of producers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from pov_rt.engine.base import Position, Top
from pov_rt.engine.sqlite.log import LogStore, Plan
from pov_rt.protocol.errors import PositionLost
from pov_rt.server import streams
from pov_rt.server.streams import LogPage, Streams
from pov_rt.transport import stream as transport
from pov_rt.transport.stream import PollTransport, offset_of
from pov_rt.web.routes import stream as routes
from tests.checker.planting import find, one_in, replace


def skip_in_page() -> None:
    """Leave one out of some pages."""
    read = find(Streams, "read")

    async def skip(self: Streams, *given: Any) -> LogPage:
        page: LogPage = await read(self, *given)
        return page._replace(items=page.items[1:]) if page.items and one_in(10) else page

    replace(Streams, "read", skip)


def skip_in_poll() -> None:
    """Have some answers that waited say only how far it went in place of what came first."""
    take = find(PollTransport, "take")

    def skip(self: PollTransport) -> Sequence[bytes]:
        lines: Sequence[bytes] = take(self)
        if not lines or not one_in(10):
            return lines
        return [b'{"type":"position","offset":%d}' % offset_of(lines[0]), *lines[1:]]

    replace(PollTransport, "take", skip)


def tell_events_ahead() -> None:
    """Have some events be followed by a position that is ahead of them."""
    write_token = find(transport, "write_token")

    def ahead(epoch: str, offset: int) -> str:
        return str(write_token(epoch, offset + one_in(20)))

    replace(transport, "write_token", ahead)


def go_on_in_silence() -> None:
    """Answer from the oldest that is kept where a position is lost, as if nothing were."""
    locate = find(streams, "locate")

    def pass_over(top: Top, place: Position) -> None:
        try:
            locate(top, place)
        except PositionLost:
            if place.epoch != top.epoch or place.offset > top.offset:
                raise

    replace(streams, "locate", pass_over)
    replace(routes, "locate", pass_over)


def forget_numbers() -> None:
    """Forget at each start which numbers came."""
    begin = LogStore.__init__

    def forget(store: LogStore, connection: sqlite3.Connection, *rest: Any) -> None:
        connection.execute("DELETE FROM producers")
        begin(store, connection, *rest)

    replace(LogStore, "__init__", forget)


def mistake_numbers() -> None:
    """Take some new numbers for old ones: what has them is not stored."""
    number = find(Plan, "_number")

    def mistake(plan: Plan, producer: Any, seq: int) -> bool:
        return bool(number(plan, producer, seq)) and not one_in(50)

    replace(Plan, "_number", mistake)
