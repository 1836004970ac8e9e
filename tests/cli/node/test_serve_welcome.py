"""What a development server prints works when it is pasted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from pov_rt.cli.node import serve as welcome
from tests.processes import SECRET, running, serve

BARE = {"PATH": "/usr/bin:/bin"}


def commands(text: str) -> list[str]:
    """Return what is there to paste: indented lines, with those that continue them."""
    return re.findall(r"^  (?!Demo|Console|Health|eyJ)(\S.*(?:\n    \S.*)*)", text, re.M)


def paste(command: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run it as the user of another shell does, in another folder."""
    kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_CONFIG",) if name in os.environ}
    return running(
        ["bash", "-c", command],
        env=BARE | kept,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
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
