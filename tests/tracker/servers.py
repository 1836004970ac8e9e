"""The applications of `tests/tracker/apps` as programs, each under a server that people use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection
from threading import Condition, Thread
from typing import IO

from bench.peers import free_port
from tests.js import CLIENT, SDK, node
from tests.processes import read_until, running, take_pipe

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
APPS = "tests.tracker.apps"
TABLE = ROOT / "tests/tracker/conformance.json"

UVICORN: list[str | Path] = [BIN / "uvicorn", "--factory", "--port", "PORT", "--host", "127.0.0.1"]
GUNICORN: list[str | Path] = [
    BIN / "gunicorn",
    "--bind",
    "127.0.0.1:PORT",
    "--graceful-timeout",
    "5",
]
UWSGI: list[str | Path] = [
    BIN / "uwsgi",
    "--master",
    "--http-socket",
    "127.0.0.1:PORT",
    "--need-app",
]
UWSGI += ["--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]
UWSGI += ["--python-path", str(ROOT), "--wsgi", f"{APPS}.wsgi:app"]
PRELOADED = ["--preload", "--workers", "2", "--threads", "2"]

SERVERS: Mapping[str, tuple[list[str | Path], str]] = {
    "starlette": ([*UVICORN, f"{APPS}.asgi:starlette"], "running on"),
    "fastapi": ([*UVICORN, f"{APPS}.asgi:fastapi"], "running on"),
    "litestar": ([*UVICORN, f"{APPS}.asgi:litestar"], "running on"),
    "flask": ([*GUNICORN, f"{APPS}.wsgi:app"], "Listening at"),
    "django": ([*GUNICORN, f"{APPS}.django:wsgi()"], "Listening at"),
    "django async": ([*UVICORN, f"{APPS}.django:asgi"], "running on"),
    "django users": ([*GUNICORN, f"{APPS}.users:wsgi()"], "Listening at"),
    "django users async": ([*UVICORN, f"{APPS}.users:asgi"], "running on"),
    "tornado": ([sys.executable, "-m", f"{APPS}.tornado", "PORT"], "listens"),
    "express": (["node", ROOT / "tests/node/tracker.mjs", "PORT"], "listens"),
    "flask preloaded": ([*GUNICORN, *PRELOADED, f"{APPS}.wsgi:app"], "Listening at"),
    "django preloaded": ([*GUNICORN, *PRELOADED, f"{APPS}.django:wsgi()"], "Listening at"),
    "starlette, workers": (
        [*UVICORN, "--workers", "2", f"{APPS}.asgi:starlette"],
        "Application startup complete",
    ),
    "uwsgi": ([*UWSGI, "--enable-threads", "--processes", "2"], "spawned uWSGI worker 2"),
    "uwsgi, no threads": ([*UWSGI], "spawned uWSGI worker 1"),
}
"""The command of each, and what it says when it is ready."""


class AppServer:
    """An application that runs. `log` is what its server said, once it was stopped."""

    def __init__(self, process: subprocess.Popen[str], port: int, ready: str) -> None:
        self.process = process
        self.port = port
        self.log = read_until(process.stderr, ready) if ready else ""
        self._more = Condition()
        self._reader = Thread(target=self._read, args=[take_pipe(process, "stderr")], daemon=True)
        self._reader.start()
        while not self._listens():  # some say so a little before
            assert process.poll() is None, self.log
            time.sleep(0.01)

    def _listens(self) -> bool:
        with suppress(ConnectionRefusedError), create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def _read(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                with self._more:
                    self.log += line
                    self._more.notify_all()

    def said(self, words: str, times: int = 1) -> None:
        """Wait until its log has the words so often."""
        with self._more:
            assert self._more.wait_for(lambda: self.log.count(words) >= times, 20), self.log

    def call(self, method: str, path: str, **headers: str) -> int:
        """Send a request, on a connection of its own; return the status."""
        http = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            http.request(method, path, headers={"Connection": "close", **given})
            answer = http.getresponse()
            answer.read()
            return answer.status
        finally:
            http.close()

    def stop(self) -> float:
        """End it as systemd does; return how many seconds that took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(timeout=30)
        took_s = time.monotonic() - began
        self._reader.join(timeout=10)
        return took_s


@cache
def node_module() -> Path:
    """Build what the package has for servers in Node, once; return the module."""
    # Each of the processes that share the tests has its own.
    folder = ROOT / "build/node" / os.environ.get("PYTEST_XDIST_WORKER", "one")
    subprocess.run([node(), CLIENT / "build.mjs", "--node", folder], check=True)
    return folder / "pov-rt-node.mjs"


@cache
def node_modules() -> Path:
    """Return a folder of packages, with ours as npm would have it."""
    built = node_module()
    folder = built.parent / "node_modules"
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "pov-rt"
    (package / "dist").mkdir(parents=True)
    shutil.copy(built, package / "dist")
    shutil.copy(CLIENT / "package.json", package)
    for each in (ROOT / "tests/node/node_modules").iterdir():
        (folder / each.name).symlink_to(each)
    return folder


def environment() -> dict[str, str]:
    """Return the variables of a program that finds this checkout."""
    kept = {each: os.environ[each] for each in ("PATH", "HOME") if each in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@contextmanager
def serve(name: str, url: str, secret: str, **more: str) -> Iterator[AppServer]:
    """Run an application whose trackers send to `url`."""
    command, ready = SERVERS[name]
    port = free_port()
    if name == "express":
        command = [node(SDK), *command[1:]]
        more |= {"POV_MODULE": str(node_module()), "POV_TABLE": str(TABLE)}
    with running(
        [str(part).replace("PORT", str(port)) for part in command],
        env=environment() | {"POV_URL": url, "POV_SECRET": secret, **more},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        yield AppServer(process, port, ready)
