"""The servers that are measured beside pov-rt: how to start each, be served by it, and publish."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import SocketIO
from typing import Any, Self

import jwt

from bench import machine
from bench.load import INSTANT, NUMBER, Client, LoadError, Speech, Step, text_frame

HERE = Path(__file__).parent
SECRET = "the secret of the benchmark, which is no secret"  # noqa: S105
DAY_S = 86400
START_S = 20.0
QUIET_S = 10.0
"""A publisher answers no pings; this is below any server's patience."""
PAD = "x" * 60
"""Makes a pushed frame about 230 bytes long, which is what activities have."""

encode = partial(json.dumps, separators=(",", ":"))


def activity(topic: str, seq: int, at_ns: int = 0, pad: str = PAD) -> dict[str, Any]:
    """Return an activity as an app would publish it."""
    return {
        "id": f"{topic}-{at_ns}-{seq}",
        "type": "task",
        "action": "completed",
        "povId": topic,
        "userId": "ana",
        "details": {"seq": seq, "t": at_ns, "title": pad},
    }


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Peer:
    """A server under test. Use it in a `with`: it runs from entry to exit, on a core of its own.

    `subscribed` and `pong` are how its answers begin; `acknowledgement` is how the answer to a
    publication does, if there is one. `growing` stands before the number by which the load
    generator finds out what is lost: the publisher's own, if the server has none. Then it publishes
    from one connection, for the order of several is not known. `recovered` stands before the list
    of messages in what a client is answered that comes back, if they are in a list.
    """

    name = ""
    ping = '{"type":"ping"}'
    pong = '{"type":"pong"'
    subscribed = '{"type":"subscribed"'
    acknowledgement = ""
    growing = '"seq":'
    recovered = ""
    publishers = 1
    checkout = HERE.parent
    """The folder that it runs in."""
    cores: Sequence[int] = (machine.SERVER_CORE,)
    """On which it runs."""
    passed: Sequence[int] = ()
    """Descriptors that it inherits."""
    variables: Mapping[str, str] = {}
    """What its environment has beside ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name.replace(" ", "-")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"
        self.port = 0
        self._process: subprocess.Popen[str] | machine.Adopted | None = None
        self._publisher: socket.socket | None = None
        self._published_at = 0.0

    def command(self) -> list[str]:
        """Return what to run."""
        raise NotImplementedError

    def client(self, user: str, topic: str) -> Client:
        """Return a client that is subscribed to a topic once it is open."""
        subscribe = encode({"type": "subscribe", "povId": topic})
        return Client("/", [Step(0, subscribe), Step(1, "", self.subscribed)])

    def speech(self, topic: str, pad: str = PAD) -> Speech:
        """Return how it speaks, and what the load generator publishes to a topic."""
        number, instant = 10**15, 2 * 10**15
        publication = self.publication(activity(topic, number, instant, pad))
        publication = publication.replace(str(number), NUMBER).replace(str(instant), INSTANT)
        return Speech(
            self.ping, self.pong, self.growing, publication, self.acknowledgement, self.recovered
        )

    def publish(self, activities: Sequence[dict[str, Any]]) -> None:
        """Publish; all that are given at once are written at once."""
        frames = [
            text_frame(self.publication(each)) for each in activities
        ]  # the cheapest way in that a peer has
        self.publisher.sendall(b"".join(frames))

    def publication(self, each: dict[str, Any]) -> str:
        """Return the message that publishes."""
        return encode({"type": "publish", "data": each})

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self.port = self.choose_port()
        self._process = machine.spawn(
            self.command(),
            cores=self.cores,
            log=self.log,
            cwd=self.checkout,
            pass_fds=self.passed,
            env={**os.environ, **self.variables},
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise SystemExit(f"{self.name} did not start; see {self.log}") from None
                time.sleep(0.01)
            else:
                return

    def choose_port(self) -> int:
        """Return the port that it is to listen on."""
        return free_port()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        if self._process is not None:
            machine.stop(self._process, how)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        """The server's processes."""
        assert self._process is not None
        return machine.family(self._process.pid)

    @property
    def publisher(self) -> socket.socket:
        """The connection over which is published; a new one when a server may have dropped it."""
        now = time.monotonic()
        if self._publisher is not None and now - self._published_at > QUIET_S:
            self._publisher.close()
            self._publisher = None
        self._published_at = now
        if self._publisher is None:
            self._publisher = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            self._publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.open_publisher(self._publisher)
        return self._publisher

    def open_publisher(self, sock: socket.socket) -> None:
        """Make the connection one that may publish."""
        client = self.client("publisher", "none")
        sock.sendall(client.handshake())
        with sock.makefile("rb", buffering=0) as file:
            while file.readline() != b"\r\n":
                pass
            for step in client.steps:
                for _ in range(step.after):
                    skip_frame(file)
                if step.text:
                    sock.sendall(text_frame(step.text))


