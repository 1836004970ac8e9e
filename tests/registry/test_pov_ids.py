"""Every id in a message is found with its path, wherever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, UnsetType, field

from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import Part, PovId, PovOrFeed, UncheckedId, UserId, check_id
from pov_rt.registry.pov_ids import check_of, find_bad_id


class Inner(Part):
    pov_id: PovId


class Everything(Part):
    one: PovId
    none: PovId | None = None
    unset: PovId | UnsetType = UNSET
    many: list[PovId] = field(default_factory=list)
    any_number: tuple[PovId, ...] = ()
    members: frozenset[PovId] = frozenset()
    keys: dict[PovId, int] = field(default_factory=dict)
    values: dict[str, PovId] = field(default_factory=dict)
    inner: Inner | None = None
    deep: list[dict[str, list[Inner]]] = field(default_factory=list)
    user_id: UserId = "no-pov"
    feed: PovOrFeed = "*"
    own: list[UncheckedId] = field(default_factory=list)
    text: str = "no-pov"


def found(value: msgspec.Struct) -> list[tuple[str, str]]:
    """Return what is checked as a PoV's id, with its path."""
    check = check_of(type(value))
    assert check is not None
    seen: list[tuple[str, str]] = []
    check(value, lambda text, path: seen.append((path, text)))
    return seen


def test_each_is_found_once_with_its_path() -> None:
    value = Everything(
        one="1",
        none="2",
        unset="3",
        many=["4", "5"],
        any_number=("6",),
        members=frozenset({"7"}),
        keys={"8": 0},
        values={"x": "9"},
        inner=Inner(pov_id="10"),
        deep=[{"y": [Inner(pov_id="11")]}],
    )
    assert found(value) == [
        ("one", "1"),
        ("none", "2"),
        ("unset", "3"),
        ("many[0]", "4"),
        ("many[1]", "5"),
        ("anyNumber[0]", "6"),
        ("members", "7"),
        ("keys", "8"),
        ("values.x", "9"),
        ("inner.povId", "10"),
        ("deep[0].y[0].povId", "11"),
    ]
    assert found(Everything(one="1")) == [("one", "1")]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"one": ""}, "one"),
        ({"userId": "*"}, "userId"),
        ({"feed": "a\nb"}, "feed"),
        ({"deep": [{"y": [{"povId": "a"}, {"povId": "\ud800"}]}]}, "deep[0].y[1].povId"),
    ],
)
def test_a_bad_one_in_a_value_that_is_no_struct_yet_is_named(
    given: dict[str, Any], path: str
) -> None:
    bad = find_bad_id(Everything, {"one": "1", **given})
    assert isinstance(bad, InvalidId)
    assert bad.field == path


@pytest.mark.parametrize("given", [{}, {"feed": "*"}, {"own": [""]}, {"text": 7}, {"one": 7}])
def test_a_value_that_is_good_or_bad_otherwise_has_no_bad_id(given: dict[str, Any]) -> None:
    assert find_bad_id(Everything, {"one": "1", **given}) is None


class Plain(Part):
    text: str


def test_a_message_without_any_costs_nothing() -> None:
    assert check_of(Plain) is None


class Tree(msgspec.Struct):
    children: "list[Tree]"  # noqa: UP037  (it names itself)


def test_a_message_that_contains_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="contains itself"):
        check_of(Tree)


@pytest.mark.parametrize("good", ["a", "a b", "é", "a\u200d", "\U0001f600", "x" * 128])
def test_a_good_id_is_of_any_script(good: str) -> None:
    check_id(good, "povId")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("", "must have 1 to 128 characters"),
        ("x" * 129, "must have 1 to 128 characters"),
        ("*", "may not be '*', which is reserved"),
        ("a\x07", "may not contain U+0007"),
        ("\x7f", "may not contain U+007F"),
        ("é\x85", "may not contain U+0085"),
        ("\udfff", "may not contain U+DFFF"),
    ],
)
def test_what_is_wrong_with_an_id_is_said(bad: str, problem: str) -> None:
    with pytest.raises(InvalidId) as raised:
        check_id(bad, "povId")
    assert (raised.value.message, raised.value.field) == (f"povId {problem}", "povId")
