"""What `pov-rt top` shows: from an answer of the server, and from keys, to the lines of a screen.

Nothing here knows a terminal, a clock or a server.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pov_rt.protocol.characters import escape

MAX_SEARCH_CHARS = 100
KEYS = "q quit  1-4 list  s sort  r reverse  / filter  n p page  space pause"

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column: its title, how its text is made, how wide it is at most; numbers to the right."""

    title: str
    text: Callable[[Row], str]
    width: int
    is_number: bool = True


class Table(NamedTuple):
    """How a list is shown. What does not fit the screen is left out from the end."""

    sorts: Sequence[str]
    columns: Sequence[Column]


def number(value: float | None) -> str:
    """Return a number that people read at a glance: `12`, `3.4`, `1,284`, `-` for none."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Return bytes as people read them: `0`, `812 B`, `4.2 MB`."""
    if value is None:
        return "-"
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    if not value:
        return "0"
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"


def span(seconds: float | None) -> str:
    """Return a time as people read it: `41 s`, `12 min`, `3 h`, `9 d`."""
    if seconds is None:
        return "-"
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 48.0)):
        if seconds < length:
            return f"{seconds:.0f} {unit}"
        seconds /= 60 if unit != "h" else 24
    return f"{seconds:.0f} d"


def percent(part: float) -> str:
    """Return a part of something: `37 %`."""
    return f"{100 * part:.0f} %"


def several(texts: Sequence[str]) -> str:
    """Return a list in a few words: `a, b, 7 more`."""
    return ", ".join([*texts[:2], *([f"{len(texts) - 2} more"] if len(texts) > 2 else [])]) or "-"


def moment(text: str | None) -> str:
    """Return an instant of RFC 3339 without its date's century and its fraction; `-` for none."""
    return "-" if text is None else re.sub(r"\.\d+", "", text.replace("T", " "))[5:].rstrip("Z")


NODE = Column("NODE", lambda row: row["node"], 14, is_number=False)
UNSENT = Column("UNSENT", lambda row: size(row["unsentBytes"]), 8)
LAG = Column("LAG", lambda row: number(row["lag"]), 7)
BYTES = Column("PER S", lambda row: size(row["bytesPerS"]), 8)
COST = Column("COST", lambda row: percent(row["cost"]), 6)

TABLES: Mapping[str, Table] = {
    "connections": Table(
        ("unsent", "lag", "rate", "cost", "age"),
        (
            Column("USER", lambda row: row["userId"], 20, is_number=False),
            UNSENT,
            LAG,
            BYTES,
            COST,
            Column("AGE", lambda row: span(row["ageS"]), 7),
            Column("DEVICE", lambda row: row["device"], 10, is_number=False),
            Column("BY", lambda row: row["transport"], 4, is_number=False),
            Column("ADDRESS", lambda row: row["remoteIp"], 15, is_number=False),
            Column("POVS", lambda row: several(row["povs"]), 30, is_number=False),
        ),
    ),
    "users": Table(
        ("unsent", "lag", "rate", "cost", "connections", "seen"),
        (
            Column("USER", lambda row: row["userId"], 20, is_number=False),
            UNSENT,
            LAG,
            BYTES,
            COST,
            Column("SOCKETS", lambda row: number(row["connections"]), 7),
            Column("SEEN (UTC)", lambda row: moment(row["lastSeen"]), 14, is_number=False),
            Column("BLOCKED UNTIL", lambda row: moment(row["blockedUntil"]), 14, is_number=False),
            Column("DEVICES", lambda row: several(row["devices"]), 30, is_number=False),
        ),
    ),
    "povs": Table(
        ("lag", "unsent", "rate", "cost", "subscribers"),
        (
            Column("POV", lambda row: row["povId"], 24, is_number=False),
            LAG,
            Column("BEHIND", lambda row: number(row["behind"]), 7),
            UNSENT,
            Column("PER S", lambda row: number(row["activitiesPerS"]), 8),
            Column("SENDS/S", lambda row: number(row["deliveriesPerS"]), 8),
            Column("FOLLOWERS", lambda row: number(row["subscribers"]), 9),
            Column("OFFSET", lambda row: number(row["offset"]), 12),
        ),
    ),
    "plugins": Table(
        ("failures", "rate", "messages"),
        (
            Column("PLUGIN", lambda row: row["name"], 16, is_number=False),
            Column("FAILURES", lambda row: number(row["failures"]), 8),
            Column("PER S", lambda row: number(row["messagesPerS"]), 8),
            Column("MESSAGES", lambda row: number(row["messages"]), 12),
            Column("FROM", lambda row: row["origin"], 16, is_number=False),
            Column("STATE", lambda row: f"off: {row['off']}" if row["off"] else "on", 40, False),
        ),
    ),
}
"""By the names of the lists; the first sort of each is its usual one."""
NAMES = tuple(TABLES)
KEYS_OF_LISTS = tuple(str(place) for place, _ in enumerate(NAMES, 1))


