"""What a client has, by the rules alone: checked with each message, in the step that sends it.

Every message that names a position says where its client is: everything up to it was handed to the
socket before, and nothing behind it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pov_rt.connections.connection import Connection
from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.frames import TEXT_FRAMING

SLOW_BYTES = 4_000
KERNEL_BYTES = 400
"""What a transport's kernel takes though its peer reads nothing: an answer is not unsent."""
QUEUE_BYTES = 16_000
UNORDERED = {"refresh", "typing"}


@dataclass
class Truth:
    """What is in the logs: by topic and offset the activity, as it was appended."""

    entries: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    epochs: dict[str, str] = field(default_factory=dict)
    """By topic, as far as a client was told."""

    def add(self, topic: str, activity: dict[str, Any]) -> None:
        entries = self.entries.setdefault(topic, {})
        entries[len(entries) + 1] = activity

    def top(self, topic: str) -> int:
        return len(self.entries.get(topic, {}))

    def wanted(self, topic: str, only: dict[str, Any] | None, after: int, to: int) -> list[int]:
        """Return the offsets in between that get through a filter, but for the ends."""
        entries = self.entries.get(topic, {})
        return [
            offset
            for offset in range(after + 1, to)
            if only is None or entries[offset]["type"] in only["types"]
        ]


@dataclass
class Place:
    """A subscription, as its client knows it; `had` is the furthest that it ever came."""

    at: int
    had: int
    only: dict[str, Any] | None
    quiet: set[str] = field(default_factory=set)
    marks: dict[str, int] = field(default_factory=dict)


