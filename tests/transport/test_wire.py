"""The life of a socket: protocol errors, slow and silent clients, expiry, the end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.config.settings import (
    AuthSettings,
    LimitSettings,
    PingSettings,
    ServerSettings,
    Settings,
)
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import NewActivity
from pov_rt.testing import SECRET, Connect, RunningServer, make_settings
from pov_rt.transport.bounds import bounds_of
from pov_rt.transport.frames import Opcode, close_frame
from pov_rt.transport.wire import Wire
from tests.frames import masked_frame

PUBLISHER = Publisher("service:app", "app", "main")


class Raw:
    """A client that sends bytes as they are given and takes frames apart by hand."""

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        self.sock = sock
        self._rest = rest

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._rest += data
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def receive(self) -> tuple[int, bytes]:
        first, size = self._take(2)
        assert first & 0x70 == 0
        assert size < 128, "a server's frames have no mask"
        if size == 126:
            size = int.from_bytes(self._take(2))
        elif size == 127:
            size = int.from_bytes(self._take(8))
        return first & 15, self._take(size)

    def closed_with(self) -> int:
        """Return the code of the close frame; nothing but the end follows it."""
        opcode, payload = self.receive()
        while opcode != Opcode.CLOSE:
            opcode, payload = self.receive()
        with pytest.raises(EOFError):
            self._take(1)
        return int.from_bytes(payload[:2])


@contextmanager
def raw_client(
    server: RunningServer, *, receive_buffer: int = 0, path: str = "/ws/"
) -> Iterator[Raw]:
    with closing(socket.socket()) as sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server.web.port))
        sock.sendall(
            f"GET {path}?token={server.token()} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101")
        yield Raw(sock, answer.partition(b"\r\n\r\n")[2])


def text(body: str, **options: Any) -> bytes:
    return masked_frame(Opcode.TEXT, body.encode(), **options)


PING = text('{"type":"ping"}')
PONG = (Opcode.TEXT, b'{"type":"pong"}')


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x0f" + b'{"type":"ping"}', 1002),
        (b"\x91\x80\0\0\0\0", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x7e" + bytes(130), 1002),
        (masked_frame(Opcode.CONTINUATION, b"x"), 1002),
        (masked_frame(Opcode.CLOSE, b"\x03\xed"), 1002),
        (masked_frame(Opcode.TEXT, b"\xff"), 1007),
        (masked_frame(Opcode.TEXT, b"\xed\xa0\x80"), 1007),
        (masked_frame(Opcode.TEXT, b"x" * 65_537), 1009),
        (struct.pack("!BBQ", 0x81, 0xFF, 2**62) + bytes(4), 1009),
        (
            masked_frame(Opcode.TEXT, b"x" * 60_000, fin=False)
            + masked_frame(Opcode.CONTINUATION, b"x" * 60_000),
            1009,
        ),
        (masked_frame(Opcode.CLOSE, b"\x03\xe8bye"), 1000),
        (masked_frame(Opcode.CLOSE, b"\x0f\xa0"), 4000),
    ],
)
def test_the_client_is_told_with_which_code_the_socket_ends(
    server: RunningServer, frames: bytes, code: int
) -> None:
    with raw_client(server) as client:
        client.send(PING, frames, PING)
        assert client.receive() == PONG
        assert client.closed_with() == code


def test_an_empty_close_is_answered_by_an_empty_one(server: RunningServer) -> None:
    with raw_client(server) as client:
        client.send(masked_frame(Opcode.CLOSE, b""))
        assert client.receive() == (Opcode.CLOSE, b"")


def test_control_frames_between_fragments_are_answered_at_once(server: RunningServer) -> None:
    with raw_client(server) as client:
        client.send(
            masked_frame(Opcode.TEXT, b'{"type":', fin=False),
            masked_frame(Opcode.PING, b"here?"),
            masked_frame(Opcode.CONTINUATION, b'"ping"}'),
        )
        assert client.receive() == (Opcode.PONG, b"here?")
        assert client.receive() == PONG


def test_a_message_in_single_bytes_is_a_message(server: RunningServer) -> None:
    with raw_client(server) as client:
        for index in range(len(PING)):
            client.send(PING[index : index + 1])
        assert client.receive() == PONG


def publish(server: RunningServer, size: int, count: int) -> None:
    batch = [
        NewActivity(type="t", action="a", pov_id="acme", details={"x": "y" * size})
        for _ in range(count)
    ]
    server.run(lambda: server.web.server.publishing.publish(batch, PUBLISHER))


class TestSlowClients:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(queue_slow_s=0.3))

    def test_one_that_does_not_read_is_closed_and_nobody_else_notices(
        self, server: RunningServer, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        ana = connect("ana")
        ana.request({"type": "subscribe", "povId": "acme"})
        with raw_client(server, receive_buffer=4096) as slow:
            slow.send(text('{"type":"subscribe","povId":"acme"}'))
            assert b"subscribed" in slow.receive()[1]
            most = 0
            for _ in range(80):
                publish(server, 15_000, 6)
                most = max(most, server.call(lambda: unsent(server)))
                for _ in range(6):
                    assert ana.receive()["type"] == "activity"
            assert 256 * 1024 < most < 512 * 1024, "what it does not read is not piled up"
            wait_until(server, lambda: len(server.web.server.directory) == 1)
            assert (
                server.call(lambda: server.web.server.arrivals.closes)["ws", "slow consumer"] == 1
            )
            # What reached it are whole frames, in order; then it is told why.
            offsets = []
            while (frame := slow.receive())[0] == Opcode.TEXT:
                offsets.append(json.loads(frame[1])["offset"])
            assert offsets == list(range(1, len(offsets) + 1))
            assert int.from_bytes(frame[1][:2]) == CloseCode.SLOW_CONSUMER.code
        lines = [r for r in caplog.records if "slow consumer" in r.getMessage()]
        assert len(lines) == 1
        assert "bytes unsent" in lines[0].getMessage()

    def test_signals_beyond_the_bound_of_one_client_end_it_with_a_close_frame(
        self, server: RunningServer
    ) -> None:
        bound = server.web.settings.limits.queue_bytes
        body = json.dumps({"type": "big", "text": "x" * 60_000}).encode()
        with raw_client(server, receive_buffer=4096) as slow:
            slow.send(text('{"type":"subscribe","povId":"acme"}'), text('{"type":"poll","n":1}'))
            slow.receive()
            slow.receive()
            hub = server.web.server.hub

            def promote_and_send() -> None:
                (connection,) = server.web.server.directory.all()
                hub.promote(connection)
                for _ in range(bound // len(body) + 60):
                    hub.broadcast("pov/acme", body)

            server.call(promote_and_send)
            wait_until(server, lambda: len(server.web.server.directory) == 0)
            assert (
                server.call(lambda: server.web.server.arrivals.closes)["ws", "slow consumer"] == 1
            )
            assert slow.closed_with() == CloseCode.SLOW_CONSUMER.code

    def test_one_that_reads_slowly_gets_everything_in_order_and_stays(
        self, server: RunningServer
    ) -> None:
        with raw_client(server, receive_buffer=4096) as slow:
            slow.send(text('{"type":"subscribe","povId":"acme"}'))
            slow.receive()
            for _ in range(8):
                publish(server, 15_000, 40)
                for _ in range(10):
                    assert slow.receive()[0] == Opcode.TEXT
            offsets = [json.loads(slow.receive()[1])["offset"] for _ in range(240)]
            assert offsets == list(range(81, 321))
            slow.send(PING)
            assert slow.receive() == PONG


def unsent(server: RunningServer) -> int:
    return server.web.unsent_bytes


def test_a_batch_larger_than_a_queue_reaches_every_healthy_client(
    server: RunningServer, connect: Connect
) -> None:
    clients = [connect(f"user-{n}", v1=bool(n % 2)) for n in range(3)]
    for client in clients:
        client.request({"type": "subscribe", "povId": "acme"})
    publish(server, 1500, 180)
    publish(server, 3500, 1000)
    publish(server, 10, 1)
    for client in clients:
        got = [client.receive()["offset"] for _ in range(1181)]
        assert got == list(range(1, 1182))


def test_a_client_that_vanished_is_one_line_in_the_log(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with raw_client(server) as client:
        client.send(text('{"type":"subscribe","povId":"acme"}'))
        client.receive()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    publish(server, 10, 500)
    wait_until(server, lambda: len(server.web.server.directory) == 0)
    assert [r.getMessage().partition(":")[0] for r in caplog.records if r.levelno > 10] == [
        "connection closed"
    ]
    assert server.call(lambda: server.web.server.hub.subscriptions) == 0


def wait_until(server: RunningServer, condition: Any) -> None:
    """Look at the server from its own loop, once a turn, until the condition holds."""

    async def wait() -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  (the condition has no event to wait for)
                await asyncio.sleep(0)

    server.run(wait)


class TestSilence:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(ping=PingSettings(interval_s=0.5, timeout_s=0.5))

    def test_a_silent_client_is_pinged_and_dropped_and_one_that_answers_stays(
        self, server: RunningServer, connect: Connect
    ) -> None:
        alive = connect("ana")  # its library answers pings by itself
        with raw_client(server) as silent:
            assert silent.receive() == (Opcode.PING, b"")
            assert silent.closed_with() == CloseCode.PING_TIMEOUT.code
        assert alive.request({"type": "ping"})["type"] == "pong"


class TestExpiry:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            auth=AuthSettings(secrets=[SECRET], grace_s=1.0, warning_s=60.0),
        )

    def test_a_token_is_warned_of_stops_publishing_and_closes(self, server: RunningServer) -> None:
        from websockets.exceptions import ConnectionClosed

        ana = server.connect("ana", v1=True, ttl_s=1.2)
        data = {"type": "t", "action": "a", "povId": "acme"}
        assert ana.request({"type": "publish", "data": data})["type"] == "published"
        assert ana.receive()["type"] == "token_expiring"
        wait_until(server, lambda: expired(server))
        answer = ana.request({"type": "publish", "data": data})
        assert answer["code"] == "token_expired"
        closing_message = ana.receive()
        assert (closing_message["type"], closing_message["code"]) == ("closing", 4001)
        with pytest.raises(ConnectionClosed) as closed:
            ana.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4001


def expired(server: RunningServer) -> bool:
    (connection,) = server.web.server.directory.all()
    return server.web.server.clock.monotonic() > connection.expires_at


class TestCapacity:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(connections=4))

    def test_at_the_cap_nobody_is_accepted_until_there_is_room(
        self, server: RunningServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = [server.connect(f"u-{n}") for n in range(4)]
        with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as late:
            late.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(server, lambda: "room for" in caplog.text)
            assert first[1].request({"type": "ping"})["type"] == "pong"
            first[0].socket.close()
            assert late.recv(4096).startswith(b"HTTP/1.1 404")
        assert sum("not accepting" in r.getMessage() for r in caplog.records) == 1


class TestHandshakeTime:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(handshake_s=0.3))

    def test_a_handshake_that_never_ends_is_cut(self, server: RunningServer) -> None:
        with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
            sock.sendall(b"GET /ws/ HTTP/1.1\r\nHost:")
            assert sock.recv(4096) == b""


class TestEcho:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(port=0, admin_port=0, drain_s=0.2, conformance_echo=True),
            limits=LimitSettings(message_bytes=500_000),
        )

    def test_the_conformance_endpoint_sends_everything_back(self, server: RunningServer) -> None:
        from websockets.sync.client import connect

        url = f"ws://{server.address}/ws/_echo?token={server.token()}"
        with connect(url, max_size=None, proxy=None) as client:
            for message in ("", "x" * 300_000, b"", b"\0" * 300_000, "é\U0001f600"):
                client.send(message)
                assert client.recv(timeout=30) == message

    def test_it_has_the_limits_and_the_door_of_other_sockets(self, server: RunningServer) -> None:
        from websockets.exceptions import InvalidStatus
        from websockets.sync.client import connect

        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://{server.address}/ws/_echo", proxy=None)
        with raw_client(server, path="/ws/_echo") as client:
            client.send(text("x" * 500_001))
            assert client.closed_with() == 1009

    def test_a_client_that_does_not_read_is_not_read_either(self, server: RunningServer) -> None:
        message = "x" * 50_000
        with raw_client(server, path="/ws/_echo", receive_buffer=4096) as client:
            sent = send_until_refused(client, text(message))
            assert server.call(lambda: unsent(server)) < 1024 * 1024
            client.sock.settimeout(10)
            for _ in range(sent):
                assert client.receive() == (Opcode.TEXT, message.encode())
            client.send(PING)
            assert client.receive() == (Opcode.TEXT, b'{"type":"ping"}')


def send_until_refused(client: Raw, frame: bytes) -> int:
    """Send frames until the server takes no more for a while; return how many are whole."""
    client.sock.settimeout(0.5)
    data = frame * 400
    position = 0
    with suppress(TimeoutError):
        while position < len(data):
            position += client.sock.send(data[position:])
    assert position < len(data), "the server takes whatever comes"
    rest = -position % len(frame)
    whole = (position + rest) // len(frame)
    threading.Thread(target=finish, args=(client.sock, data[position : position + rest])).start()
    return whole


def finish(sock: socket.socket, data: bytes) -> None:
    sock.settimeout(10)
    sock.sendall(data)


class TestControlFrames:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(control_rate="1000000/s"))

    def test_a_hundred_thousand_pings_unread_are_little_memory(self, server: RunningServer) -> None:
        with raw_client(server, receive_buffer=4096) as client:
            count = send_until_refused(client, masked_frame(Opcode.PING, b"x" * 125) * 250) * 250
            assert server.call(lambda: unsent(server)) < 1024 * 1024
            client.sock.settimeout(10)
            for _ in range(count):
                assert client.receive() == (Opcode.PONG, b"x" * 125)


@pytest.mark.parametrize(
    "flood",
    [
        masked_frame(Opcode.PING, b"") * 1100,
        masked_frame(Opcode.PONG, b"x") * 1100,
        masked_frame(Opcode.TEXT, b"", fin=False)
        + masked_frame(Opcode.CONTINUATION, b"x", fin=False) * 1100,
    ],
    ids=["pings", "pongs", "fragments"],
)
def test_a_flood_of_frames_that_no_message_pays_for_is_ended(
    server: RunningServer, flood: bytes
) -> None:
    with raw_client(server) as client:
        client.send(flood)
        assert client.closed_with() == CloseCode.FLOODING.code


def test_a_thousand_small_fragments_are_a_message(server: RunningServer) -> None:
    body = '{"type":"ping"' + " " * 900 + "}"
    parts = [masked_frame(Opcode.CONTINUATION, each.encode(), fin=False) for each in body[1:]]
    with raw_client(server) as client:
        client.send(text(body[0], fin=False), *parts, masked_frame(Opcode.CONTINUATION, b""))
        assert client.receive() == PONG


class TestHalfClose:
    """A client that ends its side may still read."""

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(port=0, admin_port=0, conformance_echo=True),
            limits=LimitSettings(message_bytes=400_000, details_bytes=1000),
        )

    def test_what_waits_and_the_answer_to_its_close_still_reach_it(
        self, server: RunningServer
    ) -> None:
        with raw_client(server, path="/ws/_echo", receive_buffer=32768) as client:
            client.send(text("x" * 399_000), masked_frame(Opcode.CLOSE, b"\x03\xe8"))
            client.sock.shutdown(socket.SHUT_WR)
            assert client.receive() == (Opcode.TEXT, b"x" * 399_000)
            assert client.closed_with() == 1000

    def test_without_a_close_frame_what_waits_still_reaches_it(self, server: RunningServer) -> None:
        with raw_client(server, path="/ws/_echo", receive_buffer=32768) as client:
            client.send(text("x" * 399_000))
            client.sock.shutdown(socket.SHUT_WR)
            assert client.receive() == (Opcode.TEXT, b"x" * 399_000)
            with pytest.raises(EOFError):
                client.receive()
        wait_until(server, lambda: server.web.sockets == 0)


def test_a_peer_that_never_answers_a_close_is_gone_after_a_second(server: RunningServer) -> None:
    with raw_client(server) as client:
        server.call(lambda: close_all(server, CloseCode.RESTARTING))
        assert client.receive()[0] == Opcode.CLOSE
        wait_until(server, lambda: server.web.sockets == 0)


class Heard:
    """A connection that keeps what it hears of its socket."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[str] = []

    def receive(self, payload: bytes, is_text: bool) -> None:
        self.messages.append(payload)

    def lagging(self) -> None:
        raise AssertionError("nothing waits for the client")

    def lost(self, reason: str) -> None:
        self.ends.append(reason)


