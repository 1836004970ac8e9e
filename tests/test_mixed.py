"""What scripts/check_mixed does, with nodes of this version; and that it sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.storm import Ledger
from tests.mixed import Seen, Versions, find_problems, run
from tests.processes import COMMAND


@pytest.mark.timeout(180)
def test_nodes_are_replaced_in_turn_and_nothing_is_lost(tmp_path: Path) -> None:
    seen = run(tmp_path, Versions(COMMAND), 12, most=2)
    assert find_problems(seen) == []
    assert len(seen.ledger.downs) == 2 * 6, "half of them at each step"
    assert len(set(map(tuple, seen.ids))) == 1


def test_what_goes_wrong_is_said() -> None:
    good = Seen(Ledger(acknowledged=[1.0, 2.0]), 0, [["a", "b"], ["a", "b"]], [])
    assert find_problems(good) == []
    for wrong, words in (
        (good._replace(ledger=Ledger(lost=1)), "1 entries did not come to a client"),
        (good._replace(ledger=Ledger(doubled=2)), "2 entries came to a client twice"),
        (good._replace(ledger=Ledger(gaps=1)), "1 positions did not hold over a restart"),
        (good._replace(ledger=Ledger(untold=1)), "1 connections ended without a word"),
        (good._replace(behind=3), "3 clients do not have all"),
        (good._replace(left=["ana"]), "1 times somebody was said to have left"),
        (
            good._replace(ids=[["a", "b"], ["a", "b", "b"]]),
            "1 activities are in the log twice, as node 2 reads it",
        ),
        (
            good._replace(ids=[["a", "a"], ["a", "b"]]),
            "1 are acknowledged and not there, as node 1 reads it",
        ),
    ):
        assert words in find_problems(wrong)
