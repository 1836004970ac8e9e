"""What the docs say for the shell completes commands and options where somebody types."""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import environment, running

DOCS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
LINES = {name: line for line, name in re.findall(r"^    (.*=(\w+)_source.*)$", DOCS, re.M)}
SHELLS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
OWN_TERMINAL = 'exec "$@" <>"$0" >&0 2>&1'
"""A terminal belongs to the session whose first process opens it."""
WAIT_S = 30.0
TERMINAL = "\x1b[c", "\x1b[?6c"
"""What asks for a terminal's kind, which some shells wait for, and the answer of a VT102."""


class Terminal:
    """The keyboard and the screen of a program."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._seen = ""

    def type(self, keys: str) -> None:
        os.write(self._number, keys.encode())

    def wait_for(self, words: str) -> None:
        """Wait until the words come, behind those that were waited for before."""
        question, answer = TERMINAL
        while words not in self._seen:
            if not select.select([self._number], [], [], WAIT_S)[0]:
                raise TimeoutError(f"there is no {words!r}: {self._seen}")
            self._seen += os.read(self._number, 4096).decode(errors="replace")
            if question in self._seen:
                self._seen = self._seen.replace(question, "")
                self.type(answer)
        self._seen = self._seen.partition(words)[2]


def test_the_docs_have_a_line_for_each_shell() -> None:
    assert LINES.keys() == SHELLS.keys()


@pytest.mark.parametrize("name", SHELLS)
def test_a_command_and_an_option_are_completed(tmp_path: Path, name: str) -> None:
    shell = shutil.which(name)
    if shell is None:
        pytest.skip(f"there is no {name}: apt-get install -y {name}")
    commands = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    near, far = os.openpty()
    try:
        with running(
            ["sh", "-c", OWN_TERMINAL, os.ttyname(far), shell, *SHELLS[name]],
            env=environment(tmp_path) | {"PATH": commands, "TERM": "vt100"},
            cwd=tmp_path,
        ):
            terminal = Terminal(near)
            terminal.type(f"{LINES[name]}; echo 'it is' ready\n")
            terminal.wait_for("it is ready")
            terminal.type("pov-rt tok\t--he\t\n")
            terminal.wait_for("Usage: pov-rt token [OPTIONS]")
    finally:
        os.close(near)
        os.close(far)
