"""The server under test as a process, and the small disk that its data is on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.peers import free_port
from tests.checker.clients import LOOPBACK, SECRET
from tests.checker.launcher import CLOCK, LAUNCHER, set_clock
from tests.processes import end, launch

ROOT = Path(__file__).parents[2]
START_S = 30.0
POLL_S = 0.005
STOP_S = 20.0
DISK_MB = 8192
"""More than a run fills; a tmpfs takes what is in it."""


class ServerError(Exception):
    """The server does not start, or does not end."""


class Server:
    """pov-rt with what is its own in `folder`. `command` is what understands `serve`.

    `url` is where its log is, and `more` is more of its settings.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        command: Sequence[str] = LAUNCHER,
        max_entries: int = 10_000,
        more: str = "",
        host: str = LOOPBACK,
    ) -> None:
        self.host = host
        self.port = free_port()
        self.admin_port = free_port()
        self.clock = folder / "clock"
        """How far its wall clock is moved: see `set_clock`."""
        set_clock(self.clock, 0.0)
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.starts: list[float] = []
        """Seconds from each start until it served."""
        self.data.mkdir(exist_ok=True)
        config = folder / "pov-rt.toml"
        config.write_text(
            f'[server]\nhost = "{host}"\nport = {self.port}\ndata = "{self.data}"\n'
            f'admin_host = "{host}"\nadmin_port = {self.admin_port}\n'
            f'[auth]\nsecrets = ["{SECRET}"]\ndefault_povs = "*"\n'
            '[limits]\nmessage_rate = "1000000/s"\ncost_rate = "99999999/s"\n'
            f'[engine]\nurl = "{url}"\nmax_entries = {max_entries}\n{more}'
        )
        self._command = [*command, "serve", "--config", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises `ServerError`."""
        begun = time.monotonic()
        self.spawn()
        self.wait()
        self.starts.append(time.monotonic() - begun)

    def spawn(self) -> None:
        """Start it."""
        # A measurement of the tests' coverage is not to slow it down.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        environment[CLOCK] = str(self.clock)
        with self.log.open("ab") as file:
            self._process = launch(
                self._command, cwd=ROOT, env=environment, stdout=file, stderr=file
            )

    def wait(self) -> None:
        """Wait until it answers. Raises `ServerError`."""
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"the server ended while it started: {self.last_words()}")
            if time.monotonic() > deadline:
                raise ServerError(f"the server did not serve within {START_S} s")
            time.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def stop(self) -> None:
        """Have it end by itself, as systemd would. Raises `ServerError`."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"the server did not end within {STOP_S} s") from None
        self._process = None
        if status:
            raise ServerError(f"the server ended with status {status}: {self.last_words()}")

    @property
    def pid(self) -> int:
        """The number of its process, which runs."""
        assert self._process is not None
        return self._process.pid

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-500:]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), 5) as client:
            client.sendall(b"GET /ws/ HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 4")
        return False


class Disk:
    """A tmpfs that can be made as small as what is on it. Use it in a `with`.

    `there` is False where one may not mount; the fault of a full disk is then left out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.there = False

    def __enter__(self) -> Disk:
        self._folder.mkdir(exist_ok=True)
        with suppress(OSError):
            self.there = self._mount("-t", "tmpfs", "-o", f"size={DISK_MB}m", "none")
        return self

    def __exit__(self, *_: object) -> None:
        if self.there:
            subprocess.run(["umount", "-l", str(self._folder)], check=False)

    def fill(self, room: int) -> bool:
        """Leave so many bytes free; return whether it was possible.

        It takes no memory, as a file would that fills it.
        """
        for _ in range(20):  # what is written meanwhile may be more than the room
            status = os.statvfs(self._folder)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            if self._mount("-o", f"remount,size={used + room}"):
                return True
        return False

    def free(self) -> None:
        """Give the room back."""
        if self.there:
            self._mount("-o", f"remount,size={DISK_MB}m")

    def _mount(self, *options: str) -> bool:
        command = ["mount", *options, str(self._folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
