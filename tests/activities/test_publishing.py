"""From what a publisher sends to what is in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from pov_rt.activities import publishing as publishing_module
from pov_rt.activities.publishing import Known, Publisher, Publishing
from pov_rt.config.settings import EngineSettings, LimitSettings
from pov_rt.engine.memory import MemoryEngine
from pov_rt.protocol.bodies import Published, PublishedActivity
from pov_rt.protocol.errors import (
    ClientError,
    Forbidden,
    IdConflict,
    Internal,
    InvalidActivity,
    InvalidId,
    TooLarge,
    Unavailable,
)
from pov_rt.protocol.messages import Activity, NewActivity, check_id
from pov_rt.protocol.tenants import TenantId
from pov_rt.runtime.clock import ManualClock

APP = Publisher("service:app", "app", "main")


class Hooks:
    appended = None

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.hold: asyncio.Event | None = None

    @property
    def before_publish(self) -> Callable[[Activity], Awaitable[Activity]]:
        return self._before

    async def _before(self, activity: Activity) -> Activity:
        if self.hold is not None:
            await self.hold.wait()
        if activity.action == "refused":
            raise Forbidden("not this")
        if activity.action == "moved":
            return msgspec.structs.replace(activity, pov_id="elsewhere")
        if activity.action == "odd":
            return msgspec.structs.replace(activity, details={"a": [float("nan")]})
        return activity

    def published(self, activity: Activity, published: Published) -> None:
        self.told.append((activity.id, published.offset))


def make(**limits: Any) -> tuple[Publishing, MemoryEngine, Hooks]:
    clock, hooks = ManualClock(), Hooks()
    engine = MemoryEngine(EngineSettings(), clock, "n")
    publishing = Publishing(engine, LimitSettings(**limits), clock)
    publishing.hooks = hooks
    return publishing, engine, hooks


def new(name: str | None = None, **fields: Any) -> NewActivity:
    given: dict[str, Any] = {"type": "t", "action": "a", "pov_id": "acme"}
    if name is not None:
        given["id"] = name
    return NewActivity(**given | fields)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_what_a_producer_numbered_waits_for_what_was_before_it_and_may_be_taken_later() -> None:
    def numbered(seq: int, action: str = "a", pov_id: str = "acme") -> PublishedActivity:
        fields: dict[str, Any] = {"producer": "spool", "seq": seq, "user_id": "ana"}
        return PublishedActivity(type="t", action=action, pov_id=pov_id, **fields)

    async def work() -> None:
        publishing, engine, _ = make()
        batch = [
            numbered(1),
            numbered(2, "refused"),  # for good
            numbered(3),
            numbered(4, "moved"),  # fails
            numbered(5),
            numbered(5, pov_id="other"),
            new(),
        ]
        done = await publishing.publish(batch, APP)
        kinds = [Published, Forbidden, Published, Internal, Unavailable, Published, Published]
        assert [type(each) for each in done] == kinds
        (again,) = await publishing.publish([numbered(4)], APP)
        assert isinstance(again, Published)
        assert (again.offset, again.duplicate) == (4, False)
        assert (await engine.log.top("pov/acme")).offset == 4

    run(work())


def test_a_batch_keeps_its_order_and_each_its_own_fate() -> None:
    async def work() -> None:
        publishing, engine, hooks = make()
        results = await publishing.publish(
            [
                new("1"),
                InvalidActivity("broken"),
                new("2", action="refused"),
                new("1"),
                new("1", action="b"),
                new("3", pov_id="*"),
                new("4", pov_id="other"),
            ],
            APP,
        )
        assert [type(each) for each in results] == [
            Published,
            InvalidActivity,
            Forbidden,
            Published,
            IdConflict,
            InvalidId,
            Published,
        ]
        first, again, other = (each for each in results if isinstance(each, Published))
        assert (first.offset, first.duplicate) == (1, False)
        assert (again.offset, again.duplicate) == (1, True)
        assert (other.pov_id, other.offset) == ("other", 1)
        assert hooks.told == [("1", 1), ("4", 1)]
        assert publishing.published == 2
        feed = await engine.log.read("team/main", 0, 10)
        assert [json.loads(each.body)["id"] for each in feed.entries] == ["1", "4"]

    run(work())


def test_what_is_absent_comes_from_the_publisher() -> None:
    async def work() -> None:
        publishing, engine, _ = make()
        done = await publishing.publish_one(new(), APP)
        (entry,) = (await engine.log.read("pov/acme", 0, 1)).entries
        assert json.loads(entry.body) == {
            "id": done.id,
            "type": "t",
            "action": "a",
            "povId": "acme",
            "userId": "app",
        }

    run(work())


@pytest.mark.parametrize(
    ("fields", "field", "error"),
    [
        ({"type": "a b"}, "type", InvalidActivity),
        ({"action": "x" * 65}, "action", InvalidActivity),
        ({"action": ""}, "action", InvalidActivity),
        ({"type": "other"}, "type", InvalidActivity),
        ({"user_id": "a\nb"}, "userId", InvalidId),
        ({"user_id": "x" * 129}, "userId", InvalidId),
        ({"pov_id": "\ud800"}, "povId", InvalidId),
        ({"details": {"a": [1, {"b": 1e999}]}}, "details.a[1].b", InvalidActivity),
        ({"details": {"a": 2**53}}, "details.a", InvalidActivity),
        ({"details": {"a": "\udfff"}}, "details.a", InvalidActivity),
        ({"details": {"\ud800": 1}}, "details", InvalidActivity),
        ({"details": {"a": {1, 2}}}, "details.a", InvalidActivity),
        ({"details": {"a": "x" * 101}}, "details", TooLarge),
    ],
)
def test_what_a_plugin_may_not_publish_is_named(
    fields: dict[str, Any], field: str, error: type[ClientError]
) -> None:
    async def work() -> None:
        publishing, engine, _ = make(details_bytes=100, types=["t"])
        with pytest.raises(error) as raised:
            await publishing.publish_one(new("1", **fields), APP)
        assert raised.value.field == field
        assert (await engine.log.top("pov/acme")).offset == 0

    run(work())


@pytest.mark.parametrize("levels", [32, 33, 500, 30_000])
@pytest.mark.parametrize("decoded", [True, False])
def test_depth_beyond_the_bound_is_no_fault_of_a_hook(
    levels: int, decoded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        publishing, _, _ = make(details_bytes=60_000)
        deep: Any = "[["
        for _ in range(levels - 1):
            deep = [deep]
        batch = [new("1", details={"a": deep}), new("2", details={"b": [[]] * 100})]
        refused, good = await publishing.publish(batch, APP, decoded=decoded)
        assert isinstance(good, Published)
        assert isinstance(refused, Published) == (levels == 32)
        if isinstance(refused, ClientError):
            assert isinstance(refused, InvalidActivity)
            assert refused.field == "details"
            assert "32 levels" in refused.message

    run(work())
    assert caplog.records == []


def test_what_a_hook_may_not_put_in_is_named() -> None:
    async def work() -> None:
        publishing, engine, _ = make()
        (result,) = await publishing.publish([new("1", action="odd")], APP)
        assert isinstance(result, InvalidActivity)
        assert result.field == "details.a[0]"
        assert (await engine.log.top("pov/acme")).offset == 0

    run(work())


def test_long_numbers_that_are_safe_are_taken_wherever_they_stand() -> None:
    """Only numbers are refused for their size, and looked for by what they may look like."""
    details = {
        "safe": [2**53 - 1, -(2**53) + 1, 12345678901234567.0, 0.1234567890123456789],
        "text": "12345678901234567890 :12345678901234567890",
        "1234567890123456789": {"é": -1},
    }

    async def work() -> None:
        publishing, engine, _ = make()
        activity = new("12345678901234567890", details=details)
        (result,) = await publishing.publish([activity], APP, decoded=True)
        assert isinstance(result, Published)
        (entry,) = (await engine.log.read("pov/acme", 0, 1)).entries
        assert json.loads(entry.body)["details"] == details

    run(work())


def test_a_caller_that_is_cancelled_leaves_the_publication_to_finish() -> None:
    async def work() -> None:
        publishing, engine, hooks = make()
        hooks.hold = asyncio.Event()
        caller = asyncio.ensure_future(publishing.publish_one(new("1"), APP))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        hooks.hold.set()
        await publishing.close()
        assert caller.cancelled()
        assert (await engine.log.top("pov/acme")).offset == 1

    run(work())


def test_a_hook_that_moves_an_activity_is_a_bug_that_costs_that_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        publishing, engine, _ = make()
        good, bad = await publishing.publish([new("1"), new("2", action="moved")], APP)
        assert isinstance(good, Published)
        assert isinstance(bad, Internal)
        assert (await engine.log.top("pov/acme")).offset == 1
        (record,) = caplog.records
        assert "may not change" in str(record.exc_info and record.exc_info[1])
        assert record.__dict__["incident"] == bad.extra["incident"]

    run(work())


@pytest.mark.parametrize("user_id", ["eve", TenantId.of("blue", "eve")])
def test_of_an_id_that_is_forgotten_nothing_is_known_whatever_it_was_called(
    user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def check(text: str, field: str) -> None:
        looked.append(text)
        check_id(text, field)

    async def work() -> None:
        publishing, _, _ = make()
        own = msgspec.structs.replace(APP, key=f"user:{user_id}", user_id=user_id)
        for publisher, new_one in [(own, new()), (APP, new(user_id="eve"))] * 2:
            await publishing.publish([new_one], publisher)
        known = set(looked)
        assert known >= {user_id, "eve"}
        publishing.forget(user_id)
        looked.clear()
        for publisher, new_one in [(own, new()), (APP, new(user_id="eve"))] * 2:
            await publishing.publish([new_one], publisher)
        assert set(looked) >= {user_id, "eve"}

    monkeypatch.setattr(publishing_module, "check_id", check)
    run(work())


def test_a_good_text_is_looked_at_once_and_a_bad_one_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing_module, "KNOWN_TEXTS", 2)
    looked = []

    def check(text: str, field: str) -> None:
        looked.append(text)
        check_id(text, field)

    known = Known(check)
    for text in ("good", "*", "good", "*", "a", "b", "b"):
        if text not in known:
            with suppress(InvalidId):
                known.learn(text, "povId")
    assert looked == ["good", "*", "*", "a", "b"]
    assert known == {"b"}, "of many it forgets"
