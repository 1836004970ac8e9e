"""Every id in a message is found with its path, wherever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, UnsetType, field

from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import Length, Part, PovId, PovOrFeed, UncheckedId, UserId, check_id
from pov_rt.registry.pov_ids import check_of, find_bad_id, find_unchecked, has_povs, names_pov


class Inner(Part):
    pov_id: PovId


@dataclass
class Plain:
    pov_id: PovId


class Pair(NamedTuple):
    first: PovId
    second: str


class Loose(TypedDict, total=False):
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
    pair: tuple[str, PovId] | None = None
    plain: Plain | None = None
    named: Pair | None = None
    loose: list[Loose] = field(default_factory=list)
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
        pair=("no-pov", "12"),
        plain=Plain("13"),
        named=Pair("14", "no-pov"),
        loose=[{"pov_id": "15"}, {}],
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
        ("pair[1]", "12"),
        ("plain.pov_id", "13"),
        ("named.first", "14"),
        ("loose[0].pov_id", "15"),
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


class Words(Part):
    text: str


def test_a_message_without_any_costs_nothing() -> None:
    assert check_of(Words) is None


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


# What is named like a PoV, and checked by nobody:


@pytest.mark.parametrize(
    "name",
    [
        *("pov", "povs", "povId", "pov_id", "povIds", "pov_ids", "povid", "PovID", "POV", "POV_ID"),
        *("sourcePov", "from_pov_id", "targetPovId", "pov_name", "pov_key", "otherPovs", "the-pov"),
        *("POVs", "POVid", "sourcePOVid", "pov2"),
    ],
)
def test_a_name_like_a_pov(name: str) -> None:
    assert names_pov(name)


@pytest.mark.parametrize(
    "name", ["id", "improve", "provider", "poverty", "user_id", "topic", "p_o"]
)
def test_a_name_like_none(name: str) -> None:
    assert not names_pov(name)


class Ref(Part):
    id: str
    label: str = ""


class RefWithId(Part):
    id: PovId
    label: str = ""


UNCHECKED: dict[str, tuple[str, Any]] = {
    "text": ("pov_id", str),
    "text of a length": ("pov_id", Annotated[str, Length(1, 9)]),
    "perhaps": ("pov", str | None),
    "several": ("pov_ids", list[str]),
    "a set": ("povs", frozenset[str]),
    "one of a pair": ("povs", tuple[PovId, str]),
    "keys": ("povs", dict[str, int]),
    "values": ("by_pov", dict[str, PovId]),
    "anything": ("pov", Any),
    "raw": ("pov", msgspec.Raw),
    "a dict of anything": ("pov", dict),
    "uuid": ("pov_id", UUID),
    "a number": ("pov_id", int),
    "another of a union": ("pov_id", PovId | str),
    "an id in it": ("pov", Ref),
    "an id in several": ("povs", list[Ref]),
}
CHECKED: dict[str, tuple[str, Any]] = {
    "id": ("pov_id", PovId),
    "perhaps": ("pov_id", PovId | None | UnsetType),
    "of a length": ("pov_id", Annotated[PovId, Length(1, 9)]),
    "several": ("pov_ids", list[PovId]),
    "the handler's": ("pov_ids", list[UncheckedId]),
    "or feed": ("pov", PovOrFeed),
    "keys": ("povs", dict[PovId, str]),
    "a count": ("pov_count", int),
    "a choice": ("pov", Literal["all"] | PovId),
    "a flag": ("all_povs", bool),
    "an id in it": ("pov", RefWithId),
    "of nothing like it": ("topic", str),
}


@pytest.mark.parametrize("case", UNCHECKED)
def test_what_looks_like_a_pov_and_is_checked_by_nobody_is_found(case: str) -> None:
    name, kind = UNCHECKED[case]
    inner = msgspec.defstruct("Inner", [(name, kind)], rename="camel")
    for outer in (inner, msgspec.defstruct("Outer", [("deep", list[inner])])):  # type: ignore[valid-type]
        assert find_unchecked(outer) is not None


@pytest.mark.parametrize("case", CHECKED)
def test_what_is_made_of_ids_is_not(case: str) -> None:
    name, kind = CHECKED[case]
    assert find_unchecked(msgspec.defstruct("Sent", [(name, kind)], rename="camel")) is None


def test_a_name_on_the_wire_counts_and_the_path_is_said() -> None:
    inner = msgspec.defstruct("Inner", [("target", str, field(name="povId"))])
    outer = msgspec.defstruct("Outer", [("deep", dict[str, inner])])  # type: ignore[valid-type]
    assert find_unchecked(outer) == (inner, "target", "deep.povId")


def test_where_there_are_povs_is_known() -> None:
    assert [has_povs(kind) for kind in (Everything, Inner, Words, Ref)] == [
        True,
        True,
        False,
        False,
    ]
