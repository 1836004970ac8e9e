"""The server as systemd runs it: activation, notification, watchdog, limits."""

from __future__ import annotations

import json
import select
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from websockets.sync.client import connect

from pov_rt.cli.node.process import GC_THRESHOLDS
from tests.processes import COMMAND, SECRET, Served, environment, running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_systemd_gives_the_port_and_hears_of_start_and_end(tmp_path: Path) -> None:
    program = shutil.which("systemd-socket-activate")
    assert program, "systemd-socket-activate is missing; scripts/test installs it (package systemd)"
    port, path = free_port(), str(tmp_path / "notify")
    variables = {
        **environment(tmp_path),
        "NOTIFY_SOCKET": path,
        "WATCHDOG_USEC": "200000",
        "POV_RT_AUTH__SECRETS": SECRET,
        "POV_RT_SERVER__ADMIN_PORT": "0",
    }
    passed = [part for name in variables for part in ("-E", name)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        with running(
            [program, "-l", f"127.0.0.1:{port}", *passed, *COMMAND, "serve"],
            env=variables,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            assert "Listening" in process.stderr.readline()
            # The one that starts it is served by it, and nobody was refused meanwhile.
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 404")
            said = b""
            while b"WATCHDOG=1" not in said:
                said = said + b"|" + manager.recv(1000)
            assert f"|READY=1\nSTATUS=Listening on port {port}".encode() in said
            process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in said:
                said = manager.recv(1000)
            assert process.wait(20) == 0


def cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def test_more_clients_than_descriptors_cost_nobody_anything(tmp_path: Path) -> None:
    port = free_port()
    serve = [*COMMAND, "serve", "--dev", "--port", str(port), "--admin-port", "0"]
    with running(
        ["bash", "-c", 'ulimit -n 128; exec "$@"', "-", *serve],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        served = Served(process)
        url = f"{served.socket_url}?token={served.token}"
        with ExitStack() as stack:
            client = stack.enter_context(connect(url, proxy=None))
            for _ in range(150):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            for _ in range(20):
                client.send('{"type":"ping"}')
                assert client.recv(timeout=10) == '{"type":"pong"}'
            used_s, began = cpu_s(process.pid), time.monotonic()
            with suppress(TimeoutError):
                client.recv(timeout=1)
            # A stock accept loop would spin: 100 % of a core.
            assert cpu_s(process.pid) - used_s < 0.3 * (time.monotonic() - began)
        with connect(url, proxy=None) as again:
            again.send('{"type":"ping"}')
            assert again.recv(timeout=10) == '{"type":"pong"}'
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = log.splitlines()
    told = ("not accepting connections: 64 sockets are open", "the oldest that asks nothing goes")
    assert 1 <= sum(map(log.count, told)) < 10
    assert len(lines) < 20, "at most a line a second"
    assert "Traceback" not in log


BLOCKING = '''"""A plugin that never comes back."""
from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("block")

class Block(Message, tag="block"):
    """Block."""

@plugin.on(Block)
def block(message: Block, context: Context) -> None:
    """Never return."""
    while True:
        pass
'''


def test_a_plugin_that_blocks_for_ever_is_named_and_the_watchdog_goes_hungry(
    tmp_path: Path,
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "block.py").write_text(BLOCKING)
    port, path = free_port(), str(tmp_path / "notify")
    variables = {
        **environment(tmp_path),
        "NOTIFY_SOCKET": path,
        "WATCHDOG_USEC": "200000",
        "POV_RT_SERVER__ADMIN_PORT": "0",
    }
    flags = ["--dev", "--port", str(port), "--plugins-dir", str(tmp_path / "plugins")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        with running(
            [*COMMAND, "serve", *flags],
            env=variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            served = Served(process)
            while b"WATCHDOG=1" not in manager.recv(1000):
                pass
            url = f"{served.socket_url}?token={served.token}"
            with connect(url, proxy=None, close_timeout=0) as client:
                client.send('{"type":"block"}')
                blocked = next(text for text in process.stderr if "blocked" in text)
                assert "block.py:1" in blocked
            # systemd restarts what has not fed its watchdog for WatchdogSec, here 0.2 s.
            manager.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    manager.recv(1000)
            assert select.select([manager], [], [], 0.6)[0] == []


COLLECTOR = '''"""A plugin that says what the garbage collector is told to do."""
import gc

from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("collector")
at_start = gc.isenabled()

class Ask(Message, tag="collector.ask"):
    """Ask."""

class Told(Message, tag="collector.told"):
    """What it is told to do."""

    at_start: bool
    now: bool
    thresholds: tuple[int, int, int]

@plugin.on(Ask)
def ask(message: Ask, context: Context) -> Told:
    """Say."""
    return Told(at_start=at_start, now=gc.isenabled(), thresholds=gc.get_threshold())
'''


def test_garbage_is_looked_for_from_the_start_on_but_not_while_it_loads(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "collector.py").write_text(COLLECTOR)
    with running(
        [*COMMAND, "serve", "--dev", "--port", "0", "--plugins-dir", str(tmp_path / "plugins")],
        env={**environment(tmp_path), "POV_RT_SERVER__ADMIN_PORT": "0"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    ) as process:
        served = Served(process)
        with connect(f"{served.socket_url}?token={served.token}", proxy=None) as client:
            client.send('{"type":"collector.ask"}')
            while (told := json.loads(client.recv(20)))["type"] != "collector.told":
                pass
    assert (told["atStart"], told["now"]) == (False, True)
    assert tuple(told["thresholds"]) == GC_THRESHOLDS
