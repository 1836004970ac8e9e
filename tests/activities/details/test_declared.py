"""Which declaration is an activity's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from pov_rt.activities.details.declared import Declared, field_of, find_key_problem, split_key
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.messages import Activity

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)


class Seen:
    """Details that note what is checked against them."""

    def __init__(self, source: object = None) -> None:
        self.source = source
        self.checked: list[dict[str, Any]] = []

    def check(self, details: dict[str, Any]) -> None:
        self.checked.append(details)


def activity(kind: str, action: str, details: Any = UNSET) -> Activity:
    return Activity(id="1", type=kind, action=action, pov_id="p", user_id="u", details=details)


@pytest.mark.parametrize(
    ("kind", "action", "found"),
    [
        ("task", "completed", "task.completed"),
        ("task", "begun", "task.*"),
        ("task", "*", "task.*"),
        ("other", "completed", None),
        ("task.sub", "completed", "task.sub.completed"),
        ("task", "sub.completed", "task.sub.completed"),
        ("task.sub", "begun", None),
    ],
)
def test_an_activity_has_its_own_declaration_or_that_of_its_type(
    kind: str, action: str, found: str | None
) -> None:
    types = {key: Seen() for key in ("task.completed", "task.*", "task.sub.completed")}
    Declared(types).check(activity(kind, action, {"a": 1}))
    assert [key for key, each in types.items() if each.checked] == ([found] if found else [])


def test_no_details_count_as_an_empty_object() -> None:
    seen = Seen()
    Declared({"task.completed": seen}).check(activity("task", "completed"))
    assert seen.checked == [{}]


class Nothing(Seen):
    """Details that must be empty."""

    def check(self, details: dict[str, Any]) -> None:
        super().check(details)
        if details:
            raise InvalidActivity("there is something", field="details")


def test_details_may_have_a_trace_that_is_not_declared() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    declared = Declared({"task.completed": Nothing()})
    declared.check(activity("task", "completed", {"traceparent": trace}))
    for refused in ({"traceparent": "a word"}, {"traceparent": trace, "n": 1}):
        with pytest.raises(InvalidActivity):
            declared.check(activity("task", "completed", refused))
    seen = Seen()
    Declared({"task.completed": seen}).check(activity("task", "completed", {"traceparent": trace}))
    assert seen.checked == [{"traceparent": trace}], "where it is declared it is checked"


@given(NAMES, NAMES)
def test_every_activity_has_a_key_that_is_good_and_stands_for_it(kind: str, action: str) -> None:
    for key, meant in ((f"{kind}.{action}", action), (f"{kind}.*", "*")):
        assert find_key_problem(key) is None
        assert (kind, meant) in set(split_key(key))
        seen = Seen()
        for own_kind, own_action in split_key(key):
            Declared({key: seen}).check(activity(own_kind, own_action))
        assert len(seen.checked) == len(list(split_key(key))), "and for nothing else"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("task", 'name the action, too: "task.completed", or "task.*" for every action'),
        ("*", "a type and an action"),
        ("*.completed", "a type and an action"),
        ("task.*.x", "a type and an action"),
        ("task completed", "a type and an action"),
        ("", "a type and an action"),
        (f"{'x' * 65}.completed", "a type and an action"),
    ],
)
def test_what_is_no_key_is_said_with_what_would_be(key: str, words: str) -> None:
    assert words in (find_key_problem(key) or "")


def test_what_changed_is_named() -> None:
    old = Declared({"a.a": Seen(1), "a.b": Seen(1), "a.c": Seen(1)})
    assert Declared({"a.a": Seen(1), "a.b": Seen(2), "a.d": Seen(1)}).changed_from(old) == [
        "a.b",
        "a.c",
        "a.d",
    ]
    assert Declared().changed_from(Declared()) == []


def test_a_path_is_named_as_fields_are() -> None:
    assert field_of(("items", 3, "dueAt")) == "details.items[3].dueAt"
    assert field_of(()) == "details"
