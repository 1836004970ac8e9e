"""A slice of what `scripts/check_faults` does at length; and it finds bugs that are planted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.faults.planted import BUGS
from tests.faults.prove import find
from tests.faults.run import Plan, Report, run
from tests.faults.table import DEGRADED
from tests.faults.world import PROGRAM
from tests.redis_servers import HOW, find_program

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        find_program(PROGRAM) is None, reason=f"there is no {PROGRAM}; {HOW[PROGRAM]}"
    ),
]
BUSY_S = 60.0
"""What is promised in seconds is compared by the script; tests run beside each other."""


def play(folder: Path, **more: Any) -> Report:
    plan = Plan(folder, told_s=BUSY_S, answered_s=BUSY_S, patience_s=BUSY_S, **{"seed": 4, **more})
    return asyncio.run(run(plan, print))


def test_every_loss_is_told_and_nothing_is_missing_in_silence(tmp_path: Path) -> None:
    report = play(tmp_path, cycles=10)
    assert report.violations == []
    assert report.counts["lost, and told"] > 0
    assert report.told > 0
    assert report.moves > 0


def test_whatever_ails_redis_everybody_stays_and_it_is_said_and_over_by_itself(
    tmp_path: Path,
) -> None:
    report = play(tmp_path, cycles=len(DEGRADED), faults=DEGRADED, in_turn=True)
    assert report.violations == []
    assert {*report.faults, *report.left_out} == {*DEGRADED}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    found = asyncio.run(find(name, seed=1))
    assert BUGS[name].kinds & found.keys(), found
