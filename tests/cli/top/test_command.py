"""`pov-rt top` as people run it: in a real terminal, or into a file."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pov_rt.testing import SECRET, Connect, RunningServer, make_settings
from tests.processes import COMMAND, environment, run, running

PATIENCE_S = 50.0


def settings_of(server: RunningServer) -> dict[str, str]:
    return {
        "POV_RT_AUTH__SECRETS": json.dumps([SECRET]),
        "POV_RT_SERVER__ADMIN_PORT": str(server.web.admin_port),
    }


class Terminal:
    """A terminal with a program in it: what it shows, and what is typed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.written = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until something is written that was not before this call."""
        start, end = len(self.written), time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.written[start:]):
            left = end - time.monotonic()
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, left))
            assert ready, f"no {pattern!r} in {self.written[start:]!r}"
            self.written += os.read(self._descriptor, 65536).decode()

    def read_rest(self) -> None:
        try:
            while part := os.read(self._descriptor, 65536):
                self.written += part.decode()
        except OSError:  # how Linux says that nobody has the other end any more
            return


@contextmanager
def terminal(tmp_path: Path, *arguments: str, **environ: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
    try:
        with running(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=tmp_path,
            env=environment(tmp_path) | environ,
        ) as process:
            before = termios.tcgetattr(theirs)
            shown = Terminal(ours)
            yield shown
            shown.type("q")
            assert process.wait(timeout=PATIENCE_S) == 0
            assert termios.tcgetattr(theirs) == before
            os.close(theirs)
            theirs = -1
            shown.read_rest()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


def test_it_follows_keys_on_a_terminal_and_leaves_it_as_it_was(
    server: RunningServer, connect: Connect, tmp_path: Path
) -> None:
    connect("ana", device="phone").request({"type": "subscribe", "povId": "acme"})
    connect("ben")
    with terminal(tmp_path, "top", "--every", "1s", **settings_of(server)) as shown:
        shown.wait_for(r"\[connections\].*by unsent.*2 found(?s:.*)ana(?s:.*)acme(?s:.*)q quit")
        connect("cy")
        shown.wait_for(r"3 found(?s:.*)cy")  # by itself
        shown.type("/an")
        shown.wait_for(r"filter: an_")
        shown.type("\r")
        shown.wait_for(r"by unsent +1 found, page 1 +with an")
        shown.type("3")
        shown.wait_for(r"\[povs\].*by lag +0 found(?s:.*)nothing with an")
        shown.type("\x1b")
        shown.wait_for(r"1 found(?s:.*)acme")
    assert shown.written.startswith("\x1b[?1049h")
    assert shown.written.endswith("\x1b[?1049l")


def test_it_says_from_when_its_numbers_are_once_the_server_is_gone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RunningServer(make_settings(), None))
        environ = settings_of(server)
        with terminal(tmp_path, "top", "users", "--every", "1s", **environ) as shown:
            shown.wait_for(r"\[users\](?s:.*)q quit")
            stack.close()
            shown.wait_for(r"These numbers are from \d\d:\d\d:\d\d")


def test_without_a_terminal_it_prints_once(
    server: RunningServer, connect: Connect, tmp_path: Path
) -> None:
    for user in ("ana", "ben", "cy"):
        connect(user)
    environ = settings_of(server)
    done = run(tmp_path, "top", "--sort", "-age", "--limit", "2", **environ)
    assert done.returncode == 0, done.stderr
    _, looked, titles, *rows, engine = done.stdout.splitlines()
    assert engine == "engine ok, an acknowledged activity survives: process"
    assert "by age reversed" in looked
    assert titles.startswith("USER")
    assert [row.split()[0] for row in rows] == ["cy", "ben"]
    done = run(tmp_path, "top", "plugins", "--filter", "mute", **environ)
    assert [line.split()[0] for line in done.stdout.splitlines()[3:-1]] == ["mute"]
    done = run(tmp_path, "top", "plugins", "--sort", "lag", **environ)
    assert (done.returncode, "sorted by failures, rate" in done.stderr) == (2, True)


def test_it_says_where_nobody_is(tmp_path: Path) -> None:
    done = run(tmp_path, "top", "--url", "127.0.0.1:9", POV_RT_AUTH__SECRETS=json.dumps([SECRET]))
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
