"""The commands as processes, each with an environment and a folder of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "pov_rt.cli"]
# The last one makes coverage measure the processes, too.
KEPT = ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")
SECRET = "an environment's secret of more than 32 bytes"
LAST_LINE = "Ctrl-C ends the server. It starts anew when a source or plugin file changes."


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
