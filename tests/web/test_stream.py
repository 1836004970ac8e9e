"""Who takes too long to ask, or to read an answer, and who does not; how much is read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest
from tornado.httputil import HTTPInputError
from tornado.iostream import StreamClosedError

from pov_rt.runtime import turns
from pov_rt.web.stream import MAX_HEADER_BYTES, MAX_LINE_BYTES, Refusal, Stream

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
HANDSHAKE = b"GET / HTTP/1.1\r\nuPgrade: websocket\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
END = rb"\r?\n\r?\n"


class Seen:
    """The owner of a stream, who keeps what it is told."""

    def __init__(self) -> None:
        self.requests = turns.Slots(turns.REQUESTS)
        self.handshakes = turns.Slots(turns.HANDSHAKES)
        self.events: list[str] = []
        self.left: list[socket.socket] = []

    def waits(self, stream: Stream) -> None:
        self.events.append("waits")

    def asks(self, stream: Stream) -> None:
        self.events.append("asks")

    def lasts(self, stream: Stream) -> None:
        self.events.append("lasts")

    def takes_back(self, stream: Stream, head: bytes) -> bool:
        return False

    def ended(self, stream: Stream) -> None:
        self.events.append("ended")

    def malformed(self, stream: Stream, refusal: Refusal) -> None:
        self.events.append(refusal.error.code)

    def read_away(self, sock: socket.socket) -> None:
        self.left.append(sock)


def make_stream(near: socket.socket, owner: Seen | None = None) -> Stream:
    near.setblocking(False)
    return Stream(near, 100.0, owner or Seen())


def is_overdue(stream: Stream, now: float) -> bool:
    return stream.is_overdue(now, request_s=10.0, idle_s=75.0)


async def turn() -> None:
    """Let the loop look at its sockets, and those who wait for them go on."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_first_request_is_on_its_way_from_the_moment_of_connecting() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        with far:
            stream = make_stream(near)
            assert not is_overdue(stream, 120.0), "nobody waits for it yet"
            request = asyncio.ensure_future(stream.read_until_regex(END))
            await turn()
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
        with far:
            stream = make_stream(near)
            await stream.write(ANSWER)
            request = asyncio.ensure_future(stream.read_until_regex(END))
            await turn()
            assert not is_overdue(stream, 200.0), "it waits from here"
            assert not is_overdue(stream, 274.9)
            assert is_overdue(stream, 275.0)
            # Asked and answered between two looks: the wait begins again.
            far.send(REQUEST)
            await request
            await stream.write(ANSWER)
            request = asyncio.ensure_future(stream.read_until_regex(END))
            await turn()
            assert not is_overdue(stream, 276.0)
            assert not is_overdue(stream, 350.9)
            assert is_overdue(stream, 351.0)
            request.cancel()
            stream.close()

    asyncio.run(run())


def test_a_later_one_is_on_its_way_since_it_was_seen_to_begin() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        with far:
            stream = make_stream(near)
            await stream.write(ANSWER)
            far.send(REQUEST[:5])
            first = asyncio.ensure_future(stream.read_until_regex(END))
            await turn()
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
        with far:
            stream = make_stream(near)
            written = stream.write(bytes(8_000_000))
            assert not is_overdue(stream, 200.0)
            assert not is_overdue(stream, 229.9)
            for _ in range(40):
                far.recv(1 << 16)
                await turn()
            assert not is_overdue(stream, 230.0), "it has read some"
            assert not is_overdue(stream, 259.9)
            assert is_overdue(stream, 260.0)
            stream.close()
            await asyncio.gather(written, return_exceptions=True)

    asyncio.run(run())


