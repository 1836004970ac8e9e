"""Publishers that try again until they know what became of each activity, under the same ids."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from threading import Event
from typing import Any

import msgspec

from tests.checker.activities import Activity, Source, encode
from tests.checker.clients import LOST, PASSING, Http, WebSocket, connect, make_token, wait_s
from tests.checker.records import History

PATIENCE_S = 1.0
"""A publisher does not wait as long as a server may be stopped: it asks again meanwhile."""
BATCH = 200
WINDOW = 16
"""Publications of one socket that are under way at once."""
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

    async def hold(self, name: str, at_least_s: float = 0.0) -> None:
        """Wait a moment after something did not work, and count it."""
        self.history.counts[name] += 1
        await asyncio.sleep(max(at_least_s, self.random.uniform(0.01, 0.05)))

    def refuse(self, problem: dict[str, Any]) -> float:
        """Take note of an error; return after how many seconds to try again what is `PASSING`."""
        code = problem.get("code")
        if code == "unavailable" and self.refused is not None:
            self.refused.set()
        elif code not in PASSING:
            self.history.notes.add("refused", f"{self.name} was answered {problem}")
        return wait_s(problem)

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
                status, answer, _ = await self._http.request(
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
                problem = results[0].get("error", {"message": repr(answer[:200])})
                await self.hold("refused", self.refuse(problem))

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
        self._done: list[Activity] = []
        self._asked: deque[tuple[str, bool]] = deque()
        """What this connection has asked, in order: an id, and whether with other contents."""
        self._newest: dict[str, int] = {}
        """By PoV: where what this connection published last was put."""
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
            self._asked.clear()
            self._newest.clear()
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
            if self._done and self.history.durable and self.random.random() < REPEATED:
                self._send(self.random.choice(self._done), is_other=True)
            await self.pace(1)

    def _forget_some(self) -> None:
        for name in list(self._waiting):
            if self.gives_up():
                del self._waiting[name]

    def _send(self, activity: Activity, *, is_other: bool = False) -> None:
        """Publish; `is_other`: other contents under an id that is known."""
        if self._socket is not None:
            data = msgspec.to_builtins(activity)
            if is_other:
                data["details"] = {"other": len(self._asked)}
            self._asked.append((activity.id, is_other))
            self._socket.send({"type": "publish", "id": activity.id, "data": data})

    def _receive(self, payload: bytes) -> None:
        message = json.loads(payload)
        if "id" not in message:
            return
        name, is_other = self._asked.popleft() if self._asked else ("", False)
        if name != message["id"]:
            text = f"{self.name} was answered {message}, and {name} was next"
            self.history.notes.add("reply", text)
            self.reset()
        elif is_other:
            self._take_conflict(message)
        elif message["type"] == "published":
            self._take(name, message)
        else:
            again_s = max(AGAIN_S, self.refuse(message))
            asyncio.get_running_loop().call_later(again_s, self._again, name)

    def _take(self, name: str, message: Mapping[str, Any]) -> None:
        activity = self._waiting.pop(name, None)
        if message["activityId"] != name:
            self.history.notes.add("place", f"{name} was answered {message}")
        else:
            self.history.acknowledge(name, message["epoch"], message["offset"])
        if activity is not None:
            if not message["duplicate"]:
                self._check_order(activity, message["offset"])
            self._done = [*self._done[-REMEMBERED:], activity]
        self._answered.set()

    def _check_order(self, activity: Activity, offset: int) -> None:
        """What a connection publishes on a PoV has its places in that order."""
        newest = self._newest.get(activity.pov_id, 0)
        if offset <= newest:
            text = f"{self.name} published {activity.id} last, which is {activity.pov_id} {offset}"
            self.history.notes.add("order", f"{text}, and the one before is {newest}")
        self._newest[activity.pov_id] = offset

    def _take_conflict(self, message: Mapping[str, Any]) -> None:
        self.history.counts["conflicts"] += 1
        if message["type"] == "published":
            text = f"{self.name} published other contents under a known id: {message}"
            self.history.notes.add("conflict", text)
        elif message["code"] != "id_conflict":
            self.refuse(dict(message))

    def _again(self, name: str) -> None:
        activity = self._waiting.get(name)
        if activity is not None:
            self._send(activity)
