"""New, seen and read are the same on all devices of a user, whoever moved what, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.testing import Client, Connect, RunningServer, make_settings
from tests.clients import ENGINES, notify, offsets, publish, subscribe

MARKS = ("readOffset", "seenOffset", "unreadFrom", "unread", "unseen")
ENTRIES = 8


def settings_of(engine: str, folder: Path) -> Settings:
    url = "memory://" if engine == "memory" else f"sqlite://{folder}/log.db"
    limits = LimitSettings(message_rate="100000/s", cost_rate="1000000/s")
    return make_settings(engine=EngineSettings(url=url), limits=limits)


@pytest.fixture(params=ENGINES, name="settings")
def given_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


def ask(client: Client, kind: str, offset: Any, **fields: Any) -> dict[str, Any]:
    return client.request({"type": kind, "povId": "acme", "offset": offset, **fields})


def marks(message: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(message.get(name) for name in MARKS)


def told(client: Client) -> list[dict[str, Any]]:
    """Return what a client was sent by now."""
    client.request({"type": "ping"})
    found, client.early = client.early, []
    return found


def marks_told(client: Client) -> list[tuple[Any, ...]]:
    """Return the marks that a client was told by now; who has read what comes with the next tick,
    whenever that is.
    """
    return [marks(each) for each in told(client) if each["type"] == "marks"]


def arrive(connect: Connect, number: int, *users: str) -> list[Client]:
    """Return clients, each on a device of its own, that were sent what is published."""
    clients = [connect(user, device=f"d{place}") for place, user in enumerate(users)]
    for client in clients:
        subscribe(client, since={"last": number})
        assert offsets(client, number) == [*range(1, number + 1)]
    return clients


def test_what_was_seen_is_known_on_all_devices_and_to_nobody_else(
    server: RunningServer, connect: Connect
) -> None:
    publish(server, 5)
    phone, ben = arrive(connect, 5, "ana", "ben")
    laptop, plain = connect("ana", device="laptop"), connect("ana", v1=False)
    subscribe(plain)
    answer = ask(phone, "seen", 3)
    assert (answer["type"], answer["povId"], marks(answer)) == ("marks", "acme", (0, 3, None, 5, 2))
    del answer["id"]
    assert told(phone) == told(laptop) == [answer]
    assert marks(ask(phone, "seen", 2)) == (0, 3, None, 5, 2), "it does not go back"
    assert marks(ask(phone, "seen", 0)) == (0, 3, None, 5, 2)
    assert told(laptop) == told(ben) == told(plain) == [], "nothing moved"
    found = subscribe(laptop)
    assert (found["epoch"], marks(found)) == (answer["epoch"], (0, 3, None, 5, 2))
    several = laptop.request({"type": "subscribe", "povIds": ["acme", "*", "new"]})["results"]
    assert [marks(each) for each in several] == [marks(found), (None,) * 5, (0, 0, None, 0, 0)]
    assert marks(subscribe(ben)) == (0, 0, None, 5, 5)
    assert marks(subscribe(plain)) == (None,) * 5


def test_what_was_read_was_seen_and_needs_no_mark_of_its_own(
    server: RunningServer, connect: Connect
) -> None:
    publish(server, 5)
    (ana,) = arrive(connect, 5, "ana")
    ask(ana, "read", 4)
    bound = server.web.server.engine.bounds[1]
    before = server.call(bound.used)
    assert marks(ask(ana, "seen", 4)) == (4, 4, None, 1, 1)
    assert server.call(bound.used) == before
    assert marks(ask(ana, "seen", 5)) == (4, 5, None, 1, 0)
    assert marks(subscribe(ana)) == (4, 5, None, 1, 0)


def test_what_is_marked_unread_is_so_on_all_devices_and_no_mark_goes_back(
    server: RunningServer, connect: Connect
) -> None:
    publish(server, 10)
    phone, laptop, ben = arrive(connect, 10, "ana", "ana", "ben")
    ask(phone, "read", 8)
    while told(ben) == []:  # the receipt comes within a tick
        pass
    told(laptop)
    assert marks(ask(phone, "unread", 4)) == (8, 8, 4, 7, 2)
    (pushed,) = told(laptop)
    assert (pushed["type"], marks(pushed)) == ("marks", (8, 8, 4, 7, 2))
    assert marks(subscribe(laptop)) == (8, 8, 4, 7, 2)
    assert marks(ask(laptop, "unread", 6)) == (8, 8, 6, 5, 2), "the last one counts"
    assert marks(ask(phone, "unread", 2)) == (8, 8, 2, 9, 2)
    assert told(ben) == [], "nobody else is told"
    assert ask(ben, "read", 1)["read"] == {"ben": 1}
    told(laptop)
    assert ask(phone, "read", 5)["read"] == {"ana": 8}
    assert marks_told(laptop) == [(8, 8, 6, 5, 2)]
    ask(phone, "read", 4)
    assert marks_told(laptop) == [], "what was read below the floor lifts it no more"
    ask(phone, "read", 9)
    assert marks_told(laptop) == [(9, 9, None, 1, 1)]
    assert marks(subscribe(laptop)) == (9, 9, None, 1, 1)


def test_behind_what_was_read_there_is_no_floor(server: RunningServer, connect: Connect) -> None:
    publish(server, 5)
    phone, laptop = arrive(connect, 5, "ana", "ana")
    assert marks(ask(phone, "unread", 2)) == (0, 0, None, 5, 5), "nothing was read"
    ask(phone, "read", 3)
    told(laptop)
    for offset in (4, 5):
        assert marks(ask(phone, "unread", offset)) == (3, 3, None, 2, 2)
    assert marks_told(laptop) == []
    assert marks(ask(phone, "unread", 0)) == (3, 3, 1, 5, 2), "0 is before the first"
    assert marks(ask(phone, "unread", 4)) == (3, 3, None, 2, 2)
    assert marks_told(laptop) == [(3, 3, 1, 5, 2), (3, 3, None, 2, 2)]


@pytest.mark.parametrize("kind", ["seen", "unread"])
@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"offset": 3}, "invalid_message", "offset"),
        ({"offset": -1}, "invalid_message", "offset"),
        ({"offset": 1, "epoch": "other"}, "epoch_changed", "epoch"),
        ({"offset": 1, "povId": "other"}, "forbidden", "povId"),
    ],
)
def test_what_was_not_sent_can_be_neither_seen_nor_unread(
    server: RunningServer,
    connect: Connect,
    kind: str,
    fields: dict[str, Any],
    code: str,
    field: str,
) -> None:
    publish(server, 2)
    (ana,) = arrive(connect, 2, "ana")
    answer = ask(ana, kind, **fields)
    assert (answer["code"], answer["field"]) == (code, field)
    assert ask(ana, "seen", 1, inbox=True)["field"] == "povId"


def test_the_inbox_has_what_was_seen_too(server: RunningServer, connect: Connect) -> None:
    for _ in range(3):
        notify(server)
    phone, laptop = connect("ana", device="phone"), connect("ana", device="laptop")
    for client in (phone, laptop):
        assert offsets(client, 3, "notification") == [1, 2, 3]
    seen = {"type": "seen", "inbox": True}
    answer = phone.request({**seen, "offset": 2})
    assert (answer["inbox"], "povId" in answer, marks(answer)) == (True, False, (0, 2, None, 3, 1))
    (pushed,) = told(laptop)
    assert (pushed["type"], pushed["inbox"], marks(pushed)) == ("marks", True, marks(answer))
    laptop.request({"type": "read", "inbox": True, "offset": 3})
    assert marks(phone.request({**seen, "offset": 0})) == (3, 3, None, 0, 0)
    refused = phone.request({**seen, "offset": 4})
    assert (refused["code"], refused["field"]) == ("invalid_message", "offset")


def test_a_connection_whose_token_does_not_cover_the_pov_is_not_told(
    server: RunningServer, connect: Connect
) -> None:
    publish(server, 3)
    (ana,) = arrive(connect, 3, "ana")
    narrow, lost = connect("ana", povs=["other"]), connect("ana")
    lost.request({"type": "refresh", "token": server.token("ana", povs=["other"])})
    told(ana)
    for kind, offset in (("seen", 2), ("read", 3), ("unread", 1), ("read", 1)):
        ask(ana, kind, offset)
    kinds = [each["type"] for each in told(ana)]
    assert (kinds[:2], kinds.count("marks")) == (["marks", "receipts"], 3)
    assert told(narrow) == told(lost) == []


def test_all_of_it_outlasts_a_restart(tmp_path: Path) -> None:
    with RunningServer(settings_of("sqlite", tmp_path), None) as server:
        publish(server, 9)
        (ana,) = arrive(server.connect, 9, "ana")
        for kind, offset in (("read", 5), ("seen", 7), ("unread", 4), ("unread", 2)):
            answer = ask(ana, kind, offset)
    with RunningServer(settings_of("sqlite", tmp_path), None) as server:
        (again,) = arrive(server.connect, 9, "ana")
        assert marks(subscribe(again)) == marks(answer) == (5, 7, 2, 8, 2)
        ask(again, "read", 5)
        assert marks(subscribe(again)) == (5, 7, None, 4, 2)


# What a client makes of what it is told:


class Known(NamedTuple):
    """What a client knows of the user's marks."""

    read: int = 0
    seen: int = 0
    floor: int | None = None

    def hear(self, message: dict[str, Any], user: str) -> Known:
        """Return what it knows after a message."""
        if message["type"] == "receipts":
            read = max(self.read, message["read"].get(user, 0))
            return self._replace(read=read, seen=max(self.seen, read))
        if message["type"] == "marks":
            known = Known(message["readOffset"], message["seenOffset"], message.get("unreadFrom"))
            assert known.seen >= known.read >= self.read, "a mark went back"
            assert known.seen >= self.seen, "a mark went back"
            assert marks(message)[3:] == known.counts()
            return known
        return self

    def counts(self) -> tuple[int, int]:
        """Return how many are unread, and how many unseen."""
        read = self.read if self.floor is None else min(self.read, self.floor - 1)
        return ENTRIES - read, ENTRIES - self.seen