@dataclass(frozen=True)
class View:
    """What somebody looks at: which list, in which order, from which page on; "": of all nodes.

    `typed` is a filter in the making; `pages` are the places where the turned pages began.
    """

    name: str = "connections"
    sort: str = "unsent"
    reverse: bool = False
    search: str = ""
    node: str = ""
    typed: str | None = None
    paused: bool = False
    pages: tuple[str, ...] = ()

    def path(self, limit: int) -> str:
        """Return what to ask the server for."""
        query = {"sort": f"{'-' * self.reverse}{self.sort}", "limit": str(limit)}
        if self.search:
            query["q"] = self.search
        if self.node:
            query["node"] = self.node
        if self.pages:
            query["after"] = self.pages[-1]
        return f"/api/{self.name}?{urlencode(query)}"


class Snapshot(NamedTuple):
    """What the server said last: a page, and the numbers of its nodes.

    `at` is the time of day, `trouble` why there is nothing newer.
    """

    server: str
    at: str
    page: Mapping[str, Any]
    numbers: Mapping[str, str]
    trouble: str = ""


def press(view: View, key: str, following: str | None) -> View | None:
    """Return what is looked at after a key; None: nothing more.

    `following` is where the next page begins, None if there is none.
    """
    if view.typed is not None:
        return _type(view, view.typed, key)
    table = TABLES[view.name]
    if key in ("q", "ctrl-c", "ctrl-d"):
        return None
    if key in KEYS_OF_LISTS:
        name = NAMES[int(key) - 1]
        sort = TABLES[name].sorts[0]
        return View(name, sort, search=view.search, node=view.node, paused=view.paused)
    if key in ("s", "S"):
        step = 1 if key == "s" else -1
        sort = table.sorts[(table.sorts.index(view.sort) + step) % len(table.sorts)]
        return replace(view, sort=sort, pages=())
    if key == "r":
        return replace(view, reverse=not view.reverse, pages=())
    if key == "/":
        return replace(view, typed=view.search)
    if key == "escape":
        return replace(view, search="", pages=())
    if key == " ":
        return replace(view, paused=not view.paused)
    if key in ("n", "page-down") and following is not None:
        return replace(view, pages=(*view.pages, following))
    if key in ("p", "page-up"):
        return replace(view, pages=view.pages[:-1])
    return view


def _type(view: View, typed: str, key: str) -> View | None:
    if key == "ctrl-c":
        return None
    if key == "enter":
        return replace(view, search=typed, typed=None, pages=())
    if key == "escape":
        return replace(view, typed=None)
    if key == "backspace":
        return replace(view, typed=typed[:-1])
    if len(key) == 1 and key.isprintable():
        return replace(view, typed=(typed + key)[:MAX_SEARCH_CHARS])
    return view


_SEQUENCES = {
    "\x1b[5~": "page-up",
    "\x1b[6~": "page-down",
    "\x1b[A": "page-up",
    "\x1b[B": "page-down",
}
_CONTROLS = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "ctrl-c",
    "\x04": "ctrl-d",
    "\x1b": "escape",
}
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO.|.", re.DOTALL)


def keys(text: str) -> Iterator[str]:
    """Yield the names of the keys that a terminal sent."""
    for part in _KEY.findall(text):
        yield _SEQUENCES.get(part) or _CONTROLS.get(part, part)


