"""Who publishes and who subscribes, each at a node, and what they do when that is gone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from pov_rt.protocol.topics import TEAM_FEED, pov_topic, team_topic
from tests.checker.clients import LOST, PASSING, Http, WebSocket, connect, make_token
from tests.checker.records import Place
from tests.checker.servers import Server
from tests.faults.ledger import Ledger, View

TEAM = "main"
BUSY = ("busy-0", "busy-1", "busy-2")
"""PoVs to which each publisher publishes until all is acknowledged."""
QUIET = ("quiet-1", "quiet-2", "quiet-3")
"""PoVs to which something is published while there is a fault, and nothing after it."""
TOPICS = (*map(pov_topic, (*BUSY, *QUIET)), team_topic(TEAM))
PAUSE_S = (0.02, 0.15)
"""How long a publisher waits before the next, or before it tries again."""
ANSWER_S = 15.0
"""A node that has not answered by then will not."""
AWAY_S = 0.1
"""How long who has lost its node stays away."""


class _Data(msgspec.Struct, rename="camel"):
    id: str
    pov_id: str


class _Push(msgspec.Struct):
    data: _Data
    offset: int
    feed: str = ""


_decode_push = msgspec.json.Decoder(_Push).decode


def topic_of(pov: str) -> str:
    """Return a PoV's topic, or the feed's."""
    return team_topic(TEAM) if pov == TEAM_FEED else pov_topic(pov)


class Publisher:
    """Publishes to busy PoVs while it is on, each until it is acknowledged, at whatever node."""

    def __init__(self, ledger: Ledger, name: str, nodes: Sequence[Server], chance: Random) -> None:
        self.name = name
        self.is_on = asyncio.Event()
        self.is_idle = asyncio.Event()
        """Whether it waits for nothing."""
        self.patient = False
        """Whether a node may take long now, for it stands still."""
        self._ledger = ledger
        self._nodes = nodes
        self._chance = chance
        self._made = 0
        token = make_token(name, TEAM, service=True)
        self._http = [Http(node.port, token, node.host) for node in nodes]
        self._others = [Http(node.port, token, node.host) for node in nodes]
        """For what is not to wait for what is under way."""

    async def run(self) -> None:
        """Go on until it is cancelled."""
        while True:
            if not self.is_on.is_set():
                self.is_idle.set()
            await self.is_on.wait()
            self.is_idle.clear()
            batch = [self._make(self._chance.choice(BUSY)) for _ in range(self._count())]
            at = 0
            while not await self.publish(batch, self._http[at]):
                at = (at + 1) % len(self._nodes)  # perhaps at another node
                await self._pause()
            await self._pause()

    def reset(self) -> None:
        """Cut its connections."""
        for http in (*self._http, *self._others):
            http.reset()

    async def speak(self, pov: str) -> None:
        """Publish once to a quiet PoV, at the own node; whatever comes of it."""
        await self.publish([self._make(pov)], self._others[0])

    async def repeat(self, activity: dict[str, Any], at: int) -> None:
        """Publish once more what it has published, at one of its nodes."""
        self._ledger.counts["published again"] += 1
        await self.publish([activity], self._http[at])

    async def publish(self, batch: Sequence[dict[str, Any]], http: Http) -> bool:
        """Send a batch once; return whether all of it is acknowledged."""
        body = b"\n".join(map(msgspec.json.encode, batch))
        begun = time.monotonic()
        try:
            reply = await http.request(
                "/api/activities", body, lines=len(batch) > 1, patience_s=ANSWER_S
            )
        except LOST:
            self._ledger.counts["connections lost"] += 1
            return False
        finally:
            if not self.patient:
                took = time.monotonic() - begun
                self._ledger.slowest_s = max(self._ledger.slowest_s, took)
        answer = json.loads(reply.body)
        results = answer.get("results", [answer])
        if len(results) != len(batch):
            self._refused(answer.get("error", answer))
            return False
        pairs = zip(batch, results, strict=True)
        return all([self._take(activity, result) for activity, result in pairs])

    def _take(self, activity: dict[str, Any], result: dict[str, Any]) -> bool:
        if "error" in result or "code" in result:
            self._refused(result.get("error", result))
            return False
        place = Place(result["epoch"], result["offset"])
        self._ledger.acknowledge(activity["id"], place)
        return True

    def _refused(self, problem: dict[str, Any]) -> None:
        self._ledger.counts["refused"] += 1
        if problem.get("code") not in PASSING:
            self._ledger.notes.add("refused", f"{self.name} was answered {problem}")

    def _make(self, pov: str) -> dict[str, Any]:
        self._made += 1
        activity = make_activity(f"{self.name}-{self._made}", pov)
        self._ledger.send(activity["id"], pov_topic(pov))
        return activity

    def _count(self) -> int:
        return 1 if self._chance.random() < 0.5 else self._chance.randrange(2, 6)

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(*PAUSE_S))


def make_activity(name: str, pov: str) -> dict[str, Any]:
    """Return an activity, the same each time."""
    details = {"text": name * 3}
    return {"id": name, "type": "task", "action": "done", "povId": pov, "userId": "ana",
            "details": details}  # fmt: skip


class Subscriber:
    """Follows all PoVs and the feed at a node, keeps its places, and comes back after any loss."""

    def __init__(self, ledger: Ledger, name: str, nodes: Sequence[Server]) -> None:
        self.name = name
        self.codes: list[int | None] = []
        """The close codes of its connections that have ended, None where there was none."""
        self.views = {topic: ledger.view(name, topic) for topic in TOPICS}
        self._ledger = ledger
        self._nodes = nodes
        self._token = make_token(name, TEAM)
        self._socket: WebSocket | None = None
        self._at = 0

    async def run(self) -> None:
        """Go on until it is cancelled."""
        while True:
            for at, node in enumerate(self._nodes):
                self._at = at
                if await self._stay(node):
                    break
            await asyncio.sleep(AWAY_S)

    async def _stay(self, node: Server) -> bool:
        """Be connected until that ends; return whether it was."""
        try:
            self._socket = await connect(
                node.port, self._token, self._receive, device=self.name, host=node.host
            )
        except LOST:
            return False
        self._socket.send(self._subscribe())
        await self._socket.lost
        self.codes.append(self._socket.close_code)
        return True

    def come_home(self) -> None:
        """Go back to the first of its nodes, if it had to leave it."""
        if self._at:
            self.reset()

    def reset(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            self._socket.reset()

    def behind(self, tops: dict[str, Place | None]) -> Iterator[View]:
        """Yield the views that are not where the logs end."""
        return (view for topic, view in self.views.items() if not view.is_at(tops[topic]))

    def _subscribe(self) -> dict[str, Any]:
        message: dict[str, Any] = {"type": "subscribe", "povIds": [TEAM_FEED, *BUSY, *QUIET]}
        places = {pov: self.views[topic_of(pov)].place for pov in message["povIds"]}
        known = {pov: place._asdict() for pov, place in places.items() if place is not None}
        if known:
            message["positions"] = known
        return message

    def _receive(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"activity"'):
            push = _decode_push(payload)
            topic = topic_of(push.feed or push.data.pov_id)
            self.views[topic].receive(push.offset, push.data.id)
            return
        message = json.loads(payload)
        handler = self._handlers.get(message["type"])
        if handler is not None:
            handler(self, message)

    def _take_answer(self, message: dict[str, Any]) -> None:
        failed = False
        for each in message.get("results", [message]):
            if "code" in each:
                self._ledger.counts["subscriptions refused"] += 1
                failed = True
                continue
            place = Place(each["epoch"], each["offset"])
            view = self.views[topic_of(each["povId"])]
            view.begin(place, each.get("recovered"), each.get("missed"))
        if failed:
            self.reset()

    def _take_position(self, message: dict[str, Any]) -> None:
        if "epoch" in message:
            place = Place(message["epoch"], message["offset"])
            self.views[topic_of(message["povId"])].move(place)

    def _take_error(self, message: dict[str, Any]) -> None:
        if message["code"] not in PASSING:
            self._ledger.notes.add("refused", f"{self.name} was answered {message}")
        self.reset()

    _handlers: Mapping[str, Callable[[Subscriber, dict[str, Any]], None]] = {
        "subscribed": _take_answer,
        "position": _take_position,
        "error": _take_error,
    }
