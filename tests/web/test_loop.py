"""The loop calls sockets' readers directly, and is an event loop in every other respect."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from pov_rt.web.loop import DirectLoop


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        yield one, two


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=DirectLoop) as runner:
        runner.run(work)


Pair = tuple[socket.socket, socket.socket]


def test_a_reader_by_number_is_called_before_the_loop_hands_out_anything(pair: Pair) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        order: list[object] = []

        def read() -> None:
            order.append(pair[1].recv(10))
            loop.call_soon(order.append, "soon")

        loop.add_reader(pair[1].fileno(), read)
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

        loop.add_reader(pair[1].fileno(), take)
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

        loop.add_reader(numbers[0], lambda: end(0))
        loop.add_reader(numbers[1], lambda: end(1))
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

        loop.add_reader(pair[1].fileno(), fail)
        pair[0].send(b"x")
        await asyncio.wait_for(done, 5)
        loop.remove_reader(pair[1].fileno())

    caplog.set_level(logging.ERROR)
    run(work())
    assert [record.getMessage() for record in caplog.records] == ["reading a socket failed"]


def test_it_waits_for_the_time_it_is_told_and_does_not_spin() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.02)
        assert loop.time() - began >= 0.0199

    run(work())
