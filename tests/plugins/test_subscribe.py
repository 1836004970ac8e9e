"""Plugins may refuse subscriptions, and what they do wrong refuses no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient

from pov_rt.config.settings import LimitSettings
from pov_rt.dispatch.host import MAX_COUNTERS
from pov_rt.testing import RunningServer, make_settings

PLUGIN = '''
"""Refuses what is called so."""
import asyncio
from pov_rt.plugin import Access, Context, Forbidden, Host, Message, Plugin

plugin = Plugin("guard")

@plugin.authorise
async def guard(access: Access, host: Host) -> None:
    pov_id = access.pov_id
    host.count("asked")
    if pov_id.startswith("late"):
        await asyncio.sleep(0)
    if pov_id == "slow":
        await asyncio.sleep(3600)
    if pov_id == "closed":
        raise Forbidden(f"{access.user_id} may not")
    if pov_id == "broken":
        raise RuntimeError("broken")
    if pov_id == "exit":
        raise SystemExit

class Count(Message, tag="guard.count"):
    names: int

@plugin.on(Count)
def count(message: Count, context: Context) -> None:
    for number in range(message.names):
        context.host.count(f"n{number}", 2)
'''


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    (tmp_path / "guard.py").write_text(PLUGIN)
    settings = make_settings(limits=LimitSettings(handler_deadline_s=0.5, subscriptions=5))
    with RunningServer(settings, tmp_path) as running:
        yield running


def subscribe(client: Any, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.request({"type": "subscribe", **fields})
    return answer


def counted(server: RunningServer) -> dict[str, float]:
    client = HTTPClient()
    try:
        body = client.fetch(f"http://127.0.0.1:{server.web.admin_port}/metrics").body.decode()
    finally:
        client.close()
    lines = [
        line
        for line in body.splitlines()
        if 'plugin="guard"' in line and line.startswith("pov_rt_plugin_total")
    ]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_one_of_several_is_refused_in_its_place(server: RunningServer) -> None:
    ana = server.connect("ana")
    answer = subscribe(ana, povIds=["open", "closed", "broken", "exit", "*"])
    codes = [each.get("code") for each in answer["results"]]
    assert codes == [None, "forbidden", "internal", "internal", None]
    assert answer["results"][1]["message"] == "ana may not"
    assert subscribe(ana, povId="closed")["code"] == "forbidden"
    assert subscribe(ana, povId="slow")["code"] == "timeout"
    assert server.call(lambda: server.web.server.hub.subscriptions) == 2


def test_when_one_takes_too_long_the_others_stand(server: RunningServer) -> None:
    ana = server.connect("ana")
    subscribe(ana, povId="before")
    povs = ["open", "before", "slow", "*"]
    results = subscribe(ana, povIds=povs, durable=True)["results"]
    assert [each["povId"] for each in results] == povs
    assert [each.get("code") for each in results] == [None, None, "timeout", None]
    assert server.call(lambda: server.web.server.hub.subscriptions) == 3
    resumed = server.connect("ana").request({"type": "resume"})
    assert sorted(resumed["povIds"]) == ["*", "before", "open"]


def test_who_has_no_grant_is_not_asked_about(server: RunningServer) -> None:
    ana = server.connect("ana", povs=["open"])
    assert subscribe(ana, povId="broken")["code"] == "forbidden"
    assert counted(server) == {}
    subscribe(ana, povId="open")
    assert counted(server) == {"asked": 1}


def test_a_resumed_subscription_is_asked_about(server: RunningServer) -> None:
    ana = server.connect("ana")
    subscribe(ana, povId="open", durable=True)
    server.connect("ana").request({"type": "resume"})
    assert counted(server) == {"asked": 2}


def test_counters_are_bounded_in_names(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.send({"type": "guard.count", "names": MAX_COUNTERS + 3})
    ana.request({"type": "ping"})
    found = counted(server)
    assert (len(found), found["n0"], found["other"]) == (MAX_COUNTERS + 1, 2, 6)


def test_a_counter_has_a_plain_name(server: RunningServer) -> None:
    host = server.web.server.hooks.hosts["guard"]
    for name in ("", "Calls", "a b", "é", "x" * 65):
        with pytest.raises(ValueError, match="must look like"):
            host.count(name)


def test_several_at_a_time_do_not_get_past_the_limit(server: RunningServer) -> None:
    ana = server.connect("ana")
    povs = ["a", "late1", "b", "late2", "c", "late3", "d"]
    answer = subscribe(ana, povIds=povs)
    assert [each["povId"] for each in answer["results"]] == povs
    refused = {each["povId"] for each in answer["results"] if "code" in each}
    assert {each["code"] for each in answer["results"] if "code" in each} == {"limit_exceeded"}
    assert len(set(povs) - refused) == server.call(lambda: server.web.server.hub.subscriptions) == 5


def test_a_pov_that_is_named_twice_is_said_where_and_nothing_is_subscribed(
    server: RunningServer,
) -> None:
    answer = subscribe(server.connect("ana"), povIds=["a", "b", "c", "b", "a"])
    assert (answer["code"], answer["field"]) == ("invalid_message", "povIds[3]")
    assert server.call(lambda: server.web.server.hub.subscriptions) == 0


def test_what_was_missed_follows_the_answer_though_some_had_to_wait(server: RunningServer) -> None:
    ana, ben = server.connect("ana"), server.connect("ben")
    for pov in ("a", "late1"):
        data = {"type": "task", "action": "done", "povId": pov}
        for _ in range(2):
            ben.request({"type": "publish", "data": data})
    povs = ["a", "late1", "b", "closed"]
    ana.send({"type": "subscribe", "povIds": povs, "since": {"last": 2}})
    assert [each["povId"] for each in ana.receive()["results"]] == povs
    missed = [(each["data"]["povId"], each["offset"]) for each in (ana.receive() for _ in range(4))]
    assert sorted(missed) == [("a", 1), ("a", 2), ("late1", 1), ("late1", 2)]
    assert [offset for _, offset in missed] == [1, 2, 1, 2]
    ben.request({"type": "publish", "data": {"type": "task", "action": "done", "povId": "late1"}})
    assert ana.receive()["offset"] == 3


def test_a_subscription_is_promised_what_holds_for_its_pov() -> None:
    settings = make_settings(pov={"acme-*": {"max_entries": 5, "max_age_s": 60}})
    with RunningServer(settings, None) as server:
        client = server.connect()
        for pov_id, entries, seconds in (("acme-1", 5, 60), ("acme", 10_000, 604_800)):
            answer = client.request({"type": "subscribe", "povId": pov_id})
            promised = {"survives": "process", "entries": entries, "seconds": seconds}
            assert answer["guarantee"] == promised
