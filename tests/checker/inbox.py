"""A user's inbox under faults: who notifies, a device that acknowledges, and what was promised."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from random import Random

from tests.checker.clients import LOST, Http, WebSocket, connect, make_token
from tests.checker.consumers import PASSING
from tests.checker.producers import PATIENCE_S, Producer
from tests.checker.records import History, Notes

USER = "inbox"
RESTLESS = 0.3
"""How often the device comes back when it has acknowledged everything. Others are sent meanwhile,
which most faults would hold up, too."""


class Inbox:
    """What was sent to an inbox, and what its only device received and acknowledged.

    - What was acknowledged to the sender reaches the device, at the offset that was told.
    - A connection begins no later than behind what the device received, and behind what it
      acknowledged; from there on it is without a hole and without a repetition.
    """

    def __init__(self, notes: Notes) -> None:
        self.sent: dict[int, str] = {}
        """The ids that were acknowledged to the sender, by offset."""
        self.received: dict[int, str] = {}
        self.deliveries = 0
        self.newest = 0
        self.confirmed = 0
        """Up to where the server confirmed that the device has it."""
        self._notes = notes
        self._previous: int | None = None

    def acknowledge(self, name: str, offset: int) -> None:
        """Note that the server took a notification."""
        if (other := self.sent.setdefault(offset, name)) != name:
            text = f"{other} and {name} were both acknowledged as {offset} of the inbox"
            self._notes.add("place", text)

    def begin(self) -> None:
        """Note that the device connected."""
        self._previous = None

    def receive(self, name: str, offset: int) -> None:
        """Note a delivery."""
        previous, self._previous = self._previous, offset
        if previous is None:
            if offset > self.newest + 1:
                text = f"the inbox went on with {offset} after {self.newest}"
                self._notes.add("hole", text)
            elif offset <= self.confirmed:
                text = f"the inbox went back to {offset}, {self.confirmed} was confirmed"
                self._notes.add("cursor", text)
        elif offset != previous + 1:
            kind = "hole" if offset > previous else "repeated"
            self._notes.add(kind, f"the inbox had {offset} after {previous}")
        if (other := self.received.setdefault(offset, name)) != name:
            self._notes.add("order", f"{offset} of the inbox was {other} and then {name}")
        self.newest = max(self.newest, offset)
        self.deliveries += 1

    def check(self) -> None:
        """Compare what was received with what was acknowledged to the sender."""
        lost = [name for offset, name in self.sent.items() if self.received.get(offset) != name]
        if lost:
            self._notes.add("lost", f"lost {len(lost)} acknowledged notifications: {lost[0]} ...")


class Notifier(Producer):
    """Sends notifications, each until it knows what became of it."""

    def __init__(self, history: History, port: int, rate: float, seed: int, inbox: Inbox) -> None:
        super().__init__(history, port, "notifier", "main", rate, seed)
        self._http = Http(port, make_token(self.name, self.team, service=True))
        self._inbox = inbox
        self._count = 0

    async def run(self) -> None:
        """Send to the end."""
        while not self.stopped:
            self._count += 1
            await self._notify(f"{self.name}-{self._count}")
            await self.pace(1)

    def reset(self) -> None:
        """Cut the connection."""
        self._http.reset()

    async def _notify(self, name: str) -> None:
        body = json.dumps({"id": name, "type": "mention"}).encode()
        target = f"/api/users/{USER}/notifications"
        while True:
            try:
                status, found = await self._http.request(target, body, patience_s=PATIENCE_S)
            except ConnectionRefusedError:
                await self.hold("refused connections")
            except LOST:
                await self.hold("unknown")
            else:
                answer = json.loads(found)
                if status == 200:
                    self._inbox.acknowledge(name, answer["offset"])
                    self.history.counts["notified"] += 1
                    return
                self.refuse(answer.get("error", {"message": repr(found[:200])}))
                await self.hold("refused")


class Device:
    """Follows the inbox, acknowledges, and comes back now and then and after any loss."""

    name = "inbox"

    def __init__(self, history: History, port: int, inbox: Inbox) -> None:
        self._history = history
        self._port = port
        self._inbox = inbox
        self._token = make_token(USER, "main")
        self._random = Random(self.name)
        self._socket: WebSocket | None = None
        self._acking = False
        self._target: int | None = None
        self._arrived = asyncio.Event()

    @property
    def received(self) -> int:
        """How many notifications came so far."""
        return self._inbox.deliveries

    async def run(self) -> None:
        """Be connected, until it is cancelled."""
        while True:
            self._acking = False
            self._inbox.begin()
            with suppress(*LOST):
                self._socket = await connect(
                    self._port, self._token, self._receive, device=self.name
                )
                await self._socket.lost
            await asyncio.sleep(self._random.uniform(0.01, 0.05))

    def reset(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            self._socket.reset()

    async def catch_up(self) -> None:
        """Wait until everything that was acknowledged to the sender has come."""
        self._target = max(self._inbox.sent, default=0)
        self._note_arrival()
        await self._arrived.wait()

    def _receive(self, payload: bytes) -> None:
        message = json.loads(payload)
        kind, inbox = message["type"], self._inbox
        if kind == "notification":
            offset = message["offset"]
            inbox.receive(message["data"]["id"], offset)
            if not self._acking and self._socket is not None:
                self._acking = True
                self._socket.send({"type": "ack", "inbox": True, "offset": offset})
            self._note_arrival()
        elif kind == "acked":
            self._acking = False
            inbox.confirmed = message["offset"]
            if self._random.random() < RESTLESS:
                self.reset()
        elif kind == "error":
            self._acking = False  # it acknowledges again, with what comes next
            if message["code"] not in PASSING:
                self._history.notes.add("refused", f"{self.name} was answered {message}")

    def _note_arrival(self) -> None:
        if self._target is not None and self._inbox.newest >= self._target:
            self._arrived.set()