def skip_frame(file: SocketIO) -> None:
    """Read one of a server's frames."""
    size = file.read(2)[1]
    if size == 126:
        size = int.from_bytes(file.read(2))
    while size:
        size -= len(file.read(size))


class NodeWs(Peer):
    """Node with `ws`, written as the server this replaces."""

    name = "node ws"

    def command(self) -> list[str]:
        """Return what to run."""
        return ["node", str(HERE / "node/ws.mjs"), str(self.port)]


class Broadcast(Peer):
    """`websockets.broadcast`."""

    name = "websockets"
    subscribed = '{"type": "subscribed"'

    def command(self) -> list[str]:
        """Return what to run."""
        return [sys.executable, str(HERE / "servers/broadcast.py"), str(self.port)]


class SendAlone(Peer):
    """No server, but what none can do without."""

    name = "send alone"

    def command(self) -> list[str]:
        """Return what to run."""
        return [sys.executable, str(HERE / "servers/send_alone.py"), str(self.port)]


class Picows(Peer):
    """`picows`."""

    name = "picows"
    subscribed = '{"type": "subscribed"'

    def command(self) -> list[str]:
        """Return what to run."""
        return [sys.executable, str(HERE / "servers/picows_peer.py"), str(self.port)]


class SocketIo(Peer):
    """socket.io."""

    name = "socket.io"
    ping = '42["ping"]'
    pong = '42["pong"'
    subscribed = '42["subscribed"'
    path = "/socket.io/?EIO=4&transport=websocket"

    def command(self) -> list[str]:
        """Return what to run."""
        return ["node", str(HERE / "node/socketio.mjs"), str(self.port)]

    def client(self, user: str, topic: str) -> Client:
        """Return a client that speaks Engine.IO 4."""
        subscribe = f"42{encode(['subscribe', {'povId': topic}])}"
        steps = [Step(1, "40", "0{"), Step(1, subscribe, "40"), Step(1, "", self.subscribed)]
        return Client(self.path, steps)

    def publication(self, each: dict[str, Any]) -> str:
        """Return an event."""
        return f"42{encode(['publish', each])}"


class PythonSocketIo(SocketIo):
    """python-socketio."""

    name = "python-socketio"

    def command(self) -> list[str]:
        """Return what to run."""
        return [sys.executable, str(HERE / "servers/python_socketio.py"), str(self.port)]


def token(user: str, povs: Sequence[str], **claims: object) -> str:
    """Return a token of the app: everybody has one of their own."""
    given = {"userId": user, "povs": povs, "exp": int(time.time()) + DAY_S, **claims}
    return jwt.encode(given, SECRET, "HS256")


class StockTornado(Peer):
    """Tornado as documented, with the token check."""

    name = "stock tornado"
    pong = '{"type": "pong"'
    subscribed = '{"type": "subscribed"'

    def command(self) -> list[str]:
        """Return what to run."""
        return [sys.executable, str(HERE / "servers/stock_tornado.py"), str(self.port), SECRET]

    def client(self, user: str, topic: str) -> Client:
        """Return a client with its own token."""
        return super().client(user, topic)._replace(target=f"/ws/?token={token(user, [topic])}")


