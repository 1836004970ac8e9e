"""Bounds that users share: what one may hold, what is said of it, and to whom."""

from __future__ import annotations

import logging

import pytest

from pov_rt.runtime.bounds import Bound, Bounds, Shares


def test_one_owner_gets_a_share_and_leaves_the_rest_to_others() -> None:
    shares = Shares("slots", "limits.slots", 10, 4)
    assert [shares.take("ana") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [shares.take("bo") for _ in range(4)] == [True] * 4
    assert shares.take("cy") is shares.take("cy") is True
    assert shares.take("cy") is False, "all ten are in use"
    assert (shares.used, shares.bound.refused) == (10, 3)
    shares.give("ana")
    assert shares.take("cy")


def test_what_is_larger_than_the_bound_gets_through_alone() -> None:
    shares = Shares("bytes", "limits.bytes", 100, 40)
    assert shares.take("ana", 300)
    assert not shares.take("bo", 1)
    shares.give("ana", 300)
    assert (shares.used, shares.held("ana")) == (0, 0)


def test_a_bound_that_fills_is_warned_of_once_until_it_empties(
    caplog: pytest.LogCaptureFixture,
) -> None:
    used, bounds = 0, Bounds()
    bounds.add(Bound("marks", "engine.max_marks", 100, lambda: used))
    caplog.set_level(logging.WARNING)
    for level, lines in [(79, 0), (80, 1), (100, 1), (75, 1), (85, 1), (69, 1), (80, 2)]:
        used = level
        bounds.sweep()
        assert len(caplog.records) == lines, level
    assert "marks: 80 of 100" in caplog.text
    assert "engine.max_marks" in caplog.text


def test_who_is_refused_is_named_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    shares = Shares("slots", "limits.slots", 10, 1)
    shares.take("ana")
    shares.take("ana")
    (line,) = caplog.records
    assert "one owner may hold 1 of slots" in line.getMessage()
    assert line.__dict__["owner"] == "ana"
