"""`pov-rt serve` as a process: what it prints, and how it starts anew."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from pov_rt.cli import welcome
from tests.cli.test_main import COMMAND, SECRET, Served, environment, run, serve

BARE = {"PATH": "/usr/bin:/bin"}


def commands(text: str) -> list[str]:
    """Return what is there to paste: indented lines, with those that continue them."""
    return re.findall(r"^  (?!Console|Health|eyJ)(\S.*(?:\n    \S.*)*)", text, re.M)


def paste(command: str) -> subprocess.Popen[str]:
    """Run it as the user of another shell does, in another folder."""
    kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_CONFIG",) if name in os.environ}
    return subprocess.Popen(
        ["bash", "-c", command],
        env=BARE | kept,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("own_secret", [False, True])
def test_what_serve_prints_works_when_it_is_pasted(tmp_path: Path, own_secret: bool) -> None:
    more = {"POV_RT_AUTH__SECRETS": SECRET} if own_secret else {}
    with serve(tmp_path, **more) as served:
        follow, publish, curl = commands(served.text)
        with paste(follow) as tail:
            assert tail.stdout is not None
            assert tail.stderr is not None
            assert tail.stderr.readline() == "following demo, 0 activities so far\n"
            with paste(publish) as done:
                assert done.communicate(timeout=20) == ("", "1 published\n")
            assert json.loads(tail.stdout.readline())["userId"] == "ana"
            if shutil.which("curl", path=BARE["PATH"]):
                with paste(curl) as done:
                    assert json.loads(done.communicate(timeout=20)[0])["offset"] == 2
                assert json.loads(tail.stdout.readline())["offset"] == 2
            os.killpg(tail.pid, signal.SIGINT)
            assert tail.communicate(timeout=20) == ("", "\n")
            assert tail.returncode == 0
        with connect(f"{served.socket_url}?token={served.token}", proxy=None) as client:
            client.send('{"type":"ping"}')
            assert client.recv(timeout=10) == '{"type":"pong"}'
        log = served.stop()
    assert "closed by the client with 1000" in log
    assert "Traceback" not in log
    assert [json.loads(line)["level"] for line in log.splitlines()]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_an_ipv6_address_is_printed_so_that_it_works(tmp_path: Path, host: str) -> None:
    with serve(tmp_path, "--host", host) as served:
        assert served.url.startswith("http://[::1]:")
        _, publish, _ = commands(served.text)
        with paste(publish) as done:
            assert done.communicate(timeout=20) == ("", "1 published\n")


def test_on_a_unix_socket_only_what_works_there_is_printed(tmp_path: Path) -> None:
    with serve(tmp_path, "--unix", "the socket") as served:
        assert "127.0.0.1:0" not in served.text
        (curl,) = commands(served.text)
        if shutil.which("curl", path=BARE["PATH"]):
            with paste(curl) as done:
                assert json.loads(done.communicate(timeout=20)[0])["offset"] == 1


@pytest.mark.parametrize(
    ("started", "in_environment", "expected"),
    [
        ("/usr/local/bin/pov-rt", False, "pov-rt"),
        ("/usr/local/bin/pov-rt", True, "/usr/local/bin/pov-rt"),
        ("/opt/my env/bin/pov-rt", False, "'/opt/my env/bin/pov-rt'"),
        ("/x/pov_rt/cli/__main__.py", False, f"{sys.executable} -m pov_rt.cli"),
    ],
)
def test_the_program_is_named_so_that_any_shell_finds_it(
    started: str, in_environment: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr(sys, "prefix", "/usr/local")
    monkeypatch.setattr(sys, "base_prefix", "/usr" if in_environment else "/usr/local")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/local/bin/{name}")
    assert welcome.how_to_start() == expected


def test_serve_without_a_secret_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "serve")
    assert done.returncode == 1
    assert "openssl rand -base64 48" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_plugin_stops_serve_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text('"""Bad."""\n\nimport nothing_of_that_name\n')
    done = run(tmp_path, "serve", "--plugins-dir", str(tmp_path), POV_RT_AUTH__SECRETS=SECRET)
    assert done.returncode == 1
    assert "bad.py:3: ModuleNotFoundError" in done.stderr
    assert "import nothing_of_that_name" in done.stderr


def test_a_port_that_is_taken_ends_a_development_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "serve", "--dev", "--port", port)
    assert (done.returncode, "cannot listen on" in done.stderr) == (1, True)


def test_sighup_takes_over_origins_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "pov-rt.toml"
    file.write_text(f'[auth]\nsecrets = ["{SECRET}"]\n[server]\nport = 0\nadmin_port = 0\n')
    with subprocess.Popen(
        [*COMMAND, "serve", "--config", str(file)],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = (json.loads(line) for line in process.stderr)  # without a terminal all is JSON
        try:
            warning = next(lines)
            assert (warning["level"], f"run: chmod o= {file}" in warning["message"]) == (
                "warning",
                True,
            )
            assert "listens on 127.0.0.1:" in next(lines)["message"]
            text = file.read_text() + 'allowed_origins = ["https://app.example"]\ndrain_s = 3\n'
            file.write_text(text)
            process.send_signal(signal.SIGHUP)
            assert "reloaded: server.allowed_origins" in next(lines)["message"]
            assert "needs a restart: server.drain_s" in next(lines)["message"]
            file.write_text("no toml")
            process.send_signal(signal.SIGHUP)
            assert "nothing was reloaded" in next(lines)["message"]
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()


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


def test_a_changed_plugin_restarts_the_server_and_clients_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    draft = folder / "draft.py"
    draft.write_text(PLUGIN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with serve(tmp_path, "--port", port, "--plugins-dir", str(folder)) as served:
        assert served.process.stderr is not None
        log = iter(served.process.stderr.readline, "")

        def until(words: str) -> str:
            return next(line for line in log if words in line)

        def version(served: Served) -> int:
            with connect(f"{served.socket_url}?token={served.token}", proxy=None) as client:
                client.send('{"type":"draft.ask"}')
                answer: int = json.loads(client.recv(timeout=10))["version"]
                return answer

        assert version(served) == 1
        protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{served.token}")]
        with connect(served.socket_url, subprotocols=protocols, proxy=None) as client:
            assert '"welcome"' in client.recv(timeout=10)
            # A typo is named, and costs nobody anything.
            draft.write_text(PLUGIN.replace("Answer(version=1)", "Answer(version=1"))
            assert "draft.py:16: syntax error" in until("goes on as it was")
            client.send('{"type":"draft.ask"}')
            assert json.loads(client.recv(timeout=10))["version"] == 1
            # What is only found on loading is named, and waited for.
            draft.write_text(PLUGIN.replace("Answer(version=1)", "Answer(version=2)") + "nothing\n")
            assert json.loads(client.recv(timeout=20))["reason"] == "restarting"
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4000
        assert "draft.py:17: NameError" in until("NameError")
        until("Waiting for a change")
        draft.write_text(PLUGIN.replace("version=1", "version=2"))
        until("started anew: draft.py")
        assert version(served) == 2
        # A new file is a change, too.
        text = PLUGIN.replace("draft", "second")
        (folder / "second.py").write_text(text)
        until("started anew: second.py")
        with connect(f"{served.socket_url}?token={served.token}", proxy=None) as client:
            client.send('{"type":"second.ask"}')
            assert json.loads(client.recv(timeout=10))["type"] == "second.answer"
        assert "Traceback" not in served.stop()


BROKEN = "import pov_rt.cli.main as m, pov_rt.cli.serve as s; s.build_registry = None; m.main()"


@pytest.mark.parametrize(
    ("command", "wrong", "words"),
    [
        (COMMAND, "[server]\nprot = 1\n", "server.prot"),
        ([sys.executable, "-c", BROKEN], "", "TypeError: 'NoneType' object is not callable"),
    ],
)
def test_what_stops_the_start_is_waited_for_under_dev(
    tmp_path: Path, command: list[str], wrong: str, words: str
) -> None:
    file = tmp_path / "pov-rt.toml"
    file.write_text(wrong)
    flags = ["--dev", "--port", "0", "--admin-port", "0", "--config", str(file)]
    with subprocess.Popen(
        [*command, "serve", *flags], env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        waiting = "Waiting for a change; Ctrl-C ends this.\n"
        try:
            assert words in "".join(iter(process.stderr.readline, waiting))
            file.write_text("[server]\n")
            if wrong:
                assert "started anew: pov-rt.toml" in process.stderr.readline()
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            else:  # it has been started anew, which does not mend this
                assert words in "".join(iter(process.stderr.readline, waiting))
        finally:
            process.kill()


def test_a_folder_that_is_taken_ends_a_development_server(tmp_path: Path) -> None:
    with serve(tmp_path):
        done = run(tmp_path, "serve", "--dev", "--port", "0", "--admin-port", "0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
