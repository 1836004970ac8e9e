"""What an activity may have in it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.activities.checks import check_name, check_value
from pov_rt.protocol.errors import InvalidActivity


def test_deep_details_are_checked_without_recursion() -> None:
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    check_value({"deep": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
ODD = (2**53, -(2**53), math.nan, math.inf, "half \ud800", {1}, b"x", {"\udfff": 1}, {7: 1}, (1,))


@given(st.dictionaries(st.text(), JSON))
def test_all_that_json_readers_agree_on_is_taken(details: dict[str, Any]) -> None:
    check_value(details)
    assert json.loads(json.dumps(details)) == details


@given(JSON, st.sampled_from(ODD), st.data())
def test_the_odd_one_is_refused_wherever_it_is_and_named(
    value: Any, odd: Any, data: st.DataObject
) -> None:
    path = "details"
    inner: Any = odd
    for _ in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            inner, path = [value, inner], f"[1]{path.removeprefix('details')}"
        else:
            inner, path = {"a": value, "b": inner}, f".b{path.removeprefix('details')}"
        path = f"details{path}"
    with pytest.raises(InvalidActivity) as raised:
        check_value(inner)
    assert raised.value.field == path


@pytest.mark.parametrize("name", ["task", "task.done", "a-b_c.D9", "x" * 64])
def test_a_name_has_letters_digits_and_little_else(name: str) -> None:
    check_name(name, "type")
    with pytest.raises(InvalidActivity, match=f"takes no type '{name}'"):
        check_name(name, "type", allowed=["other"])
    for wrong in (f"{name}\n", f"{name} ", "é", "", "x" * 65):
        with pytest.raises(InvalidActivity, match="action must have"):
            check_name(wrong, "action", allowed=[wrong])