class Model:
    """One client: what it asked for, what it was told. Raises AssertionError at the first lie."""

    def __init__(self, name: str, truth: Truth, *, plain: bool) -> None:
        self.name = name
        self.truth = truth
        self.plain = plain
        self.places: dict[str, Place] = {}
        self.cursors: dict[str, int] = {}
        self.furthest: dict[str, int] = {}
        self.asked: dict[int, dict[str, Any]] = {}
        self.in_line: list[int] = []
        self.silent: set[str] = set()
        self.published: set[str] = set()
        self.told: dict[str, dict[str, int]] = {}
        """What `receipts` said, by PoV and user."""
        self.recovered = self.errors = self.in_place = self.positions = 0

    def ask(self, message: dict[str, Any]) -> None:
        """Remember what is sent, with its id."""
        self.asked[message["id"]] = message
        if message["type"] not in UNORDERED:
            self.in_line.append(message["id"])
        if message["type"] == "publish" and not message["echo"]:
            # One that was published before may be on its way already, as an activity.
            busy = self.busy() if message["data"]["id"] not in self.published else {"all"}
            pov = message["data"]["povId"]
            self.silent.add(message["data"]["id"])
            for topic in (pov, "*"):
                if topic in self.places and not busy & {topic, "all"}:
                    self.places[topic].quiet.add(message["data"]["id"])
        if message["type"] == "publish":
            self.published.add(message["data"]["id"])

    def busy(self) -> set[str]:
        """Return the topics whose subscriptions may be about to change."""
        found: set[str] = set()
        for message in self.asked.values():
            if message["type"] in ("refresh", "resume"):
                found.add("all")
            elif message["type"] in ("subscribe", "unsubscribe"):
                found |= {*message.get("povIds", ()), message.get("povId", "")}
        return found

    def hear(self, message: dict[str, Any]) -> None:
        """Take the next message."""
        kind = message["type"]
        asked = self.asked.pop(message["id"], None) if "id" in message else None
        if asked is not None and asked["type"] not in UNORDERED:
            # One in its place in what was missed comes with that, and holds nothing up.
            place = asked["type"] == "publish" and not asked["echo"]
            assert place or self.in_line_before(asked["id"]) == [], "answers keep their order"
            self.in_line.remove(asked["id"])
        if kind == "error":
            self.errors += 1
            assert asked is not None
            return
        getattr(self, f"hear_{kind}", lambda *_: None)(message, asked)

    def in_line_before(self, number: int) -> list[int]:
        return [
            each for each in self.in_line if each < number and self.asked[each].get("echo", True)
        ]

    def come_to(self, topic: str, offset: int, *, itself: bool) -> None:
        """Go on to an offset, where the client gets something, or which it only hears of."""
        place = self.places[topic]
        assert offset <= self.truth.top(topic)
        end = offset if itself else offset + 1
        missed = self.truth.wanted(topic, place.only, place.at, end)
        missed = [each for each in missed if not self.is_hidden(topic, each)]
        assert not missed, f"{self.name} is at {offset} of {topic} without {missed}"
        place.at = offset
        place.had = max(place.had, offset)
        self.furthest[topic] = max(self.furthest.get(topic, 0), offset)

    def is_hidden(self, topic: str, offset: int) -> bool:
        """Tell whether an entry is left out of the feed, for it is the client's own."""
        return topic == "*" and self.truth.entries[topic][offset]["id"] in self.silent

    def hear_activity(self, message: dict[str, Any], _: object) -> None:
        data, offset = message["data"], message["offset"]
        topic = message.get("feed", data["povId"])
        assert topic in self.places, f"{topic} is not subscribed to"
        place, had = self.places[topic], self.places[topic].had
        assert offset > place.at, f"{offset} of {topic} is not after {place.at}"
        assert place.only is None or data["type"] in place.only["types"], "it was left out"
        assert self.truth.entries[topic][offset]["id"] == data["id"]
        self.come_to(topic, offset, itself=True)
        assert data["id"] not in place.quiet or offset <= had, "its own echo"

    def hear_position(self, message: dict[str, Any], _: object) -> None:
        assert not self.plain, "a plain client gets answers and activities alone"
        topic, offset = message["povId"], message["offset"]
        assert offset >= self.places[topic].at
        self.positions += 1
        self.come_to(topic, offset, itself=False)

    def hear_published(self, message: dict[str, Any], asked: dict[str, Any]) -> None:
        topic, offset = message["povId"], message["offset"]
        place = self.places.get(topic)
        if asked["echo"] or place is None or (message["duplicate"] and offset <= place.at):
            return
        if message["activityId"] not in place.quiet:
            # Whether it was subscribed when it published is not known.
            if offset > place.at and not self.truth.wanted(topic, place.only, place.at, offset):
                self.come_to(topic, offset, itself=True)
            return
        assert offset > place.at, f"the answer {offset} comes after {place.at}"
        self.in_place += 1
        self.come_to(topic, offset, itself=True)

    def hear_subscribed(self, message: dict[str, Any], asked: dict[str, Any]) -> None:
        results = message.get("results", [message])
        for result in results:
            if "code" in result:
                self.errors += 1
                continue
            pov, offset = result["povId"], result["offset"]
            since: Any = "cursor" if asked["type"] == "resume" else asked.get("since")
            before = self.places.get(pov)
            assert self.truth.epochs.setdefault(pov, result["epoch"]) == result["epoch"]
            assert offset <= self.truth.top(pov)
            if since is None:
                at = offset
                if before is not None:
                    assert at >= before.at, f"told {at} of {pov}, while at {before.at}"
                    self.come_to(pov, at, itself=False)
            elif not result["recovered"]:
                at = offset
            elif since == "cursor":
                at = self.cursors[pov]
            elif "last" in since:
                at = max(offset - since["last"], result["oldestOffset"] - 1)
            else:
                at = since["offset"]
            self.recovered += bool(result.get("recovered"))
            only = asked.get("only")
            if asked["type"] == "resume":
                only = {"types": ["a"]} if result.get("filtered") else None
            assert bool(only) == result.get("filtered", False)
            self.furthest[pov] = max(self.furthest.get(pov, 0), at)
            if before is None:
                self.places[pov] = Place(at, at, only)
            else:
                before.at, before.only = at, only
                before.had = max(before.had, at)
                # What was skipped at the client's own wish has no place any more.
                entries = self.truth.entries.get(pov, {})
                before.quiet -= {entries[each]["id"] for each in range(1, at + 1)}

    def hear_unsubscribed(self, message: dict[str, Any], _: object) -> None:
        self.places.pop(message["povId"], None)

    def hear_refreshed(self, message: dict[str, Any], _: object) -> None:
        for pov in message["lost"]:
            self.places.pop(pov, None)

    def hear_acked(self, message: dict[str, Any], _: object) -> None:
        pov = message["povId"]
        # What was sent in an earlier subscription counts, too.
        assert message["offset"] <= self.furthest[pov]
        self.cursors[pov] = message["offset"]

    def hear_receipts(self, message: dict[str, Any], _: object) -> None:
        assert not self.plain
        told = self.told.setdefault(message["povId"], {})
        for user, offset in message["read"].items():
            told[user] = max(told.get(user, 0), offset)

    def check_end(self) -> None:
        """Check that nothing is left out, once all is quiet."""
        assert not self.asked, f"{self.name} was not answered: {self.asked}"
        for topic, place in self.places.items():
            end = self.truth.top(topic) + 1
            missed = self.truth.wanted(topic, place.only, place.at, end)
            missed = [each for each in missed if not self.is_hidden(topic, each)]
            assert not missed, f"{self.name} at {place.at} of {topic} lacks {missed}"
            for user, offset in place.marks.items():
                told = self.told.get(topic, {}).get(user, 0)
                assert told >= offset, f"{self.name} was not told that {user} read {topic}"


