"""Since when a client has been asking; those who take too long are told from others by it."""

from __future__ import annotations

import asyncio
import socket

from pov_rt.web.listener import Stream

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
END = rb"\r\n\r\n"


def test_a_first_request_is_on_its_way_from_the_moment_of_connecting() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            stream = Stream(near, 100.0, malformed=lambda: None)
            assert stream.asks_since(101.0) is None, "nobody waits for it yet"
            request = stream.read_until_regex(END)
            assert stream.asks_since(101.5) == 100.0
            assert stream.asks_since(109.9) == 100.0
            far.send(REQUEST)
            await request
            assert stream.asks_since(110.0) is None, "it is being answered"
            await stream.write(ANSWER)
            request = stream.read_until_regex(END)
            assert stream.asks_since(170.0) is None, "between two requests it may be silent"
            assert isinstance(request, asyncio.Future)
            stream.close()

    asyncio.run(run())


def test_a_later_one_is_on_its_way_since_it_was_seen_to_begin() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            stream = Stream(near, 100.0, malformed=lambda: None)
            await stream.write(ANSWER)
            far.send(REQUEST[:5])
            first = asyncio.ensure_future(stream.read_until_regex(END))
            while not stream._read_buffer_size:  # noqa: ASYNC110  (a part of a request wakes nobody)
                await asyncio.sleep(0)
            assert stream.asks_since(200.0) == 200.0
            assert stream.asks_since(205.0) == 200.0
            far.send(REQUEST[5:])
            assert await first == REQUEST
            assert stream.asks_since(206.0) is None
            stream.close()

    asyncio.run(run())


def test_a_stock_refusal_is_counted_and_sent_as_json() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        seen: list[str] = []
        with far:
            stream = Stream(near, 100.0, malformed=lambda: seen.append("malformed"))
            await stream.write(ANSWER)
            assert seen == []
            await stream.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert seen == ["malformed"]
            assert b'{"error":{"code":"invalid_request"' in far.recv(4096)
            stream.close()

    asyncio.run(run())
