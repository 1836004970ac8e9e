"""The loop calls sockets' readers directly, and is an event loop in every other respect."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.transport.bounds import bounds_of
from pov_rt.transport.frames import Opcode
from pov_rt.transport.loop import DirectLoop, watch
from pov_rt.transport.wire import Wire
from tests.frames import masked_frame

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        yield one, two


class Calls:
    """A reader that calls something."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def readable(self) -> None:
        self._call()


def direct(fd: int, call: Callable[[], object]) -> None:
    """Have something called when there is something to read."""
    watch(asyncio.get_running_loop(), fd, Calls(call))


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=DirectLoop) as runner:
        runner.run(work)


def test_a_reader_is_called_before_the_loop_hands_out_anything(pair: Pair) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        order: list[object] = []

        def read() -> None:
            order.append(pair[1].recv(10))
            loop.call_soon(order.append, "soon")

        direct(pair[1].fileno(), read)
        pair[0].send(b"a")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == [b"a", "soon"]
        assert loop.remove_reader(pair[1].fileno())
        pair[0].send(b"b")
        await asyncio.sleep(0)
        assert len(order) == 2
        assert not loop.remove_reader(pair[1].fileno())

    run(work())


def test_writers_and_readers_with_arguments_are_served_as_ever(pair: Pair) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        read, written = loop.create_future(), loop.create_future()

        def take() -> None:
            read.set_result(pair[1].recv(9))

        def note() -> None:
            if not written.done():
                written.set_result(None)

        direct(pair[1].fileno(), take)
        loop.add_writer(pair[1].fileno(), note)
        await asyncio.wait_for(written, 5)
        pair[0].send(b"both")
        assert await asyncio.wait_for(read, 5) == b"both"
        loop.remove_writer(pair[1].fileno())
        loop.remove_reader(pair[1].fileno())
        stock = loop.create_future()
        loop.add_reader(pair[1], stock.set_result, "argument")
        pair[0].send(b"x")
        assert await asyncio.wait_for(stock, 5) == "argument"
        loop.remove_reader(pair[1])

    run(work())


def test_a_reader_that_closes_another_ready_socket_does_no_harm(pair: Pair) -> None:
    async def work() -> None:
        loop, called = asyncio.get_running_loop(), []
        others = socket.socketpair()
        numbers = [pair[1].fileno(), others[1].fileno()]

        def end(mine: int) -> None:
            called.append(mine)
            for number in numbers:
                loop.remove_reader(number)
            others[1].close()

        direct(numbers[0], lambda: end(0))
        direct(numbers[1], lambda: end(1))
        pair[0].send(b"x")
        others[0].send(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(called) == 1
        others[0].close()

    run(work())


def test_a_reader_that_fails_is_one_line_and_the_loop_goes_on(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def fail() -> None:
            pair[1].recv(9)
            loop.call_soon(done.set_result, None)
            raise RuntimeError("a bug")

        direct(pair[1].fileno(), fail)
        pair[0].send(b"x")
        await asyncio.wait_for(done, 5)
        loop.remove_reader(pair[1].fileno())

    caplog.set_level(logging.ERROR)
    run(work())
    assert [record.getMessage() for record in caplog.records] == ["reading a socket failed"]


class Listener:
    """Keeps what a wire hands out; it stops the wire at the message `stop`."""

    def __init__(self) -> None:
        self.wire: Wire
        self.got: list[bytes] = []

    def receive(self, payload: bytes, is_text: bool) -> None:
        self.got.append(payload)
        if payload == b"stop":
            self.wire.pause_reads(True)

    def lagging(self) -> None: ...

    def lost(self, reason: str) -> None: ...


def frames(*texts: str) -> bytes:
    return b"".join(masked_frame(Opcode.TEXT, text.encode()) for text in texts)


def test_what_came_behind_the_handshake_is_handled_before_what_is_read(pair: Pair) -> None:
    async def work() -> None:
        listener = Listener()
        bounds = bounds_of(LimitSettings())
        loop = asyncio.get_running_loop()
        listener.wire = Wire(pair[1], bounds, loop, lambda _: None)
        pair[0].send(frames("c", "d"))
        listener.wire.start(listener, frames("a", "b"))
        for _ in range(4):
            await asyncio.sleep(0)
        assert listener.got == [b"a", b"b", b"c", b"d"]
        listener.wire.abort()

    run(work())


def test_what_waited_while_a_socket_was_not_read_is_handled_before_what_is_read(
    pair: Pair,
) -> None:
    async def work() -> None:
        listener = Listener()
        bounds = bounds_of(LimitSettings())
        loop = asyncio.get_running_loop()
        listener.wire = Wire(pair[1], bounds, loop, lambda _: None)
        listener.wire.start(listener, b"")
        pair[0].send(frames("a", "stop", "b", "stop", "c"))
        await asyncio.sleep(0)
        pair[0].send(frames("d"))
        for _ in range(3):
            await asyncio.sleep(0)
            listener.wire.pause_reads(False)
            pair[0].send(frames("e"))
        for _ in range(4):
            await asyncio.sleep(0)
        assert listener.got == [b"a", b"stop", b"b", b"stop", b"c", b"d", b"e", b"e", b"e"]
        listener.wire.abort()

    run(work())


def test_it_waits_for_the_time_it_is_told_and_does_not_spin() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.02)
        assert loop.time() - began >= 0.0199

    run(work())


def test_another_reader_takes_the_place_of_the_first_whichever_kind_they_are(pair: Pair) -> None:
    async def work() -> None:
        loop, got = asyncio.get_running_loop(), list[str]()
        number = pair[1].fileno()

        def read(name: str) -> None:
            pair[1].recv(9)
            got.append(name)

        def add(name: str, *, is_direct: bool) -> None:
            if is_direct:
                direct(number, lambda: read(name))
            else:
                loop.add_reader(number, read, name)

        for name, is_direct in (("a", True), ("b", True), ("c", False), ("d", False), ("e", True)):
            add(name, is_direct=is_direct)
            pair[0].send(b"x")
            for _ in range(3):
                await asyncio.sleep(0)
        assert got == ["a", "b", "c", "d", "e"]
        assert loop.remove_reader(number)
        assert not loop.remove_reader(number)

    run(work())


def test_what_is_called_soon_has_its_context_and_may_be_cancelled() -> None:
    name: ContextVar[str] = ContextVar("name")
    own = copy_context()
    own.run(name.set, "own")

    async def work() -> None:
        loop, got = asyncio.get_running_loop(), list[str]()
        name.set("mine")
        loop.call_soon(lambda: got.append(name.get()))
        loop.call_soon(lambda: got.append(name.get()), context=own)
        loop.call_soon(got.append, "never").cancel()
        loop.call_soon(got.append, "last")
        await asyncio.sleep(0)
        assert got == ["mine", "own", "last"]

    run(work())
    loop = DirectLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
