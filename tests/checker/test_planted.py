"""Every bug finds its place in the server: where that was changed, it is to be planted anew."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.checker.planted import BUGS

PLANT_ALL = """
from tests.checker.planted import BUGS
for name, bug in BUGS.items():
    print(name, flush=True)
    bug.plant()
"""


def test_every_bug_can_be_planted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANT_ALL], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == list(BUGS), done.stderr
    assert done.returncode == 0, done.stderr


def test_the_documentation_says_what_each_proves() -> None:
    _, _, text = Path("docs/architecture.md").read_text().partition("checker plays and proves\n")
    rows = [line for line in text.splitlines() if line.count("|") == 4]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[3])} == {*BUGS}


def test_there_are_at_least_twenty_and_each_is_told_apart() -> None:
    assert len(BUGS) >= 20
    assert len({bug.text for bug in BUGS.values()}) == len(BUGS)
    assert all(bug.kinds and bug.clients and bug.faults for bug in BUGS.values())
