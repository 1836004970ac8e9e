"""The programs of a run that are killed: apps, relays, the server."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.checker.servers import ROOT, Server
from tests.processes import end, launch

PATIENCE_S = 120.0
"""How long a program has to end in, once it was told to."""


class Victim(Protocol):
    """What can be killed and comes back."""

    name: str

    def kill(self) -> None:
        """Kill it."""

    def revive(self) -> None:
        """Start it anew."""


class Program:
    """An app or a relay, which runs until it is told to end."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self._command = command
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.revive()

    def revive(self) -> None:
        """Start it anew."""
        with self._log.open("ab") as log:
            self._process = launch(self._command, cwd=ROOT, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it."""
        process, self._process = self._process, None
        if process is not None:
            end(process)

    def has_ended(self) -> bool:
        """Return whether it ended, though nobody killed it or told it to."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> int | None:
        """Tell it to end; return its status, None if it did not."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def last_words(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-500:]


class ServerVictim:
    """The server, which others wait for when it comes back."""

    name = "server"

    def __init__(self, server: Server) -> None:
        self._server = server

    def kill(self) -> None:
        """Kill it."""
        self._server.kill()

    def revive(self) -> None:
        """Start it anew."""
        self._server.start()
