"""Runs `load.c`, the load generator, on a core of its own."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.machine import LOAD_CORE
from pov_rt.transport.frames import Opcode
from tests.frames import masked_frame

SOURCE = Path(__file__).parent / "load.c"
NUMBER, INSTANT = "\x01", "\x02"
"""Where the load generator puts these into what it publishes."""


class LoadError(Exception):
    """Messages were lost, doubled or out of order, or clients refused: the run counts nothing."""


class Step(NamedTuple):
    """After so many frames, all of which begin as expected, the client sends this."""

    after: int
    text: str
    expected: str = ""


class Client(NamedTuple):
    """A client to open: the target of its request, what it says to be served, what it has seen."""

    target: str
    steps: Sequence[Step]
    seen: int = 0

    def handshake(self) -> bytes:
        """Return its request."""
        return (
            f"GET {self.target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ).encode()

    def encode(self) -> bytes:
        """Return its part of the set-up file."""
        steps = b"".join(
            struct.pack("<I", step.after)
            + _text(step.expected)
            + _text(text_frame(step.text) if step.text else b"")
            for step in self.steps
        )
        head = struct.pack("<I", self.seen) + _text(self.handshake())
        return head + struct.pack("<I", len(self.steps)) + steps


class Speech(NamedTuple):
    """What the load generator has to know of how a server speaks; see `load.c`."""

    ping: str
    pong: str
    growing: str
    publication: str
    acknowledgement: str
    recovered: str = ""


class Counted(NamedTuple):
    """What arrived."""

    frames: int
    bytes: int
    gaps: int
    lost: int
    unacknowledged: int


class Delays(NamedTuple):
    """Delays in microseconds, of so many messages; each at most 6 % above what it was."""

    of: int
    p50: float
    p99: float
    p999: float
    max: float


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def text_frame(text: str) -> bytes:
    """Return a client's text frame."""
    return masked_frame(Opcode.TEXT, text.encode())


def build(folder: Path) -> Path:
    """Compile the load generator if it is older than its source."""
    program = folder / "load"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("the load generator needs a C compiler: apt-get install gcc libc6-dev")
        subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)],
            check=True,
        )
    return program


class Load:
    """A running load generator. Use it in a `with`. The first clients are its publishers."""

    def __init__(
        self, folder: Path, port: int, clients: Sequence[Client], speech: Speech, publishers: int
    ) -> None:
        setup = folder / "setup"
        setup.write_bytes(
            struct.pack("<II", len(clients), publishers)
            + _text(text_frame(speech.ping))
            + _text(speech.pong)
            + _text(speech.growing)
            + _text(speech.publication)
            + _text(speech.acknowledgement)
            + _text(speech.recovered)
            + b"".join(client.encode() for client in clients)
        )
        self.clients = len(clients)
        self._name = folder.name
        self._process = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CORE), str(build(folder)), str(port), str(setup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pids(self) -> list[int]:
        """The generator's process."""
        return [self._process.pid]

    def send(self, command: str) -> None:
        """Give a command; `answer` reads what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> list[float]:
        """Return the numbers of the answer to the oldest command."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadError("the load generator ended")
        return [float(word) for word in line.split()[1:]]

    def ask(self, command: str) -> list[float]:
        """Give a command and return the numbers of its answer."""
        self.send(command)
        return self.answer()

    def open(self, window: int = 64, small: int = 0) -> float:
        """Open all clients, the last `small` of them with tiny buffers; return the seconds."""
        seconds, opened, lost = self.ask(f"open {window} {small}")
        if opened != self.clients or lost:
            raise LoadError(f"{self._name}: {opened:.0f} of {self.clients} clients were served")
        return seconds

    def reset(self) -> None:
        """Forget what was counted."""
        self.ask("reset")

    def publish(self, number: int, rate: float = 0) -> None:
        """Begin to publish at fixed instants `rate` times a second; 0: as fast as it is taken."""
        self.ask(f"publish {number} {rate}")

    def stop(self) -> int:
        """Publish no more; return how many were published since the last reset."""
        return int(self.ask("stop")[0])

    def expect(self, frames: int, *, timeout_s: float = 60) -> Counted:
        """Wait for so many messages. Raises `LoadError` if any was lost, doubled or displaced."""
        counted = Counted(*map(int, self.ask(f"wait {frames} {int(timeout_s * 1000)}")))
        if counted.frames != frames or counted.gaps or counted.lost or counted.unacknowledged:
            raise LoadError(f"{self._name}: of {frames} messages: {counted}")
        return counted

    def delays(self) -> Delays:
        """Return the delays of what came since the last reset."""
        count, *rest = self.ask("delays")
        return Delays(int(count), *rest)
