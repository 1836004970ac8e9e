"""Notifications reach every device of their user once, and wait for those away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pov_rt.config.settings import Settings
from pov_rt.engine.base import NewEntry, Position
from pov_rt.protocol.messages import NewNotification
from pov_rt.testing import Connect, RunningServer
from tests.clients import ENGINES, notify, offsets, settings_of, span


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


class TestInbox:
    def wait_for_inbox(self, server: RunningServer, count: int) -> None:
        def followers() -> int:
            register = server.web.server.directory
            return sum("user/ana" in each.topics for each in register.all())

        while server.call(followers) < count:
            pass

    def test_a_notification_reaches_all_devices_and_waits_for_those_away(
        self, server: RunningServer, connect: Connect
    ) -> None:
        phone = connect("ana", device="phone")
        self.wait_for_inbox(server, 1)
        code, place = notify(server, details={"text": "look"}, povId="acme", userId="ben")
        assert (code, place["offset"], place["duplicate"]) == (200, 1, False)
        pushed = phone.receive()
        assert pushed["type"] == "notification"
        assert pushed["offset"] == 1
        assert {**pushed["data"], "id": "", "at": ""} == {
            "id": "",
            "type": "mention",
            "povId": "acme",
            "userId": "ben",
            "details": {"text": "look"},
            "at": "",
        }
        phone.request({"type": "ack", "inbox": True, "offset": 1})
        phone.socket.close()
        notify(server)
        laptop, phone = connect("ana", device="laptop"), connect("ana", device="phone")
        assert offsets(laptop, 2, "notification") == [1, 2]
        assert offsets(phone, 1, "notification") == [2]

    def test_without_an_acknowledgement_it_comes_again(
        self, server: RunningServer, connect: Connect
    ) -> None:
        notify(server)
        for _ in range(2):
            phone = connect("ana", device="phone")
            assert offsets(phone, 1, "notification") == [1]
            phone.socket.close()

    def test_what_comes_while_the_marks_are_read_is_delivered_with_the_rest(
        self, server: RunningServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill_inbox(server, 3)
        phone = connect("ana", device="phone")
        assert offsets(phone, 3, "notification") == [1, 2, 3]
        phone.request({"type": "ack", "inbox": True, "offset": 1})
        phone.socket.close()
        host = server.web.server.hooks.hosts["inbox"]
        marks = host.marks
        get = marks.get_many

        async def slow(*asked: Any) -> Sequence[Sequence[Position | None]]:
            found = await get(*asked)
            for _ in range(2):
                await host.notify("ana", NewNotification(type="mention"))
            return found

        with monkeypatch.context() as patch:
            patch.setattr(marks, "get_many", slow)
            again = connect("ana", device="phone")
            assert offsets(again, 4, "notification") == [2, 3, 4, 5]

    def test_however_many_are_unread_all_that_are_kept_come_and_then_what_is_live(
        self, server: RunningServer, connect: Connect
    ) -> None:
        fill_inbox(server, 1300)
        ana = connect("ana")
        assert offsets(ana, 1300, "notification") == span(1, 1300)
        fill_inbox(server, 1)
        assert offsets(ana, 1, "notification") == [1301]
        ana.request({"type": "ack", "inbox": True, "offset": 2})
        ana.socket.close()
        fill_inbox(server, 300)
        # Of 1,601 the newest 1,500 are kept; the offset tells how many are gone.
        assert offsets(connect("ana"), 1500, "notification") == span(102, 1601)

    def test_what_one_device_read_no_other_gets(
        self, server: RunningServer, connect: Connect
    ) -> None:
        notify(server)
        notify(server)
        phone, laptop = (connect("ana", device=device) for device in ("phone", "laptop"))
        for client in (phone, laptop):
            assert offsets(client, 2, "notification") == [1, 2]
        answer = phone.request({"type": "read", "inbox": True, "offset": 1})
        assert (answer["type"], answer["offset"]) == ("inbox_read", 1)
        told = laptop.receive()
        assert (told["type"], told["offset"]) == ("inbox_read", 1)
        assert offsets(connect("ana", device="tablet"), 1, "notification") == [2]

    def test_one_that_expired_is_not_delivered_and_leaves_no_gap(
        self, server: RunningServer, connect: Connect
    ) -> None:
        notify(server, expiresAt="2999-01-01T00:00:00Z")
        code, answer = notify(server, expiresAt="2001-01-01T00:00:00Z")
        assert (code, answer["error"]["field"]) == (400, "expiresAt")
        code, answer = notify(server, expiresAt="2999-01-01T00:00:00")
        assert (code, answer["error"]["field"]) == (400, "expiresAt"), "without a zone"
        server.run(lambda: expired(server))
        notify(server)
        ana = connect("ana")
        assert offsets(ana, 2, "notification") == [1, 3]
        assert ana.request({"type": "ack", "inbox": True, "offset": 3})["offset"] == 3


def fill_inbox(server: RunningServer, count: int) -> None:
    host = server.web.server.hooks.hosts["inbox"]

    async def work() -> None:
        # Together: a disk commits them in few transactions.
        new = [NewNotification(type="mention", id=f"{uuid4()}") for _ in range(count)]
        await asyncio.gather(*(host.notify("ana", each) for each in new))

    server.run(work)


async def expired(server: RunningServer) -> None:
    """Append a notification whose time is over, as if it had been sent long ago."""
    body = b'{"id":"old","type":"mention","expiresAt":"2001-01-01T00:00:00Z"}'
    await server.web.server.engine.log.append([NewEntry("user/ana", "s", "old", body)])
