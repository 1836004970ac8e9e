"""An answer is true in the step that sends it, whatever happened while it was made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.dispatch.handlers.context import SEVERAL_AT_ONCE
from pov_rt.dispatch.host import SOCKET
from pov_rt.protocol.errors import Unavailable
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.clients import offsets, place, publish, subscribe

Patch = Callable[[Any, str, Callable[[], Any]], None]


@pytest.fixture
def deadline_s() -> float:
    """Return what no handler takes; a test in which one does overrides it."""
    return 60.0


@pytest.fixture
def settings(deadline_s: float) -> Settings:
    return make_settings(limits=LimitSettings(handler_deadline_s=deadline_s))


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Return what has something happen before each call of a part's method."""

    def patch(part: Any, name: str, happen: Callable[[], Any]) -> None:
        method = getattr(part, name)

        async def call(*arguments: Any, **more: Any) -> Any:
            result = happen()
            if result is not None:
                await result
            return await method(*arguments, **more)

        monkeypatch.setattr(part, name, call)

    return patch


def lose(server: RunningServer, client: Client, pov: str) -> Callable[[], None]:
    """Return what gives a client a token without a PoV."""
    povs = [each for each in ("acme", "other") if each != pov]
    token = server.token("ana", povs=povs)

    def regrant() -> None:
        identity = server.web.server.tokens.verify(token, SOCKET)
        server.web.server.hooks.hosts["refresh"].regrant(client.connection_id, identity)

    return regrant


async def away() -> None:
    raise Unavailable("away")


@pytest.mark.parametrize(
    ("way", "deadline_s"),
    [
        ("limit", 60.0),
        ("unavailable", 60.0),
        ("timeout", 2.0),
        ("invalid", 60.0),
        ("cursor", 60.0),
    ],
)
def test_after_any_error_a_subscription_is_as_it_was(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    before: Patch,
    way: str,
) -> None:
    ana, durable = connect("ana"), server.web.server.durable
    subscribe(ana, durable=True)
    publish(server, 3)
    assert offsets(ana, 3) == [1, 2, 3]
    fields: dict[str, Any] = {"since": {"last": 2}}
    if way == "limit":
        publish(server, 1, "full")
        monkeypatch.setattr("pov_rt.activities.durable.MAX_DURABLE", 1)
        subscribe(ana, "full")
        assert subscribe(ana, "full", durable=True, only={"types": ["x"]})["code"]
        publish(server, 1, "full")
        assert offsets(ana, 1) == [2]
        return
    if way == "invalid":
        fields = {"since": {"last": 2, "offset": 1}}
    elif way == "cursor":
        fields = {"since": "cursor"}
        before(server.web.server.engine.marks, "get", away)
    else:
        before(durable, "add", away if way == "unavailable" else lambda: asyncio.sleep(60))
    answer = subscribe(ana, only={"types": ["x"]}, durable=True, **fields)
    assert answer["type"] == "error"
    publish(server, 1)
    assert offsets(ana, 1) == [4], "no filter, and nothing a second time"
    monkeypatch.undo()
    resumed = connect("ana").request({"type": "resume"})["results"]
    assert [each.get("filtered") for each in resumed] == [None]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_what_is_lost_before_the_answer_is_not_said_to_stand(
    server: RunningServer, connect: Connect, before: Patch, again: bool, several: bool
) -> None:
    ana = connect("ana")
    if again:
        subscribe(ana)
    before(server.web.server.durable, "add", lose(server, ana, "acme"))
    povs: dict[str, Any] = {"povIds": ["other", "acme"]} if several else {"povId": "acme"}
    answer = ana.request({"type": "subscribe", "durable": True, **povs})
    if several:
        assert [each.get("code") for each in answer["results"]] == [None, "forbidden"]
    else:
        assert answer["code"] == "forbidden"
    assert server.call(lambda: server.web.server.hub.subscriptions) == int(several)
    publish(server, 1)
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert not ana.early
    kept = server.run(lambda: server.web.server.durable.of("ana"))
    assert [*kept] == ["other"] * several


def test_what_is_lost_while_the_rest_of_the_answer_is_made_is_not_said_to_stand(
    server: RunningServer, connect: Connect, before: Patch
) -> None:
    ana = connect("ana")
    before(server.web.server.engine.marks, "get_many", lose(server, ana, "acme"))
    assert subscribe(ana)["code"] == "forbidden"
    assert server.call(lambda: server.web.server.hub.subscriptions) == 0


