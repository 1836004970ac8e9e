"""The field at fault is named by its path on the wire."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta, field

from pov_rt.protocol.faults import find_fault
from pov_rt.protocol.messages import Length, NewActivity, Part


class Inner(Part):
    pov_id: str
    n: Annotated[int, Meta(ge=0)] = 0


class Strict(Part, forbid_unknown_fields=True):
    name: str


class Outer(Part):
    inner: Inner
    many: list[Inner] = field(default_factory=list)
    by_name: dict[str, int] = field(default_factory=dict)
    either: Inner | str | None = None
    names: Annotated[list[Annotated[str, Length(1, 3)]], Length(0, 2)] = field(default_factory=list)
    strict: Strict | None = None


GOOD: dict[str, Any] = {"inner": {"povId": "a"}}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({}, None),
        ({"inner": None}, "inner"),
        ({"inner": {}}, "inner.povId"),
        ({"inner": {"povId": 7}}, "inner.povId"),
        ({"inner": {"povId": "a", "n": -1}}, "inner.n"),
        ({"many": [{"povId": "a"}, {"povId": None}]}, "many[1].povId"),
        ({"many": [[]]}, "many[0]"),
        ({"byName": {"x": 1, "y": "2"}}, "byName.y"),
        ({"either": {"povId": []}}, "either.povId"),
        ({"either": []}, "either"),
        ({"either": 1}, "either"),
        ({"names": ["abc", "abcd"]}, "names[1]"),
        ({"names": ["a", "b", "c"]}, "names"),
        ({"strict": {"name": "x", "nmae": "y"}}, "strict.nmae"),
        ({"strict": {}}, "strict.name"),
    ],
)
def test_the_first_wrong_field_is_named(change: dict[str, Any], path: str | None) -> None:
    assert find_fault(Outer, GOOD | change) == path


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_what_is_no_object_is_itself_at_fault(value: object) -> None:
    assert find_fault(NewActivity, value) == ""
