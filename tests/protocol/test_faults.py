"""The field at fault is named by its path on the wire, and what has to be there in plain words."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, UnsetType, field

from pov_rt.protocol.faults import Fault, find_fault
from pov_rt.protocol.messages import Length, NewActivity, Part


class Inner(Part):
    pov_id: str
    n: Annotated[int, Meta(ge=0)] = 0


class Strict(Part, forbid_unknown_fields=True):
    name: str


class Odd(msgspec.Struct):
    n: int = 1

    def __post_init__(self) -> None:
        if self.n % 2 == 0:
            raise ValueError("n has to be odd")


class Outer(Part):
    inner: Inner
    many: list[Inner] = field(default_factory=list)
    by_name: dict[str, int] = field(default_factory=dict)
    either: Inner | str | None = None
    names: Annotated[list[Annotated[str, Length(1, 3)]], Length(0, 2)] = field(default_factory=list)
    strict: Strict | None = None
    odd: Odd | None = None


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
    fault = find_fault(Outer, GOOD | change)
    assert (fault and fault.path) == path


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_what_is_no_object_is_itself_at_fault(value: object) -> None:
    fault = find_fault(NewActivity, value)
    assert fault is not None
    assert (fault.path, fault.problem) == ("", "must be an object")
    assert fault.sentence == f"This must be an object{fault.more}"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (str, 7, "must be a string, not 7"),
        (str, None, "must be a string, not null"),
        (str | None, ["secret"], "must be a string, not a list"),
        (Annotated[str, Length(1, 3)], "", "must be a string of 1 to 3 characters; it has 0"),
        (Annotated[str, Length(2, 2)], "abc", "must be a string of 2 characters; it has 3"),
        (
            Annotated[str, Meta(min_length=1)],
            "",
            "must be a string of at least 1 character; it has 0",
        ),
        (Annotated[str, Meta(pattern="^x")], "secret", "must be a string of another form"),
        (int, "secret", "must be a whole number, not a string"),
        (int, 1.5, "must be a whole number, not 1.5"),
        (int, True, "must be a whole number, not true"),
        (Annotated[int, Meta(ge=0, le=9)], 10, "must be a whole number from 0 to 9, not 10"),
        (Annotated[int, Meta(gt=0)], 0, "must be a whole number above 0, not 0"),
        (Annotated[int, Meta(ge=1)], 0, "must be a whole number of at least 1, not 0"),
        (
            Annotated[float, Meta(gt=0, le=1e9)],
            0,
            "must be a number above 0 and at most 1000000000, not 0",
        ),
        (Annotated[float, Meta(lt=0.5)], {}, "must be a number below 0.5, not an object"),
        (bool, 1, "must be true or false, not 1"),
        (bool | None, "yes", "must be true or false, not a string"),
        (Literal["b", "a", "c"], "secret", "must be 'b', 'a' or 'c'"),
        (Literal["b"] | None, 1, "must be 'b', not 1"),
        (Annotated[Literal["b"], Meta(title="a")], "secret", "must be 'b'"),
        (Literal["all"] | list[int], {"a": 1}, "must be 'all' or a list, not an object"),
        (Colour, "secret", "must be 'red' or 'blue'"),
        (datetime, "secret", "must be a time like '2026-01-31T12:00:00Z'"),
        (datetime | UnsetType, 5, "must be a time like '2026-01-31T12:00:00Z', not 5"),
        (list[int], "secret", "must be a list, not a string"),
        (frozenset[str], {}, "must be a list, not an object"),
        (tuple[int, str], [1], "must be a list of 2 items; it has 1"),
        (Annotated[list[int], Length(1, 2)], [], "must be a list of 1 to 2 items; it has 0"),
        (dict[str, int], [], "must be an object, not a list"),
        (Inner | None, "secret", "must be an object, not a string"),
        (None, 1, "must be null, not 1"),
        (str, "\ud800", "has half a character in it (a lone surrogate)"),
    ],
)
def test_what_has_to_be_there_is_said_in_words_without_what_is_there(
    kind: Any, value: Any, sentence: str
) -> None:
    fault = find_fault(kind, value)
    assert fault is not None
    assert fault._replace(path="x").sentence == f"The field 'x' {sentence}"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"inner": {}}, "The field 'inner.povId' is missing"),
        ({**GOOD, "strict": {"nmae": ""}}, "There is no field 'strict.nmae'; did you mean 'name'?"),
        ({**GOOD, "strict": {"x": ""}}, "There is no field 'strict.x'"),
        ({**GOOD, "odd": {"n": 2}}, "odd: n has to be odd"),
    ],
)
def test_what_is_missing_unknown_or_refused_by_the_type_itself_is_said(
    value: Any, sentence: str
) -> None:
    fault = find_fault(Outer, value)
    assert fault is not None
    assert fault.sentence == sentence


def test_texts_do_for_numbers_where_they_have_to() -> None:
    assert find_fault(dict[str, int], {"a": "7"}, strict=False) is None
    assert find_fault(dict[str, int], {"a": "7"}) == Fault(
        "a", "must be a whole number", ", not a string"
    )