class Answers:
    """Takes HTTP answers off a connection on which requests may wait for each other."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def read(self) -> bytes:
        """Return the next answer's body. Raises `LoadError` for an error."""
        head = self._take_until(b"\r\n\r\n").lower()
        if b"transfer-encoding: chunked" in head:
            body = b"".join(iter(self._take_chunk, b""))
        else:
            body = self._take(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        if head[9:10] != b"2":
            raise LoadError(f"refused: {head!r} {body[:200]!r}")
        return body

    def _take_chunk(self) -> bytes:
        size = int(self._take_until(b"\r\n"), 16)
        return self._take(size + 2)[:size]

    def _take_until(self, end: bytes) -> bytes:
        while end not in self._rest:
            self._receive()
        found, _, self._rest = self._rest.partition(end)
        return found

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._receive()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _receive(self) -> None:
        more = self._socket.recv(1 << 20)
        if not more:
            raise LoadError("the server hung up")
        self._rest += more


class HttpPublisher(Peer):
    """A peer to which one publishes over HTTP."""

    answers_each = False
    """Whether each activity is a request of its own."""

    def open_publisher(self, sock: socket.socket) -> None:
        """Send nothing: the connection is for requests."""
        self._answers = Answers(sock)

    @contextmanager
    def connected(self) -> Iterator[tuple[socket.socket, Answers]]:
        """Connect one more publisher for the block."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock, Answers(sock)

    def answers(self, number: int) -> list[bytes]:
        """Read so many answers."""
        return [self._answers.read() for _ in range(number)]

    def request(self, activities: Sequence[dict[str, Any]]) -> bytes:
        """Return a request that publishes all of them."""
        raise NotImplementedError

    def publish(self, activities: Sequence[dict[str, Any]]) -> None:
        """Publish; all that are given at once are written at once."""
        publisher = self.publisher  # opens what is answered, too
        self.post(activities, publisher, self._answers)

    def post(
        self, activities: Sequence[dict[str, Any]], sock: socket.socket, answers: Answers
    ) -> list[bytes]:
        """Publish over a connection; return what was answered."""
        sock.sendall(self.request(activities))
        number = len(activities) if self.answers_each else 1
        found = [answers.read() for _ in range(number)]
        self.check(found, len(activities))
        return found

    def check(self, answers: Sequence[bytes], number: int) -> None:
        """Raise `LoadError` unless these answers say that so many activities were taken."""
        check_published(answers, number)

    def place(self, answers: Sequence[bytes]) -> Any:
        """Return where a topic was when this was answered to who published to it."""
        raise NotImplementedError

    def recovering(self, user: str, topic: str, place: Any, seen: int) -> Client:
        """Return a client that comes back to a topic, of which it knows all up to a place."""
        raise NotImplementedError


def check_published(answers: Iterable[bytes], number: int) -> None:
    """Raise `LoadError` unless these answers to publishers give so many activities their place."""
    bodies = list(answers)
    for body in bodies:
        if b'"error"' in body:
            raise LoadError(f"refused: {body[:300]!r}")
    if (places := sum(body.count(b'"offset":') for body in bodies)) != number:
        raise LoadError(f"of {number} activities {places} were given a place")


class Nchan(HttpPublisher):
    """nginx with nchan; bursts are pipelined requests."""

    name = "nchan"
    answers_each = True

    def command(self) -> list[str]:
        """Return what to run."""
        text = (HERE / "servers/nchan.conf").read_text()
        text = text.replace("FOLDER", str(self.folder)).replace("PORT", str(self.port))
        config = self.folder / "nginx.conf"
        config.write_text(text)
        return ["nginx", "-c", str(config), "-p", str(self.folder), "-e", str(self.log)]

    def client(self, user: str, topic: str) -> Client:
        """Return a subscriber: the path says of what."""
        return Client(f"/sub/{topic}", [])

    def request(self, activities: Sequence[dict[str, Any]]) -> bytes:
        """Return a request per activity."""
        requests = []
        for each in activities:
            body = encode({"type": "activity", "data": each}).encode()
            requests.append(
                b"POST /pub/%b HTTP/1.1\r\nHost: x\r\nAccept: text/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (each["povId"].encode(), len(body), body)
            )
        return b"".join(requests)

    def check(self, answers: Sequence[bytes], number: int) -> None:
        """Raise `LoadError` unless there are so many answers, none of which was an error."""
        if len(answers) != number:
            raise LoadError(f"of {number} activities {len(answers)} were answered")

    def place(self, answers: Sequence[bytes]) -> str:
        """Return the id of the newest message."""
        return str(json.loads(answers[-1])["last_message_id"])

    def recovering(self, user: str, topic: str, place: str, seen: int) -> Client:
        """Return a subscriber that says what it had last."""
        return Client(f"/sub/{topic}?last_event_id={place}", [], seen)