def test_what_one_of_several_lost_while_the_marks_are_read_is_said_in_its_place(
    server: RunningServer, connect: Connect, before: Patch
) -> None:
    ana = connect("ana")
    before(server.web.server.engine.marks, "get_many", lose(server, ana, "acme"))
    several = ana.request({"type": "subscribe", "povIds": ["acme", "other"]})
    assert [each.get("code") for each in several["results"]] == ["forbidden", None]


@pytest.mark.parametrize(
    ("message", "part", "method"),
    [
        ({"type": "presence"}, "leases", "members"),
        ({"type": "history"}, "log", "read"),
    ],
)
def test_what_the_token_does_not_allow_any_more_is_not_answered(
    server: RunningServer,
    connect: Connect,
    before: Patch,
    message: dict[str, Any],
    part: str,
    method: str,
) -> None:
    ana = connect("ana")
    subscribe(ana)
    publish(server, 1)
    before(getattr(server.web.server.engine, part), method, lose(server, ana, "acme"))
    assert ana.request({**message, "povId": "acme"})["code"] == "forbidden"


@pytest.mark.parametrize(
    ("message", "part", "method"),
    [
        (
            {"type": "publish", "data": {"type": "t", "action": "a", "povId": "acme"}},
            "log",
            "append",
        ),
        ({"type": "read", "povId": "acme", "offset": 1}, "marks", "advance"),
        ({"type": "seen", "povId": "acme", "offset": 1}, "marks", "advance"),
        ({"type": "ack", "povId": "acme", "offset": 1}, "marks", "advance"),
    ],
)
def test_what_was_done_is_answered_so_though_the_token_is_another(
    server: RunningServer,
    connect: Connect,
    before: Patch,
    message: dict[str, Any],
    part: str,
    method: str,
) -> None:
    ana = connect("ana")
    subscribe(ana)
    publish(server, 1)
    assert offsets(ana, 1) == [1]
    before(getattr(server.web.server.engine, part), method, lose(server, ana, "acme"))
    assert ana.request(message)["type"] != "error"


@pytest.mark.parametrize("deadline_s", [5.0])
def test_what_an_answer_can_do_without_is_left_out_when_it_takes_long(
    server: RunningServer, connect: Connect, before: Patch
) -> None:
    ana, engine = connect("ana"), server.web.server.engine
    publish(server, 3)
    before(engine.marks, "get_many", lambda: asyncio.sleep(60))
    answer = subscribe(ana)
    assert (answer["offset"], "unread" in answer, "seenOffset" in answer) == (3, False, False)
    several = ana.request({"type": "subscribe", "povIds": ["acme", "other"]})
    assert [each.get("code", "unread" in each) for each in several["results"]] == [False, False]
    before(engine.marks, "get_many", away)
    several = ana.request({"type": "subscribe", "povIds": ["acme", "other"]})
    assert [each.get("code") for each in several["results"]] == [None, None]


def test_what_was_delivered_once_can_be_acknowledged_while_it_comes_again(
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = connect("ana")
    first = place(subscribe(ana))
    publish(server, 3)
    assert offsets(ana, 3) == [1, 2, 3]
    # Between the answer and what comes again there is no room for a message of the client's.
    hub = server.web.server.hub
    monkeypatch.setattr(hub.replay, "start", lambda *_: None)
    assert subscribe(ana, since=first)["recovered"]
    answer = ana.request({"type": "ack", "povId": "acme", "offset": 3})
    assert (answer["type"], answer["offset"]) == ("acked", 3)
    assert ana.request({"type": "ack", "povId": "acme", "offset": 4})["code"] == "invalid_message"


def test_a_second_answer_names_the_place_that_the_client_is_at(
    server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = connect("ana")
    first = place(subscribe(ana))
    publish(server, 3)
    assert offsets(ana, 3) == [1, 2, 3]
    hub = server.web.server.hub
    with monkeypatch.context() as patch:
        patch.setattr(hub.replay, "start", lambda *_: None)  # as if it read slowly
        subscribe(ana, since=first)
    answer = subscribe(ana)
    assert (answer["offset"], answer["unread"]) == (0, 3)
    assert offsets(ana, 3) == [1, 2, 3]


def test_the_povs_of_one_message_begin_a_few_at_a_time_and_all_are_answered(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect("ana")
    hub, begun = server.web.server.hub, list[int]()

    async def watch() -> None:
        before = 0
        while before < 200:
            await asyncio.sleep(0)
            begun.append(hub.topics - before)
            before = hub.topics

    watching = server.call(lambda: asyncio.create_task(watch()))
    answer = ana.request({"type": "subscribe", "povIds": [f"many-{n}" for n in range(200)]})
    server.run(lambda: watching)
    assert len(answer["results"]) == 200
    assert not [each for each in answer["results"] if "code" in each]
    assert max(begun) <= 2 * SEVERAL_AT_ONCE