def test_the_end_comes_after_the_peer_has_answered_the_close() -> None:
    """RFC 6455, section 7.1.1; a browser calls an end before that unclean."""
    close = CloseCode.RESTARTING

    async def run() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            ended, heard = loop.create_future(), Heard()
            wire = Wire(ours, bounds_of(LimitSettings()), loop, ended.set_result)
            wire.start(heard, b"")
            wire.close(close)
            expected = close_frame(close.code, close.reason)
            assert theirs.recv(1000) == expected
            # What it sends before its answer is for nobody, and is no answer.
            early = PING + text('{"type":"ping"}')
            theirs.send(early)
            while wire.traffic[0] < len(early):  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0)
            with pytest.raises(BlockingIOError):
                theirs.recv(1000)
            theirs.send(masked_frame(Opcode.CLOSE, expected[2:4]))
            assert await loop.sock_recv(theirs, 1000) == b""
            theirs.close()
            assert await ended is wire
            assert (heard.messages, heard.ends) == ([], [close.reason])

    asyncio.run(asyncio.wait_for(run(), 20))


def close_all(server: RunningServer, code: CloseCode) -> None:
    for connection in server.web.server.directory.all():
        connection.close(code)


def test_a_close_reaches_a_client_for_which_much_waits(server: RunningServer) -> None:
    with raw_client(server, receive_buffer=4096) as client:
        client.send(text('{"type":"subscribe","povId":"acme"}'))
        client.receive()
        for _ in range(3):
            publish(server, 15_000, 16)
        assert server.call(lambda: unsent(server)) > 100_000
        server.call(lambda: close_all(server, CloseCode.RESTARTING))
        assert client.closed_with() == CloseCode.RESTARTING.code


