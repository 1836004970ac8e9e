"""A slice of what `scripts/check_delivery` does at length; and it finds bugs that are planted."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.checker.run import Plan, Report, run

PLANTED = (sys.executable, "-m", "tests.checker.planted")


def deliver(folder: Path, **plan: Any) -> Report:
    return asyncio.run(run(Plan(folder, rate=3000, **plan), lambda line: None))


def kinds(report: Report) -> set[str]:
    return {violation.kind for violation in report.violations}


def test_what_is_acknowledged_reaches_everybody_under_every_fault(tmp_path: Path) -> None:
    report = deliver(tmp_path, seed=10, kills=3)
    assert report.violations == []
    assert report.faults["kill -9"] >= 3
    assert report.counts["acked"] > 300
    assert report.counts["unknown"] > 0, "no kill hit a request"
    assert all(report.received.values())


def test_an_acknowledgement_before_the_commit_is_found(tmp_path: Path) -> None:
    report = deliver(tmp_path, seed=1, kills=2, faults=["kill -9"], command=(*PLANTED, "early=0.2"))
    assert kinds(report) & {"lost", "place"}


def test_a_delivery_that_is_left_out_is_found(tmp_path: Path) -> None:
    report = deliver(
        tmp_path,
        seed=1,
        seconds=1.0,
        faults=["reset"],
        patience_s=3.0,
        command=(*PLANTED, "drop=300"),
    )
    assert {"hole", "lost"} <= kinds(report)
