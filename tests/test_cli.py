"""The commands, as processes: what a user types and sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pov_rt.scaffold import PLUGIN

COMMAND = [sys.executable, "-m", "pov_rt.cli"]
# The last one makes coverage measure the processes, too.
KEPT = ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
SECRET = "an environment's secret of more than 32 bytes"


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "POV_RT_SERVER__DATA": str(tmp_path / "data")}


def run(
    tmp_path: Path, *arguments: str, given: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        env=environment(tmp_path) | more,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A development server as a process, its URL, and what it printed."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--dev", "--port", "0", "--admin-port", "0"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if line.startswith("    -d "):
                break
        url = next(line for line in lines if "listens on" in line).split()[4]
        yield process, url, lines
    finally:
        process.kill()
        process.communicate()


def test_what_serve_prints_works_as_it_stands(
    serving: tuple[subprocess.Popen[str], str, list[str]], tmp_path: Path
) -> None:
    process, url, lines = serving
    line = next(line for line in lines if line.startswith("pov-rt tail"))
    with subprocess.Popen(
        [*COMMAND, *line.split()[1:], "--count", "2"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stderr is not None
        assert tail.stderr.readline().startswith("following demo")
        given = '{"type":"task","action":"done","povId":"demo","id":"a-1"}\n\n' * 2
        given += '{"type":"task","action":"done","povId":"demo"}\n{"typ":"x"}\n'
        done = run(tmp_path, "publish", "--dev", "--url", url, given=given)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == ("line 6: There is no field 'typ' (invalid_activity)\n"), done.stderr
        out, _ = tail.communicate(timeout=10)
    first, second = [json.loads(line) for line in out.splitlines()]
    assert (first["id"], first["offset"], second["offset"]) == ("a-1", 1, 2)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    assert '"message":"stopped"' in log
    assert "Traceback" not in log


def test_a_wrong_token_and_a_dead_server_are_words(
    serving: tuple[subprocess.Popen[str], str, list[str]], tmp_path: Path
) -> None:
    process, url, _ = serving
    ws = url.replace("http", "ws") + "/ws/"
    refused = run(tmp_path, "tail", "demo", "--url", ws, "--token", "x")
    assert (refused.returncode, "refuses the token" in refused.stderr) == (1, True)
    process.kill()
    process.wait()
    dead = run(tmp_path, "tail", "demo", "--url", ws, "--token", "x")
    assert (dead.returncode, "nobody listens" in dead.stderr) == (1, True)


def test_token_prints_the_token_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "token", "--user", "ana", "--ttl", "5m", POV_RT_AUTH__SECRETS=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(".") == 2
    assert len(done.stdout.split()) == 1


@pytest.mark.parametrize("ttl", ["0s", "-1h", "1", "1y", "h", "inf"])
def test_a_wrong_duration_is_named(tmp_path: Path, ttl: str) -> None:
    done = run(tmp_path, "token", "--user", "ana", f"--ttl={ttl}", POV_RT_AUTH__SECRETS=SECRET)
    assert (done.returncode, "is no duration" in done.stderr) == (2, True)


def test_serve_without_a_secret_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "serve")
    assert done.returncode == 1
    assert "openssl rand -base64 48" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_check_and_show(tmp_path: Path) -> None:
    good = run(tmp_path, "config", "check", POV_RT_AUTH__SECRETS=SECRET)
    assert (good.returncode, good.stdout) == (0, "the settings are good\n")
    bad = run(tmp_path, "config", "check", POV_RT_AUTH__SECRETS="short")
    assert (bad.returncode, "auth.secrets" in bad.stderr) == (1, True)
    shown = run(tmp_path, "config", "show", POV_RT_AUTH__SECRETS=SECRET)
    assert SECRET not in shown.stdout
    assert "environment POV_RT_AUTH__SECRETS" in shown.stdout


def test_schema_and_plugins_list_know_the_settings(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "greet.py").write_text(PLUGIN.format(name="greet"))
    file = tmp_path / "pov-rt.toml"
    file.write_text(
        '[server]\nplugins_dir = "more"\nport = 9000\n[plugins.ping]\nenabled = false\n'
    )
    for side in ("asyncapi", "openapi"):
        done = run(tmp_path, "schema", side, "--config", str(file))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert "127.0.0.1:9000" in json.dumps(document["servers"])
        if side == "asyncapi":
            assert "receive.greet.say" in document["operations"]
            assert "receive.ping" not in document["operations"]
    listed = run(tmp_path, "plugins", "list", "--config", str(file)).stdout
    assert ("greet.say" in listed, "\nping" in listed) == (True, False)


def test_plugins_list_names_every_type(tmp_path: Path) -> None:
    done = run(tmp_path, "plugins", "list")
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    names = sorted(path.stem for path in Path("plugins").glob("[a-z]*.py"))
    assert rows == [[name, "built-in"] for name in names]


def test_a_new_plugins_test_passes_as_it_stands(tmp_path: Path) -> None:
    made = run(tmp_path, "plugins", "new", "wave", "--dir", str(tmp_path))
    assert made.returncode == 0, made.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "1 passed" in done.stdout, done.stdout
    again = run(tmp_path, "plugins", "new", "wave", "--dir", str(tmp_path))
    assert (again.returncode, "there already" in again.stderr) == (1, True)
    wrong = run(tmp_path, "plugins", "new", "No-Name")
    assert (wrong.returncode, "no plugin name" in wrong.stderr) == (1, True)


def test_a_broken_plugin_stops_serve_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text('"""Bad."""\n\nimport nothing_of_that_name\n')
    done = run(tmp_path, "serve", "--plugins-dir", str(tmp_path), POV_RT_AUTH__SECRETS=SECRET)
    assert done.returncode == 1
    assert "bad.py:3: ModuleNotFoundError" in done.stderr
    assert "import nothing_of_that_name" in done.stderr


def test_sighup_takes_over_origins_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "pov-rt.toml"
    file.write_text(f'[auth]\nsecrets = ["{SECRET}"]\n[server]\nport = 0\nadmin_port = 0\n')
    file.chmod(0o600)
    with subprocess.Popen(
        [*COMMAND, "serve", "--config", str(file)],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert "listens on" in process.stderr.readline()
            text = file.read_text() + 'allowed_origins = ["https://app.example"]\ndrain_s = 3\n'
            file.write_text(text)
            process.send_signal(signal.SIGHUP)
            assert "reloaded: server.allowed_origins" in process.stderr.readline()
            assert "needs a restart: server.drain_s" in process.stderr.readline()
            file.write_text("no toml")
            process.send_signal(signal.SIGHUP)
            assert "nothing was reloaded" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()
