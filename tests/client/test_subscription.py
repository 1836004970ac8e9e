"""What waits for a consumer, and when the server is not read for it."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.client.subscription import Channel, Room
from tests.client.support import run


def test_a_full_channel_stops_the_reading_until_something_was_taken() -> None:
    async def work() -> None:
        room = Room(2)
        one, other = Channel[int](room), Channel[int](room)
        one.put(1)
        await room.wait(lambda: False)
        one.put(2)
        other.put(3)
        waiting = asyncio.ensure_future(room.wait(lambda: False))
        await asyncio.sleep(0)
        assert await other.take() == 3
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await one.take() == 1
        await waiting

    run(work)


def test_it_is_read_on_for_an_answer_that_is_waited_for() -> None:
    async def work() -> None:
        room, asking = Room(1), [False]
        channel = Channel[int](room)
        channel.put(1)
        waiting = asyncio.ensure_future(room.wait(lambda: asking[0]))
        await asyncio.sleep(0)
        assert not waiting.done()
        asking[0] = True
        room.look()
        await waiting

    run(work)


def test_what_is_dropped_stops_nothing() -> None:
    async def work() -> None:
        room = Room(1)
        channel = Channel[int](room)
        channel.put(1)
        channel.drop()
        channel.put(2)
        await room.wait(lambda: False)
        with pytest.raises(StopAsyncIteration):
            await channel.take()

    run(work)


def test_an_end_comes_behind_what_waits_and_is_raised_once() -> None:
    async def work() -> None:
        channel = Channel[int](Room(9))
        channel.put(1)
        channel.end(OSError("gone"))
        assert await channel.take() == 1
        with pytest.raises(OSError, match="gone"):
            await channel.take()
        with pytest.raises(StopAsyncIteration):
            await channel.take()

    run(work)
