"""Inboxes under faults: who notifies, devices that acknowledge and read, and what was promised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from random import Random

from tests.checker.clients import LOST, PASSING, Http, WebSocket, connect, make_token, wait_s
from tests.checker.producers import PATIENCE_S, Producer
from tests.checker.records import History, Notes

USERS = ("inbox", "inbox-read")
"""The second one also reads, and not only acknowledges."""
RESTLESS = 0.3
"""How often the device comes back when it has acknowledged everything. Others are sent meanwhile,
which most faults would hold up, too."""
READS = 0.3
"""How often a device that reads does so when it has acknowledged."""


class Mail:
    """What was sent to a user's inbox, and how far the user has read it.

    `kept` is how many the log keeps at least, 0: all.
    """

    def __init__(self, kept: int = 0) -> None:
        self.kept = kept
        self.sent: dict[int, str] = {}
        """The ids that were acknowledged to the sender, by offset."""
        self.asked = 0
        """Up to where the user said to have read: the server may or may not know."""
        self.read = 0
        """Up to where the server confirmed that."""

    @property
    def excused(self) -> int:
        """The offset up to which nothing has to come: it is read, or too many came after it."""
        gone = max(self.sent, default=0) - self.kept if self.kept else 0
        return max(self.asked, gone)


class Inbox:
    """What one device of a user received and acknowledged.

    - What was acknowledged to the sender reaches each device, at the offset that was told, unless
      the user has read it before.
    - A connection begins no later than behind what the device received, and behind what it
      acknowledged or the user has read; from there on it is without a hole and a repetition.
    """

    def __init__(self, notes: Notes, mail: Mail | None = None, device: str = "inbox") -> None:
        self.mail = mail or Mail()
        self.name = device
        self.received: dict[int, str] = {}
        self.deliveries = 0
        self.newest = 0
        self.confirmed = 0
        """Up to where the server confirmed that the device has it."""
        self._notes = notes
        self._previous: int | None = None
        self._floor = 0
        self._read = 0

    def acknowledge(self, name: str, offset: int) -> None:
        """Note that the server took a notification."""
        if (other := self.mail.sent.setdefault(offset, name)) != name:
            text = f"{other} and {name} were both acknowledged as {offset} of the inbox"
            self._notes.add("place", text)

    def begin(self) -> None:
        """Note that the device connects."""
        self._previous = None
        self._floor = max(self.confirmed, self.mail.read)
        self._read = 0

    def receive(self, name: str, offset: int) -> None:
        """Note a delivery."""
        previous, self._previous = self._previous, offset
        if previous is None:
            if offset > max(self.newest, self.mail.excused) + 1:
                text = f"{self.name} went on with {offset} after {self.newest}"
                self._notes.add("hole", text)
            elif offset <= self._floor:
                text = f"{self.name} went back to {offset}, {self._floor} was confirmed"
                self._notes.add("cursor", text)
        elif offset != previous + 1:
            kind = "hole" if offset > previous else "repeated"
            self._notes.add(kind, f"{self.name} had {offset} after {previous}")
        if (other := self.received.setdefault(offset, name)) != name:
            text = f"{offset} of the inbox was {other} and then {name} for {self.name}"
            self._notes.add("order", text)
        self.newest = max(self.newest, offset)
        self.deliveries += 1

    def hear(self, offset: int, floor: int = 0) -> None:
        """Note up to where the user has read, as the device is told."""
        if not max(floor, self._read) <= offset <= self.mail.asked:
            text = f"{self.name} was told that {offset} is read after {self._read}"
            self._notes.add("read", f"{text}, of {floor} to {self.mail.asked}")
        self._read = max(self._read, offset)

    def check(self) -> None:
        """Compare what was received with what was acknowledged to the sender."""
        excused = self.mail.excused
        lost = [
            name
            for offset, name in self.mail.sent.items()
            if self.received.get(offset, "" if offset > excused else name) != name
        ]
        if lost:
            text = f"{self.name} lost {len(lost)} acknowledged notifications: {lost[0]} ..."
            self._notes.add("lost", text)


class Notifier(Producer):
    """Sends notifications, each until it knows what became of it."""

    def __init__(
        self, history: History, port: int, rate: float, seed: int, inboxes: Mapping[str, Inbox]
    ) -> None:
        super().__init__(history, port, "notifier", "main", rate, seed)
        self._http = Http(port, make_token(self.name, self.team, service=True))
        self._inboxes = inboxes
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
        user = self.random.choice(list(self._inboxes))
        target = f"/api/users/{user}/notifications"
        while True:
            try:
                status, found, _ = await self._http.request(target, body, patience_s=PATIENCE_S)
            except ConnectionRefusedError:
                await self.hold("refused connections")
            except LOST:
                await self.hold("unknown")
            else:
                answer = json.loads(found)
                if status == 200:
                    self._inboxes[user].acknowledge(name, answer["offset"])
                    self.history.counts["notified"] += 1
                    return
                problem = answer.get("error", {"message": repr(found[:200])})
                await self.hold("refused", self.refuse(problem))


class Device:
    """Follows an inbox, acknowledges, and comes back now and then and after any loss.

    One that `reads` says now and then that the user has read what it received.
    """

    def __init__(
        self, history: History, port: int, user: str, inbox: Inbox, *, reads: bool = False
    ) -> None:
        self.name = inbox.name
        self._history = history
        self._port = port
        self._inbox = inbox
        self._reads = reads
        self._token = make_token(user, "main")
        self._random = Random(self.name)
        self._floor = 0
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
        self._target = max(self._inbox.mail.sent, default=0)
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
            if self._reads and self._random.random() < READS:
                self._read(message["offset"])
            elif self._random.random() < RESTLESS:
                self.reset()
        elif kind == "inbox_read":
            is_answer = "id" in message
            inbox.hear(message["offset"], self._floor if is_answer else 0)
            if is_answer:
                inbox.mail.read = max(inbox.mail.read, message["offset"])
                self._history.counts["inbox read"] += 1
            self._note_arrival()
        elif kind == "error":
            # It acknowledges again, with what comes next.
            asyncio.get_running_loop().call_later(wait_s(message), self._go_on)
            if message["code"] not in PASSING:
                self._history.notes.add("refused", f"{self.name} was answered {message}")

    def _go_on(self) -> None:
        self._acking = False

    def _read(self, offset: int) -> None:
        """Say that the user has read up to there, or at times up to less."""
        if self._random.random() < 0.3:
            offset = max(0, offset - 10)
        mail = self._inbox.mail
        mail.asked = max(mail.asked, offset)
        self._floor = max(mail.read, offset)
        if self._socket is not None:
            self._socket.send({"type": "read", "id": 1, "inbox": True, "offset": offset})

    def _note_arrival(self) -> None:
        newest = max(self._inbox.newest, self._inbox.mail.asked)
        if self._target is not None and newest >= self._target:
            self._arrived.set()
