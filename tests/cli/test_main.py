"""The commands, as processes: what a user types and sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pov_rt.registry.scaffold import PLUGIN

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


class Served:
    """A development server as a process, with its folder as home and what it printed first."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.text = "".join(iter(process.stdout.readline, f"{LAST_LINE}\n"))
        self.url = self.text.split("listens on ")[1].split()[0]
        self.socket_url = self.url.replace("http", "ws") + "/ws/"
        (self.token,) = re.findall(r"^  (eyJ\S+)$", self.text, re.M)

    def stop(self) -> str:
        """End it, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return log or ""


LAST_LINE = "Ctrl-C ends the server. It starts anew when a source or plugin file changes."


@contextmanager
def serve(
    tmp_path: Path, *flags: str, program: Sequence[str] = (*COMMAND, "serve", "--dev"), **more: str
) -> Iterator[Served]:
    """Run a development server on free ports, unless the flags say others."""
    with subprocess.Popen(
        [*program, "--port", "0", "--admin-port", "0", *flags],
        env=environment(tmp_path) | {"PYTHONUNBUFFERED": "1"} | more,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


def test_config_check_and_show(tmp_path: Path) -> None:
    good = run(tmp_path, "config", "check", POV_RT_AUTH__SECRETS=SECRET)
    assert (good.returncode, good.stdout) == (0, "the settings are good\n")
    bad = run(tmp_path, "config", "check", POV_RT_AUTH__SECRETS="short")
    assert (bad.returncode, "auth.secrets" in bad.stderr) == (1, True)
    shown = run(tmp_path, "config", "show", POV_RT_AUTH__SECRETS=SECRET)
    assert SECRET not in shown.stdout
    assert "environment POV_RT_AUTH__SECRETS" in shown.stdout
    development = run(tmp_path, "config", "check", "--dev")
    assert (development.returncode, (tmp_path / "data").exists()) == (0, False)


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
    for name in ("authoriser", "webhooks"):
        assert f"off: plugins.{name}.url is not set" in done.stdout


def output(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    ).stdout


def test_a_new_plugins_test_passes_as_it_stands(tmp_path: Path) -> None:
    made = run(tmp_path, "plugins", "new", "wave", "--dir", str(tmp_path))
    assert made.returncode == 0, made.stderr
    (test_it,) = re.findall("^test it: (.*)$", made.stdout, re.M)
    assert "1 passed" in output(["bash", "-c", f"{test_it} -p no:cacheprovider"], tmp_path)
    # Where only pov-rt is installed, one is told what is missing.
    hide = "import sys; sys.modules['websockets.sync'] = None; import pytest; pytest.main()"
    told = output([sys.executable, "-c", hide], tmp_path)
    assert "pip install 'pov-rt[testing]'" in told
    assert "pov-rt[testing]" in made.stdout
    again = run(tmp_path, "plugins", "new", "wave", "--dir", str(tmp_path))
    assert (again.returncode, "there already" in again.stderr) == (1, True)
    wrong = run(tmp_path, "plugins", "new", "No-Name")
    assert (wrong.returncode, "no plugin name" in wrong.stderr) == (1, True)
