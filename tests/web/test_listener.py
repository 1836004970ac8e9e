"""Who takes too long to ask, or to read an answer, and who does not; how much is read."""

from __future__ import annotations

import asyncio
import socket

from pov_rt.web.listener import Stream

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
END = rb"\r\n\r\n"


def is_overdue(stream: Stream, now: float) -> bool:
    return stream.is_overdue(now, request_s=10.0, idle_s=75.0)


def test_a_first_request_is_on_its_way_from_the_moment_of_connecting() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            stream = Stream(near, 100.0, malformed=lambda: None)
            assert not is_overdue(stream, 120.0), "nobody waits for it yet"
            request = stream.read_until_regex(END)
            assert not is_overdue(stream, 109.9)
            assert is_overdue(stream, 110.0)
            far.send(REQUEST)
            await request
            assert not is_overdue(stream, 111.0), "it is being answered"
            stream.close()

    asyncio.run(run())


def test_between_requests_a_client_may_be_silent_for_longer() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            stream = Stream(near, 100.0, malformed=lambda: None)
            await stream.write(ANSWER)
            request = asyncio.ensure_future(stream.read_until_regex(END))
            await asyncio.sleep(0)
            assert not is_overdue(stream, 200.0), "it waits from here"
            assert not is_overdue(stream, 274.9)
            assert is_overdue(stream, 275.0)
            # Asked and answered between two looks: the wait begins again.
            far.send(REQUEST)
            await request
            await stream.write(ANSWER)
            request = asyncio.ensure_future(stream.read_until_regex(END))
            await asyncio.sleep(0)
            assert not is_overdue(stream, 276.0)
            assert not is_overdue(stream, 350.9)
            assert is_overdue(stream, 351.0)
            request.cancel()
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
            while not stream._read_buffer_size:  # noqa: ASYNC110, SLF001  (Tornado tells nobody)
                await asyncio.sleep(0)
            assert not is_overdue(stream, 200.0)
            assert not is_overdue(stream, 209.9)
            assert is_overdue(stream, 210.0)
            far.send(REQUEST[5:])
            assert await first == REQUEST
            assert not is_overdue(stream, 211.0)
            stream.close()

    asyncio.run(run())


def test_an_answer_that_is_not_read_is_waited_for_as_long_as_some_of_it_is() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            stream = Stream(near, 100.0, malformed=lambda: None)
            written = stream.write(bytes(8_000_000))
            assert not is_overdue(stream, 200.0)
            assert not is_overdue(stream, 229.9)
            done = stream._total_write_done_index  # noqa: SLF001  (Tornado has no public count)
            while stream._total_write_done_index == done:  # noqa: SLF001
                far.recv(1 << 16)
                await asyncio.sleep(0)
            assert not is_overdue(stream, 230.0), "it has read some"
            assert not is_overdue(stream, 259.9)
            assert is_overdue(stream, 260.0)
            stream.close()
            await asyncio.gather(written, return_exceptions=True)

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


def test_while_much_is_on_its_way_nothing_waits_for_the_kernel_to_acknowledge() -> None:
    """Delayed acknowledgements would hold up a sender whose window is full, for 40 ms."""

    def is_quick() -> int:
        return near.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)

    async def run() -> None:
        near.setblocking(False)
        stream = Stream(near, 100.0, malformed=lambda: None)
        for _ in range(4):  # then the kernel takes it for a talk in short sentences
            far.sendall(REQUEST)
            await stream.read_until_regex(END)
            await stream.write(ANSWER)
        assert not is_quick()
        far.sendall(bytes(60_000))
        await stream.read_bytes(60_000)
        assert is_quick()
        stream.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
        with far:
            asyncio.run(run())