class Trickle:
    """A transport of small size whose peer reads when it is told to. Owner: the test."""

    framing = TEXT_FRAMING

    def __init__(self, hear: Callable[[dict[str, Any]], None]) -> None:
        self.connection: Connection
        self._hear = hear
        self._unread_bytes = self.peak = self.heard_count = 0
        self.reads = True
        self.closed_with: CloseCode | None = None
        self.failures: list[BaseException] = []
        self._drained: asyncio.Future[None] | None = None

    @property
    def unsent_bytes(self) -> int:
        return max(self._unread_bytes - KERNEL_BYTES, 0)

    @property
    def traffic(self) -> tuple[int, int]:
        return 0, 0

    def send(self, data: bytes) -> None:
        if self.closed_with is not None:
            return
        was_much = self.unsent_bytes > SLOW_BYTES
        self._unread_bytes += len(data)
        self.peak = max(self.peak, self.unsent_bytes)
        try:
            for body in take_apart(data):
                self.heard_count += 1
                self._hear(json.loads(body))
        except BaseException as error:
            self.failures.append(error)
        loop = asyncio.get_running_loop()
        if self.unsent_bytes > SLOW_BYTES and not was_much:
            loop.call_soon(self.connection.lagging)
        if self.reads:
            loop.call_soon(self.read, len(data))

    def send_soon(self, data: bytes) -> None:
        self.send(data)

    def read(self, count: int) -> None:
        """Have the peer read so many bytes."""
        self._unread_bytes = max(self._unread_bytes - count, 0)
        if self._drained is not None and self.unsent_bytes <= SLOW_BYTES // 2:
            self._drained.set_result(None)
            self._drained = None

    async def drained(self) -> None:
        while self.unsent_bytes > SLOW_BYTES // 2 and self.closed_with is None:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def ping(self) -> None: ...

    def heard(self) -> bool:
        return True

    def pause_reads(self, paused: bool) -> None: ...

    def close(self, code: CloseCode, body: bytes = b"") -> None:
        if self.closed_with is None:
            self.closed_with = code
            self.read(self._unread_bytes)
            asyncio.get_running_loop().call_soon(self.connection.lost, code.reason)

    def abort(self) -> None:
        self.close(CloseCode.INTERNAL)


def take_apart(data: bytes) -> list[bytes]:
    """Return the bodies of unmasked text frames."""
    found, at = [], 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
        elif size == 127:
            size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
        found.append(data[start : start + size])
        at = start + size
    return found
