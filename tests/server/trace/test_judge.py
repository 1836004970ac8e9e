"""Blind: a cause is planted on a real server, and the first line of the answer names it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import CloseCode, RateLimited
from pov_rt.runtime.clock import rfc3339
from pov_rt.server.trace.causes import CAUSES
from pov_rt.testing import Client
from tests.server.trace.plant import TASK, Plant, planted

Planting = Callable[[Plant], None]
PLANTED: dict[str, tuple[Planting, dict[str, Any], str | None]] = {}
"""By cause: what plants it, the settings, and a plugin."""


def cause(name: str, plugin: str | None = None, **sections: Any) -> Callable[[Planting], Planting]:
    def enter(function: Planting) -> Planting:
        PLANTED[f"{name}: {function.__name__}"] = function, sections, plugin
        return function

    return enter


@pytest.mark.parametrize("case", PLANTED)
def test_the_first_line_names_the_planted_cause(case: str, tmp_path: Path) -> None:
    function, sections, source = PLANTED[case]
    files = None
    if source is not None:
        files = [tmp_path / "planted.py"]
        files[0].write_text(source)
    with planted(files, **sections) as plant:
        function(plant)
        plant.says(case.partition(":")[0])


def test_nearly_every_cause_there_is_was_planted() -> None:
    names = {case.partition(":")[0] for case in PLANTED}
    assert names <= set(CAUSES)
    assert len(PLANTED) >= 40
    assert set(CAUSES) - names == NOT_PLANTED


NOT_PLANTED = {
    "read_elsewhere",  # below, for these need two devices, or another question
    "other_pov_activity",
    "token_invalid",
    "closed",  # by a bug of the server's, or a mistake of the client's
    "not_shown",  # a reason that this version does not know
    "refused_subscription",  # whatever is new
}


# In no log:


@cause("unknown")
def never_published(plant: Plant) -> None:
    plant.follow()


@cause("rejected")
def too_large(plant: Plant) -> None:
    plant.follow()
    assert not plant.publish(details={"text": "x" * 20_000})


@cause("rejected")
def publisher_without_the_grant(plant: Plant) -> None:
    plant.follow()
    ben = plant.server.connect("ben", can=["subscribe"])
    data = {"type": "task", "action": "done", "povId": "acme", "id": "x"}
    assert ben.request({"type": "publish", "data": data})["code"] == "forbidden"


@cause("rejected")
def service_without_the_pov(plant: Plant) -> None:
    plant.follow()
    claims = {"user": "app", "service": True, "povs": ["beta"]}
    answer = plant.http.post("/api/activities", [{**TASK, "id": "x"}], **claims)
    assert answer.body["results"][0]["error"]["code"] == "forbidden"


@cause("rejected")
def activity_with_a_typing_error(plant: Plant) -> None:
    plant.follow()
    assert not plant.publish(acton="done")


REFUSING = '''
"""Refuses."""
from pov_rt.plugin import Activity, Forbidden, Host, Plugin

plugin = Plugin("refusing")


@plugin.before_publish
async def refuse(activity: Activity, host: Host) -> Activity:
    raise Forbidden("not on a Sunday")
'''


@cause("rejected_by_plugin", REFUSING)
def plugin_says_no(plant: Plant) -> None:
    plant.follow()
    assert not plant.publish()


@cause("conflict")
def id_used_twice(plant: Plant) -> None:
    plant.publish()
    plant.follow()
    assert not plant.publish(action="other")


@cause("other_tenant", auth={"tenants": True})
def of_another_team(plant: Plant) -> None:
    body = {**TASK, "id": "x"}
    plant.http.post("/api/activities", body, user="app", service=True, team_id="blue")
    plant.server.connect("ana", team_id="red")


@cause("removed", engine={"max_entries": 3})
def retention(plant: Plant) -> None:
    plant.publish()
    for number in range(20):
        plant.publish(str(number))


@cause("erased")
def erased_with_its_author(plant: Plant) -> None:
    plant.publish()
    plant.http.delete("/api/users/ben", user="ops", service=True, can=["operate"])


@cause("retracted")
def taken_back(plant: Plant) -> None:
    plant.publish()
    path = "/api/activities/x/retract"
    answer = plant.http.post(path, {"povId": "acme"}, user="app", service=True)
    assert answer.status == 200, answer.body


def notify(plant: Plant, user: str, **more: Any) -> None:
    path, body = f"/api/users/{user}/notifications", {"id": "x", "type": "mention", **more}
    can = ["publish", "operate"]
    answer = plant.http.post(path, body, user="app", service=True, can=can)
    assert answer.status in (200, 201), answer.body


@cause("expired")
def notification_with_an_end(plant: Plant) -> None:
    notify(plant, "ana", expiresAt=rfc3339(plant.node.clock.time() + 600))
    plant.server.advance(1200)


@cause("other_inbox")
def notification_to_somebody_else(plant: Plant) -> None:
    notify(plant, "ben")


# Not connected:


@cause("never_connected")
def nobody_there(plant: Plant) -> None:
    plant.publish()


@cause("away")
def page_was_closed(plant: Plant) -> None:
    plant.hang_up(plant.follow())
    plant.publish()


@cause("cut")
def proxy_cut_it(plant: Plant) -> None:
    plant.cut(plant.follow())
    plant.publish()


@cause("token_expired")
def token_ended(plant: Plant) -> None:
    plant.follow()
    plant.server.advance(3700)
    plant.server.call(plant.node.sweep)
    plant.wait("closed")
    plant.publish()


@cause("token_expired")
def back_with_an_old_token(plant: Plant) -> None:
    plant.hang_up(plant.follow())
    assert plant.get_late("/ws/") == 401
    plant.wait("refused")
    plant.publish()


@cause("token_revoked")
def revoked(plant: Plant) -> None:
    plant.follow()
    body = {"userId": "ana"}
    can = ["operate"]
    plant.http.post("/api/tokens/revoke", body, user="ops", service=True, can=can)
    plant.wait("closed")
    plant.publish()


@cause("refused", limits={"connections_per_user": 1})
def one_connection_too_many(plant: Plant) -> None:
    plant.publish()
    plant.server.call(plant.node.leaving.set)
    plant.http.get("/ws/", user="ana")
    plant.wait("refused")
    plant.server.call(plant.node.leaving.clear)


def close(plant: Plant, code: CloseCode) -> None:
    plant.follow()
    (connection,) = plant.server.call(lambda: plant.node.directory.of("ana"))
    plant.server.call(lambda: connection.close(code))
    plant.wait("closed")
    plant.publish()


@cause("frozen")
def no_answer_to_a_ping(plant: Plant) -> None:
    close(plant, CloseCode.PING_TIMEOUT)


@cause("restart")
def server_was_restarted(plant: Plant) -> None:
    close(plant, CloseCode.RESTARTING)


@cause("disconnected")
def an_operator_did_it(plant: Plant) -> None:
    plant.follow()
    path = "/api/users/ana/disconnect"
    plant.http.post(path, user="ops", service=True, can=["operate"])
    plant.wait("closed")
    plant.publish()


@cause("flooding", limits={"message_rate": "1/h", "rejected_messages": 5})
def too_many_messages(plant: Plant) -> None:
    ana = plant.follow()
    with suppress(ConnectionClosed):  # it is hung up on in between
        for _ in range(20):
            ana.send({"type": "ping"})
    plant.wait("closed")
    plant.publish()


@cause("slow")
def reads_too_slowly(plant: Plant) -> None:
    close(plant, CloseCode.SLOW_CONSUMER)


# Connected, and not subscribed:


@cause("no_grant")
def pov_not_in_the_token(plant: Plant) -> None:
    ana = plant.server.connect("ana", povs=["beta"])
    assert ana.request({"type": "subscribe", "povId": "acme"})["code"] == "forbidden"
    plant.publish()


@cause("no_grant")
def pov_not_in_the_token_of_several(plant: Plant) -> None:
    ana = plant.server.connect("ana", povs=["beta"])
    ana.request({"type": "subscribe", "povIds": ["beta", "acme"]})
    plant.publish()


AUTHORISING = '''
"""Says no."""
from pov_rt.plugin import Access, Allowed, Forbidden, Host, Plugin

plugin = Plugin("authorising")


@plugin.authorise
async def may(access: Access, host: Host) -> Allowed | None:
    if access.user_id == "ana":
        raise Forbidden("ana left the team")
    return None
'''


@cause("denied", AUTHORISING)
def the_app_says_no(plant: Plant) -> None:
    ana = plant.server.connect("ana")
    assert ana.request({"type": "subscribe", "povId": "acme"})["code"] == "forbidden"
    plant.publish()


@cause("lost")
def a_new_token_without_it(plant: Plant) -> None:
    ana = plant.follow()
    token = plant.token("ana", povs=["beta"])
    ana.request({"type": "refresh", "token": token})
    plant.wait("lost")
    plant.publish()


@cause("over_budget", limits={"subscriptions": 1})
def too_many_subscriptions(plant: Plant) -> None:
    ana = plant.follow(pov="beta")
    assert ana.request({"type": "subscribe", "povId": "acme"})["code"] == "limit_exceeded"
    plant.publish()


@cause("over_budget", limits={"cost_rate": "1/h"})
def budget_is_used_up(plant: Plant) -> None:
    ana = plant.server.connect("ana")
    budget = plant.node.budgets.of("ana")
    plant.server.call(lambda: budget.charge(1000.0, plant.node.clock.monotonic()))
    answer = ana.request({"type": "subscribe", "povId": "acme"})
    assert answer["code"] == RateLimited.code
    plant.publish()


@cause("other_pov")
def another_spelling(plant: Plant) -> None:
    plant.follow(pov="Acme")
    plant.publish()


@cause("not_subscribed")
def page_did_not_subscribe(plant: Plant) -> None:
    plant.server.connect("ana", device="laptop")
    plant.publish()


def feed(plant: Plant, device: str = "laptop", **more: Any) -> Client:
    """Have ana's device follow the team's feed."""
    return plant.follow(device, "*", **more)


@cause("no_grant")
def token_does_not_cover_the_feed(plant: Plant) -> None:
    ana = plant.server.connect("ana", povs=["beta"])
    assert ana.request({"type": "subscribe", "povId": "*"})["code"] == "forbidden"
    plant.publish()


@cause("denied", AUTHORISING)
def the_app_says_no_to_the_feed(plant: Plant) -> None:
    ana = plant.server.connect("ana")
    assert ana.request({"type": "subscribe", "povId": "*"})["code"] == "forbidden"
    plant.publish()


@cause("unsubscribed")
def page_left_the_feed(plant: Plant) -> None:
    feed(plant).request({"type": "unsubscribe", "povId": "*"})
    plant.publish()


@cause("other_feed")
def published_for_another_team(plant: Plant) -> None:
    feed(plant)
    body = {**TASK, "id": "x"}
    plant.http.post("/api/activities", body, user="app", service=True, team_id="north")


@cause("unsubscribed")
def page_left_it(plant: Plant) -> None:
    ana = plant.follow()
    ana.request({"type": "unsubscribe", "povId": "acme"})
    plant.publish()


# Subscribed:


@cause("subscribed_later")
def came_after_it(plant: Plant) -> None:
    plant.publish()
    plant.follow()


@cause("gap")
def log_was_reset(plant: Plant) -> None:
    plant.publish()
    plant.follow(since={"epoch": "another", "offset": 0})


@cause("missed")
def too_much_was_missed(plant: Plant) -> None:
    plant.publish("first")
    ana = plant.follow()
    epoch = ana.request({"type": "subscribe", "povId": "acme"})["epoch"]
    plant.hang_up(ana)
    plant.publish()
    can = {"user": "app", "service": True}
    batch = [{**TASK, "id": f"n-{number}"} for number in range(1000)]
    plant.http.post("/api/activities", batch, **can)
    plant.publish("last")
    plant.follow(since={"epoch": epoch, "offset": 1})


@cause("filter")
def only_comments(plant: Plant) -> None:
    ana = plant.follow(only={"types": ["comment"]})
    plant.publish()
    plant.publish("seen", type="comment")
    plant.get(ana, "seen")


@cause("behind")
def is_held_back(plant: Plant) -> None:
    plant.follow()
    hub = plant.node.hub

    async def hold() -> None:
        (connection,) = plant.node.directory.of("ana")
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.transport = Stuck(connection, never)
        hub.hold(connection)

    plant.server.run(hold)
    plant.publish()


class Stuck:
    """A transport whose client does not read."""

    def __init__(self, connection: Connection, never: asyncio.Future[None]) -> None:
        self._transport = connection.transport
        self._never = never
        self.unsent_bytes = 300_000

    async def drained(self) -> None:
        await self._never

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@cause("subscribed_later")
def came_to_the_feed_after_it(plant: Plant) -> None:
    plant.publish("before")
    plant.publish()
    plant.publish("after")
    feed(plant)


@cause("filter")
def only_comments_of_the_feed(plant: Plant) -> None:
    ana = feed(plant, only={"types": ["comment"]})
    plant.publish("elsewhere", povId="beta")
    plant.publish()
    plant.publish("seen", type="comment")
    plant.get(ana, "seen")


@cause("gap")
def feed_was_reset(plant: Plant) -> None:
    plant.publish()
    feed(plant, since={"epoch": "another", "offset": 0})


@cause("away")
def follower_of_the_feed_went_away(plant: Plant) -> None:
    plant.hang_up(feed(plant))
    plant.publish()


# Sent:


@cause("written")
def by_the_feed_which_is_not_acknowledged(plant: Plant) -> None:
    ana = feed(plant)
    plant.publish("elsewhere", povId="beta")
    plant.publish()
    plant.get(ana)


@cause("delivered")
def by_the_feed_and_acknowledged(plant: Plant) -> None:
    ana = feed(plant)
    plant.publish("elsewhere", povId="beta")
    plant.publish()
    ana.request({"type": "ack", "povId": "*", "offset": plant.get(ana)["offset"]})


@cause("unacknowledged")
def by_the_feed_which_was_acknowledged_up_to_there(plant: Plant) -> None:
    ana = feed(plant)
    plant.publish("elsewhere", povId="beta")
    place = plant.get(ana, "elsewhere")["offset"]
    ana.request({"type": "ack", "povId": "*", "offset": place})
    plant.publish()
    plant.get(ana)


@cause("muted")
def by_the_feed_but_its_pov_is_muted(plant: Plant) -> None:
    ana = feed(plant)
    plant.publish()
    place = plant.get(ana)["offset"]
    ack = {"type": "ack", "povId": "*", "offset": place, "shown": False, "reason": "muted"}
    ana.request(ack)


@cause("unacknowledged")
def frozen_tab(plant: Plant) -> None:
    ana = plant.follow()
    offset = plant.publish("before")
    ana.request({"type": "ack", "povId": "acme", "offset": offset})
    plant.publish()
    plant.get(ana)


@cause("written")
def client_that_acknowledges_nothing(plant: Plant) -> None:
    ana = plant.follow()
    plant.publish()
    plant.get(ana)


def acked(plant: Plant, **more: Any) -> None:
    ana = plant.follow()
    offset = plant.publish()
    plant.get(ana)
    answer = ana.request({"type": "ack", "povId": "acme", "offset": offset, **more})
    assert answer["type"] == "acked", answer


@cause("delivered")
def acknowledged(plant: Plant) -> None:
    acked(plant)


@cause("delivered")
def acknowledged_after_it_was_away(plant: Plant) -> None:
    ana = plant.follow()
    epoch = ana.request({"type": "subscribe", "povId": "acme"})["epoch"]
    plant.cut(ana)
    offset = plant.publish()
    back = plant.follow(since={"epoch": epoch, "offset": 0})
    plant.get(back)
    back.request({"type": "ack", "povId": "acme", "offset": offset})


@cause("shown")
def it_was_shown(plant: Plant) -> None:
    acked(plant, shown=True)


@cause("muted")
def user_muted_it_and_the_client_says_so(plant: Plant) -> None:
    acked(plant, shown=False, reason="muted")


@cause("muted")
def user_muted_it_and_the_client_says_nothing(plant: Plant) -> None:
    ana = plant.server.connect("ana", device="laptop")
    ana.request({"type": "mute", "povId": "acme", "level": "off"})
    acked(plant)


@cause("filtered")
def filter_on_the_page(plant: Plant) -> None:
    acked(plant, shown=False, reason="filtered")


@cause("hidden")
def follower_tab_in_the_background(plant: Plant) -> None:
    acked(plant, shown=False, reason="hidden")


@cause("quiet")
def quiet_hours(plant: Plant) -> None:
    acked(plant, shown=False, reason="quiet")


@cause("feed")
def open_feed(plant: Plant) -> None:
    acked(plant, shown=False, reason="feed")


@cause("digest")
def one_of_many(plant: Plant) -> None:
    acked(plant, shown=False, reason="digest")


@cause("own")
def did_it_herself(plant: Plant) -> None:
    acked(plant, shown=False, reason="own")


@cause("no_component")
def nothing_on_the_page(plant: Plant) -> None:
    acked(plant, shown=False, reason="closed")


@cause("read")
def it_was_read(plant: Plant) -> None:
    ana = plant.follow()
    offset = plant.publish()
    plant.get(ana)
    ana.request({"type": "read", "povId": "acme", "offset": offset})


def test_who_read_it_elsewhere_has_it_there_and_not_on_the_other_device() -> None:
    with planted() as plant:
        phone, laptop = plant.follow("phone"), plant.follow("laptop")
        offset = plant.publish()
        plant.get(phone)
        plant.get(laptop)
        phone.request({"type": "read", "povId": "acme", "offset": offset})
        plant.says("read")
        plant.says("read_elsewhere", device="laptop")


def test_an_activity_of_another_pov_than_was_asked_for_is_named() -> None:
    with planted() as plant:
        plant.follow()
        plant.publish(povId="beta")
        plant.says("other_pov_activity", povId="acme")
        plant.says("other_pov")


def test_a_token_that_no_clock_here_believes_is_told_of() -> None:
    with planted() as plant:
        plant.publish()
        plant.trace.note("refused", "ana", code="token_invalid", message="iat is in the future")
        plant.says("token_invalid")