def draw(view: View, snapshot: Snapshot, width: int, height: int) -> list[str]:
    """Return the lines of a screen, as many as it has, none wider than it is.

    The first says which node was asked, with the numbers of all; the second what is looked at; a
    table, and last the keys, or what is missing.
    """
    page, table = snapshot.page, TABLES[view.name]
    missing = gaps(page)
    first, *others = table.columns
    columns = [first, NODE, *others] if missing or len(page.get("nodes", ())) > 1 else table.columns
    when = f"These numbers are from {snapshot.at}" if snapshot.trouble else snapshot.at
    numbers = "  ".join(f"{name} {text}" for name, text in snapshot.numbers.items())
    names = " ".join(
        f"[{name}]" if name == view.name else f"{place} {name}"
        for place, name in enumerate(NAMES, 1)
    )
    order = f"{view.sort}{' reversed' if view.reverse else ''}"
    found = f"{page.get('total', 0):,} found, page {len(view.pages) + 1}"
    looked = f"{names}   by {order}   {found}"
    if view.search:
        looked += f"   with {view.search}"
    if view.paused:
        looked += "   paused"
    rows: Sequence[Row] = page.get(view.name, [])
    room = max(0, height - 4)
    lines = [
        fit(f"pov-rt top  {snapshot.server}  {when}  {numbers}", width),
        fit(looked, width),
        *layout(columns, rows[:room], width),
    ]
    if view.name not in page:
        lines.append("no answer yet")
    elif not rows:
        lines.append(fit("nothing" if not view.search else f"nothing with {view.search}", width))
    lines = lines[: height - 1]
    lines += [""] * (height - 1 - len(lines))
    if view.typed is not None:
        foot = f"filter: {view.typed}_   enter to look for it, escape to leave it"
    else:
        foot = snapshot.trouble or "   ".join(missing) or KEYS
    return [*lines, fit(foot, width)]


def gaps(page: Mapping[str, Any]) -> Sequence[str]:
    """Return of which nodes a page has nothing, in words."""
    return [
        escape(f"without the node {each['node']} on {each['host']}, which {each['why']}")
        for each in page.get("missing", ())
    ]


def layout(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """Return a table's lines, its titles first: each column as wide as it needs."""
    cells = [[escape(column.text(row)) for column in columns] for row in rows]
    widths = [
        min(
            column.width,
            max([len(column.title), *(cells_of(line[place]) for line in cells)]),
        )
        for place, column in enumerate(columns)
    ]
    titles = [column.title for column in columns]
    lines = []
    for line in [titles, *cells]:
        parts = [
            fit(text, wide, to_the_right=column.is_number, padded=True)
            for text, wide, column in zip(line, widths, columns, strict=True)
        ]
        lines.append(fit("  ".join(parts).rstrip(), width))
    return lines


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(map(_cells, text))


def fit(text: str, width: int, *, to_the_right: bool = False, padded: bool = False) -> str:
    """Return a text that takes no more cells than there are, with `…` where it is cut."""
    if cells_of(text) > width:
        kept, left = "", width - 1
        for character in text:
            left -= _cells(character)
            if left < 0:
                break
            kept += character
        text = f"{kept}…" if width > 0 else ""
    if not padded:
        return text
    space = " " * (width - cells_of(text))
    return space + text if to_the_right else text + space


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def numbers_of(now: Sequence[Row], before: Sequence[Row], seconds: float) -> dict[str, str]:
    """Return the numbers of nodes in the order in which they are shown.

    All are sums, and the lag is the longest. Rates are of those nodes that were there `before`.
    """
    known = {(each["node"], each["since"]): each for each in before}
    pairs = [
        (each, known[name]) for each in now if (name := (each["node"], each["since"])) in known
    ]

    def rate(field: str) -> float | None:
        if not pairs or seconds <= 0:
            return None
        rises = [float(each[field] - was[field]) for each, was in pairs]
        return sum(rises) / seconds

    return {
        "connections": number(sum(each["connections"] for each in now)),
        "in/s": number(rate("published")),
        "out/s": number(rate("delivered")),
        "unsent": size(sum(each["unsentBytes"] for each in now)),
        "lag": f"{1000 * max((each['lagS'] for each in now), default=0.0):.0f} ms",
    }
