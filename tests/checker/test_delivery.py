"""A slice of what `scripts/check_delivery` does at length; and it finds bugs that are planted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.checker.planted import BUGS, MAIN
from tests.checker.prove import prove
from tests.checker.run import Plan, Report, run

OTHERS = (
    *("quiet", "feed", "resume", "restless", "slow", "socket", *MAIN),
    *("pages", "poll", "events", "numbered"),
)
MEMBERS = (
    *("filter", "all", "plain", "echo", "refresh", "resume-", "read", "ack", "revoke"),
    *("inbox", "notifier", "http-side"),
)


def deliver(folder: Path, **plan: Any) -> Report:
    return asyncio.run(run(Plan(folder, rate=3000, **plan), lambda line: None))


def test_what_is_acknowledged_reaches_everybody_under_every_fault(tmp_path: Path) -> None:
    report = deliver(tmp_path, seed=10, kills=3, clients=OTHERS)
    assert report.violations == []
    assert report.faults["kill -9"] >= 3
    assert report.counts["acked"] > 300
    assert report.counts["unknown"] > 0, "no kill hit a request"
    assert all(report.received.values())


def test_members_who_do_all_that_a_client_may_are_told_nothing_wrong(tmp_path: Path) -> None:
    left = {"filters changed", "moved", "left", "read", "refreshed", "revoked", "resumed"}
    for seed in range(10, 15):  # on a busy machine little is played in a run
        folder = tmp_path / str(seed)
        folder.mkdir()
        faults = ["reset", "kill -9"]
        report = deliver(folder, seed=seed, seconds=6.0, faults=faults, clients=MEMBERS)
        assert report.violations == []
        left -= {played for played in left if report.counts.get(played)}
        if not left:
            break
    assert not left, "was played in none"


def test_who_comes_back_to_many_povs_is_no_slow_consumer(tmp_path: Path) -> None:
    report = deliver(tmp_path, seed=10, seconds=6.0, faults=["stop"], clients=("returning", "http"))
    assert report.violations == []


@pytest.mark.parametrize("name", ["early", "skipped", "cursor", "echo"])
def test_a_planted_bug_is_found(name: str) -> None:
    (proof,) = asyncio.run(prove([name], seed=1, say=lambda line: None, control=False))
    assert proof.is_caught
    assert set(proof.kinds) <= set(BUGS[name].kinds)