class TestPausedSockets:
    """A client whose inbox is full is not read, and must still be seen to live or to be gone."""

    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "stuck.py").write_text(STUCK)
        return tmp_path

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            ping=PingSettings(interval_s=0.5, timeout_s=0.5),
            limits=LimitSettings(inbox_messages=2, handler_deadline_s=60),
        )

    def fill(self, server: RunningServer, client: Raw) -> None:
        client.send(*[text('{"type":"stuck.wait"}')] * 4)
        wait_until(server, lambda: server.web.paused == 1)

    def test_one_that_answers_pings_stays(self, server: RunningServer) -> None:
        with raw_client(server) as client:
            self.fill(server, client)
            for _ in range(3):
                assert client.receive()[0] == Opcode.PING
                client.send(masked_frame(Opcode.PONG, b""))
            assert server.call(lambda: len(server.web.server.directory)) == 1

    def test_a_frozen_one_is_dropped(self, server: RunningServer) -> None:
        with raw_client(server) as client:
            self.fill(server, client)
            wait_until(server, lambda: len(server.web.server.directory) == 0)
            assert server.call(lambda: server.web.server.arrivals.closes)["ws", "ping timeout"] == 1

    @pytest.mark.parametrize("reset", [False, True])
    def test_one_that_hung_up_is_dropped(self, server: RunningServer, reset: bool) -> None:
        with raw_client(server) as client:
            self.fill(server, client)
            if reset:
                linger = struct.pack("ii", 1, 0)
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_until(server, lambda: server.web.sockets == 0)


STUCK = """
import asyncio
from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("stuck")

class Wait(Message, tag="stuck.wait"):
    pass

@plugin.on(Wait)
async def wait(message: Wait, context: Context) -> None:
    await asyncio.sleep(3600)
"""


class TestLoudWelcome:
    """A plugin sends a client so much as it comes that it is not read before it has read that."""

    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "loud.py").write_text(LOUD)
        return tmp_path

    def test_what_it_sends_meanwhile_is_read_after_that(self, server: RunningServer) -> None:
        with raw_client(server) as client:
            client.send(text('{"type":"ping"}'))
            wait_until(server, lambda: server.web.paused == 1)
            assert len(client.receive()[1]) > 16_000_000
            assert client.receive()[1] == b'{"type":"pong"}'


LOUD = """
from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("loud")

class Noise(Message, tag="loud.noise"):
    text: str

@plugin.connected
def connected(context: Context) -> None:
    context.send(Noise(text="x" * 16_000_000))
"""
