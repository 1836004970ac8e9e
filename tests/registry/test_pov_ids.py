"""Every PoV id in a message is found, wherever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, UnsetType, field
from msgspec import inspect as shape

from pov_rt.protocol.messages import Part, PovId, UserId
from pov_rt.registry.pov_ids import find_ids


class Inner(Part):
    pov_id: PovId


class Everything(Part):
    one: PovId
    none: PovId | None = None
    unset: PovId | UnsetType = UNSET
    many: list[PovId] = field(default_factory=list)
    any_number: tuple[PovId, ...] = ()
    keys: dict[PovId, int] = field(default_factory=dict)
    values: dict[str, PovId] = field(default_factory=dict)
    inner: Inner | None = None
    deep: list[dict[str, list[Inner]]] = field(default_factory=list)
    user_id: UserId = "no-pov"
    text: str = "no-pov"


def test_each_is_found_once() -> None:
    find = find_ids(shape.type_info(Everything))
    assert find is not None
    value = Everything(
        one="1",
        none="2",
        unset="3",
        many=["4", "5"],
        any_number=("6",),
        keys={"7": 0},
        values={"x": "8"},
        inner=Inner(pov_id="9"),
        deep=[{"y": [Inner(pov_id="10")]}],
    )
    assert list(find(value)) == [str(number) for number in range(1, 11)]
    assert list(find(Everything(one="1"))) == ["1"]


def test_a_message_without_any_costs_nothing() -> None:
    class Plain(Part):
        text: str
        user_id: UserId

    assert find_ids(shape.type_info(Plain)) is None


class Tree(msgspec.Struct):
    children: "list[Tree]"  # noqa: UP037  (it names itself)


def test_a_message_that_contains_itself_is_refused() -> None:
    kind: Any = shape.type_info(Tree)
    with pytest.raises(TypeError, match="contains itself"):
        find_ids(kind)
