"""Nodes as processes on one Redis, each started again where it was, also as another version."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.processes import COMMAND, SECRET, end, environment, launch
from tests.redis_servers import free_port

WAIT_S = 30.0


class NodeProcess:
    """One node: `start`, `stop`, and `start` again on the same ports and with the same folder."""

    def __init__(self, folder: Path, redis_url: str, **more: str) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.variables = {
            **environment(folder),
            "POV_RT_ENGINE__URL": redis_url,
            "POV_RT_AUTH__SECRETS": SECRET,
            "POV_RT_SERVER__PORT": str(self.port),
            "POV_RT_SERVER__ADMIN_PORT": str(self.admin_port),
            **more,
        }
        self.process: subprocess.Popen[Any] | None = None

    @property
    def ports(self) -> tuple[int, int]:
        """The port of clients, and that of health and metrics."""
        return self.port, self.admin_port

    def start(self, command: Sequence[str] = COMMAND) -> None:
        """Start it, by the command of whatever version; return once it is ready."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = launch(
                [*command, "serve"], env=self.variables, cwd=self.folder, stderr=output
            )
        deadline = time.monotonic() + WAIT_S
        while not self.is_ready():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Have it drain, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0, (self.folder / "log").read_text()

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process is not None:
            end(self.process)

    def is_ready(self) -> bool:
        """Tell whether `/readyz` says so."""
        with suppress(OSError, HTTPError):
            with urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=WAIT_S) as answer:
                return bool(json.loads(answer.read())["status"] == "ready")
        return False

    def sockets(self) -> int:
        """Return how many WebSockets it has."""
        with urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=WAIT_S) as answer:
            text: str = answer.read().decode()
        return int(float(text.partition('pov_rt_connections{transport="ws"} ')[2].split()[0]))
