"""Texts that are alike are one."""

from __future__ import annotations

from pov_rt.runtime.texts import shared


def test_texts_that_are_alike_are_one_as_long_as_they_are_not_too_many() -> None:
    first = shared("".join(["pov-", "1"]))
    assert shared("".join(["pov-", "1"])) is first
    for number in range(10_000):
        shared(f"other {number}")
    assert shared.cache_info().currsize == shared.cache_info().maxsize
    assert shared("".join(["pov-", "1"])) == first
