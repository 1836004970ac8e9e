"""`pov-rt tail`: prints what happens on a PoV. `pov_rt.client` knows how one is followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, NamedTuple

import click
import msgspec

from pov_rt.cli.options import say
from pov_rt.cli.remote import NEXT_STEP, RemoteError
from pov_rt.client.client import PovClient
from pov_rt.client.connection import Status
from pov_rt.client.errors import PovError, Refused, SessionEnded
from pov_rt.client.follow import FEED, Gap, Joined, PlacedActivity, Position
from pov_rt.protocol.characters import escape, escape_json
from pov_rt.remote.addresses import Address

Style = Literal["json", "plain", "coloured"]

PAGE = 500


class Since(NamedTuple):
    """From where to begin: the last `last`, all after an `offset`, or all from an instant on."""

    last: int | None = None
    offset: int | None = None
    at: float | None = None


class Tail:
    """Prints the activities of a PoV as they come. `token` is asked for one at each connection.

    `count` ends it after as many; `once` ends it with the connection.
    """

    def __init__(
        self,
        address: Address,
        token: Callable[[], str],
        pov: str,
        *,
        count: int | None = None,
        since: Since | None = None,
        once: bool = False,
        style: Style = "json",
    ) -> None:
        self._address = address
        self._token = token
        self._pov = pov
        self._left = count
        self._since = since or Since()
        self._once = once
        self._style = style
        self._is_following = self._is_lost = False

    async def run(self) -> None:
        """Follow until enough was printed. Raises `RemoteError`."""
        client = PovClient(
            self._address,
            self._token,
            retry=lambda _: self._is_following and not self._once,
            on_status=self._say_status,
        )
        try:
            async with client as rt:
                await self._follow(rt)
        except Refused as error:
            raise RemoteError(f"the server refuses: {error}") from error
        except SessionEnded as error:
            raise RemoteError(f"{error}{NEXT_STEP if error.status == 401 else ''}") from error
        except PovError as error:
            raise RemoteError(str(error)) from error

    async def _follow(self, rt: PovClient) -> None:
        since = self._since
        following = rt.subscribe(
            self._pov,
            since=await self._find_start(rt) if since.last is None else None,
            last=since.last,
            on_joined=self._say_joined,
            on_gap=self._say_gap,
        )
        async for activity in following:
            click.echo(format_activity(as_message(activity), self._style))
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    return

    async def _find_start(self, rt: PovClient) -> Position | None:
        """Find the place after which activities are wanted; None for from now on."""
        offset, at = self._since.offset, self._since.at
        if offset is None and at is None:
            return None
        if self._pov == FEED:
            raise RemoteError("the feed of all PoVs has no history: --since needs a PoV, or --last")
        page = await self._page(rt, 0)
        start = page["offset"]
        if offset is not None:
            return Position(page["epoch"], min(max(offset, page["oldestOffset"] - 1), start))
        while True:
            for each in page["activities"]:
                if _instant(each["data"]["at"]) < (at or 0.0):
                    return Position(page["epoch"], start)
                start = each["offset"] - 1
            if "next" not in page:
                return Position(page["epoch"], start)
            page = await self._page(rt, page["next"])

    async def _page(self, rt: PovClient, before: int) -> dict[str, Any]:
        while True:
            try:
                return await rt.history(self._pov, before=before, limit=PAGE)
            except Refused as error:
                if error.code != "rate_limited":
                    raise
                await asyncio.sleep(error.retry_after_s or 1.0)

    def _say_status(self, status: Status) -> None:
        if status.state == "waiting" and not self._is_lost:
            self._is_lost = True
            say(f"the connection is gone ({status.error}); trying again", err=True)

    def _say_joined(self, joined: Joined) -> None:
        again = " again" if self._is_following else ""
        self._is_following, self._is_lost = True, False
        say(f"following {self._pov}{again}, {joined.offset} activities so far", err=True)

    def _say_gap(self, gap: Gap) -> None:
        say(f"{self._pov}: some activities may be missing, for {gap.why}", err=True)


def as_message(activity: PlacedActivity) -> dict[str, Any]:
    """Return an activity as the message that it came in."""
    data = msgspec.to_builtins(activity)
    del data["epoch"]
    return {"offset": data.pop("offset"), "data": data}


def format_activity(message: dict[str, Any], style: Style) -> str:
    """Return a line for people on a terminal, else the activity as JSON."""
    data = message["data"]
    if style == "json":
        return escape_json(json.dumps({**data, "offset": message["offset"]}, ensure_ascii=False))
    details = data.get("details")
    what = escape_json(json.dumps(details, ensure_ascii=False)) if details else ""
    if changed := _changed(data):
        what = f"{changed} {what}"
    # Others' words on a terminal: no character may move the cursor or change colours.
    words = (data["povId"], data["userId"], f"{data['type']}.{data['action']}")
    pov, user, happened = (escape(word) for word in words)
    time = _local_time(data.get("at", ""))
    if style == "coloured":
        time, pov, happened = _paint(time, "2"), _paint(pov, "36"), _paint(happened, "1")
    return f"{time} {pov} {user} {happened} {what}".rstrip()


def _changed(data: dict[str, Any]) -> str:
    """Return what became of an activity, or what it says of another: `retracts a1 by ben: why`."""
    original = data.get("original")
    if data.get("retracted"):
        done = "was retracted" if original is None else "retracts"
    elif data.get("amended"):
        done = "was amended" if original is None else "amends"
    else:
        return ""
    words = [done] if original is None else [done, escape(original["id"])]
    if "by" in data:
        words.append(f"by {escape(data['by'])}")
    why = f": {escape(data['reason'])}" if "reason" in data else ""
    return " ".join(words) + why


def _instant(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _local_time(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "-"


def _paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"
