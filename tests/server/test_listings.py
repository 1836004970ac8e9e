"""Lists of what is on a node: what is worst comes first, and pages have each row once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from pov_rt.protocol.bodies import ConnectionRow, PluginRow, PovRow, UserRow
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.listings import Cursor, Page, Query, Rates
from pov_rt.testing import Connect, RunningServer, make_settings
from tests.clients import publish, subscribe

KINDS = {"connections": ConnectionRow, "users": UserRow, "povs": PovRow, "plugins": PluginRow}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def still(clock: ManualClock) -> Iterator[RunningServer]:
    """Run a server whose time stands still."""
    with RunningServer(make_settings(), None, clock) as running:
        yield running


def page(server: RunningServer, name: str, **query: Any) -> Page:
    listings = server.web.server.listings
    return server.run(lambda: listings.page(name, Query(**query)))


def shown(server: RunningServer, name: str, **query: Any) -> Sequence[Any]:
    found = page(server, name, **query).rows
    return [msgspec.json.decode(row, type=KINDS[name]) for _, row in found]


def rows(server: RunningServer, name: str, field: str, **query: Any) -> Sequence[Any]:
    return [getattr(each, field) for each in shown(server, name, **query)]


def users(server: RunningServer, **query: Any) -> Sequence[Any]:
    return rows(server, "connections", "user_id", **query)


def test_pages_have_each_row_once_in_every_order(server: RunningServer, connect: Connect) -> None:
    everybody = [f"u{n}" for n in range(7)]
    for user in everybody:
        connect(user)
    for sort in ("unsent", "lag", "rate", "cost", "age"):
        for reverse in (False, True):
            order = {"sort": sort, "reverse": reverse}
            whole = users(server, **order)
            assert sorted(whole) == everybody
            found, left = list[str](), 7
            after: Cursor | None = None
            while True:
                part = page(server, "connections", limit=3, after=after, **order)
                found += users(server, limit=3, after=after, **order)
                left -= len(part.rows)
                assert (part.total, part.more) == (7, left)
                after, _ = part.rows[-1]
                if not part.more:
                    break
            assert found == whole


def test_the_oldest_and_the_newest_come_first_as_asked(
    server: RunningServer, connect: Connect
) -> None:
    for user in ("ana", "ben", "cy"):
        connect(user)
    assert users(server, sort="age") == ["ana", "ben", "cy"]
    assert users(server, sort="age", reverse=True) == ["cy", "ben", "ana"]


def test_rows_are_found_by_what_they_have_and_by_a_part_of_it(
    server: RunningServer, connect: Connect
) -> None:
    subscribe(connect("ana", device="phone"), "acme")
    subscribe(connect("ben"), "beta")
    for query, found in (
        ({"filters": {"userId": "ana"}}, ["ana"]),
        ({"filters": {"povId": "beta"}}, ["ben"]),
        ({"filters": {"device": "phone", "povId": "beta"}}, []),
        ({"filters": {"transport": "ws"}}, ["ana", "ben"]),
        ({"search": "PHO"}, ["ana"]),
        ({"search": "127.0.0"}, ["ana", "ben"]),
        ({"search": "bet"}, ["ben"]),
    ):
        assert users(server, **query) == found, query


@pytest.mark.parametrize(
    ("query", "field"),
    [({"sort": "x"}, "sort"), ({"filters": {"plan": "x"}}, "plan"), ({"sort": "seen"}, "sort")],
)
def test_what_a_list_does_not_have_is_refused_by_its_name(
    server: RunningServer, query: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        page(server, "connections", **query)
    assert refused.value.field == field


def test_who_costs_most_comes_first(still: RunningServer) -> None:
    for user, messages in (("ana", 1), ("ben", 20), ("cy", 5)):
        client = still.connect(user)
        for _ in range(messages):
            subscribe(client)
    assert users(still, sort="cost") == ["ben", "cy", "ana"]
    assert rows(still, "users", "user_id", sort="cost") == ["ben", "cy", "ana"]
    ben, cy, ana = rows(still, "connections", "cost", sort="cost")
    assert 1 > ben > cy > ana > 0


def test_rates_are_those_since_somebody_looked_last(
    still: RunningServer, clock: ManualClock
) -> None:
    ana, ben = still.connect("ana"), still.connect("ben")
    subscribe(ana, "acme")
    subscribe(ben, "beta")
    assert rows(still, "povs", "activities_per_s") == [None, None]
    publish(still, 6, "beta")
    for _ in range(6):
        assert ben.receive()["type"] == "activity"
    assert ana.request({"type": "ping"})["type"] == "pong"
    clock.advance(2.0)
    beta, acme = shown(still, "povs", sort="rate")
    assert (beta.pov_id, beta.activities_per_s, beta.deliveries_per_s) == ("beta", 3.0, 3.0)
    assert (acme.pov_id, acme.activities_per_s) == ("acme", 0.0)
    assert users(still, sort="rate") == ["ana", "ben"]  # the first look at connections
    ben.request({"type": "ping"})
    clock.advance(2.0)
    assert users(still, sort="rate") == ["ben", "ana"]
    assert all(each > 0 for each in rows(still, "connections", "bytes_per_s", limit=1, sort="rate"))


def test_a_rate_is_of_two_looks_that_are_a_second_apart_and_no_minute() -> None:
    clock = ManualClock()
    rates = Rates(clock)
    rates.look({"a": 1})
    assert rates.get("a") is None
    clock.advance(0.5)
    rates.look({"a": 100})
    assert (rates.get("a"), rates.is_due) == (None, False)
    clock.advance(1.5)
    rates.look({"a": 5, "b": 1})
    assert (rates.get("a"), rates.get("b")) == (2.0, None)
    clock.advance(61.0)
    rates.look({"a": 7, "b": 3})
    assert (rates.get("a"), rates.get("b")) == (None, None)


def test_a_user_is_here_was_here_or_is_blocked(server: RunningServer) -> None:
    ana, ben = server.connect("ana"), server.connect("ben", device="phone")
    ben.socket.close()
    people = server.web.server.people
    server.run(lambda: people.block("cy", 60.0))
    while server.call(lambda: len(server.web.server.directory)) > 1:
        ana.request({"type": "ping"})
    found = {each.user_id: each for each in shown(server, "users")}
    assert [found[name].connections for name in ("ana", "ben", "cy")] == [1, 0, 0]
    assert [found[name].last_seen is None for name in ("ana", "ben", "cy")] == [False, False, True]
    assert [found[name].blocked_until is None for name in ("ana", "ben", "cy")] == [
        True,
        True,
        False,
    ]
    for state, names in (("online", ["ana"]), ("offline", ["ben", "cy"]), ("blocked", ["cy"])):
        assert rows(server, "users", "user_id", filters={"state": state}) == names
    assert rows(server, "users", "user_id", sort="seen") == ["ana", "ben", "cy"]


def test_plugins_are_listed_with_what_they_handled(server: RunningServer, connect: Connect) -> None:
    for _ in range(3):
        connect("ana").request({"type": "ping"})
    (ping,) = shown(server, "plugins", filters={"type": "ping"})
    assert (ping.name, ping.origin, ping.messages, ping.off) == ("ping", "built-in", 3, None)
    assert rows(server, "plugins", "name", sort="messages")[0] == "ping"
    assert "webhooks" in rows(server, "plugins", "name", filters={"state": "off"})
