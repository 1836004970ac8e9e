"""The kit for plugin authors, in a project of theirs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from pov_rt.registry.scaffold import write_plugin
from pov_rt.testing import RunningServer

HELPER = '''"""No plugin, and not to be run by anybody's test."""
raise SystemExit("executed")
'''
TEST = """
import pytest

@pytest.fixture
def settings():
    return "what pytest-django has by that name"

@pytest.fixture
def server():
    raise AssertionError("another plugin's")

def test_fixtures_of_others_are_left_alone(connect, settings):
    assert settings.startswith("what pytest-django")
    assert connect().request({"type": "ping"})["type"] == "pong"
"""


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    ).stdout


def test_a_project_with_other_files_and_fixtures_is_left_alone(tmp_path: Path) -> None:
    write_plugin("wave", tmp_path)
    (tmp_path / "manage.py").write_text(HELPER)
    (tmp_path / "test_others.py").write_text(TEST)
    assert "2 passed" in (out := run(tmp_path)), out


def test_few_fixtures_have_a_plain_name(tmp_path: Path) -> None:
    listed = run(tmp_path, "--fixtures", "-v")
    ours = re.findall(r"^(\w+).* -- .*pov_rt/testing\.py:\d+", listed, re.M)
    named = [name for name in ours if not name.startswith("pov_rt_")]
    assert sorted(named) == ["clock", "connect", "http"]


def test_a_client_has_the_token_that_a_test_has_and_dies_as_machines_do(
    server: RunningServer,
) -> None:
    ben, ana = server.connect("ben"), server.connect(token=server.token("ana", povs=["acme"]))
    assert (ana.welcome["userId"], ana.welcome["connectionId"]) == ("ana", ana.connection_id)
    assert ana.request({"type": "subscribe", "povId": "other"})["code"] == "forbidden"
    for client in (ana, ben):
        assert client.request({"type": "subscribe", "povId": "acme"})["type"] == "subscribed"
    ana.socket.abort()
    with pytest.raises(ConnectionClosed):
        ana.send({"type": "ping"})
    while server.call(lambda: len(server.web.server.directory)) > 1:
        pass
    with pytest.raises(TimeoutError):
        ben.socket.recv(timeout=0)
    assert ben.request({"type": "ping"})["type"] == "pong", "what was waited for in vain is no loss"
