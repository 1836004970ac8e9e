"""What a follower of a log over HTTP notes, against a server that says what a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from tests.checker.activities import MAIN, Source, encode
from tests.checker.followers import Follower, Mode
from tests.checker.history import check
from tests.checker.records import History


def answer(status: int, body: Any, at: int | None = None, *, is_events: bool = False) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} words\r\n"
    if at is not None:
        head += f"Stream-Next-Offset: e_{at:016d}\r\n"
    if not is_events:
        head += f"Content-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


class World:
    """A history in which `n-1` to `n-9` are sent on one PoV, and answers about them."""

    def __init__(self) -> None:
        self.history = History()
        source = Source(self.history, "n", MAIN, Random(1))
        self.activities = [source.make() for _ in range(9)]

    def items(self, *offsets: int) -> bytes:
        """Return what a log has, of which `n-1` is the first, and so on."""
        each = (
            b'{"type":"activity","data":%b,"offset":%d}' % (encode(self.activities[at - 1]), at)
            for at in offsets
        )
        return b"[%b]" % b",".join(each)

    def events(self, at: int, *offsets: int) -> bytes:
        """Return a pair of events."""
        place = b'{"streamNextOffset":"e_%016d"}' % at
        return b"event: data\ndata:%b\n\nevent: control\ndata:%b\n\n" % (
            self.items(*offsets),
            place,
        )

    def follow(self, mode: Mode, answers: Sequence[bytes], end: int) -> set[str]:
        """Follow to an offset; return what kinds of violations that has."""
        left = [answer(200, [], 0), *answers]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while left:
                    await reader.readuntil(b"\r\n\r\n")
                    said = left.pop(0)
                    writer.write(said)
                    if b"Content-Length" not in said:
                        break
            except asyncio.IncompleteReadError:
                pass  # the client has what it wants
            finally:
                writer.close()

        async def work() -> None:
            async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                follower = Follower(self.history, port, "ana", MAIN, "p", mode, 4)
                task = asyncio.ensure_future(follower.run())
                async with asyncio.timeout(30):
                    await follower.catch_up({"p": end})
                task.cancel()
                await asyncio.wait([task])
                follower.reset()

        asyncio.run(work())
        return {each.kind for each in check(self.history).violations} - {"foreign"}


def lost(offset: int, oldest: int, missed: int | None) -> bytes:
    error = {"code": "position_lost", "epoch": "e", "offset": offset, "oldestOffset": oldest}
    return answer(410, {"error": error | ({} if missed is None else {"missed": missed})})


@pytest.mark.parametrize("mode", ["pages", "poll"])
def test_pages_that_go_on_and_a_gap_that_is_told_pass(mode: Mode) -> None:
    world = World()
    answers = [
        answer(200, world.items(1, 2), 2),
        answer(204, b"", 2),
        answer(503, {"error": {"code": "unavailable", "message": ""}}),
        lost(7, 5, 2),
        answer(200, world.items(8, 9), 9),
    ]
    assert world.follow(mode, answers, 9) == set()
    assert world.history.counts["positions lost"] == 1


def test_events_that_were_cut_come_again() -> None:
    world = World()
    whole = world.events(3, 1, 2, 3)
    answers = [
        answer(200, whole[: whole.index(b"event: control")], is_events=True),
        answer(200, whole + world.events(4, 4), is_events=True),
    ]
    assert world.follow("events", answers, 4) == set()


@pytest.mark.parametrize(
    ("offsets", "at", "kinds"),
    [((1, 3), 3, {"hole"}), ((2, 1), 1, {"hole", "repeated"}), ((1, 2), 3, {"ahead"})],
)
def test_what_an_answer_leaves_out_or_repeats_is_found(
    offsets: Sequence[int], at: int, kinds: set[str]
) -> None:
    for mode in ("pages", "events"):
        world = World()
        body = (
            answer(200, world.events(at, *offsets), is_events=True)
            if mode == "events"
            else answer(200, world.items(*offsets), at)
        )
        assert world.follow("events" if mode == "events" else "pages", [body], at) >= kinds


@pytest.mark.parametrize(("offset", "oldest", "missed"), [(7, 1, 0), (7, 5, 3), (7, 5, None)])
def test_a_gap_that_is_none_or_is_counted_wrong_is_found(
    offset: int, oldest: int, missed: int | None
) -> None:
    world = World()
    answers = [answer(200, world.items(1, 2), 2), lost(offset, oldest, missed)]
    assert "flag" in world.follow("pages", answers, 7)
