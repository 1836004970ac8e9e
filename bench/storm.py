"""A crowd of clients and a publisher over a restart, and a ledger of what it did to them.

    python -m bench.storm --url wss://rt.example --to 127.0.0.1:443 --secret-file FILE \
        --clients 2000 --run 'systemctl restart pov-rt'

Each client follows one PoV, comes back as the server's `closing` asks it to (or, where it was not
told, as clients do: after a second or less at first), with the place it had, and answers close
frames. The publisher has one activity under way at a time, each on a connection of its own, and
sends one that was not acknowledged again under the same id. What it prints is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jwt

from pov_rt.transport.frames import Opcode
from tests.frames import masked_frame

POV = "storm"
DAY_S = 86400
PATIENCE_S = 60.0
"""After this a client that is not back, or has not all, counts as lost."""
PAUSE_S = 0.02
"""Of the publisher, after each answer."""
OPENING = 200
"""Clients that connect at a time in the beginning."""
HANDSHAKE = (
    "GET /ws/?device=d HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: pov-rt.v1, bearer.{token}\r\n\r\n"
)


class Refused(ConnectionError):
    """The server, or a proxy before it, answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Resuming(ssl.SSLContext):
    """TLS of clients that come back: with the ticket of an earlier connection, as browsers do."""

    ticket: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection. With the ticket of any other one, for they are all of one server."""
        given = self.ticket if session is None else session
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, given)

    def learn(self, writer: asyncio.StreamWriter) -> None:
        """Keep the ticket that a connection was given; it comes with the first answer."""
        session = writer.get_extra_info("ssl_object").session
        if session is not None and session.has_ticket:
            self.ticket = session


class Place(NamedTuple):
    """Where the server is: what clients ask for, where they connect, and by TLS or not."""

    host: str
    address: tuple[str, int]
    tls: Resuming | None
    sources: Sequence[str] = ()
    """The addresses that clients have, in turns; none: what the system gives them."""

    async def connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as the client with this number. Raises `OSError`."""
        source = (self.sources[number % len(self.sources)], 0) if self.sources else None
        more = {} if self.tls is None else {"ssl": self.tls, "server_hostname": self.host}
        return await asyncio.open_connection(*self.address, local_addr=source, **more)  # type: ignore[arg-type]


@contextmanager
def cut_off(writer: asyncio.StreamWriter) -> Iterator[None]:
    """End a connection behind the block: over TLS a polite end waits for the other side's."""
    try:
        yield
    finally:
        writer.transport.abort()


def place_of(url: str, to: str = "", sources: int = 0) -> Place:
    """Return the place that a URL names, but at the address `to`, if that is given."""
    parts = urlsplit(url)
    secure = parts.scheme in ("https", "wss")
    name, _, port = to.rpartition(":")
    address = (name or parts.hostname or "", int(port or parts.port or (443 if secure else 80)))
    tls = Resuming(ssl.PROTOCOL_TLS_CLIENT) if secure else None
    if tls is not None:  # the certificate is one of the test's own
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    own = [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(sources)]
    return Place(parts.netloc, address, tls, own)


def sign(secret: str, user: str, **claims: object) -> str:
    """Return a token for a day."""
    given = {"userId": user, "exp": int(time.time()) + DAY_S, **claims}
    return jwt.encode(given, secret, "HS256")


@dataclass
class Ledger:
    """What all clients and the publisher saw."""

    downs: list[float] = field(default_factory=list)
    """Seconds from the end of each connection to the next answer to `subscribe`."""
    backs: list[float] = field(default_factory=list)
    """When those came, by the monotonic clock."""
    lost: int = 0
    doubled: int = 0
    gaps: int = 0
    """Answers with `recovered: false`."""
    untold: int = 0
    """Connections that ended without `closing`."""
    failures: Counter[str] = field(default_factory=Counter)
    """Attempts to connect that failed, by status or error."""
    refused: Counter[str] = field(default_factory=Counter)
    """Attempts to publish that failed."""
    acknowledged: list[float] = field(default_factory=list)
    """When each activity was, by the monotonic clock."""


