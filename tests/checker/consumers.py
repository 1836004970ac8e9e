"""Readers that lose nothing over a bad network, if the server keeps its promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Literal
from zlib import crc32

from tests.checker.activities import checksum, decode_activity, decode_push
from tests.checker.clients import LOST, PASSING, WebSocket, connect, make_token, wait_s
from tests.checker.digests import find_digest_problem
from tests.checker.records import History, Kept, Place

ACK_EVERY = 20
"""A device acknowledges when it has so many more than it has acknowledged."""
SLOW_PAUSES = 0.003
"""How often it stops after a piece, for a second or so, or until the server gives it up."""
SLOW_RECEIVE_BYTES = 8192
"""SO_RCVBUF of a slow reader: what it does not read fills the server's side."""
RESTLESS = 0.01
"""How often a restless reader subscribes again, on the same connection, after a delivery."""

Way = Literal["position", "restless", "cursor", "resume"]


class Consumer:
    """One device: subscribes to topics, keeps its positions, and comes back after any loss.

    `way` is how it recovers: from its positions (`restless`: also while it is connected), from its
    cursors, or by its durable subscriptions.
    """

    receive_bytes = 0
    """SO_RCVBUF, 0: the system's."""
    bytes_per_s = 1_000_000
    """The speed of a slow reader."""

    def __init__(
        self,
        history: History,
        port: int,
        name: str,
        team: str,
        topics: Sequence[str],
        way: Way,
        *,
        slow: bool = False,
    ) -> None:
        self.name = name
        self.team = team
        self.joined = asyncio.Event()
        """Every topic was subscribed to once."""
        self.hurry = False
        """A slow reader reads as fast as it can."""
        self.is_slow = slow
        self.closes: list[int | None] = []
        """Close codes of the connections that ended, None for those without."""
        self._history = history
        self._port = port
        self._token = make_token(name, team)
        self._topics = topics
        self._way = way
        self._random = Random(name)
        self._streams = {
            topic: history.stream(name, f"*{team}" if topic == "*" else topic) for topic in topics
        }
        self._reached: dict[str, Place] = {}
        self._confirmed: dict[str, Place] = {}
        self._acking: set[str] = set()
        self._moving: set[str] = set()
        self._asked: dict[str, Place] = {}
        self._by_cursor = False
        self._socket: WebSocket | None = None
        self._pause_s = 0.0
        """How long to stay away once the connection is lost, at least."""
        self._targets: dict[str, int] = {}
        self._arrived = asyncio.Event()

    @property
    def received(self) -> int:
        """How many activities came so far."""
        return sum(len(stream.offsets) for stream in self._streams.values())

    async def run(self) -> None:
        """Be connected, until it is cancelled."""
        receive_bytes = SLOW_RECEIVE_BYTES if self.is_slow else self.receive_bytes
        while True:
            with suppress(*LOST):
                self._socket = await connect(
                    self._port,
                    self._token,
                    self._receive,
                    device=self.name,
                    receive_bytes=receive_bytes,
                )
                if self.is_slow:
                    self._socket.pace = self._read_slowly
                self._subscribe(self._socket)
                await self._socket.lost
                self.closes.append(self._socket.close_code)
            pause_s, self._pause_s = max(self._pause_s, self._random.uniform(0.01, 0.05)), 0.0
            await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            self._socket.reset()

    async def catch_up(self, targets: Mapping[str, int]) -> None:
        """Wait until everything up to these offsets has come; topics of others do not count."""
        self.hurry = True
        self._targets = {topic: targets[topic] for topic in self._topics}
        self._note_arrival()
        await self._arrived.wait()

    # What it sends:

    def _subscribe(self, client: WebSocket) -> None:
        self._acking.clear()
        self._moving.clear()
        self._asked = dict(self._reached)
        message: dict[str, Any] = {"type": "subscribe", "povIds": list(self._topics)}
        if self._way == "resume":
            message["durable"] = True
        self._by_cursor = len(self._confirmed) == len(self._topics)
        if self._by_cursor:
            self._asked = dict(self._confirmed)
            if self._way == "resume":
                message = {"type": "resume"}
            else:
                message["since"] = "cursor"
        elif self._reached:
            positions = {topic: place._asdict() for topic, place in self._reached.items()}
            message["positions"] = positions
        client.send(message)

    def _acknowledge(self, topic: str, place: Place) -> None:
        self._acking.add(topic)
        if self._socket is not None:
            self._socket.send({"type": "ack", "id": topic, "povId": topic, **place._asdict()})

    def _move(self, topic: str) -> None:
        """Subscribe again from where it is; what is on its way will come twice."""
        if self._socket is None:
            return
        self._moving.add(topic)
        self._asked[topic] = place = self._reached[topic]
        if self._random.random() < 0.5:
            self._socket.send({"type": "unsubscribe", "povId": topic})
        since = place._asdict()
        self._socket.send({"type": "subscribe", "povId": topic, "since": since})

    def _read_slowly(self, size: int) -> None:
        if self._socket is None or self.hurry:
            return
        wait = size / self.bytes_per_s
        if self._random.random() < SLOW_PAUSES:
            wait += self.pause_s()
        transport = self._socket.transport
        transport.pause_reading()
        asyncio.get_running_loop().call_later(wait, transport.resume_reading)

    def pause_s(self) -> float:
        """Return for how long a slow reader stops: at times until the server gives it up."""
        return 6.5 if self._random.random() < 0.1 else self._random.uniform(0.5, 2)

    # What it receives:

    def _receive(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"activity"'):
            push = decode_push(payload)
            data = decode_activity(push.data)
            topic = push.feed or data.pov_id
            stream = self._streams.get(topic)
            place = self._reached.get(topic)
            if stream is None or place is None:
                self._history.notes.add("foreign", f"{self.name} was sent {payload!r}")
                return
            stream.receive(push.offset, data.id, checksum(data), crc32(push.data))
            self._reached[topic] = Place(place.epoch, max(place.offset, push.offset))
            if topic in self._targets:
                self._note_arrival()
            if self._way in ("cursor", "resume") and topic not in self._acking:
                confirmed = self._confirmed.get(topic)
                if confirmed is None or push.offset - confirmed.offset >= ACK_EVERY:
                    self._acknowledge(topic, Place(place.epoch, push.offset))
            elif self._way == "restless" and topic not in self._moving:
                if self._random.random() < RESTLESS:
                    self._move(topic)
            return
        message = json.loads(payload)
        handler = self._handlers.get(message["type"])
        if handler is not None:
            handler(self, message)

    def _take_answer(self, message: dict[str, Any]) -> None:
        results = message.get("results", [message])
        if errors := [each for each in results if "code" in each]:
            self._take_error(errors[0])
            return
        if self._by_cursor and (missing := {*self._topics} - {each["povId"] for each in results}):
            self._history.notes.add("forgotten", f"{self.name} was not resumed on {missing}")
        for each in results:
            topic = each["povId"]
            since = self._asked.get(topic)
            here = Place(each["epoch"], each["offset"])
            recovered = each.get("recovered")
            self._moving.discard(topic)
            self._streams[topic].join(
                *here,
                since,
                cursor=self._by_cursor,
                recovered=recovered,
                missed=each.get("missed"),
                kept=Kept(each["oldestOffset"], each["guarantee"]["entries"]),
            )
            self._check_digest(topic, each)
            if not recovered:
                self._reached[topic] = here
                self._confirmed.pop(topic, None)
            if topic in self._targets:
                self._note_arrival()
        self.joined.set()

    def _take_error(self, message: dict[str, Any]) -> None:
        if message["code"] not in PASSING:
            self._history.notes.add("refused", f"{self.name} was answered {message}")
        if "id" in message:  # it acknowledges again, with what comes next
            retry = partial(self._acking.discard, message["id"])
            asyncio.get_running_loop().call_later(wait_s(message), retry)
        else:
            self._pause_s = wait_s(message)
            self.reset()

    def _check_digest(self, topic: str, answer: Mapping[str, Any]) -> None:
        problem = find_digest_problem(answer.get("digest"), self._history)
        if problem:
            self._history.notes.add("digest", f"{self.name} was told of {topic}: {problem}")

    def _take_ack(self, message: dict[str, Any]) -> None:
        topic, place = message["povId"], Place(message["epoch"], message["offset"])
        self._acking.discard(topic)
        self._confirmed[topic] = place

    _handlers: Mapping[str, Callable[[Consumer, dict[str, Any]], None]] = {
        "subscribed": _take_answer,
        "error": _take_error,
        "acked": _take_ack,
    }

    def _note_arrival(self) -> None:
        if all(
            topic in self._reached and self._reached[topic].offset >= offset
            for topic, offset in self._targets.items()
        ):
            self._arrived.set()
