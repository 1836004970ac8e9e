"""`pov-rt explain`: why a user did not get an activity, and its way to each of their devices."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click
import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.cli.client import TOKEN, URL
from pov_rt.cli.options import SettingsOptions, say, settings_options
from pov_rt.cli.people import TEAM, Place
from pov_rt.protocol.bodies import DeviceLane, Explained, ExplainedActivity, Station
from pov_rt.protocol.characters import escape_lines

if TYPE_CHECKING:
    from pov_rt.cli.remote import Operator

STATIONS = ("published", "log", "node", "queue", "socket", "acknowledged", "shown")
PASSED, STOPPED, UNKNOWN, AHEAD = "●", "✗", "·", "○"
PLAIN = str.maketrans({PASSED: "+", STOPPED: "x", AHEAD: ".", "─": "-", "┄": " ", "·": "."})
SHOWN_EVENTS = 8
"""Of the user's last ones, below the line."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d\.\d{3})")


@click.command()
@settings_options
@click.argument("activity", required=False)
@click.option("--user", "user_id", help="Who did not get it.")
@click.option("--pov", "pov_id", help="On which PoV, if several have such an activity.")
@click.option("--device", help="On which of the user's devices.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option("--trace", is_flag=True, help="Follow what happens to the user, or on the PoV.")
@URL
@TOKEN
@TEAM
def explain(
    options: SettingsOptions,
    activity: str | None,
    user_id: str | None,
    pov_id: str | None,
    device: str | None,
    as_json: bool,
    trace: bool,
    url: str | None,
    bearer: str | None,
    team: str | None,
) -> None:
    """Say why a user did not get an activity, and what comes next.

    Below that is its way to each of the user's devices. Exit 0 if a device has it, else 1.
    """
    if trace:
        if activity or (user_id is None) == (pov_id is None):
            raise click.UsageError("with --trace, say whose events: --user ID or --pov ID")
        follow(Place(options, user_id or pov_id or "", url, bearer, team), is_pov=bool(pov_id))
        return
    if activity is None or user_id is None:
        raise click.UsageError("say what and of whom: pov-rt explain ACTIVITY --user ID")
    place = Place(options, user_id, url, bearer, team)
    asked = {"userId": user_id, "povId": pov_id, "device": device}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    path = f"/api/activities/{quote(activity, safe='')}/explain?{query}"
    pieces = list[bytes]()

    async def ask(server: Operator) -> bytes:
        await server.read(path, pieces.append)
        return b"".join(pieces)

    body = place.ask(ask)
    found = msgspec.json.decode(body, type=Explained)
    if as_json:
        say(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    else:
        for line in picture(found):
            say(line)
    if not found.delivered:
        raise SystemExit(1)


def follow(place: Place, *, is_pov: bool) -> None:
    """Print what happens, until Ctrl-C."""
    query = urlencode({"povId" if is_pov else "userId": place.wire_id, "follow": "true"})
    rest = b""

    def take(piece: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                say(event_line(json.loads(line), known="" if is_pov else "userId"))
        sys.stdout.flush()

    async def read(server: Operator) -> None:
        await server.read(f"/api/trace?{query}", take)

    place.ask(read)


def picture(found: Explained) -> Sequence[str]:
    """Return the answer as lines for a terminal: the answer first, then the line."""
    lines = [f"{escape_lines(found.answer)}  [{found.cause}]"]
    if found.since is not UNSET:
        lines.append(f"  since  {clock(found.since)}")
    lines.append(f"  next   {escape_lines(found.next)}")
    if found.activity is not UNSET:
        lines += ["", *_about(found.activity)]
    if found.lanes:
        lines += ["", *_lanes(found.lanes, found.node)]
    if found.events and found.lanes:
        shown = found.events[-SHOWN_EVENTS:]
        lines += ["", f"last of {escape_lines(found.user_id)}:"]
        lines += [f"  {event_line(event, known='userId')}" for event in shown]
    for each in found.missing:
        gap = f"without the node {each.node} on {each.host}, which {each.why}"
        lines.append(f"{escape_lines(gap)}: what it knows may change the answer")
    if found.trace_since is UNSET:
        lines.append("nothing of what happened is kept: see [trace] in the settings")
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    is_plain = not unicode or os.environ.get("TERM") == "dumb"
    return [line.translate(PLAIN) if is_plain else line for line in lines]


def _about(activity: ExplainedActivity) -> list[str]:
    where = f"PoV {activity.pov_id}" if activity.pov_id is not UNSET else "an inbox"
    what = " ".join(each for each in (activity.type, activity.action) if each is not UNSET)
    by = "" if activity.user_id is UNSET else f" by {activity.user_id}"
    words = f"{activity.id}: {what}{by}, #{activity.offset} of {where}"
    if activity.publisher is not UNSET:
        words += f", published by {activity.publisher}"
    lines = [escape_lines(words)]
    if activity.traceparent is not UNSET:
        lines.append(escape_lines(f"traceparent {activity.traceparent}"))
    return lines


def _lanes(lanes: Sequence[DeviceLane], asked: str) -> list[str]:
    """Return one lane a device: a mark under each station, and when it was passed.

    Behind it is the node, if that is another one than was asked.
    """
    names = [escape_lines(lane.device) for lane in lanes]
    first = max(len("device"), *map(len, names)) + 2
    width = max(map(len, STATIONS)) + 2
    heads = "".join(name.ljust(width) for name in STATIONS)
    lines = [f"{'device'.ljust(first)}{heads}".rstrip()]
    for name, lane in zip(names, lanes, strict=True):
        marks, times = "", ""
        stopped = False
        for number, station in enumerate(lane.stations):
            mark, stopped = _mark(station, stopped=stopped)
            is_last = number == len(lane.stations) - 1
            follows = not is_last and not stopped
            line = ("─" if follows else "┄" if not is_last else "") * (width - 2)
            marks += f"{mark}{line} " if not is_last else mark
            times += _below(station).ljust(width)
        where = "" if lane.node == asked else f" on the node {escape_lines(lane.node)}"
        lines.append(f"{name.ljust(first)}{marks}  {lane.cause}{where}")
        if times.strip():
            lines.append(f"{''.ljust(first)}{times.rstrip()}")
    return lines


def _mark(station: Station, *, stopped: bool) -> tuple[str, bool]:
    if stopped:
        return AHEAD, True
    if station.passed:
        return PASSED, False
    return (STOPPED, True) if station.passed is False else (UNKNOWN, False)


def _below(station: Station) -> str:
    if station.at is not UNSET:
        return clock(station.at)
    return "" if station.text is UNSET else escape_lines(station.text)[:12]


def clock(text: str | UnsetType) -> str:
    """Return the time of day (UTC) of an instant."""
    found = _TIME.match(text) if isinstance(text, str) else None
    return found[1] if found else str(text)


def event_line(event: Mapping[str, Any], known: str = "") -> str:
    """Return an event on one line, without what is `known` and what only programs need."""
    at, kind = clock(str(event.get("at", ""))), event.get("event", "")
    rest = " ".join(
        f"{name}={value if isinstance(value, str | int | float) else json.dumps(value)}"
        for name, value in event.items()
        if name not in ("at", "event", "connectionId", "epoch", known)
    )
    return escape_lines(f"{at} {kind!s:<9} {rest}".rstrip())
