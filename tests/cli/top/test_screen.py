"""The screen as lines: what is shown of an answer, in any size, and what keys do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pov_rt.cli.top.screen import (
    KEYS,
    NAMES,
    TABLES,
    Snapshot,
    View,
    cells_of,
    draw,
    fit,
    keys,
    moment,
    number,
    numbers_of,
    press,
    several,
    size,
    span,
)
from pov_rt.server.listings import Query
from pov_rt.testing import RunningServer
from tests.clients import subscribe

CONNECTION: dict[str, Any] = {
    "node": "n",
    "connectionId": "c-1",
    "userId": "priya",
    "device": "phone",
    "transport": "ws",
    "povs": ["quillon-air", "acme", "beta"],
    "remoteIp": "192.0.2.7",
    "ageS": 12_345.6,
    "receivedBytes": 1,
    "sentBytes": 2,
    "unsentBytes": 912_345,
    "lag": 1204,
    "bytesPerS": None,
    "cost": 0.37,
    "tokenExpiresAt": "2026-11-29T10:00:00Z",
}
PAGE: dict[str, Any] = {
    "node": "n",
    "nodes": ["n"],
    "missing": [],
    "total": 2,
    "more": 0,
    "connections": [CONNECTION],
}


def snapshot(**more: Any) -> Snapshot:
    return Snapshot("127.0.0.1:8766", "14:12:07", PAGE, {"connections": "2"})._replace(**more)


def test_a_screen_says_where_what_and_how() -> None:
    first, looked, titles, row, *rest, foot = draw(View(), snapshot(), 140, 10)
    assert first == "pov-rt top  127.0.0.1:8766  14:12:07  connections 2"
    assert looked == "[connections] 2 users 3 povs 4 plugins   by unsent   2 found, page 1"
    assert titles.split() == (
        ["USER", "UNSENT", "LAG", "PER", "S", "COST", "AGE", "DEVICE", "BY", "ADDRESS", "POVS"]
    )
    assert row == (
        "priya  912 KB  1,204      -  37 %  3 h  phone   ws  192.0.2.7  quillon-air, acme, 1 more"
    )
    assert rest == [""] * 5
    assert foot == KEYS


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 3), (40, 5), (80, 24), (200, 60)])
@pytest.mark.parametrize("user", ["ana", "x" * 128, "李" * 60, "e\u0301" * 60])
def test_it_has_the_size_of_the_terminal(width: int, height: int, user: str) -> None:
    page = {**PAGE, "connections": [{**CONNECTION, "userId": user}] * 100}
    lines = draw(View(search=user), snapshot(page=page), width, height)
    assert len(lines) == height
    assert all(cells_of(line) <= width for line in lines)


def test_what_others_wrote_cannot_move_the_cursor() -> None:
    page = {**PAGE, "connections": [{**CONNECTION, "device": "a\x1b[2J"}]}
    assert "a\\x1b[2J" in draw(View(), snapshot(page=page), 140, 10)[3]


def test_old_numbers_are_not_shown_as_new() -> None:
    first, *_, foot = draw(View(), snapshot(trouble="nobody listens there"), 100, 8)
    assert "These numbers are from 14:12:07" in first
    assert foot == "nobody listens there"


def test_nothing_found_and_not_answered_yet_are_told_apart() -> None:
    empty = snapshot(page={**PAGE, "connections": []})
    assert draw(View(), empty, 100, 8)[3] == "nothing"
    assert draw(View(search="eve"), empty, 100, 8)[3] == "nothing with eve"
    assert draw(View("povs", "lag"), empty, 100, 8)[3] == "no answer yet"


def typed(view: View | None, text: str, following: str | None = None) -> View | None:
    for key in keys(text):
        assert view is not None
        view = press(view, key, following)
    return view


def test_keys_choose_list_sort_and_order() -> None:
    assert typed(View(), "3") == View("povs", "lag")
    assert typed(View(), "ss") == View(sort="rate")
    assert typed(View(), "S") == View(sort="age")
    assert typed(View(), "r") == View(reverse=True)
    assert typed(View(), " ") == View(paused=True)
    assert typed(View(), "x\x1b[C") == View()
    for end in ("q", "\x03", "\x04"):
        assert typed(View(), end) is None


def test_a_filter_is_typed_and_looked_for_with_enter() -> None:
    assert typed(View(), "/qx\x7f1") == View(typed="q1")
    assert typed(View(pages=("a",)), "/ana\r") == View(search="ana")
    assert typed(View(search="ana"), "/x\x1b") == View(search="ana")
    assert typed(View(search="ana"), "\x1b") == View()
    assert typed(View(), "/\x03") is None
    assert draw(View(typed="an"), snapshot(), 100, 8)[-1].startswith("filter: an_")
    assert typed(View(), "/" + "x" * 300 + "\r") == View(search="x" * 100)


def test_pages_are_turned_as_far_as_there_are_any() -> None:
    second = typed(View(), "n", "abc")
    assert second == View(pages=("abc",))
    assert typed(second, "\x1b[6~") == second
    assert typed(second, "p") == typed(second, "\x1b[5~") == View()
    assert typed(View(), "p") == View()
    assert typed(second, "s") == View(sort="lag"), "another order begins at its first page"


def test_what_is_asked_for_is_what_is_looked_at() -> None:
    assert View().path(20) == "/api/connections?sort=unsent&limit=20"
    view = View("users", "seen", reverse=True, search="a b&c", pages=("x", "y"))
    assert view.path(5) == "/api/users?sort=-seen&limit=5&q=a+b%26c&after=y"


@pytest.mark.parametrize("name", NAMES)
def test_every_list_is_drawn_and_sorted_as_the_server_has_it(
    server: RunningServer, name: str
) -> None:
    client = server.connect("ana", device="phone")
    subscribe(client)
    lists = server.web.server.listings
    assert tuple(lists.all[name].sorts) == tuple(TABLES[name].sorts)
    assert View().sort == TABLES["connections"].sorts[0]
    view = View(name, TABLES[name].sorts[0])

    found = server.run(lambda: lists.page(name, Query())).rows
    rows = [msgspec.json.decode(row) for _, row in found]
    lines = draw(view, snapshot(page={"total": len(rows), name: rows}), 300, 50)
    first = {"povs": "acme", "plugins": "ping"}.get(name, "ana")
    assert [line.split()[0] for line in lines[3:] if line.startswith(first)] == [first]
    assert not any(column.width < len(column.title) for column in TABLES[name].columns)


def test_numbers_are_read_at_a_glance() -> None:
    assert [number(each) for each in (None, 0, 3, 3.42, 12.6, 1284)] == (
        ["-", "0", "3", "3.4", "13", "1,284"]
    )
    assert [size(each) for each in (None, 0, 812, 4200, 41_000_000, 5e12)] == (
        ["-", "0", "812 B", "4.2 KB", "41 MB", "5000 GB"]
    )
    assert [span(each) for each in (None, 41.4, 720, 3 * 3600, 9 * 86400)] == (
        ["-", "41 s", "12 min", "3 h", "9 d"]
    )
    assert [several(each) for each in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == (
        ["-", "a", "a, b", "a, b, 1 more"]
    )
    assert moment("2026-11-29T10:00:01.123Z") == "11-29 10:00:01"
    assert (fit("abcdef", 4), fit("李李", 3), fit("ab", 4, padded=True)) == ("abc…", "李…", "ab  ")


def test_the_numbers_are_those_of_all_nodes() -> None:
    one: dict[str, Any] = {
        "node": "a", "since": "1", "connections": 3, "published": 15, "delivered": 40,
        "unsentBytes": 2048, "lagS": 0.0021,
    }  # fmt: skip
    two = {**one, "node": "b", "connections": 1, "unsentBytes": 0, "lagS": 0.03}
    first = numbers_of([one, two], [], 0.0)
    assert list(first.values()) == ["4", "-", "-", "2.0 KB", "30 ms"]
    before = [{**one, "published": 5, "delivered": 0}, {**two, "since": "0", "published": 1}]
    then = numbers_of([one, two], before, 2.0)
    assert (then["in/s"], then["out/s"]) == ("5", "20"), "of a node that is new there is no rate"


def test_rows_of_several_nodes_say_whose_they_are() -> None:
    both = {**PAGE, "nodes": ["n", "m"], "connections": [{**CONNECTION, "node": "m"}]}
    _, _, titles, row, *_ = draw(View(), snapshot(page=both), 140, 10)
    assert (titles.split()[:2], row.split()[:2]) == (["USER", "NODE"], ["priya", "m"])
    late = {"node": "m", "host": "web-2", "version": "0.1.0", "why": "did not answer within 1 s"}
    alone = {**PAGE, "connections": [{**CONNECTION, "node": "n"}], "missing": [late]}
    lines = draw(View(), snapshot(page=alone), 140, 10)
    assert lines[-1] == "without the node m on web-2, which did not answer within 1 s"
    assert "NODE" in lines[2]
    assert "node=m" in View(node="m").path(1)
