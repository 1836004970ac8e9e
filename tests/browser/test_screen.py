"""The ledger of scenario `screen` (scripts/bench) finds what it is for; a slice of it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.ledger import LIMIT, Ledger, Life, Place
from bench.screen import staged
from tests.browser.chromium import Chromium
from tests.browser.tabs import Loop

LOG = {f"a-{number}": Place("acme", number) for number in range(1, 2001)}
KINDS = ("server killed", "network reset", "leader closed", "leader crashed", "leader frozen")


def found(*batches: Sequence[list[str]]) -> list[str]:
    """Return what is wrong with a life whose list changed so."""
    life = Life("A1", 1)
    for at, batch in enumerate(batches):
        life.take(at, [*batch])
    return [what for _, what in life.check(LOG)]


def on_top(numbers: range) -> Iterator[list[str]]:
    """Return what adds rows on top of a list, the newest of which is the one before."""
    for number in numbers:
        yield [f"a-{number}", f"a-{number - 1}" if number > numbers[0] else ""]


def test_rows_on_top_and_pages_below_are_right() -> None:
    below = [["a-3", ""], ["a-4", "a-3"]]
    assert not found([*on_top(range(5, 10))], below, [["a-10", "a-9"]])


def test_rows_of_several_povs_may_be_mixed() -> None:
    life = Life("A1", 1)
    life.take(0, [["a-1", ""], ["b-1", "a-1"], ["a-2", "b-1"]])
    assert not [*life.check(LOG | {"b-1": Place("globex", 1)})]


def test_one_that_is_added_again_is_found_though_it_was_removed() -> None:
    full = [*on_top(range(1, LIMIT + 2))]
    again = ["a-1", "a-2"]
    assert found(full, [["a-1"]], [again]) == ["a-1 (acme 1) was added twice"]


def test_one_that_moves_is_found() -> None:
    full = [*on_top(range(1, LIMIT + 2))]
    assert "a-1 (acme 1) was added twice" in found(full, [["a-1"], ["a-1", f"a-{LIMIT + 1}"]])


def test_a_hole_is_found_once() -> None:
    hole = [*on_top(range(1, 4))], [["a-6", "a-3"]], [["a-7", "a-6"]]
    assert found(*hole) == ["of acme 2 are missing: 4 to 5"]


def test_what_is_too_old_for_a_full_list_at_once_is_no_hole() -> None:
    life = Life("A1", 1)
    full = [*on_top(range(1, LIMIT + 1))]
    life.take(0, [["b-1", ""], *([name, after or "b-1"] for name, after in full)])
    life.take(1, [["b-1"], ["b-3", f"a-{LIMIT}"]])
    log = LOG | {f"b-{number}": Place("globex", number) for number in range(1, 4)}
    assert not [*life.check(log)]


def test_a_wrong_order_is_found() -> None:
    assert found([["a-2", ""], ["a-1", "a-2"]]) == ["a-1 (acme 1) stands between 2 and 2"]


def test_rows_may_go_from_the_old_end_of_a_full_list_alone() -> None:
    full = [*on_top(range(1, LIMIT + 2))]
    assert not found(full, [["a-1"]])
    assert found(full, [["a-1"], ["a-2"]]) == [f"2 were removed, and only {LIMIT - 1} are left"]
    assert found(full, [["a-500"]])


def test_what_the_log_does_not_have_is_found() -> None:
    assert found([["x-1", ""]]) == ["x-1 is not in the log"]


@pytest.mark.timeout(240)
def test_each_activity_is_once_on_every_screen_whatever_dies(
    loop: Loop, chromium: Chromium, tmp_path: Path
) -> None:
    said: list[str] = []
    with (
        Ledger(loop, tmp_path / "ledger.jsonl") as ledger,
        staged(loop, [chromium, chromium], tmp_path, ledger, 1, said.append) as screen,
    ):
        found = screen.run(len(KINDS), 60, KINDS)
    assert not ledger.violations, "\n".join(ledger.violations)
    assert found.activities >= 300
    assert {*found.back_ms} <= {*KINDS}
    assert sum(map(len, found.back_ms.values())) == len(KINDS)
