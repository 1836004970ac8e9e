"""A node that hands over to its successor; one that cannot start changes nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.storm import Crowd, place_of
from pov_rt.cli.node.succession import SIGNAL, VARIABLE, predecessor
from tests.processes import COMMAND, SECRET, environment, read_until, running, with_socket

CLIENTS = 30
LISTENS = "listens on "
STUBBORN = """
import asyncio
from pov_rt.plugin import Host, Plugin

plugin = Plugin("stubborn")

@plugin.every(0.01)
async def tick(host: Host) -> None:
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass
"""


SLOW = """
from pov_rt.plugin import Plugin

plugin = Plugin("slow")
open({gate!r}).read()
"""


class Manager:
    """Hears what a service tells its manager."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(30)

    def hear(self, name: str) -> str:
        """Wait until something is told, and return what it is."""
        while True:
            for line in self._socket.recv(1000).decode().splitlines():
                if line.startswith(f"{name}="):
                    return line.partition("=")[2]

    def close(self) -> None:
        self._socket.close()


class Unit:
    """A node with a manager, on a port that stays open. `process` is the first one."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], manager: Manager) -> None:
        self.folder, self.process, self.manager = folder, process, manager
        self.port = 0

    def says(self, words: str) -> str:
        return read_until(self.process.stderr, words)

    def answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(4096).startswith(b"HTTP/1.1 404")


def is_gone(pid: int, within_s: float) -> bool:
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([ended], [], [], within_s)[0])
    finally:
        os.close(ended)


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


def hurried(change: str) -> list[str]:
    """Return the command with shorter times."""
    modules = "from pov_rt.cli.node import process, succession"
    return [sys.executable, "-c", f"{modules}; {change}; from pov_rt.cli.main import main; main()"]


@contextmanager
def unit(
    folder: Path, *, with_port: bool = True, program: Sequence[str] = COMMAND, **given: str
) -> Iterator[Unit]:
    path = str(folder / "notify")
    variables = {
        **environment(folder),
        "NOTIFY_SOCKET": path,
        "POV_RT_AUTH__SECRETS": SECRET,
        "POV_RT_SERVER__PORT": "0",
        "POV_RT_SERVER__ADMIN_PORT": "0",
        "POV_RT_SERVER__PLUGINS_DIR": str(folder / "plugins"),
        **given,
    }
    (folder / "plugins").mkdir(exist_ok=True)
    command, more = [*program, "serve"], dict[str, Any]()
    with (
        closing(Manager(path)) as manager,
        closing(socket.create_server(("127.0.0.1", 0), backlog=4096)) as listening,
    ):
        if with_port:
            number = listening.fileno()
            command, more = with_socket(number, command), {"pass_fds": (number,)}
        with running(command, env=variables, stderr=subprocess.PIPE, **more) as process:
            made = Unit(folder, process, manager)
            made.port = int(listening.getsockname()[1])
            made.says(LISTENS)
            assert manager.hear("READY") == "1"
            try:
                yield made
            finally:
                with suppress(ProcessLookupError):  # all of its session: the successor, too
                    os.killpg(process.pid, signal.SIGKILL)


def test_who_hands_over_loses_nothing_and_refuses_nobody(tmp_path: Path) -> None:
    with unit(tmp_path) as node:
        place = place_of(f"ws://127.0.0.1:{node.port}")

        async def play() -> int:
            async with Crowd([place], SECRET, CLIENTS) as crowd:
                await crowd.until(acknowledged=5)
                node.process.send_signal(SIGNAL)
                pid = int(await asyncio.to_thread(node.manager.hear, "MAINPID"))
                assert await asyncio.to_thread(node.manager.hear, "READY") == "1"
                assert await asyncio.to_thread(node.process.wait, 30) == 0
                await crowd.until_back(CLIENTS)
                await crowd.until(acknowledged=5)
                behind = await crowd.settle()
                ledger = crowd.ledger
                assert (ledger.lost, ledger.doubled, ledger.gaps, behind) == (0, 0, 0, [])
                assert (ledger.untold, len(ledger.downs)) == (0, CLIENTS), "each was told, once"
                assert ledger.failures == {}, "nobody was refused"
                assert "ConnectionRefusedError" not in ledger.refused
                return pid

        pid = asyncio.run(play())
        said = node.says(LISTENS)
        assert f"process {pid} is made ready" in said
        # It is the service's process now: it hands over, too, and then ends as the first would.
        os.kill(pid, SIGNAL)
        last = int(node.manager.hear("MAINPID"))
        assert node.manager.hear("READY") == "1"
        assert is_gone(pid, 30)
        os.kill(last, signal.SIGTERM)
        assert node.manager.hear("STOPPING") == "1"
        assert is_gone(last, 30)


def test_a_successor_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    with unit(tmp_path) as node:
        plugin = tmp_path / "plugins" / "broken.py"
        plugin.write_text("import nowhere\n")
        node.process.send_signal(SIGNAL)
        said = node.says("nothing was handed over")
        assert "nowhere" in said
        assert node.answers()
        plugin.unlink()
        node.process.send_signal(SIGNAL)
        assert node.manager.hear("MAINPID")
        assert node.process.wait(30) == 0


def test_who_is_asked_to_end_is_not_followed(tmp_path: Path) -> None:
    with unit(tmp_path) as node:
        # Nobody writes into it: the successor is never ready.
        os.mkfifo(tmp_path / "never")
        (tmp_path / "plugins" / "slow.py").write_text(f"open({str(tmp_path / 'never')!r}).read()\n")
        node.process.send_signal(SIGNAL)
        said = node.says("is made ready")
        pid = int(said.rpartition("process ")[2].split()[0])
        node.process.send_signal(SIGNAL)
        node.says("SIGUSR2 changes nothing: this process hands over, or ends, already")
        node.process.send_signal(signal.SIGTERM)
        assert node.manager.hear("STOPPING") == "1"
        assert node.process.wait(30) == 0
        assert is_gone(pid, 30)


def test_a_successor_that_hangs_while_it_loads_is_ended(tmp_path: Path) -> None:
    with unit(tmp_path, program=hurried("succession.LOAD_S = 0.5")) as node:
        os.mkfifo(tmp_path / "never")
        (tmp_path / "plugins" / "slow.py").write_text(f"open({str(tmp_path / 'never')!r}).read()\n")
        for _ in range(2):  # the next one is tried as the first was
            node.process.send_signal(SIGNAL)
            said = node.says("is made ready")
            pid = int(said.rpartition("process ")[2].split()[0])
            assert f"process {pid} has not loaded all within 0.5 s" in node.says("nothing was")
            assert is_gone(pid, 30)
        assert node.answers()


def test_who_cannot_end_in_time_is_left_to_the_watchdog(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stubborn.py").write_text(STUBBORN)
    program = hurried("process.RELEASE_S = 0.25")
    with unit(tmp_path, program=program, POV_RT_SERVER__DRAIN_S="0.25") as node:
        node.process.send_signal(SIGNAL)
        node.says("the hand-over has not ended within 0.5 s; the watchdog ends it")
        # There is no systemd here, and what hangs is given up in the end.
        assert node.manager.hear("MAINPID")
        assert node.process.wait(30) == 0


@pytest.mark.parametrize("step", ["loading", "STATUS", "MAINPID"])
def test_the_successor_of_one_that_is_killed_goes_on_at_whatever_step(
    tmp_path: Path, step: str
) -> None:
    with unit(tmp_path) as node:
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        (tmp_path / "plugins" / "slow.py").write_text(SLOW.format(gate=str(gate)))
        node.process.send_signal(SIGNAL)
        pid = int(node.says("is made ready").rpartition("process ")[2].split()[0])
        with gate.open("w"):  # it is loading: it reads
            if step == "loading":
                node.process.kill()
                assert node.process.wait(30) == -signal.SIGKILL
        if step != "loading":
            assert node.manager.hear(step)
            node.process.kill()
            assert node.process.wait(30) in (-signal.SIGKILL, 0)
        assert node.manager.hear("READY") == "1"
        assert node.answers()
        os.kill(pid, signal.SIGTERM)
        assert node.manager.hear("STOPPING") == "1"
        assert is_gone(pid, 30)


def test_without_a_port_that_stays_nothing_is_handed_over(tmp_path: Path) -> None:
    with unit(tmp_path, with_port=False) as node:
        node.process.send_signal(SIGNAL)
        assert "needs a single node with a socket unit" in node.says("nothing was handed over")
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(30) == 0


def test_a_successor_waits_until_the_one_before_has_released_all() -> None:
    async def run() -> None:
        theirs, ours = socket.socketpair()
        with theirs, closing(socket.create_server(("127.0.0.1", 0))) as listening:
            numbers = ours.detach(), os.pidfd_open(os.getpid()), os.dup(listening.fileno())
            environ = {VARIABLE: " ".join(map(str, numbers))}
            found = predecessor(environ)
            assert found is not None
            assert predecessor(environ) is None, "its own children are no successors"
            (taken,) = found.sockets
            assert taken.getsockname() == listening.getsockname()
            waiting = asyncio.create_task(found.leave())
            loop = asyncio.get_running_loop()
            theirs.setblocking(False)
            assert await loop.sock_recv(theirs, 10) == b"."
            assert not waiting.done()
            await loop.sock_sendall(theirs, b".")
            await asyncio.wait_for(waiting, 30)
            taken.close()

    asyncio.run(run())


@pytest.mark.parametrize("is_told", [False, True])
def test_a_successor_waits_for_the_end_of_one_that_is_killed(is_told: bool) -> None:
    async def run() -> None:
        theirs, ours = socket.socketpair()
        with running([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as killed:
            line = ours.detach()
            found = predecessor({VARIABLE: f"{line} {os.pidfd_open(killed.pid)}"})
            assert found is not None
            if not is_told:
                theirs.close()
            waiting = asyncio.create_task(found.leave())
            if is_told:
                await asyncio.to_thread(select.select, [theirs], [], [])
                theirs.close()  # with what it was told unread
            while is_open(line):  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert not waiting.done(), "its line has ended, and it has not"
            killed.kill()
            await asyncio.wait_for(waiting, 30)

    asyncio.run(run())


def test_the_successor_of_a_node_of_an_older_version_takes_nothing_over(tmp_path: Path) -> None:
    older = "_POV_RT_SUCCESSOR"  # its value was "line socket"
    line, theirs = socket.socketpair()
    with line, theirs, socket.create_server(("127.0.0.1", 0)) as listening:
        numbers = theirs.fileno(), listening.fileno()
        port = listening.getsockname()[1]
        variables = {
            **environment(tmp_path),
            older: " ".join(map(str, numbers)),
            "POV_RT_AUTH__SECRETS": SECRET,
            "POV_RT_SERVER__PORT": str(port),
        }
        command = [*COMMAND, "serve"]
        with running(command, env=variables, stderr=subprocess.PIPE, pass_fds=numbers) as process:
            theirs.close()
            assert process.wait(30) != 0
            assert process.stderr is not None
            assert f"cannot listen on 127.0.0.1:{port}: another program" in process.stderr.read()
            assert line.recv(1) == b"", "it never said that it was ready"
        with socket.create_connection(("127.0.0.1", port), timeout=20):
            listening.accept()[0].close()


def test_where_no_process_can_be_started_nothing_is_handed_over(tmp_path: Path) -> None:
    with unit(tmp_path) as node:
        pid = node.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        node.process.send_signal(SIGNAL)
        assert "Too many open files" in node.says("nothing was handed over")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert node.answers()
        node.process.send_signal(SIGNAL)
        assert node.manager.hear("MAINPID")
        assert node.process.wait(30) == 0


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}])
def test_who_was_started_otherwise_follows_nobody(environ: dict[str, str]) -> None:
    assert predecessor(environ) is None
