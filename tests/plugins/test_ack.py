"""A device goes on where it acknowledged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from pov_rt.activities.shown import Reason
from pov_rt.config.settings import Settings
from pov_rt.dispatch.host import MAX_COUNTERS
from pov_rt.engine.sqlite import SqliteEngine
from pov_rt.testing import Connect, RunningServer
from tests.clients import ENGINES, notify, offsets, publish, settings_of, span, subscribe


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


class TestCursor:
    def test_a_device_goes_on_where_it_acknowledged(
        self, server: RunningServer, connect: Connect
    ) -> None:
        phone = connect("ana", device="phone")
        assert subscribe(phone, since="cursor")["recovered"] is False, "it has no cursor yet"
        publish(server, 5)
        assert offsets(phone, 5) == span(1, 5)
        acked = phone.request({"type": "ack", "povId": "acme", "offset": 3})
        assert (acked["type"], acked["offset"]) == ("acked", 3)
        assert phone.request({"type": "ack", "povId": "acme", "offset": 2})["offset"] == 3
        phone.socket.close()
        again = connect("ana", device="phone")
        assert subscribe(again, since="cursor")["recovered"] is True
        assert offsets(again, 2) == [4, 5]
        other = connect("ana", device="laptop")
        assert subscribe(other, since="cursor")["recovered"] is False

    @pytest.mark.parametrize(
        ("ack", "code", "field"),
        [
            ({"povId": "acme", "offset": 3}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": -1}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": 1.5}, "invalid_message", "offset"),
            ({"povId": "acme"}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": 1, "epoch": "another"}, "epoch_changed", "epoch"),
            ({"povId": "other", "offset": 1}, "forbidden", "povId"),
            ({"offset": 1}, "invalid_message", "povId"),
            ({"inbox": True, "offset": 1}, "invalid_message", "offset"),
            ({"povId": "acme", "offset": 1, "shown": "no"}, "invalid_message", "shown"),
            ({"povId": "acme", "offset": 1, "shown": False}, "invalid_message", "reason"),
            (
                {"povId": "acme", "offset": 1, "shown": True, "reason": "own"},
                "invalid_message",
                "reason",
            ),
            ({"povId": "acme", "offset": 1, "reason": "own"}, "invalid_message", "reason"),
            (
                {"povId": "acme", "offset": 1, "shown": False, "reason": "bored"},
                "invalid_message",
                "reason",
            ),
        ],
    )
    def test_what_cannot_be_acknowledged_is_refused(
        self, server: RunningServer, connect: Connect, ack: dict[str, Any], code: str, field: str
    ) -> None:
        ana = connect()
        subscribe(ana)
        publish(server, 2)
        assert offsets(ana, 2) == [1, 2]
        answer = ana.request({"type": "ack", **ack})
        assert (answer.get("code"), answer.get("field")) == (code, field)

    def test_the_longest_unused_device_makes_room_and_is_as_new_when_it_returns(
        self, server: RunningServer, connect: Connect
    ) -> None:
        publish(server, 2)
        recovered: dict[str, list[bool]] = {}
        # Three may have a cursor (see `settings_of`). The fourth takes the first one's place, and
        # the first one, which comes back, that of the second.
        for device in ("a", "b", "c", "d", "d", "a", "c"):
            client = connect("ana", device=device)
            recovered.setdefault(device, []).append(subscribe(client, since="cursor")["recovered"])
            subscribe(client, since={"last": 1})
            assert offsets(client, 1) == [2]
            assert client.request({"type": "ack", "povId": "acme", "offset": 2})["offset"] == 2
            client.socket.close()
            while server.call(lambda: len(server.web.server.directory)):
                pass
        assert recovered == {
            "a": [False, False], "b": [False], "c": [False, True], "d": [False, True]
        }  # fmt: skip

    def test_nothing_is_kept_where_nothing_is(
        self, server: RunningServer, connect: Connect
    ) -> None:
        bound = server.web.server.engine.bounds[1]
        ana = connect("ana", device="phone")
        subscribe(ana)
        before = server.call(bound.used)
        for kind in ("ack", "read"):
            answer = ana.request({"type": kind, "povId": "acme", "offset": 0})
            assert "code" not in answer
        publish(server, 2)
        assert offsets(ana, 2) == [1, 2]
        for kind in ("ack", "read"):
            ana.request({"type": kind, "povId": "acme", "offset": 0})
        assert server.call(bound.used) == before == 0
        devices = server.run(lambda: server.web.server.engine.sets.members("devices/ana"))
        assert devices == {}
        assert subscribe(ana)["readOffset"] == 0
        ana.request({"type": "ack", "povId": "acme", "offset": 1})
        ana.request({"type": "read", "povId": "acme", "offset": 2})
        assert server.call(bound.used) == 2

    def test_a_device_goes_on_while_nothing_can_be_written(
        self, server: RunningServer, connect: Connect
    ) -> None:
        engine = server.web.server.engine
        if not isinstance(engine, SqliteEngine):
            return  # only a disk can be full
        phone = connect("ana", device="phone")
        assert subscribe(phone, durable=True)["type"] == "subscribed"
        publish(server, 5)
        assert offsets(phone, 5) == span(1, 5)
        assert phone.request({"type": "ack", "povId": "acme", "offset": 3})["type"] == "acked"
        phone.socket.close()
        engine.writer.connection.execute("PRAGMA query_only = 1")
        again = connect("ana", device="phone")
        assert subscribe(again, since="cursor")["recovered"] is True
        assert offsets(again, 2) == [4, 5]
        answer = again.request({"type": "ack", "povId": "acme", "offset": 4})
        assert answer["code"] == "unavailable"
        (result,) = again.request({"type": "resume"})["results"]
        assert result["recovered"] is True
        assert offsets(again, 2) == [4, 5], "what was not resent yet cannot be acknowledged"
        engine.writer.connection.execute("PRAGMA query_only = 0")
        assert again.request({"type": "ack", "povId": "acme", "offset": 4})["type"] == "acked"


class TestShown:
    def test_what_a_device_says_last_of_a_pov_can_be_asked_for_and_all_is_counted(
        self, server: RunningServer, connect: Connect
    ) -> None:
        host = server.web.server.hooks.hosts["ack"]
        phone, laptop = (connect("ana", device=device) for device in ("phone", "laptop"))
        publish(server, 3)
        for client in (phone, laptop):
            subscribe(client, since={"last": 3})
            assert offsets(client, 3) == [1, 2, 3]
        ack = {"type": "ack", "povId": "acme"}
        for offset, fields in (
            (1, {"shown": True}),
            (3, {"shown": False, "reason": "quiet"}),
            (2, {"shown": False, "reason": "muted"}),
            (3, {}),
        ):
            assert phone.request({**ack, "offset": offset, **fields})["type"] == "acked"
        assert laptop.request({**ack, "offset": 3, "shown": True})["offset"] == 3
        found = server.call(lambda: host.shown("ana", "acme"))
        said = {device: (each.position.offset, each.reason) for device, each in found.items()}
        assert said == {"phone": (2, "muted"), "laptop": (3, None)}
        assert abs(found["phone"].at - server.web.server.clock.time()) < 60
        assert +Counter(host.counts) == {"shown": 2, "not_shown_quiet": 1, "not_shown_muted": 1}
        assert server.call(lambda: host.shown("ben", "acme")) == {}

    def test_it_is_said_of_the_inbox_too(self, server: RunningServer, connect: Connect) -> None:
        host = server.web.server.hooks.hosts["ack"]
        notify(server)
        ana = connect("ana")
        assert offsets(ana, 1, "notification") == [1]
        said = {"shown": False, "reason": "hidden"}
        ana.request({"type": "ack", "inbox": True, "offset": 1, **said})
        (found,) = server.call(lambda: host.shown("ana")).values()
        assert (found.position.offset, found.reason) == (1, "hidden")

    def test_what_is_refused_says_nothing(self, server: RunningServer, connect: Connect) -> None:
        host = server.web.server.hooks.hosts["ack"]
        ana = connect("ana")
        subscribe(ana)
        said = {"type": "ack", "povId": "acme", "offset": 1, "shown": True}
        assert ana.request(said)["code"] == "invalid_message"
        assert server.call(lambda: host.shown("ana", "acme")) == {}
        assert +Counter(host.counts) == {}

    def test_there_are_no_more_reasons_than_counters(self) -> None:
        assert len(get_args(Reason)) < MAX_COUNTERS
