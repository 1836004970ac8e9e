"""A session that is fetched: complete answers, kept until they have arrived, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.bounds import bounds_of
from pov_rt.transport.polled import ANSWER_BYTES, PolledSession

LONG_S = 30.0
"""Longer than any test: who waits for it waits for ever."""


class Client:
    """A peer that keeps what it is told, and a client that fetches."""

    def __init__(self, **limits: Any) -> None:
        self.ended = self.lagged = 0
        self.lost_for: list[str] = []
        self.got: list[bytes] = []
        self.place = 0
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        bounds = bounds_of(LimitSettings(**limits))
        self.session = PolledSession(bounds, loop, self._ended)
        self.session.start(self)

    def _ended(self, session: PolledSession) -> None:
        assert session is self.session
        self.ended += 1
        self._changed.set()

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def receive(self, payload: bytes, is_text: bool) -> None:
        assert is_text
        self.got.append(payload)
        self._changed.set()
        if payload == b"busy":
            self.session.pause_reads(True)
        if payload == b"wrong":
            raise RuntimeError("a bug")

    def lagging(self) -> None:
        self.lagged += 1
        self._changed.set()

    def lost(self, reason: str) -> None:
        self.lost_for.append(reason)
        self._changed.set()

    async def fetch(
        self, wait_s: float = LONG_S, gone: asyncio.Future[None] | None = None
    ) -> bytes:
        gone = gone or asyncio.get_running_loop().create_future()
        data, self.place = await self.session.fetch(self.place, wait_s, gone)
        return data


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def waits(client: Client) -> asyncio.Task[bytes]:
    """Begin a request that waits."""
    task = asyncio.create_task(client.fetch())
    await asyncio.sleep(0)  # its first step
    assert client.session.heard()
    return task


def test_what_comes_ends_the_request_that_waits_and_what_came_meanwhile_goes_along() -> None:
    async def work() -> None:
        client = Client()
        task = await waits(client)
        client.session.send(b"1")
        client.session.send_soon(b"2")
        assert await task == b"12"
        client.session.send(b"3")
        assert (await client.fetch(), client.place) == (b"3", 3)
        assert (await client.fetch(0.01), client.place) == (b"", 3)

    run(work())


def test_what_is_not_known_to_have_arrived_comes_again() -> None:
    async def work() -> None:
        client = Client()
        client.session.send(b"1")
        assert await client.fetch() == b"1"
        client.place = 0
        client.session.send(b"2")
        assert await client.fetch() == b"12"
        client.session.send(b"3")
        assert await client.fetch() == b"3"
        assert client.session.unsent_bytes == 1
        for place in (0, 1, 4):
            client.place = place
            with pytest.raises(LookupError):
                await client.fetch()

    run(work())


def test_an_answer_has_no_more_than_its_bytes_save_for_a_piece_that_is_larger() -> None:
    async def work() -> None:
        client = Client(queue_bytes=5 * ANSWER_BYTES, queue_slow_bytes=5 * ANSWER_BYTES)
        for piece in (b"1" * ANSWER_BYTES, b"2", b"3" * (2 * ANSWER_BYTES), b"4"):
            client.session.send(piece)
        client.session.close(CloseCode.RESTARTING, b"{}")
        found = [await client.fetch() for _ in range(3)]
        assert [len(each) for each in found] == [ANSWER_BYTES, 1, 2 * ANSWER_BYTES]
        assert client.ended == 0, "it has more to say"
        assert await client.fetch() == b"4data:{}\n\n"
        assert client.ended == 1

    run(work())


def test_the_newest_request_is_answered_and_none_that_nobody_waits_for() -> None:
    async def work() -> None:
        client = Client()
        first, gone = await waits(client), asyncio.get_running_loop().create_future()
        second = asyncio.create_task(client.fetch(LONG_S, gone))
        assert await first == b""
        assert not second.done()
        gone.set_result(None)
        assert await second == b""
        client.session.send(b"1")
        assert await client.fetch() == b"1"

    run(work())


def test_it_is_heard_of_while_a_request_waits_and_once_behind_it() -> None:
    async def work() -> None:
        client = Client()
        assert not client.session.heard()
        task = await waits(client)
        assert client.session.heard()
        client.session.send(b"1")
        await task
        assert client.session.receive([b"x"])
        assert client.session.heard()
        assert not client.session.heard()

    run(work())


def test_messages_are_handled_in_order_and_not_while_much_is_to_be_done() -> None:
    async def work() -> None:
        client = Client()
        assert client.session.receive([b"1", b"busy", b"2"])
        assert client.got == [b"1", b"busy"]
        assert not client.session.receive([b"3"])
        client.session.pause_reads(False)
        await client.until(lambda: len(client.got) == 3)
        assert client.session.receive([b"3"])
        assert client.got == [b"1", b"busy", b"2", b"3"]
        assert client.session.traffic == (7, 0)

    run(work())


def test_who_fetches_little_is_sent_less_and_goes_on_where_it_was() -> None:
    async def work() -> None:
        client = Client(queue_bytes=65_536, queue_slow_bytes=16_384, queue_slow_s=LONG_S)
        client.session.send(b"x" * 20_000)
        await client.until(lambda: client.lagged)
        assert not client.session.receive([b"1"])
        room = asyncio.create_task(client.session.drained())
        assert len(await client.fetch()) == 20_000
        assert not room.done()
        client.session.send(b"y")
        assert await client.fetch() == b"y"
        await room
        assert client.session.receive([b"1"])

    run(work())


@pytest.mark.parametrize("slow_s", [LONG_S, 0.01])
def test_more_than_may_wait_or_for_too_long_ends_it(slow_s: float) -> None:
    async def work() -> None:
        client = Client(queue_bytes=65_536, queue_slow_bytes=16_384, queue_slow_s=slow_s)
        client.session.send(b"x" * 60_000)
        if slow_s == LONG_S:
            client.session.send(b"y" * 60_000)
        await client.until(lambda: client.lost_for)
        (reason,) = client.lost_for
        assert reason.startswith("slow consumer, ")
        client.session.abort()
        assert client.ended == 1

    run(work())


def test_the_last_words_are_there_for_a_while_and_it_is_over_when_they_are_fetched() -> None:
    async def work() -> None:
        client = Client()
        client.session.send(b"1")
        client.session.close(CloseCode.RESTARTING, b"{}")
        client.session.close(CloseCode.INTERNAL, b"twice")
        client.session.send(b"late")
        assert not client.session.receive([b"x"])
        assert await client.fetch() == b"1data:{}\n\n"
        assert (client.lost_for, client.ended) == ([CloseCode.RESTARTING.reason], 1)
        client.place = 0
        with pytest.raises(LookupError):
            await client.fetch()

        unread = Client(queue_slow_s=0.01)
        unread.session.close(CloseCode.RESTARTING)
        await unread.until(lambda: unread.ended)
        assert unread.lost_for == [CloseCode.RESTARTING.reason]

    run(work())


def test_a_request_that_waits_has_the_end_at_once() -> None:
    async def work() -> None:
        for end in ("close", "abort"):
            client = Client()
            task = await waits(client)
            if end == "close":
                client.session.close(CloseCode.RESTARTING, b"{}")
                assert await task == b"data:{}\n\n"
            else:
                client.session.abort()
                assert await task == b""
            await client.session.drained()
            assert (len(client.lost_for), client.ended) == (1, 1)

    run(work())


def test_a_bug_in_a_handler_ends_its_client_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        client = Client()
        assert client.session.receive([b"wrong", b"2"])
        await client.fetch()
        assert client.got == [b"wrong"]
        assert (client.lost_for, client.ended) == ([CloseCode.INTERNAL.reason], 1)

    run(work())
    assert "handling a message failed" in caplog.text
