"""How deep JSON is, and what is done about what is deeper."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.protocol.details.depth import (
    MAX_RUNS,
    check_details,
    find_deep,
    is_deeper,
    is_open,
    may_be_deeper,
    prune,
)
from pov_rt.protocol.errors import InvalidActivity, InvalidRequest
from pov_rt.protocol.messages import NewActivity, NewNotification, Part

JSON = st.recursive(
    st.none() | st.text() | st.integers(-5, 5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, dict | list) else 0


@given(JSON, st.integers(1, 8), st.booleans())
def test_depth_is_that_of_objects_and_lists_alone(value: Any, levels: int, ascii_: bool) -> None:
    content = json.dumps(value, ensure_ascii=ascii_).encode()
    assert is_deeper(value, levels) == (depth_of(value) > levels)
    assert may_be_deeper(content, levels) or not is_deeper(value, levels)


@given(JSON, st.integers(1, 8))
def test_what_is_pruned_has_the_upper_levels_as_they_were(value: Any, levels: int) -> None:
    def cut(inner: Any, left: int) -> Any:
        if isinstance(inner, dict | list) and not left:
            return 0
        if isinstance(inner, dict):
            return {name: cut(each, left - 1) for name, each in inner.items()}
        return [cut(each, left - 1) for each in inner] if isinstance(inner, list) else inner

    assert json.loads(prune(json.dumps(value).encode(), levels)) == cut(value, levels)


def test_what_is_open_at_its_end_stays_no_json() -> None:
    for content in (b"[" * 50, b"[[[[1]]]", b"]]]]"):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(prune(content, 3))


def test_what_takes_too_long_is_given_up() -> None:
    with pytest.raises(RecursionError):
        prune(b"[]" * (MAX_RUNS // 2 + 1), 3)


def test_a_value_in_itself_is_too_deep() -> None:
    value: dict[str, Any] = {}
    value["a"] = value["b"] = [value]
    with pytest.raises(InvalidActivity, match="details is nested deeper than 32 levels"):
        check_details(value, 32)


class Two(Part):
    """Something with activities in it."""

    data: NewActivity
    free: Any = None
    more: list[NewNotification] | None = None


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_the_field_at_fault_is_named() -> None:
    good = {"type": "t", "action": "a", "povId": "p"}
    assert find_deep(Two, {"data": {**good, "details": {"a": deep(3)}}, "free": deep(5)}, 4) is None
    fault = find_deep(Two, {"data": {**good, "details": {"a": deep(6)}}}, 4)
    assert isinstance(fault, InvalidActivity)
    assert fault.field == "data.details"
    fault = find_deep(Two, {"data": good, "free": deep(6)}, 4)
    assert isinstance(fault, InvalidRequest)
    assert fault.field == "free"
    fault = find_deep(Two, {"data": {**good, "type": deep(6)}}, 4)
    assert fault is not None
    assert fault.field == "data.type"
    fault = find_deep(Two, {"unknown": deep(9)}, 4)
    assert fault is not None
    assert fault.field is None
    assert find_deep(Two, deep(9), 4) is not None


class Closed(Part):
    """Nothing in it but details."""

    data: NewActivity
    names: dict[str, list[int]]


class Inner(Part):
    """Anything in it."""

    what: list[Any] | int


class Open(Part):
    """Something with anything in it."""

    inner: dict[str, Inner] | None = None


class Raw(Part):
    """Anything in it."""

    raw: msgspec.Raw


def test_open_types_are_those_whose_sender_chooses_the_shape() -> None:
    assert [is_open(kind) for kind in (Closed, NewNotification, Two, Inner, Open, Raw)] == [
        False, False, True, True, True, True,
    ]  # fmt: skip
