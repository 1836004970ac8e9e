"""What an activity may have in it."""

from __future__ import annotations

from typing import Any

from pov_rt.activities.checks import check_value


def test_deep_details_are_checked_without_recursion() -> None:
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    check_value({"deep": value})
