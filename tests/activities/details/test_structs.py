"""Details that are a struct: which field is at fault, and what it should be."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest

from pov_rt.activities.details.structs import StructDetails
from pov_rt.plugin import UNSET, Length, Part, Range, UnsetType
from pov_rt.protocol.errors import InvalidActivity


class Item(Part, forbid_unknown_fields=True):
    due_at: datetime
    effort: Annotated[int, Range(1, 8)] = 1


class Span(Part):
    first: int
    last: int

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError("the last is before the first")


class Task(Part):
    title: Annotated[str, Length(1, 64)]
    items: list[Item] = msgspec.field(default_factory=list)
    priority: Literal["low", "high"] | None = None
    span: Span | UnsetType = UNSET


DUE = "2030-01-31T09:00:00Z"
TASK = StructDetails(Task)

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "title", "is missing"),
    ({"title": 5}, "title", "must be a string of 1 to 64 characters"),
    ({"title": ""}, "title", "must be a string of 1 to 64 characters"),
    ({"title": "x", "priority": "no"}, "priority", "must be 'low' or 'high'"),
    ({"title": "x", "items": [{"dueAt": DUE}, {}]}, "items[1].dueAt", "is missing"),
    ({"title": "x", "items": [{"dueAt": DUE, "effort": 9}]}, "items[0].effort", "from 1 to 8"),
    ({"title": "x", "items": [{"dueAt": DUE, "due": 1}]}, "items[0].due",
     "There is no field 'details.items[0].due'; did you mean 'dueAt'?"),
    ({"title": "x", "span": {"first": 2, "last": 1}}, "span", ": the last is before the first"),
    ({"title": "x", "span": None}, "span", "must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("details", "path", "words"), BAD, ids=lambda each: str(each))
def test_the_field_at_fault_is_named_with_what_it_should_be(
    details: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(InvalidActivity) as raised:
        TASK.check(details)
    assert raised.value.field == f"details.{path}"
    assert words in raised.value.message


def test_what_fits_passes_with_fields_that_are_not_declared() -> None:
    item = {"dueAt": DUE, "effort": 2}
    TASK.check({"title": "x", "items": [item], "span": {"first": 1, "last": 1}, "more": 1})


def test_what_a_struct_refuses_as_a_whole_is_the_details() -> None:
    with pytest.raises(InvalidActivity) as raised:
        StructDetails(Span).check({"first": 2, "last": 1})
    assert raised.value.field == "details"
    assert raised.value.message == "details: the last is before the first"


def test_a_tag_that_is_another_one_is_told_of() -> None:
    class Shape(msgspec.Struct, tag_field="kind", tag="circle"):
        radius: int

    with pytest.raises(InvalidActivity, match=r"^details: .*square") as raised:
        StructDetails(Shape).check({"kind": "square", "radius": 1})
    assert raised.value.field == "details"


def test_names_of_a_dict_are_in_the_path() -> None:
    class Counts(msgspec.Struct):
        by_user: dict[str, int]

    with pytest.raises(InvalidActivity) as raised:
        StructDetails(Counts).check({"by_user": {"ana": 1, "ben": "2"}})
    said = "The field 'details.by_user.ben' must be a whole number, not a string"
    assert raised.value.message == said
