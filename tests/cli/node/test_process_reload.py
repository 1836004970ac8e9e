"""SIGHUP: what a process takes over, and what it says of the rest."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pov_rt.cli.node.manager import RELEASE_S
from tests.processes import COMMAND, SECRET, environment, running


class Serving:
    """A server as a process, with its settings and its log."""

    def __init__(self, process: subprocess.Popen[str], file: Path, secret: Path) -> None:
        assert process.stderr is not None
        self._process = process
        self._lines = process.stderr
        self.file = file
        self.secret = secret

    def line(self) -> dict[str, Any]:
        """Return the log's next line."""
        found: dict[str, Any] = json.loads(self._lines.readline())
        return found

    def reload(self) -> str:
        """Send SIGHUP; return what the log says first."""
        self._process.send_signal(signal.SIGHUP)
        return str(self.line()["message"])


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    file, secret = tmp_path / "pov-rt.toml", tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    file.write_text(
        f'[auth]\nsecret_files = ["{secret}"]\n[server]\nport = 0\nadmin_port = 0\n[log]\n'
    )
    with running(
        [*COMMAND, "serve", "--config", str(file)],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
    ) as process:
        serving = Serving(process, file, secret)
        assert "every PoV of every team" in serving.line()["message"]
        assert "listens on 127.0.0.1:" in serving.line()["message"]
        yield serving
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_reload_says_what_it_took_over_and_applies_nothing_else(serving: Serving) -> None:
    assert serving.reload() == "reloaded: nothing changed"
    serving.secret.write_text(f"another {SECRET}")
    assert serving.reload() == "reloaded: keys"
    serving.file.write_text(serving.file.read_text() + 'format = "text"\n')
    assert serving.reload() == "reloaded: nothing changed"
    assert serving.line()["message"] == "needs a restart: log.format", "and it is JSON still"
    serving.file.write_text(serving.file.read_text() + 'level = "debug"\n')
    assert serving.reload() == "reloaded: log.level"
    assert serving.line()["message"] == "needs a restart: log.format"
    text = serving.file.read_text().replace("[auth]\n", "[auth]\nissuer = 'https://id'\n")
    serving.file.write_text(text)
    assert serving.reload() == "reloaded: auth.issuer"
    assert "must have iss 'https://id'" in serving.line()["message"]
    assert serving.line()["message"] == "needs a restart: log.format"
    serving.secret.write_text("short")
    assert serving.reload().startswith("nothing was reloaded: the secret in ")


def test_schemas_of_activities_are_read_anew_or_all_stays_as_it_was(serving: Serving) -> None:
    schema = serving.file.with_name("task.json")
    schema.write_text('{"required": ["title"]}')
    text = f'{serving.file.read_text()}[activities."task.completed"]\ndetails = "task.json"\n'
    serving.file.write_text(text)
    assert serving.reload() == (
        'reloaded: activities, activities."task.completed".details, the details of task.completed'
    )
    assert serving.reload() == "reloaded: nothing changed"
    schema.write_text('{"required": "title"}')
    said = serving.reload()
    assert said.startswith('nothing was reloaded: activities."task.completed".details: ')
    assert f"{schema}: #/required is no JSON Schema" in said
    schema.write_text("{}")
    assert serving.reload() == "reloaded: the details of task.completed"


def test_sighup_takes_over_origins_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "pov-rt.toml"
    file.write_text(f'[auth]\nsecrets = ["{SECRET}"]\n[server]\nport = 0\nadmin_port = 0\n')
    with running(
        [*COMMAND, "serve", "--config", str(file)],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        lines = (json.loads(line) for line in process.stderr)  # without a terminal all is JSON
        assert "every PoV of every team" in next(lines)["message"]
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


def test_the_service_manager_hears_what_a_reload_found_wrong_and_how_long_an_end_may_take(
    tmp_path: Path,
) -> None:
    file, path = tmp_path / "pov-rt.toml", str(tmp_path / "notify")
    good = f'[auth]\nsecrets = ["{SECRET}"]\n[server]\nport = 0\nadmin_port = 0\ndrain_s = 90\n'
    file.write_text(good)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(30)
        with running(
            [*COMMAND, "serve", "--config", str(file)],
            env=environment(tmp_path) | {"NOTIFY_SOCKET": path},
            stderr=subprocess.PIPE,
        ) as process:
            ready, status, admin_port = manager.recv(1000).decode().splitlines()
            assert admin_port.startswith("X_ADMIN_PORT="), "for a supervisor"
            assert (ready, status.startswith("STATUS=Listening on port ")) == ("READY=1", True)
            file.write_text(good + "colour = 3\n")
            process.send_signal(signal.SIGHUP)
            assert manager.recv(1000) == b"RELOADING=1"
            _, told = manager.recv(1000).decode().splitlines()
            assert told.startswith(f"{status}; nothing was reloaded: ")
            assert "colour" in told
            file.write_text(good)
            process.send_signal(signal.SIGHUP)
            assert manager.recv(1000) == b"RELOADING=1"
            assert manager.recv(1000).decode().splitlines() == ["READY=1", status]
            process.send_signal(signal.SIGTERM)
            said = manager.recv(1000).decode().splitlines()
            assert said[0] == "STOPPING=1"
            assert said[-1] == f"EXTEND_TIMEOUT_USEC={(90 + RELEASE_S) * 1_000_000:.0f}"
            assert process.wait(30) == 0
