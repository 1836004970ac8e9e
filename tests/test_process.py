"""The server as systemd and a developer run it: activation, notification, restart on change."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from websockets.sync.client import connect

from tests.test_cli import COMMAND, SECRET, environment

PLUGIN = '''"""A plugin that is being written."""
from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("draft")

class Ask(Message, tag="draft.ask"):
    """Ask."""

class Answer(Message, tag="draft.answer"):
    """Answer."""
    version: int

@plugin.on(Ask)
def ask(message: Ask, context: Context) -> Answer:
    """Answer."""
    return Answer(version=1)
'''


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
        with subprocess.Popen(
            [program, "-l", f"127.0.0.1:{port}", *passed, *COMMAND, "serve"],
            env=variables,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
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
            finally:
                process.kill()


def test_a_changed_plugin_restarts_the_server_and_clients_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    file = folder / "draft.py"
    file.write_text(PLUGIN)
    port = free_port()
    with subprocess.Popen(
        [
            *(*COMMAND, "serve", "--dev", "--port", str(port), "--admin-port", "0"),
            *("--plugins-dir", str(folder)),
        ],
        env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None

        def version() -> int:
            """Read the token that was printed, and ask the plugin."""
            assert process.stdout is not None
            token = ""
            for line in iter(process.stdout.readline, ""):
                if "--token" in line:
                    token = line.split("--token ")[1].strip()
                if line.startswith("    -d "):
                    break
            assert process.stdout.readline() == "\n"
            with connect(f"ws://127.0.0.1:{port}/ws/?token={token}", proxy=None) as client:
                client.send('{"type":"draft.ask"}')
                answer: int = json.loads(client.recv(timeout=10))["version"]
                return answer

        try:
            assert version() == 1
            file.write_text(PLUGIN.replace("version=1", "version=2"))
            # What it compares with is the file as it was at its first look, half a second after
            # the start; so the file is changed until it looks.
            changed = file.stat().st_mtime
            while not select.select([process.stdout], [], [], 0.2)[0]:
                changed += 1
                os.utime(file, (changed, changed))
            assert version() == 2
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()


def test_more_clients_than_descriptors_cost_nobody_anything(tmp_path: Path) -> None:
    port = free_port()
    serve = [*COMMAND, "serve", "--dev", "--port", str(port), "--admin-port", "0"]
    with subprocess.Popen(
        ["bash", "-c", 'ulimit -n 128; exec "$@"', "-", *serve],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            token = next(line.split("--token ")[1].strip() for line in lines if "--token" in line)
            url = f"ws://127.0.0.1:{port}/ws/?token={token}"
            with ExitStack() as stack:
                client = stack.enter_context(connect(url, proxy=None))
                for _ in range(150):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                for _ in range(20):
                    client.send('{"type":"ping"}')
                    assert client.recv(timeout=10) == '{"type":"pong"}'
            with connect(url, proxy=None) as again:
                again.send('{"type":"ping"}')
                assert again.recv(timeout=10) == '{"type":"pong"}'
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert log.count("not accepting connections: 64 sockets are open") == 1
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
        with subprocess.Popen(
            [*COMMAND, "serve", *flags],
            env=variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                lines = iter(process.stdout.readline, "")
                line = next(line for line in lines if "--token" in line)
                while b"WATCHDOG=1" not in manager.recv(1000):
                    pass
                url = f"ws://127.0.0.1:{port}/ws/?token={line.split('--token ')[1].strip()}"
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
            finally:
                process.kill()
