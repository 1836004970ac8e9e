"""Readers of logs over HTTP: of pages, of answers that wait, of events. Each keeps one position.

Of their answers each is taken whole or not at all: so what they are given goes on, and is checked
as one connection, until a position is lost. Events that were cut come again, as to another one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Any, Literal
from zlib import crc32

import msgspec

from tests.checker.activities import Push, checksum, decode_activity
from tests.checker.clients import LOST, Http, Reply, make_token, wait_s
from tests.checker.records import History, Kept, Place

PATIENCE_S = 40.0
"""A server answers a poll after 20 s, and has a comment among events each 25 s."""
PACE_S = 0.07
"""A user may read 20 times a second (`streams.read_rate`)."""
AWAY_S = (1.0, 5.0)
AWAY = 0.02
"""How often one that reads pages stays away for so long: its position may be lost then."""
NEXT = "stream-next-offset"

Mode = Literal["pages", "poll", "events"]
_decode_items = msgspec.json.Decoder(list[Push]).decode


class Follower:
    """Follows one log, a PoV's or with `*` the team's, and comes back after any loss."""

    def __init__(
        self,
        history: History,
        port: int,
        name: str,
        team: str,
        topic: str,
        mode: Mode,
        max_entries: int,
    ) -> None:
        self.name = name
        self.team = team
        self.joined = asyncio.Event()
        """Its first position is known."""
        self.closes: list[int | None] = []
        self._history = history
        self._http = Http(port, make_token(name, team))
        self._topic = topic
        self._mode = mode
        self._max_entries = max_entries
        self._random = Random(name)
        self._stream = history.stream(name, f"*{team}" if topic == "*" else topic)
        path = "activities" if topic == "*" else f"povs/{topic}"
        self._url = f"/api/{path}/stream?offset="
        self._place: Place | None = None
        self._given = 0
        """The newest offset that it was given since."""
        self._target: int | None = None
        self._arrived = asyncio.Event()

    @property
    def received(self) -> int:
        """How many activities came so far."""
        return len(self._stream.offsets)

    async def run(self) -> None:
        """Follow, until it is cancelled."""
        while True:
            try:
                if self._place is None:
                    self._begin(await self._http.request(f"{self._url}now"))
                elif self._mode == "events":
                    await self._read_events(self._place)
                else:
                    await self._read(self._place)
            except LOST:
                await asyncio.sleep(self._random.uniform(0.01, 0.05))
            except Refusal as refusal:
                await asyncio.sleep(max(PACE_S, refusal.wait_s))

    def reset(self) -> None:
        """Cut the connection."""
        self._http.reset()

    async def catch_up(self, targets: Mapping[str, int]) -> None:
        """Wait until everything up to these offsets has come; topics of others do not count."""
        self._target = targets[self._topic]
        self._note_arrival()
        await self._arrived.wait()

    def _begin(self, reply: Reply) -> None:
        self._check(reply)
        self._place = place = read_token(reply.headers[NEXT])
        self._given = place.offset
        self._stream.join(*place)
        self.joined.set()

    async def _read(self, place: Place) -> None:
        live = "&live=long-poll" if self._mode == "poll" else ""
        url = f"{self._url}{write_token(place)}{live}"
        reply = await self._http.request(url, patience_s=PATIENCE_S)
        self._check(reply)
        if reply.body:
            self._take(reply.body)
        self._go_on(reply.headers[NEXT])
        self._history.counts[PLAYED[self._mode]] += 1
        is_away = self._mode == "pages" and self._target is None and self._random.random() < AWAY
        await asyncio.sleep(self._random.uniform(*AWAY_S) if is_away else PACE_S)

    async def _read_events(self, place: Place) -> None:
        self._stream.join(*place, place, recovered=True)
        self._given = place.offset
        url = f"{self._url}{write_token(place)}&live=sse"
        name = b""
        async for reply in self._http.lines(url, PATIENCE_S):
            self._check(reply)
            field, _, value = reply.body.strip().partition(b":")
            if field == b"event":
                name = value.strip()
            elif field == b"data" and name == b"data":
                self._take(value)
                self._history.counts[PLAYED[self._mode]] += 1
            elif field == b"data":
                self._go_on(json.loads(value)["streamNextOffset"])

    def _take(self, items: bytes) -> None:
        for push in _decode_items(items):
            data = decode_activity(push.data)
            self._stream.receive(push.offset, data.id, checksum(data), crc32(push.data))
            self._given = push.offset

    def _go_on(self, token: str) -> None:
        """Keep a position: all up to it was given, for nothing is erased or filtered here."""
        place = read_token(token)
        if self._place is not None and place != (self._place.epoch, self._given):
            text = f"{self.name} is to go on from {self._topic} {place}, and has {self._given}"
            self._history.notes.add("ahead", text)
        self._place = place
        self._given = place.offset
        self._note_arrival()

    def _check(self, reply: Reply) -> None:
        """Raise `Refusal` for an answer that has nothing."""
        if reply.status in (200, 204):
            return
        error = json.loads(reply.body)["error"]
        if reply.status == 410 and self._place is not None:
            self._lose(self._place, error)
        elif reply.status not in (429, 503):
            self._history.notes.add("refused", f"{self.name} was answered {error}")
        raise Refusal(wait_s(error))

    def _lose(self, asked: Place, error: Mapping[str, Any]) -> None:
        """Go on from where the log ends now. What the server says of what is gone has to be so."""
        here, oldest = Place(error["epoch"], error["offset"]), error["oldestOffset"]
        is_same = here.epoch == asked.epoch
        gone = oldest - 1 - asked.offset
        if is_same and (gone < 1 or error.get("missed") != gone):
            text = f"{self.name} asked for what follows {self._topic} {asked.offset}: {error}"
            self._history.notes.add("flag", text)
        self._stream.join(
            *here,
            asked,
            recovered=False,
            missed=here.offset - asked.offset if is_same else None,
            kept=Kept(oldest, self._max_entries),
        )
        self._place, self._given = here, here.offset
        self._history.counts["positions lost"] += 1
        self._note_arrival()

    def _note_arrival(self) -> None:
        if self._target is not None and self._place and self._place.offset >= self._target:
            self._arrived.set()


PLAYED: Mapping[Mode, str] = {
    "pages": "pages read",
    "poll": "polls answered",
    "events": "events read",
}
"""What they count."""


class Refusal(Exception):
    """The server answers with nothing; it may after so many seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


def write_token(place: Place) -> str:
    """Return a position as the server writes it over HTTP."""
    return f"{place.epoch}_{place.offset:016d}"


def read_token(token: str) -> Place:
    """Return the position that a token is."""
    epoch, _, offset = token.rpartition("_")
    return Place(epoch, int(offset))
