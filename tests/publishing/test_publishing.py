"""A slice of what `scripts/check_publishing` does at length; and it finds bugs that are planted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.publishing.databases import find_postgresql
from tests.publishing.apps import WAYS
from tests.publishing.planted import BUGS
from tests.publishing.prove import prove
from tests.publishing.run import Plan, run

PLANT_ALL = """
from tests.publishing.planted import BUGS
for name, bug in BUGS.items():
    print(name, flush=True)
    bug.plant()
"""
KILLS, ACTIVITIES = 5, 500


@pytest.mark.timeout(300)
def test_what_was_safe_is_published_once_whoever_is_killed(tmp_path: Path) -> None:
    ways = [way for way in WAYS if way != "postgresql" or find_postgresql()]
    report = run(Plan(tmp_path, 1, KILLS, ACTIVITIES, ways), lambda line: None)
    assert report.notes.violations == []
    assert sum(report.kills.values()) == KILLS
    assert sum(report.published.values()) >= ACTIVITIES
    assert all(report.published.values())
    assert report.counts["rolled back, or refused by a full spool"] > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["left out", "twice"])
def test_a_planted_bug_is_found(name: str) -> None:
    assert prove(name, seed=1).kinds


def test_every_bug_can_be_planted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANT_ALL], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == list(BUGS), done.stderr
    assert done.returncode == 0, done.stderr