class Step(NamedTuple):
    """What a device says."""

    device: int
    kind: str
    offset: int


steps = st.lists(
    st.builds(
        Step,
        st.integers(0, 2),
        st.sampled_from(("read", "seen", "unread")),
        st.integers(0, ENTRIES),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module", params=ENGINES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("seen")
    with RunningServer(settings_of(request.param, folder), None) as running:
        publish(running, ENTRIES)
        yield running


numbers = count()


@given(steps, st.booleans())
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_the_devices_say_all_come_to_what_a_new_subscription_says(
    shared: RunningServer, said: Sequence[Step], at_once: bool
) -> None:
    user = f"u{next(numbers)}"
    devices = arrive(shared.connect, ENTRIES, user, user, user)
    known = [Known()] * 3
    expected = Known()

    def hear(device: int, wanted: int) -> None:
        """Take what comes, up to so many answers."""
        while wanted:
            message = devices[device].receive()
            assert message["type"] in ("receipts", "marks", "pong"), message
            known[device] = known[device].hear(message, user)
            wanted -= "id" in message

    for number, step in enumerate(said):
        devices[step.device].send(
            {"type": step.kind, "povId": "acme", "offset": step.offset, "id": number}
        )
        if not at_once:
            hear(step.device, 1)
            expected = apply(expected, step)
            assert known[step.device] == expected
    for device in range(3):
        hear(device, at_once * sum(step.device == device for step in said))
    for device, client in enumerate(devices):  # whatever was told was told before the answers
        client.send({"type": "ping", "id": "end"})
        hear(device, 1)
    fresh = subscribe(shared.connect(user))
    found = Known(fresh["readOffset"], fresh["seenOffset"], fresh.get("unreadFrom"))
    assert known == [found] * 3
    assert marks(fresh)[3:] == found.counts()
    read = max((step.offset for step in said if step.kind == "read"), default=0)
    assert found.read == read
    assert found.seen == max([read, *(step.offset for step in said if step.kind == "seen")])
    assert at_once or found == expected


def apply(known: Known, step: Step) -> Known:
    """Return what the marks are after a step, as docs/protocol.md has it."""
    read, seen, floor = known
    if step.kind == "seen":
        return Known(read, max(seen, step.offset), floor)
    if step.kind == "unread":
        at = max(1, step.offset)
        return Known(read, seen, at if at <= read else None)
    read = max(read, step.offset)
    if floor is not None and floor <= step.offset:
        floor = step.offset + 1 if step.offset < read else None
    return Known(read, max(seen, read), floor)
