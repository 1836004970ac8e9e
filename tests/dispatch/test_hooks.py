"""Plugins on a real server: everything they are given works, and nothing they do hurts others."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tornado.httpclient import HTTPClient

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings
from pov_rt.plugin import Activity, Host, Plugin
from pov_rt.protocol.errors import Internal
from pov_rt.testing import RunningServer, make_settings
from tests.dispatch.test_hooks_leases import Stage

PLUGIN = '''
"""A plugin that does everything."""
import asyncio
from collections.abc import AsyncIterator
import msgspec
from pov_rt.plugin import (
    Activity, Context, Host, Message, NewActivity, Plugin, PovId, Published, Rejected, Request
)

class Options(msgspec.Struct):
    greeting: str = "hello"

Events = list[str]
released: set[str] = set()
plugin = Plugin[Events]("every", options=Options)

class Do(Message, tag="every.do"):
    what: str
    pov_id: PovId | None = None
    text: str = ""

class Done(Message, tag="every.done"):
    text: str

@plugin.lifespan
async def events(host: Host) -> AsyncIterator[Events]:
    yield [host.options(Options).greeting]

def misbehave(what):
    if what == "exit":
        raise SystemExit(3)
    if what == "cancel":
        raise asyncio.CancelledError

@plugin.connected
def connected(context):
    context.state.append("connected " + context.user.user_id)
    misbehave(context.user.user_id)

@plugin.disconnected
def disconnected(context): context.state.append("disconnected " + context.user.user_id)

@plugin.subscribed
def subscribed(pov_id, context): context.state.append("subscribed " + pov_id)

@plugin.unsubscribed
def unsubscribed(pov_id, context): context.state.append("unsubscribed " + pov_id)

@plugin.published
def published(activity, done, host):
    host.state.append(f"published {activity.id} {done.offset}")
    misbehave(activity.type)

@plugin.before_publish
async def before_publish(activity, host):
    misbehave(activity.action)
    if activity.action == "slow":
        await asyncio.sleep(3600)
    if activity.action == "secret":
        raise Rejected("too_secret", "This is too secret")
    if activity.action == "mark":
        return msgspec.structs.replace(activity, details={"marked": True})
    if activity.action == "move":
        return msgspec.structs.replace(activity, pov_id="elsewhere")

@plugin.every(0.01)
async def tick(host):
    if "tick" not in host.state:
        host.state.append("tick")
        raise RuntimeError("the timer goes on")

@plugin.http("GET", "/broken", grant="subscribe")
async def broken(request: Request[Events]) -> None:
    misbehave(request.query.get("how"))
    if request.query.get("how") == "slow":
        await asyncio.sleep(3600)
    raise RuntimeError("broken")

@plugin.on(Do)
async def do(message: Do, context: Context[Events]) -> Done | None:
    what, host = message.what, context.host
    if what == "events":
        return Done(text=" | ".join(context.state))
    if what == "send_user":
        host.send_user(message.text, Done(text="for you"))
    if what == "broadcast":
        context.broadcast(message.pov_id, Done(text="for all"))
    if what == "send":
        context.send(Done(text="first"))
        return Done(text="then")
    if what == "publish":
        new = NewActivity(type="t", action=message.text, pov_id=message.pov_id)
        done = await context.publish(new)
        return Done(text=str(done.offset))
    if what == "host publish":
        await host.publish(NewActivity(type="t", action="a", pov_id=message.pov_id), user_id="bot")
    if what == "history":
        page = await host.history(message.pov_id)
        return Done(text=",".join(f"{o} {a.user_id} {bool(a.at)}" for o, a in page.activities))
    if what == "disconnect":
        host.disconnect(user_id=message.text)
    if what == "regrant":
        identity = host.verify(message.text)
        return Done(text=",".join(host.regrant(context.connection_id, identity)))
    if what == "fetch":
        answer = await host.fetch(message.text)
        return Done(text=str(answer.status))
    if what == "raise":
        raise RuntimeError("a bug with \\n in it")
    if what == "cancel":
        raise asyncio.CancelledError
    if what == "exit":
        raise SystemExit(3)
    if what == "recurse":
        return await do(message, context)
    if what == "garbage":
        return 7
    if what == "reject":
        raise Rejected("closed", "It is closed", field="what", hint="later")
    if what == "wait":
        await asyncio.sleep(3600)
    if what == "wait publishing":
        await asyncio.create_task(host.publish(
            NewActivity(type="t", action="slow", pov_id=message.pov_id), user_id="bot"
        ))
    if what == "refuse":
        while message.text not in released:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
        return Done(text="too late")
    if what == "release":
        released.add(message.text)
        return Done(text="released")
    return None
'''


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    (tmp_path / "every.py").write_text(PLUGIN)
    settings = make_settings(limits=LimitSettings(handler_deadline_s=0.2, message_rate="500/s"))
    settings.plugins["every"] = {"greeting": "good morning"}
    with RunningServer(settings, tmp_path) as running:
        yield running


def ask(client: Any, what: str, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.request({"type": "every.do", "what": what, **fields})
    return answer


def test_hooks_options_lifespans_and_timers_are_called(server: RunningServer) -> None:
    ana, ben = server.connect("ana"), server.connect("ben")
    ben.request({"type": "subscribe", "povId": "acme"})
    ben.request({"type": "subscribe", "povId": "acme"})
    ben.request({"type": "subscribe", "povId": "other"})
    ben.request({"type": "unsubscribe", "povId": "other"})
    assert ask(ana, "publish", povId="acme", text="a")["text"] == "1"
    ben.socket.close()
    seen = ask(ana, "events")["text"]
    while "disconnected ben" not in seen or "tick" not in seen:
        seen = ask(ana, "events").get("text", seen)
    events = seen.split(" | ")
    assert events[0] == "good morning"
    events = [event for event in events if event not in ("good morning", "tick")]
    assert [event.rsplit(" ", 2)[0] if "published" in event else event for event in events] == [
        "connected ana",
        "connected ben",
        "subscribed acme",
        "subscribed other",
        "unsubscribed other",
        "published",
        "unsubscribed acme",
        "disconnected ben",
    ]


def test_before_publish_changes_refuses_and_may_not_move(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    ask(ana, "publish", povId="acme", text="mark")
    assert ana.receive()["data"]["details"] == {"marked": True}
    refused = ask(ana, "publish", povId="acme", text="secret")
    assert (refused["code"], refused["message"]) == ("too_secret", "This is too secret")
    assert ask(ana, "publish", povId="acme", text="move")["code"] == "internal"


def test_what_a_plugin_sends_arrives_where_it_should(server: RunningServer) -> None:
    ana, ben, plain = server.connect("ana"), server.connect("ben"), server.connect("ben", v1=False)
    for client in (ana, ben):
        client.request({"type": "subscribe", "povId": "acme"})
    ana.send({"type": "every.do", "what": "send_user", "text": "ben"})
    assert ben.receive()["text"] == "for you"
    ana.send({"type": "every.do", "what": "broadcast", "povId": "acme"})
    assert ben.receive()["text"] == ana.receive()["text"] == "for all"
    ana.send({"type": "every.do", "what": "send", "id": 1})
    assert [ana.receive()["text"] for _ in range(2)] == ["first", "then"]
    assert plain.request({"type": "ping"})["type"] == "pong"
    ana.send({"type": "every.do", "what": "host publish", "povId": "acme"})
    assert ben.receive()["data"]["userId"] == "bot"
    assert ask(ana, "history", povId="acme")["text"] == "1 bot True"


def test_a_plugin_can_disconnect_a_user(server: RunningServer) -> None:
    from websockets.exceptions import ConnectionClosed

    ana, ben = server.connect("ana"), server.connect("ben")
    ana.send({"type": "every.do", "what": "disconnect", "text": "ben"})
    said = ben.receive()
    assert (said["type"], said["code"], "retryAfter" in said) == ("closing", 4500, False)
    with pytest.raises(ConnectionClosed) as closed:
        ben.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4500
    assert ana.request({"type": "ping"})["type"] == "pong"


def test_a_newer_token_takes_over_and_takes_away(server: RunningServer) -> None:
    ana = server.connect("ana", ttl_s=60)
    for pov_id in ("acme", "other", "*"):
        ana.request({"type": "subscribe", "povId": pov_id})
    older = server.token("ana")
    newer = server.token("ana", povs=["acme"])
    lost = ask(ana, "regrant", text=newer)["text"]
    assert sorted(lost.split(",")) == ["*", "other"]
    assert ana.request({"type": "subscribe", "povId": "other"})["code"] == "forbidden"
    assert ask(ana, "regrant", text=older)["code"] == "token_invalid"
    assert ask(ana, "regrant", text=server.token("ben"))["code"] == "token_invalid"
    assert server.call(lambda: server.web.server.hub.subscriptions) == 1


def test_fetch_answers_and_a_dead_address_is_unavailable(server: RunningServer) -> None:
    ana = server.connect("ana")
    url = f"http://127.0.0.1:{server.web.admin_port}"
    assert ask(ana, "fetch", text=f"{url}/healthz")["text"] == "200"
    assert ask(ana, "fetch", text=f"{url}/nowhere")["text"] == "404"
    assert ask(ana, "fetch", text="http://127.0.0.1:9/")["code"] == "unavailable"
    assert ask(ana, "fetch", text="no url")["code"] == "unavailable"


@pytest.mark.parametrize("what", ["raise", "cancel", "exit", "recurse", "garbage"])
def test_a_handler_that_fails_costs_its_caller_one_error_and_nobody_else_anything(
    server: RunningServer, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    ana, ben = server.connect("ana"), server.connect("ben")
    answer = ask(ana, what)
    assert (answer["code"], answer["message"]) == ("internal", "Internal error")
    records = [r for r in caplog.records if getattr(r, "incident", None) == answer["incident"]]
    assert len(records) == 1
    assert records[0].levelno == logging.ERROR
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert ask(ben, "send")["text"] == "then"


def test_a_plugins_own_error_has_its_code_and_fields(server: RunningServer) -> None:
    answer = ask(server.connect("ana"), "reject")
    assert answer == {
        "type": "error",
        "message": "It is closed",
        "code": "closed",
        "field": "what",
        "hint": "later",
        "id": "test-1",
    }


def test_a_handler_that_never_returns_is_ended_and_pings_are_answered_meanwhile(
    server: RunningServer,
) -> None:
    ana = server.connect("ana")
    ana.send({"type": "every.do", "what": "wait", "id": 1})
    ana.send({"type": "every.do", "what": "send", "id": 2})
    ana.send({"type": "ping", "id": 3})
    received = [ana.receive() for _ in range(4)]
    assert [each.get("id") for each in received] == [3, 1, None, 2]
    assert received[1]["code"] == "timeout"
    assert "outcome" not in received[1]
    assert ask(ana, "wait publishing", povId="acme")["outcome"] == "unknown"


def test_a_full_inbox_holds_its_client_back_and_nobody_else(server: RunningServer) -> None:
    ana, ben = server.connect("ana"), server.connect("ben")
    ana.send({"type": "every.do", "what": "wait"})
    for number in range(90):
        ana.send({"type": "every.do", "what": "send", "id": number})
    assert ben.request({"type": "ping"})["type"] == "pong"
    assert ana.receive()["code"] == "timeout"
    answers = [ana.receive() for _ in range(180)]
    assert [each["id"] for each in answers if "id" in each] == list(range(90))


def test_a_handler_that_refuses_to_be_cancelled_is_given_up(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    ana = server.connect("ana")
    ana.send({"type": "every.do", "what": "refuse", "text": "x", "id": 1})
    ana.send({"type": "every.do", "what": "send", "id": 2})
    received = [ana.receive() for _ in range(3)]
    assert [(each.get("id"), each.get("code")) for each in received] == [
        (1, "timeout"),
        (None, None),
        (2, None),
    ]
    assert "does not end although it is cancelled" in caplog.text
    ask(ana, "release", text="x")
    assert ask(ana, "send")["text"] == "then", "nothing came from the one that was given up"


@pytest.mark.parametrize("how", ["exit", "cancel"])
def test_what_would_end_a_process_costs_a_plugin_a_line(
    server: RunningServer, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    client = server.connect(how)
    assert client.request({"type": "ping"})["type"] == "pong"
    assert "a plugin's hook failed" in caplog.text
    assert ask(client, "publish", povId="acme", text=how)["code"] == "internal"
    activity = {"type": how, "action": "a", "povId": "acme"}
    done = client.request({"type": "publish", "data": activity})
    assert (done["type"], done["offset"]) == ("published", 1)
    http = HTTPClient()
    for query, status in ((how, 500), ("slow", 504)):
        answer = http.fetch(
            f"http://{server.address}/api/broken?how={query}",
            headers={"Authorization": f"Bearer {server.token()}"},
            raise_error=False,
        )
        assert answer.code == status
    http.close()
    assert client.request({"type": "ping"})["type"] == "pong"
    server.incidents.clear()


def test_a_hook_that_never_returns_refuses_its_activity_alone(server: RunningServer) -> None:
    token = server.token("app", Kind.SERVICE)
    http = HTTPClient()
    answer = http.fetch(
        f"http://{server.address}/api/activities",
        method="POST",
        headers={"Authorization": f"Bearer {token}"},
        body=json.dumps(
            [
                {"type": "t", "action": each, "povId": "acme", "userId": "u"}
                for each in ("a", "slow", "b")
            ]
        ),
    )
    http.close()
    results = json.loads(answer.body)["results"]
    assert [each.get("offset") for each in results] == [1, None, 2]
    assert results[1]["error"]["code"] == "timeout"


def test_a_client_that_leaves_while_its_handlers_wait_leaves_nothing_behind(
    server: RunningServer,
) -> None:
    ana = server.connect("ana")
    ana.send({"type": "every.do", "what": "wait"})
    ana.request({"type": "ping"})
    ana.socket.close()
    ben = server.connect("ben")
    while server.call(lambda: len(server.web.server.directory)) > 1:
        ben.request({"type": "ping"})
    assert ask(ben, "send")["text"] == "then"


def test_a_hook_before_publish_sees_what_the_one_before_changed() -> None:
    first, second = Plugin[None]("first"), Plugin[None]("second")

    @first.before_publish
    async def later(activity: Activity, host: Host) -> Activity:
        await asyncio.sleep(0)
        return msgspec.structs.replace(activity, action=activity.action + "1")

    @first.before_publish
    def leave(activity: Activity, host: Host) -> None:
        assert activity.action == "a1"

    @second.before_publish
    def other(activity: Activity, host: Host) -> Any:
        if activity.type == "odd":
            return 7
        return msgspec.structs.replace(activity, action=activity.action + "2")

    async def run() -> None:
        ask = Stage(first, second).runtime.before_publish
        assert ask is not None
        start = Activity(id="1", type="t", action="a", pov_id="p", user_id="u")
        assert (await ask(start)).action == "a12"
        with pytest.raises(Internal) as raised:
            await ask(msgspec.structs.replace(start, type="odd"))
        assert "returned int, no Activity" in str(raised.value.__cause__)
        assert Stage().runtime.before_publish is None, "nobody is asked where nobody asks"

    asyncio.run(run())
