"""The one question behind every door: who is asked when, and what stands on an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient

from pov_rt.auth.grants import Kind
from pov_rt.plugin import Allowed, Forbidden, RateLimited, Unavailable
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import Client, RunningServer, make_settings

PLUGIN = '''
"""Answers as the test says: `says` by user, PoV and action, or the first of these that is there."""
import asyncio
from pov_rt.plugin import (
    Access, Allowed, Context, Forbidden, Host, Message, NewActivity, Part, Plugin, PovId,
    RateLimited, Request, Unavailable,
)

plugin = Plugin("judge")

class State:
    def __init__(self):
        self.says = {}
        self.asked = []
        self.lost = []
        self.go = asyncio.Event()
        self.go.set()

@plugin.lifespan
async def life(host: Host):
    yield State()

@plugin.authorise
async def judge(access: Access, host: Host[State]) -> Allowed | None:
    state = host.state
    state.asked.append((access.user_id, access.pov_id, access.action))
    keys = (access.role, access.pov_id, access.action, access.user_id)
    said = next((state.says[key] for key in keys if key in state.says), None)
    if said == "wait":
        await state.go.wait()
        said = None
    if isinstance(said, Exception):
        raise said
    return said

@plugin.lost
def lost(pov_id: str, context: Context[State]) -> None:
    context.state.lost.append((context.user.user_id, pov_id))

class Say(Message, tag="judge.say"):
    pov_id: PovId
    number: int

class Said(Message, tag="judge.said"):
    number: int

@plugin.on(Say, grant="collaborate")
def say(message: Say, context: Context) -> Said:
    return Said(number=message.number)

class Put(Message, tag="judge.put"):
    """Publishes where its fields do not say."""
    where: str

@plugin.on(Put)
async def put(message: Put, context: Context) -> Said:
    await context.publish(NewActivity(type="t", action="a", pov_id=message.where))
    return Said(number=0)

class Keep(Message, tag="judge.keep"):
    """Keeps the context, with which a timer could go on."""
    pov_id: PovId

@plugin.on(Keep, grant="publish")
async def keep(message: Keep, context: Context[State]) -> Said:
    context.state.kept = context
    return Said(number=0)

class Given(Part):
    pov_ids: list[PovId]

@plugin.http("POST", "/judge", grant="publish", body=Given)
async def given(request: Request) -> None:
    await request.check_pov(request.query.get("more", "acme"), "more")
'''

Json = dict[str, Any]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(tmp_path: Path, clock: ManualClock) -> Iterator[RunningServer]:
    (tmp_path / "judge.py").write_text(PLUGIN)
    with RunningServer(make_settings(), tmp_path, clock) as running:
        yield running


def state(server: RunningServer) -> Any:
    return server.web.server.hooks.hosts["judge"].state


def says(server: RunningServer, **answers: Any) -> None:
    """Say what is answered from now on, and forget what was asked."""
    state(server).says = answers
    state(server).asked.clear()


NO = Forbidden("you may not")


def pass_time(server: RunningServer, clock: ManualClock, seconds: float) -> None:
    """Let time pass, and what is due be asked."""

    async def sweep() -> None:
        clock.advance(seconds)
        server.web.server.permissions.sweep(clock.monotonic())
        for _ in range(10):
            await asyncio.sleep(0)

    server.run(sweep)


def subscribe(client: Client, pov: str = "acme", **fields: Any) -> Json:
    return client.request({"type": "subscribe", "povId": pov, **fields})


def standing(server: RunningServer) -> int:
    return server.call(lambda: server.web.server.permissions.standing)


def publish(server: RunningServer, number: int, pov: str = "acme") -> None:
    data = {"type": "t", "action": "a", "povId": pov, "id": str(number)}
    done = server.connect("zoe").request({"type": "publish", "data": data})
    assert done["type"] == "published", done


# What stands:


def test_a_no_at_the_end_of_an_answer_ends_the_subscription_and_says_so(
    server: RunningServer, clock: ManualClock
) -> None:
    says(server, ana=Allowed(60))
    ana = server.connect("ana")
    assert subscribe(ana)["type"] == "subscribed"
    says(server, ana=NO)
    pass_time(server, clock, 59)
    assert state(server).asked == []
    pass_time(server, clock, 2)
    assert ana.receive() == {
        "type": "unsubscribed",
        "povId": "acme",
        "code": "forbidden",
        "message": NO.message,
    }
    assert state(server).lost == [("ana", "acme")]
    publish(server, 1)
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert (ana.early, standing(server)) == ([], 0)


def test_a_plain_client_is_told_too(server: RunningServer, clock: ManualClock) -> None:
    says(server, ana=Allowed(60))
    ana = server.connect("ana", v1=False)
    subscribe(ana)
    says(server, ana=NO)
    pass_time(server, clock, 61)
    assert ana.receive()["type"] == "unsubscribed"


def test_a_yes_is_asked_for_again_each_time_once_for_all_of_a_users_connections(
    server: RunningServer, clock: ManualClock
) -> None:
    says(server, ana=Allowed(60), ben=Allowed(60))
    users = [server.connect(name) for name in ("ana", "ana", "ana", "ben")]
    for each in users:
        subscribe(each)
    for _ in range(3):
        says(server, ana=Allowed(60), ben=Allowed(60))
        pass_time(server, clock, 61)
        assert sorted(state(server).asked) == [("ana", "acme", "see"), ("ben", "acme", "see")]
    publish(server, 1)
    assert [each.receive()["type"] for each in users] == ["activity"] * 4


def test_an_answer_without_an_end_is_never_asked_for_again(
    server: RunningServer, clock: ManualClock
) -> None:
    ana = server.connect("ana", ttl_s=1e6)
    subscribe(ana)
    says(server, ana=NO)
    assert standing(server) == 0
    pass_time(server, clock, 3000)
    assert state(server).asked == []


@pytest.mark.parametrize(
    ("failure", "stays_s", "code"),
    [
        (Unavailable(), 100.0, "unavailable"),
        (RateLimited(), 10.0, "rate_limited"),
    ],
)
def test_while_nobody_can_say_it_stands_for_so_long_and_nothing_new_does(
    server: RunningServer, clock: ManualClock, failure: Any, stays_s: float, code: str
) -> None:
    says(server, ana=Allowed(60, 100))
    ana = server.connect("ana")
    subscribe(ana)
    says(server, ana=failure)
    pass_time(server, clock, 61)
    assert subscribe(ana, "other")["code"] == code
    for _ in range(int(stays_s / 5) - 1):
        pass_time(server, clock, 5)
    assert ana.request({"type": "ping"})["type"] == "pong"
    assert ana.early == []
    for _ in range(3):
        pass_time(server, clock, 5)
    told = ana.receive()
    assert (told["type"], told["code"]) == ("unsubscribed", code)


def test_who_can_be_asked_again_in_time_stays(server: RunningServer, clock: ManualClock) -> None:
    says(server, ana=Allowed(60, 100))
    ana = server.connect("ana")
    subscribe(ana)
    says(server, ana=Unavailable())
    pass_time(server, clock, 61)
    says(server, ana=Allowed(60, 100))
    pass_time(server, clock, 6)
    pass_time(server, clock, 61)
    assert state(server).asked == [("ana", "acme", "see")] * 2
    publish(server, 1)
    assert ana.receive()["type"] == "activity"


def test_a_broken_hook_is_no_answer(server: RunningServer, clock: ManualClock) -> None:
    says(server, ana=Allowed(60, 0))
    ana = server.connect("ana")
    subscribe(ana)
    says(server, ana="neither")
    assert subscribe(ana, "other")["code"] == "internal"
    pass_time(server, clock, 61)
    assert ana.receive()["code"] == "internal"


def test_nothing_is_remembered_of_who_has_left(server: RunningServer, clock: ManualClock) -> None:
    says(server, ana=Allowed(60), collaborate=Allowed(60))
    ana = server.connect("ana")
    for number in range(50):
        subscribe(ana, f"pov{number}")
    ana.request({"type": "presence", "povId": "pov0"})
    assert standing(server) == 51
    for number in range(0, 50, 2):
        ana.request({"type": "unsubscribe", "povId": f"pov{number}"})
    assert standing(server) == 25
    ana.socket.close()
    while standing(server):
        pass
    says(server)
    pass_time(server, clock, 100)
    assert state(server).asked == []


def test_who_may_not_collaborate_any_more_is_told_no_more_who_is_there(
    server: RunningServer, clock: ManualClock
) -> None:
    says(server, collaborate=Allowed(60))
    ana = server.connect("ana")
    subscribe(ana)
    assert ana.request({"type": "presence", "povId": "acme"})["type"] == "present"
    says(server, collaborate=NO)
    pass_time(server, clock, 61)
    told = next(each for each in iter(ana.receive, None) if each["type"] == "error")
    assert told == {"type": "error", "message": NO.message, "code": "forbidden", "detail": "acme"}
    subscribe(server.connect("ben"))
    publish(server, 1)
    assert ana.receive()["type"] == "activity"
    assert ana.request({"type": "presence", "povId": "acme"})["code"] == "forbidden"


def test_a_token_that_says_who_else_one_is_is_asked_about_at_once(
    server: RunningServer, clock: ManualClock
) -> None:
    says(server, lead=Allowed(1000), guest=NO)
    ana = server.connect("ana", role="lead")
    subscribe(ana)
    subscribe(ana, "other")
    ana.request({"type": "refresh", "token": server.token(role="lead")})
    pass_time(server, clock, 2)
    assert len(state(server).asked) == 2
    lost = ana.request({"type": "refresh", "token": server.token(role="guest")})["lost"]
    assert lost == []
    pass_time(server, clock, 2)
    assert sorted(ana.receive()["povId"] for _ in range(2)) == ["acme", "other"]
    assert standing(server) == 0


# Asking:


def test_answers_keep_their_order_though_the_first_one_waits(server: RunningServer) -> None:
    says(server, slow="wait")
    ana = server.connect("ana")
    state(server).go.clear()
    for number, pov in enumerate(("slow", "quick", "slow")):
        ana.send({"type": "judge.say", "povId": pov, "number": number})
    ana.send({"type": "ping"})
    assert ana.receive()["type"] == "pong"
    server.call(state(server).go.set)
    assert [ana.receive()["number"] for _ in range(3)] == [0, 1, 2]


def test_publications_keep_their_order_though_the_first_one_waits(server: RunningServer) -> None:
    says(server, write="wait")
    ana = server.connect("ana")
    subscribe(ana)
    state(server).go.clear()
    for number in range(3):
        data = {"type": "t", "action": "a", "povId": "acme", "id": str(number)}
        ana.send({"type": "publish", "data": data})
        if number == 1:
            while len(state(server).asked) < 2:
                pass
            state(server).says = {}
    server.call(state(server).go.set)
    seen = [ana.receive() for _ in range(6)]
    assert [each["data"]["id"] for each in seen if each["type"] == "activity"] == ["0", "1", "2"]


def test_a_token_that_comes_while_one_is_asked_is_judged_too(server: RunningServer) -> None:
    says(server, acme="wait")
    ana = server.connect("ana")
    state(server).go.clear()
    ana.send({"type": "judge.say", "povId": "acme", "number": 1})
    while not state(server).asked:
        pass
    ana.request({"type": "refresh", "token": server.token(povs=["other"])})
    server.call(state(server).go.set)
    assert ana.receive()["code"] == "forbidden"


def test_a_plugin_that_publishes_is_asked_about_for_its_user_and_nobody_twice(
    server: RunningServer,
) -> None:
    says(server, closed=NO)
    ana = server.connect("ana")
    assert ana.request({"type": "judge.put", "where": "closed"})["code"] == "forbidden"
    assert ana.request({"type": "judge.put", "where": "open"})["type"] == "judge.said"
    says(server)
    data = {"type": "t", "action": "a", "povId": "acme"}
    ana.request({"type": "publish", "data": data})
    assert state(server).asked == [("ana", "acme", "write")]


def test_a_context_that_is_kept_is_no_way_around_the_question(
    server: RunningServer, clock: ManualClock
) -> None:
    ana = server.connect("ana")
    ana.request({"type": "judge.keep", "povId": "acme"})
    says(server, ana=NO)
    assert server.run(lambda: state(server).kept.may("publish", "acme")), "as it was asked before"
    clock.advance(5)
    assert not server.run(lambda: state(server).kept.may("publish", "acme"))


@pytest.mark.parametrize(
    ("query", "povs", "refused"),
    [
        ("", ["a", "b"], None),
        ("", ["a", "closed"], "povIds[1]"),
        ("?pov_id=closed", ["a"], "pov_id"),
        ("?sourcePov=closed", ["a"], "sourcePov"),
        ("?more=closed", ["a"], "more"),
        ("?other=closed", ["a"], None),
    ],
)
def test_every_pov_of_a_request_is_asked_about(
    server: RunningServer, query: str, povs: list[str], refused: str | None
) -> None:
    says(server, closed=NO)

    def post(kind: Kind, **claims: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {server.token('ana', kind, **claims)}"}
        client = HTTPClient()
        try:
            done = client.fetch(
                f"http://{server.address}/api/judge{query}",
                method="POST",
                body=json.dumps({"povIds": povs}),
                headers=headers,
                raise_error=False,
            )
        finally:
            client.close()
        return done.code, json.loads(done.body)["error"] if done.body else None

    code, error = post(Kind.SOCKET)
    assert (code, error and error["message"]) == ((403, NO.message) if refused else (204, None))
    assert all(action == "write" for _, _, action in state(server).asked)
    says(server, closed=NO)
    assert post(Kind.SERVICE) == (204, None)
    assert state(server).asked == []
    code, error = post(Kind.SERVICE, povs=["a", "b", "acme"])
    assert (code, error and error["field"]) == ((403, refused) if refused else (204, None))