def test_a_stock_refusal_is_counted_and_sent_as_json() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        owner = Seen()
        with far:
            stream = make_stream(near, owner)
            await stream.write(ANSWER)
            assert owner.events == []
            await stream.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert owner.events == ["invalid_request"]
            assert b'{"error":{"code":"invalid_request"' in far.recv(4096)
            stream.close()
            (left,) = owner.left
            left.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\n\r\n",
        b"\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_line_ends_with_both_characters_or_it_is_no_http(head: bytes) -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        with far:
            stream = make_stream(near)
            far.send(head)
            with pytest.raises(HTTPInputError):
                await stream.read_until_regex(END)
            stream.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * MAX_HEADER_BYTES, 414),
        (b"GET /" + b"x" * MAX_LINE_BYTES + REQUEST[5:], 414),
        (REQUEST[:-2] + b"A:" + b"x" * MAX_HEADER_BYTES, 431),
        (REQUEST[:-2] + b"A:" + b"x" * MAX_LINE_BYTES + b"\r\n\r\n", 431),
        (REQUEST[:-2] + b"A: b\r\n" * 6000 + b"\r\n", 431),
    ],
)
@pytest.mark.parametrize("piece", [5000, 50_000])
def test_who_sends_too_long_a_head_is_told_so(head: bytes, status: int, piece: int) -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        owner = Seen()
        with far:
            stream = make_stream(near, owner)
            request = asyncio.ensure_future(stream.read_until_regex(END, MAX_HEADER_BYTES))
            for start in range(0, len(head), piece):
                far.send(head[start : start + piece])
                await turn()
            with pytest.raises(StreamClosedError):
                await request
            answer = far.recv(4096)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b'{"error":{"code":"too_large"' in answer
            events = [event for event in owner.events if event != "asks"]
            assert events == ["waits", "too_large", "ended"]
            (left,) = owner.left
            left.close()

    asyncio.run(run())


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("before", [b"", REQUEST])
@pytest.mark.parametrize("behind", [b"", b"a frame", bytes(range(256)) * 400])
def test_what_came_behind_a_request_goes_with_the_socket(
    before: bytes, behind: bytes, is_known: bool
) -> None:
    """Whether it came before HTTP was spoken, was read since, or was read by nobody yet."""
    come = before + REQUEST + behind

    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        owner = Seen()
        with far:
            if not is_known:
                far.sendall(come)
            far.shutdown(socket.SHUT_WR)
            stream = Stream(near, 100.0, owner, come if is_known else b"")
            if before:
                await stream.read_until_regex(END)
                await stream.write(ANSWER)
            await stream.read_until_regex(END)
            sock, received = stream.release()
            assert owner.events[-1] == "ended"
            with sock:
                while data := sock.recv(65536):
                    received += data
                sock.send(b"x")  # it is open
            assert received == behind

    asyncio.run(run())


def test_while_much_is_on_its_way_nothing_waits_for_the_kernel_to_acknowledge() -> None:
    """Delayed acknowledgements would hold up a sender whose window is full, for 40 ms."""

    def is_quick() -> int:
        return near.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)

    async def run() -> None:
        stream = make_stream(near)
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


@contextmanager
def asked(owner: Seen, heads: Sequence[bytes]) -> Iterator[Sequence[asyncio.Future[bytes]]]:
    """Have one client each ask with one of these heads; the futures are done when it is begun."""
    with ExitStack() as stack:
        waiting = []
        for head in heads:
            near, far = socket.socketpair()
            stack.enter_context(far)
            stream = make_stream(near, owner)
            stack.callback(stream.close)
            far.send(head)
            waiting.append(asyncio.ensure_future(stream.read_until_regex(END)))
        yield waiting


@pytest.mark.parametrize(
    ("head", "budget"), [(REQUEST, turns.REQUESTS), (HANDSHAKE, turns.HANDSHAKES)]
)
def test_so_many_requests_are_begun_in_a_turn_and_the_others_in_the_next_ones(
    head: bytes, budget: int
) -> None:
    async def run() -> None:
        with asked(Seen(), [head] * (2 * budget + 1)) as waiting:
            begun, most = 0, 0
            while begun < len(waiting):
                await asyncio.sleep(0)
                now = sum(each.done() for each in waiting)
                begun, most = now, max(most, now - begun)
            assert most == budget

    asyncio.run(run())


def test_a_request_does_not_wait_for_the_handshakes_before_it() -> None:
    async def run() -> None:
        with asked(Seen(), [*[HANDSHAKE] * (3 * turns.HANDSHAKES), REQUEST]) as waiting:
            await waiting[-1]
            assert not waiting[-2].done()
            await asyncio.gather(*waiting)

    asyncio.run(run())


def test_who_waits_for_its_turn_has_asked() -> None:
    async def run() -> None:
        owner = Seen()
        many = 3 * turns.HANDSHAKES
        with asked(owner, [HANDSHAKE] * many) as waiting:
            await waiting[0]
            assert owner.events.count("asks") == many
            assert not waiting[-1].done()
            await asyncio.gather(*waiting)

    asyncio.run(run())


def test_what_a_client_that_is_gone_asked_for_is_not_begun() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        with far:
            stream = make_stream(near)
            far.send(REQUEST * 3)
            assert await stream.read_until_regex(END) == REQUEST
            stream.close()
            with pytest.raises(StreamClosedError):
                await stream.read_until_regex(END)

    asyncio.run(run())


def test_an_end_keeps_nothing_of_what_was_being_sent() -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        stream = make_stream(near)
        far.close()
        with suppress(StreamClosedError):  # by the system the first write fails, or the second
            await stream.write(ANSWER)
        with pytest.raises(StreamClosedError):
            await stream.write(ANSWER)
        assert isinstance(stream.error, OSError)
        assert stream.error.__traceback__ is None

    asyncio.run(run())
