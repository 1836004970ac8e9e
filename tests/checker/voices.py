"""What a member knows of itself, and how it asks: every message has an id, for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from tests.checker.activities import SIDE, Activity, Source
from tests.checker.clients import WebSocket, make_token
from tests.checker.courses import Course, Filter
from tests.checker.reading import Readings
from tests.checker.records import History, Place
from tests.checker.requests import Request


@dataclass
class Character:
    """Who a member is. `user` and `device` may be shared with others, the device not at a time."""

    name: str
    topics: Sequence[str]
    habits: Sequence[str] = ()
    user: str = ""
    device: str = "default"
    plain: bool = False
    durable: bool = False
    """It subscribes durably, and comes back with `resume`, each PoV with a filter of its own."""


class Voice:
    """All of a member but how it connects and what it makes of what it receives."""

    def __init__(
        self,
        history: History,
        port: int,
        character: Character,
        readings: Readings,
        seed: int,
    ) -> None:
        self.name = character.name
        self.team = SIDE
        self.user = character.user or self.name
        self.character = character
        self.history = history
        self.readings = readings
        self.random = Random(f"{seed} {self.name}")
        self.stopped = False
        self.joined = asyncio.Event()
        self.closes: list[int | None] = []
        self.socket: WebSocket | None = None
        self.token_id = ""
        self.current: dict[str, Filter] = {}
        """What it is subscribed to on this connection."""
        self.reached: dict[str, Place] = {}
        """Up to where it has everything, whatever the connection."""
        self.seen: dict[str, int] = {}
        """Up to where this connection was sent everything."""
        self.granted: Collection[str] = character.topics
        self.refreshed_at = 0.0
        self.unanswered: dict[str, Activity] = {}
        self.source = Source(history, self.user, SIDE, self.random, prefix=self.name)
        self._port = port
        self._age = 0
        self._requests: dict[int, Request] = {}
        self._count = 0
        self._refreshes = 0
        self._refreshing: Collection[str] | None = None
        self._kept: dict[str, Filter] = {}
        self._cursors: dict[str, Place] = {}
        self._acked: dict[str, int] = {}
        self._heard: dict[tuple[str, str], int] = {}
        self._entered_at: dict[str, float] = {}
        self._paused_until = 0.0
        self._courses = {
            topic: Course(history, self.name, f"*{SIDE}" if topic == "*" else topic)
            for topic in character.topics
        }
        history.streams += self._courses.values()
        self._token = self.new_token(self.granted)

    @property
    def received(self) -> int:
        """How many activities came so far."""
        return sum(len(course.offsets) for course in self._courses.values())

    def new_token(self, povs: Collection[str]) -> str:
        """Return a newer token than all before."""
        self._age += 1
        self.token_id = f"{self.name}-{self._age}"
        claims: dict[str, Any] = (
            {} if set(povs) == set(self.character.topics) else {"povs": sorted(povs)}
        )
        return make_token(self.user, SIDE, age=self._age, jti=self.token_id, **claims)

    def renew(self) -> str:
        """Take a new token for the next connection; return the one before."""
        old, self._token = self._token, self.new_token(self.granted)
        return old

    def reset(self) -> None:
        """Cut the connection."""
        if self.socket is not None:
            self.socket.reset()

    def note(self, kind: str, text: str) -> None:
        """Note a violation."""
        self.history.notes.add(kind, f"{self.name} {text}")

    def subscribe(
        self, topic: str, only: Filter, *, since: Place | None = None, last: int = 0
    ) -> None:
        """Subscribe, or once more."""
        message: dict[str, Any] = {"type": "subscribe", "povId": topic}
        if only.message:
            message["only"] = only.message
        if last:
            message["since"] = {"last": last}
        elif since is not None:
            message["since"] = since._asdict()
        if self.character.durable:
            message["durable"] = True
        self.send(message, Request("subscribe", topic, only, since, last=last))

    def publish(self, activity: Activity, *, echo: bool) -> None:
        """Publish until there is an answer."""
        self.unanswered[activity.id] = activity
        message = {"type": "publish", "data": msgspec.to_builtins(activity), "echo": echo}
        request = Request("publish", activity.pov_id, activity=activity, echo=echo)
        self.send(message, request)

    def refresh(self, povs: Collection[str]) -> None:
        """Go on with a token for these PoVs."""
        if self._refreshing is not None:
            return
        self._token = self.new_token(povs)
        self._refreshing = povs
        self.send({"type": "refresh", "token": self._token}, Request("refresh", povs=povs))

    def send(self, message: dict[str, Any], request: Request) -> None:
        """Send what is to be answered."""
        if self.socket is None or self.socket.lost.done():
            return  # what has to be sent is sent again on the next connection
        self._count += 1
        request.refreshes = self._refreshes
        request.at = asyncio.get_running_loop().time()
        request.confirmed = {
            topic: Place("", self.readings.confirmed(self.user, topic).offset)
            for topic in ([request.topic] if request.topic else self.character.topics)
        }
        if request.kind == "resume":
            request.confirmed |= {f"cursor {topic}": at for topic, at in self._cursors.items()}
        self._requests[self._count] = request
        self.socket.send({**message, "id": self._count})

    def acknowledge(self, topic: str, offset: int) -> None:
        """Acknowledge up to an offset that this connection was sent."""
        place = Place(self.reached[topic].epoch, offset)
        self._acked[topic] = max(place.offset, self._acked.get(topic, 0))
        floor = max(place.offset, self._cursors.get(topic, place).offset)
        request = Request("ack", topic, offset=place.offset, floor=floor)
        self.send({"type": "ack", "povId": topic, **place._asdict()}, request)

    def read(self, topic: str, offset: int) -> None:
        """Say that the user has read up to there."""
        floor = max(offset, self.readings.confirmed(self.user, topic).offset)
        self.readings.ask(self.user, topic, offset)
        epoch = self.reached[topic].epoch
        message = {"type": "read", "povId": topic, "offset": offset, "epoch": epoch}
        self.send(message, Request("read", topic, offset=offset, floor=floor))

    def is_subscribing(self, topic: str) -> bool:
        """Tell whether an answer about a subscription is under way."""
        kinds = ("subscribe", "resume", "unsubscribe")
        return any(
            request.kind in kinds and request.topic in ("", topic)
            for request in self._requests.values()
        )
