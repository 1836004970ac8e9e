"""Every id of a message becomes its sender's team's, wherever it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypedDict

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from pov_rt.protocol.messages import (
    ActivityId,
    AuthorId,
    Length,
    Message,
    Part,
    PovId,
    PovOrFeed,
    UncheckedId,
    UserId,
)
from pov_rt.protocol.tenants import TenantId
from pov_rt.registry.build import build_registry
from pov_rt.registry.pov_ids import check_of
from pov_rt.registry.tenants import scope_of


class Pair(NamedTuple):
    pov_id: PovId
    note: str


class Typed(TypedDict):
    pov_id: PovId
    note: str


@dataclass(frozen=True)
class Data:
    pov_id: PovId
    note: str


class Inner(Part):
    pov_id: PovId
    note: str = "n"


class Everything(Message, tag="everything"):
    """All places in which an id may stand."""

    one: PovId
    feed: PovOrFeed
    unchecked: UncheckedId
    user: UserId
    activity: ActivityId
    author: AuthorId
    inner: Inner
    several: list[PovId]
    bounded: Annotated[frozenset[UserId], Length(1, 9)]
    row: tuple[PovId, ...]
    mixed: tuple[str, PovId]
    by_pov: dict[PovId, int]
    by_name: dict[str, Inner]
    pair: Pair
    typed: Typed
    data: Data
    perhaps: PovId | None = None
    unset: list[Inner] | UnsetType = UNSET


TEXT = (
    '{"type":"everything","one":"a","feed":"a","unchecked":"a","user":"a","activity":"a",'
    '"author":"a","inner":{"povId":"a"},"several":["a","b"],"bounded":["a"],"row":["a"],'
    '"mixed":["a","a"],"byPov":{"a":1},"byName":{"a":{"povId":"a"}},"pair":["a","a"],'
    '"typed":{"pov_id":"a","note":"a"},"data":{"pov_id":"a","note":"a"},"perhaps":"a",'
    '"unset":[{"povId":"a"}]}'
)


def test_every_id_that_a_team_has_of_its_own_is_found() -> None:
    message = msgspec.json.decode(TEXT, type=Everything)
    scope = scope_of(Everything)
    assert scope is not None
    assert scope(message, "red") is message
    a, b = TenantId.of("red", "a"), TenantId.of("red", "b")
    assert (message.one, message.feed, message.unchecked, message.user) == (a, a, a, a)
    assert (message.activity, message.author) == ("a", "a")
    assert message.inner == Inner(pov_id=a)
    assert message.several == [a, b]
    assert message.bounded == {a}
    assert (message.row, message.mixed) == ((a,), ("a", a))
    assert message.by_pov == {a: 1}
    assert message.by_name == {"a": Inner(pov_id=a)}
    assert (message.pair, message.typed) == (Pair(a, "a"), {"pov_id": a, "note": "a"})
    assert message.data == Data(a, "a")
    assert (message.perhaps, message.unset) == (a, [Inner(pov_id=a)])
    before = msgspec.structs.asdict(message)
    scope(message, "red")
    assert msgspec.structs.asdict(message) == before, "twice is once"


def test_the_feed_and_what_is_not_there_stay_what_they_are() -> None:
    class Few(Message, tag="few"):
        feed: PovOrFeed
        perhaps: PovId | None = None
        unset: PovId | UnsetType = UNSET

    few = msgspec.json.decode(b'{"type":"few","feed":"*"}', type=Few)
    scope = scope_of(Few)
    assert scope is not None
    scope(few, "red")
    assert few == Few(feed="*")


@pytest.mark.parametrize("handler", build_registry({}).handlers.values(), ids=lambda each: each.tag)
def test_what_is_checked_is_scoped(handler: object) -> None:
    kind = handler.spec.message  # type: ignore[attr-defined]
    if check_of(kind) is not None:
        assert scope_of(kind) is not None or kind.__name__ in ("History",)