class Client:
    """One client: follows the PoV until it has the last activity."""

    def __init__(self, number: int, place: Place, token: str, ledger: Ledger) -> None:
        self.number, self.place, self.token, self.ledger = number, place, token, ledger
        self.epoch, self.offset = "", 0
        self.last: int | None = None
        """The last activity that there will be, once that is known."""
        self.joined = asyncio.Event()
        self.has_all = asyncio.Event()
        self._down_since: float | None = None
        self._dice = random.Random(number)  # noqa: S311

    async def run(self) -> None:
        """Follow, over every end of the connection. Cancel it when it is over."""
        attempt = 0
        while True:
            wait_s: float | None = None
            try:
                reader, writer = await self.place.connect(self.number)
                with cut_off(writer):
                    await self._join(reader, writer)
                    attempt = 0
                    wait_s = await self._follow(reader, writer)
            except Refused as error:
                self.ledger.failures[str(error.status)] += 1
            except (OSError, EOFError) as error:
                if self._down_since is None:
                    self._ended()
                else:
                    self.ledger.failures[type(error).__name__] += 1
            if wait_s is None:
                wait_s = min(5.0, 2.0**attempt) * self._dice.random()
                attempt += 1
            await asyncio.sleep(wait_s)

    def knows(self, last: int) -> None:
        """Learn which activity is the last one."""
        self.last = last
        self._look()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HANDSHAKE.format(host=self.place.host, token=self.token).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if self.place.tls is not None:
            self.place.tls.learn(writer)
        if (status := int(head.split(b" ", 2)[1])) != 101:
            raise Refused(status)
        message: dict[str, Any] = {"type": "subscribe", "povId": POV, "id": "1"}
        if self.epoch:
            message["since"] = {"epoch": self.epoch, "offset": self.offset}
        writer.write(masked_frame(Opcode.TEXT, json.dumps(message).encode()))
        while (answer := await self._message(reader))["type"] != "subscribed":
            if answer["type"] != "welcome":
                raise ConnectionError(str(answer))
        if self.epoch and not answer["recovered"]:
            self.ledger.gaps += 1
        if not self.epoch or not answer["recovered"]:
            self.epoch, self.offset = answer["epoch"], answer["offset"]
        if self._down_since is not None:
            now = time.monotonic()
            self.ledger.downs.append(now - self._down_since)
            self.ledger.backs.append(now)
            self._down_since = None
        self.joined.set()
        self._look()

    async def _follow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> float | None:
        """Take what comes until the end; return when to come back, if the server said so."""
        wait_s: float | None = None
        while True:
            opcode, payload = await _frame(reader)
            if opcode == Opcode.CLOSE:
                writer.write(masked_frame(Opcode.CLOSE, payload[:2]))
                self._ended(told=wait_s is not None)
                with suppress(OSError, EOFError):
                    await reader.read()  # the server's own end
                return wait_s
            if opcode == Opcode.PING:
                writer.write(masked_frame(Opcode.PONG, payload))
            if opcode != Opcode.TEXT:
                continue
            message = json.loads(payload)
            if message["type"] == "closing":
                wait_s = message.get("retryAfter")
            elif message["type"] == "activity":
                self._take(message["offset"])
            else:
                self.heard(message)

    def heard(self, message: dict[str, Any]) -> None:
        """Take a message of another type; it is of no interest here."""

    def _take(self, offset: int) -> None:
        if offset <= self.offset:
            self.ledger.doubled += 1
            return
        self.ledger.lost += offset - self.offset - 1
        self.offset = offset
        self._look()

    def _look(self) -> None:
        if self.last is not None and self.offset >= self.last and self.joined.is_set():
            self.has_all.set()

    def _ended(self, *, told: bool = False) -> None:
        self._down_since = time.monotonic()
        self.ledger.untold += not told

    async def _message(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        opcode, payload = await _frame(reader)
        if opcode != Opcode.TEXT:
            raise ConnectionError("it ended before it began")
        found: dict[str, Any] = json.loads(payload)
        return found


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return a frame's opcode and payload; a server's have no mask. Raises `EOFError`."""
    first, size = await reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    return first & 15, await reader.readexactly(size)


class Publisher:
    """Publishes one activity after the other until it is stopped, and prints what it is answered.

    It has a process of its own: clients that come back by the thousand do not hold it up.
    """

    def __init__(self, place: Place, token: str) -> None:
        self.place, self.token = place, token
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Publish until a line comes; return once the last one is acknowledged."""
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self.stopping.set)
        prefix = f"{time.time_ns():x}"
        for number in count():
            if self.stopping.is_set():
                return
            body = {"id": f"{prefix}-{number}", "type": "t", "action": "a", "povId": POV}
            await self._publish(json.dumps({**body, "userId": "eve"}).encode())
            await asyncio.sleep(PAUSE_S)

    async def _publish(self, body: bytes) -> None:
        head = (
            f"POST /api/activities HTTP/1.1\r\nHost: {self.place.host}\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        while True:
            try:
                reader, writer = await self.place.connect(0)
                with cut_off(writer):
                    writer.write(head + body)
                    answer = await reader.read()
                _check(answer)
            except Refused as error:
                print("refused", error.status, flush=True)
            except OSError as error:
                print("refused", type(error).__name__, flush=True)
            else:
                offset = json.loads(answer.partition(b"\r\n\r\n")[2])["offset"]
                print("acknowledged", time.monotonic(), offset, flush=True)
                return
            await asyncio.sleep(PAUSE_S)


def _check(answer: bytes) -> None:
    """Raise unless an answer says that an activity was taken."""
    if not answer:
        raise ConnectionResetError
    if (status := int(answer.split(b" ", 2)[1])) not in (200, 201):
        raise Refused(status)


class Crowd:
    """Clients and publishers. Use it in an `async with`: all are there from its beginning.

    Each place has a publisher, and its part of the clients.
    """

    def __init__(
        self, places: Sequence[Place], secret: str, clients: int, kind: type[Client] = Client
    ) -> None:
        self.ledger = Ledger()
        self._places, self._secret = places, secret
        self._last = 0
        self.clients = [
            kind(
                number,
                places[number % len(places)],
                sign(secret, f"u-{number}", povs=[POV]),
                self.ledger,
            )
            for number in range(clients)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._publishers: list[asyncio.subprocess.Process] = []
        self._answers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crowd:
        for start in range(0, len(self.clients), OPENING):
            batch = self.clients[start : start + OPENING]
            self._tasks += [asyncio.create_task(each.run()) for each in batch]
            for each in batch:
                await asyncio.wait_for(each.joined.wait(), PATIENCE_S)
        for place in self._places:
            scheme = "http" if place.tls is None else "https"
            host, port = place.address
            publisher = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.storm", "--publish"),
                *("--url", f"{scheme}://{place.host}", "--to", f"{host}:{port}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[1],
            )
            self._publishers.append(publisher)
            self._answers.append(asyncio.create_task(self._hear(publisher)))
        return self

    async def _hear(self, publisher: asyncio.subprocess.Process) -> None:
        """Enter what a publisher is answered, until it ends."""
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        service = sign(self._secret, "app", povs="*", aud="pov-rt.service")
        publisher.stdin.write(f"{service}\n".encode())
        async for line in publisher.stdout:
            kind, what, *more = line.decode().split()
            if kind == "refused":
                self.ledger.refused[what] += 1
            else:
                self.ledger.acknowledged.append(float(what))
                self._last = max(self._last, int(more[0]))

    async def until(self, acknowledged: int) -> None:
        """Wait until so many more activities have been acknowledged."""
        wanted = len(self.ledger.acknowledged) + acknowledged
        async with asyncio.timeout(PATIENCE_S):
            while len(self.ledger.acknowledged) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def until_back(self, times: int) -> None:
        """Wait until the clients together have come back so often."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.ledger.downs) < times:  # noqa: ASYNC110  (every 10 ms will do)
                await asyncio.sleep(0.01)

    async def settle(self) -> list[Client]:
        """Publish no more, wait until all have all; return those that have not."""
        for publisher in self._publishers:
            assert publisher.stdin is not None
            publisher.stdin.write(b"enough\n")
        await asyncio.wait_for(asyncio.gather(*self._answers), PATIENCE_S)
        for each in self.clients:
            each.knows(self._last)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                for each in self.clients:
                    await each.has_all.wait()
        return [each for each in self.clients if not each.has_all.is_set()]

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._tasks, *self._answers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for publisher in self._publishers:
            if publisher.returncode is None:
                publisher.kill()
            await publisher.wait()


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of all is; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def busiest_second(instants: Sequence[float]) -> int:
    """Return how many of these fall into one second at most."""
    ordered, most, first = sorted(instants), 0, 0
    for index, instant in enumerate(ordered):
        while instant - ordered[first] >= 1:
            first += 1
        most = max(most, index - first + 1)
    return most


def summary(
    crowd: Crowd, behind: Sequence[Client], began: float, took: float, cpu_s: float
) -> dict[str, Any]:
    """Return in numbers what a restart did, that began at an instant of the monotonic clock."""
    ledger = crowd.ledger
    acknowledged = ledger.acknowledged
    stops = [after - before for before, after in pairwise(acknowledged)]
    return {
        "clients": len(crowd.clients),
        "command_s": took,
        "acknowledged": len(acknowledged),
        "lost": ledger.lost + len(behind),
        "doubled": ledger.doubled,
        "gaps": ledger.gaps,
        "untold": ledger.untold,
        "ends": len(ledger.downs),
        "down_p50_s": percentile(ledger.downs, 0.5),
        "down_p95_s": percentile(ledger.downs, 0.95),
        "down_max_s": max(ledger.downs, default=0.0),
        "all_back_s": max(ledger.backs, default=began) - began,
        "clients_cpu_s": cpu_s,
        "busiest_second": busiest_second(ledger.backs),
        "publishing_stopped_s": max(stops, default=0.0),
        "failed_connects": dict(ledger.failures),
        "failed_publications": dict(ledger.refused),
    }


async def play(crowd: Crowd, act: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    """Do something to the server in the middle of a crowd's life; return what it did to all."""
    async with crowd:
        await crowd.until(acknowledged=20)
        began, cpu_s = time.monotonic(), time.process_time()
        await act()
        took = time.monotonic() - began
        await crowd.until_back(len(crowd.clients))
        cpu_s = time.process_time() - cpu_s
        await crowd.until(acknowledged=20)
        behind = await crowd.settle()
        return summary(crowd, behind, began, took, cpu_s)


async def run(command: str) -> None:
    """Run a command to its end. Raises `SystemExit` if it fails."""
    process = await asyncio.create_subprocess_shell(command)
    if await process.wait() != 0:
        raise SystemExit(f"{command!r} failed")


def main() -> int:
    """Play one storm; return 1 if anything was lost, doubled or had a gap."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="such as ws://127.0.0.1:8765")
    parser.add_argument("--to", default="", help="HOST:PORT to connect to, if not the URL's")
    parser.add_argument("--secret-file", type=Path, help="the app's JWT secret")
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument(
        "--sources", type=int, default=0, help="have clients come from so many addresses of 127/8"
    )
    parser.add_argument("--run", help="the command that restarts the server")
    parser.add_argument("--publish", action="store_true", help="be the publisher of a crowd")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    place = place_of(given.url, given.to, given.sources)
    if given.publish:
        asyncio.run(Publisher(place, sys.stdin.readline().strip()).run())
        return 0
    if given.secret_file is None or given.run is None:
        parser.error("--secret-file and --run are needed")
    secret = given.secret_file.read_text().split("\n", 1)[0].strip()
    crowd = Crowd([place], secret, given.clients)
    found = asyncio.run(play(crowd, partial(run, given.run)))
    json.dump(found, sys.stdout)
    print()
    return int(bool(found["lost"] or found["doubled"] or found["gaps"]))


if __name__ == "__main__":
    sys.exit(main())
