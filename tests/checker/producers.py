"""Publishers that try again until they know what became of each activity, under the same ids."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from threading import Event
from typing import Any

import msgspec

from tests.checker.activities import Activity, Source, encode
from tests.checker.clients import LOST, Http, WebSocket, connect, make_token
from tests.checker.records import History

PATIENCE_S = 1.0
"""A publisher does not wait as long as a server may be stopped: it asks again meanwhile."""
BATCH = 200
WINDOW = 16
"""Publications of one socket that are under way at once."""
PASSING = ("unavailable", "timeout")
"""Errors after which a publisher tries again: they are no violation."""
ANSWER_S = 7.0
"""A socket's publication is answered by then: the server's deadline is 5 s."""
AGAIN_S = 0.1
REPEATED = 0.03
"""How often what was acknowledged is sent again, as by a publisher that forgot."""
REMEMBERED = 50
GIVEN_UP = 0.05
"""How often a publisher gives up after an unknown outcome: either is right then."""
BEHIND_S = 0.5
"""A publisher that was held up for longer does not make up for it."""


class Producer:
    """Publishes at a steady rate until `stop` is called, then only what has no answer yet."""

    def __init__(
        self, history: History, port: int, name: str, team: str, rate: float, seed: int
    ) -> None:
        self.name = name
        self.stopped = False
        self.refused: Event | None = None
        """Is set when the server says that it cannot store: a nemesis waits for that."""
        self.history = history
        self.port = port
        self.team = team
        self.random = Random(f"{seed} {name}")
        self.source = Source(history, name, team, self.random)
        self._rate = rate
        self._next_at = 0.0

    async def run(self) -> None:
        """Publish to the end."""
        raise NotImplementedError

    def reset(self) -> None:
        """Cut the connection."""
        raise NotImplementedError

    async def pace(self, count: int) -> None:
        """Wait until so many more may be published."""
        now = asyncio.get_running_loop().time()
        if now - self._next_at > BEHIND_S:
            self._next_at = now
        self._next_at += count / self._rate
        await asyncio.sleep(max(0.0, self._next_at - now))

    async def hold(self, name: str) -> None:
        """Wait a moment after something did not work, and count it."""
        self.history.counts[name] += 1
        await asyncio.sleep(self.random.uniform(0.01, 0.05))

    def refuse(self, problem: dict[str, Any]) -> None:
        """Take note of an error. `unavailable` and `timeout` are to be tried again."""
        code = problem.get("code")
        if code == "unavailable" and self.refused is not None:
            self.refused.set()
        elif code not in PASSING:
            self.history.notes.add("refused", f"{self.name} was answered {problem}")

    def gives_up(self) -> bool:
        """Tell whether to leave it at an unknown outcome."""
        if self.random.random() < GIVEN_UP:
            self.history.counts["given up"] += 1
            return True
        return False


class HttpProducer(Producer):
    """Posts batches."""

    def __init__(
        self, history: History, port: int, name: str, team: str, rate: float, seed: int
    ) -> None:
        super().__init__(history, port, name, team, rate, seed)
        self._http = Http(port, make_token(name, team, service=True))
        self._done: list[Sequence[Activity]] = []

    async def run(self) -> None:
        """Publish to the end."""
        while not self.stopped:
            count = 1 if self.random.random() < 0.2 else self.random.randrange(1, BATCH)
            batch = [self.source.make() for _ in range(count)]
            await self._publish(batch)
            if len(self._done) < REMEMBERED:
                self._done.append(batch)
            else:
                self._done[self.random.randrange(REMEMBERED)] = batch
            if self.random.random() < REPEATED:
                await self._publish(self.random.choice(self._done))
            await self.pace(count)

    def reset(self) -> None:
        """Cut the connection."""
        self._http.reset()

    async def _publish(self, batch: Sequence[Activity]) -> None:
        body = b"\n".join(map(encode, batch))
        while True:
            try:
                status, answer = await self._http.request(
                    "/api/activities", body, lines=len(batch) > 1, patience_s=PATIENCE_S
                )
            except ConnectionRefusedError:
                await self.hold("refused connections")
            except LOST:
                await self.hold("unknown")
                if self.gives_up():
                    return
            else:
                results = json.loads(answer)
                results = results.get("results", [results])
                if status < 300 and len(results) == len(batch):
                    self._take(batch, results)
                    return
                self.refuse(results[0].get("error", {"message": repr(answer[:200])}))
                await self.hold("refused")

    def _take(self, batch: Sequence[Activity], results: Sequence[dict[str, Any]]) -> None:
        for activity, result in zip(batch, results, strict=True):
            if "error" in result:
                self.refuse(result["error"])
            elif (result["id"], result["povId"]) != (activity.id, activity.pov_id):
                text = f"{activity.id} on {activity.pov_id} was answered {result}"
                self.history.notes.add("place", text)
            else:
                self.history.acknowledge(activity.id, result["epoch"], result["offset"])


class SocketProducer(Producer):
    """Publishes one by one over a WebSocket, several under way."""

    def __init__(
        self, history: History, port: int, name: str, team: str, rate: float, seed: int
    ) -> None:
        super().__init__(history, port, name, team, rate, seed)
        self._token = make_token(name, team)
        self._waiting: dict[str, Activity] = {}
        self._socket: WebSocket | None = None
        self._answered = asyncio.Event()

    async def run(self) -> None:
        """Publish to the end."""
        while not self.stopped or self._waiting:
            try:
                self._socket = await connect(self.port, self._token, self._receive)
            except LOST:
                await self.hold("refused connections")
                continue
            self._socket.lost.add_done_callback(lambda _: self._answered.set())
            self._forget_some()
            for activity in self._waiting.values():
                self._send(activity)
            await self._publish(self._socket)
            self.reset()
            if self._waiting:
                await self.hold("unknown")

    def reset(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            self._socket.reset()

    async def _publish(self, client: WebSocket) -> None:
        """Publish until the connection is lost, or to the end."""
        while not client.lost.done() and (self._waiting or not self.stopped):
            if self.stopped or len(self._waiting) >= WINDOW:
                self._answered.clear()
                try:
                    async with asyncio.timeout(ANSWER_S):
                        await self._answered.wait()
                except TimeoutError:
                    return
                continue
            activity = self.source.make()
            self._waiting[activity.id] = activity
            self._send(activity)
            if self.random.random() < REPEATED:
                self._send(activity)  # as if it had not heard of the first one
            await self.pace(1)

    def _forget_some(self) -> None:
        for name in list(self._waiting):
            if self.gives_up():
                del self._waiting[name]

    def _send(self, activity: Activity) -> None:
        if self._socket is not None:
            data = msgspec.to_builtins(activity)
            self._socket.send({"type": "publish", "id": activity.id, "data": data})

    def _receive(self, payload: bytes) -> None:
        message = json.loads(payload)
        name = message.get("id")
        if message["type"] == "published":
            self._waiting.pop(name, None)
            if message["activityId"] != name:
                self.history.notes.add("place", f"{name} was answered {message}")
            else:
                self.history.acknowledge(name, message["epoch"], message["offset"])
            self._answered.set()
        elif message["type"] == "error":
            self.refuse(message)
            asyncio.get_running_loop().call_later(AGAIN_S, self._again, name)

    def _again(self, name: str) -> None:
        activity = self._waiting.get(name)
        if activity is not None:
            self._send(activity)
