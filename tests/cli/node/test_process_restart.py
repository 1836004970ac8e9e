"""A restart under load, of real processes: nothing is lost, and nobody who waits is refused."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.storm import Crowd, place_of
from tests.processes import COMMAND, SECRET, environment, read_until, running, with_socket

CLIENTS = 30


class Node:
    """A server that can be started again on the same port, which stays open or does not."""

    def __init__(self, folder: Path, listening: socket.socket | None) -> None:
        self.folder = folder
        self.listening = listening
        self.port = 0 if listening is None else int(listening.getsockname()[1])

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Run it; it listens from the beginning on."""
        command: list[str] = [*COMMAND, "serve"]
        more: dict[str, Any] = {}
        if self.listening is not None:
            number = self.listening.fileno()
            command, more = with_socket(number, command), {"pass_fds": (number,)}
        variables = {
            **environment(self.folder),
            "POV_RT_AUTH__SECRETS": SECRET,
            "POV_RT_SERVER__PORT": str(self.port),
            "POV_RT_SERVER__ADMIN_PORT": "0",
        }
        with running(command, env=variables, stderr=subprocess.PIPE, **more) as process:
            said = read_until(process.stderr, "listens on ")
            self.port = int(said.rpartition("127.0.0.1:")[2].split(",")[0].split('"')[0].split()[0])
            yield process


@pytest.mark.parametrize("port_stays", [True, False])
def test_a_restart_loses_nothing_and_tells_everybody_when_to_come_back(
    tmp_path: Path, port_stays: bool
) -> None:
    with ExitStack() as stack:
        listening = None
        if port_stays:
            listening = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        node = Node(tmp_path, listening)
        first = stack.enter_context(node.running())
        place = place_of(f"ws://127.0.0.1:{node.port}")

        async def play() -> None:
            async with Crowd([place], SECRET, CLIENTS) as crowd:
                await crowd.until(acknowledged=5)
                first.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(first.wait, 30) == 0
                await asyncio.to_thread(stack.enter_context, node.running())
                await crowd.until_back(CLIENTS)
                await crowd.until(acknowledged=5)
                behind = await crowd.settle()
                ledger = crowd.ledger
                assert (ledger.lost, ledger.doubled, ledger.gaps, behind) == (0, 0, 0, [])
                assert (ledger.untold, len(ledger.downs)) == (0, CLIENTS), "each was told, once"
                if port_stays:
                    assert ledger.failures == {}, "nobody was refused"
                    assert "ConnectionRefusedError" not in ledger.refused

        asyncio.run(play())
