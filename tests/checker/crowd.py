"""Who takes part in a run: readers, publishers, members and devices, each with a way of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from tests.checker.activities import MAIN, POVS, QUIET, SIDE, WIDE
from tests.checker.consumers import Consumer
from tests.checker.followers import Follower
from tests.checker.inbox import USERS, Device, Inbox, Mail, Notifier
from tests.checker.laggards import Passed, Returning
from tests.checker.members import Member
from tests.checker.nemesis import Victim
from tests.checker.numbering import NumberedProducer
from tests.checker.producers import HttpProducer, Producer, SocketProducer
from tests.checker.reading import Readings
from tests.checker.records import History
from tests.checker.revoking import Revoker
from tests.checker.voices import Character

WIDE_RATE = 0.03
"""The part of all activities that is the wide team's: they are large."""


class Named(Protocol):
    """A client with a name."""

    name: str


NamedT = TypeVar("NamedT", bound=Named)


def choose(clients: Sequence[NamedT], names: Sequence[str]) -> list[NamedT]:
    """Return those whose names begin with one of these."""
    return [client for client in clients if client.name.startswith(tuple(names))]


class Crowd:
    """All clients of a run, `near` the server or behind the proxy (`far`). Owner: the run.

    Where nothing is durable, members and devices stay away: nothing that they know outlasts a kill.
    """

    def __init__(
        self, history: History, ports: tuple[int, int], plan: tuple[int, float, int]
    ) -> None:
        (near, far), (seed, rate, max_entries) = ports, plan
        main, quiet, wide = POVS[MAIN], POVS[QUIET], POVS[WIDE]
        near_consumers = [
            Consumer(history, near, "position-b", MAIN, main[3:9], "position"),
            Consumer(history, near, "position-c", MAIN, main[6:], "position"),
            Consumer(history, near, "restless", MAIN, main[2:5], "restless"),
            Consumer(history, near, "cursor-a", MAIN, main[:4], "cursor"),
            Consumer(history, near, "resume", MAIN, main[8:], "resume"),
            Consumer(history, near, "feed", MAIN, ["*"], "position"),
            Consumer(history, near, "quiet-feed-b", QUIET, ["*", *quiet], "position"),
            Returning(history, near, "returning-a", WIDE, wide, "position"),
            Returning(history, near, "returning-b", WIDE, wide, "cursor"),
        ]
        self.consumers = [
            *near_consumers,
            Consumer(history, far, "position-a", MAIN, main[:6], "position"),
            Consumer(history, far, "cursor-b", QUIET, quiet, "cursor"),
            Consumer(history, far, "quiet-feed-a", QUIET, ["*"], "position"),
            Consumer(history, near, "slow", MAIN, main[4:6], "position", slow=True),
            Consumer(history, near, "slow-cursor", MAIN, main[9:], "cursor", slow=True),
            Passed(history, near, "passed", MAIN, main[:6], "position", slow=True),
        ]
        self.producers: list[Producer] = [
            HttpProducer(history, near, "http-a", MAIN, rate * 0.28, seed),
            HttpProducer(history, near, "http-b", MAIN, rate * 0.28, seed),
            HttpProducer(history, far, "http-c", MAIN, rate * 0.28, seed),
            HttpProducer(history, near, "http-quiet", QUIET, rate * 0.04, seed),
            HttpProducer(history, near, "http-side", SIDE, rate * 0.02, seed),
            HttpProducer(history, near, "http-wide", WIDE, rate * WIDE_RATE, seed),
            SocketProducer(history, near, "socket-a", MAIN, rate * 0.03, seed),
            SocketProducer(history, far, "socket-quiet", QUIET, rate * 0.02, seed),
            NumberedProducer(history, near, "numbered-a", MAIN, rate * 0.04, seed),
            NumberedProducer(history, far, "numbered-b", QUIET, rate * 0.01, seed),
        ]
        self.followers = [
            Follower(history, near, "pages", MAIN, main[0], "pages", max_entries),
            Follower(history, near, "poll-a", MAIN, main[1], "poll", max_entries),
            Follower(history, far, "poll-b", QUIET, quiet[0], "poll", max_entries),
            Follower(history, near, "events-a", MAIN, main[2], "events", max_entries),
            Follower(history, far, "events-b", MAIN, main[3], "events", max_entries),
            Follower(history, near, "events-feed", QUIET, "*", "events", max_entries),
        ]
        self.members: list[Member] = []
        self.revokers: list[Revoker] = []
        self.inboxes: list[Inbox] = []
        self.devices: list[Device] = []
        if history.durable:
            self._add_members(history, near, far, seed)
            self._add_devices(history, far, near, max_entries)
            first = {user: inbox for user, inbox in zip(USERS, self.inboxes[::2], strict=True)}
            self.producers.append(Notifier(history, near, rate * 0.02, seed, first))
        self.quick: Sequence[Consumer | Member] = [*near_consumers, *self.members]
        """Those who read at full speed, and straight from the server."""

    def keep(self, names: Sequence[str]) -> None:
        """Send those away whose names do not begin with one of these."""
        self.consumers = choose(self.consumers, names)
        self.followers = choose(self.followers, names)
        self.producers = choose(self.producers, names)
        self.members = choose(self.members, names)
        self.revokers = choose(self.revokers, names)
        self.inboxes = choose(self.inboxes, names)
        self.devices = choose(self.devices, names)
        self.quick = choose(self.quick, names)

    @property
    def subscribers(self) -> Sequence[Consumer | Follower | Member]:
        """All that subscribe to PoVs, or follow their logs."""
        return [*self.consumers, *self.followers, *self.members]

    @property
    def readers(self) -> Sequence[Consumer | Follower | Member | Device]:
        """All that receive."""
        return [*self.consumers, *self.followers, *self.members, *self.devices]

    @property
    def all(self) -> Sequence[Victim]:
        """All whose connections can be cut."""
        return [*self.readers, *self.producers, *self.revokers]

    def _add_members(self, history: History, near: int, far: int, seed: int) -> None:
        side = POVS[SIDE]
        readings = Readings(history.notes)
        characters = [
            Character("filter-a", side[:4], ("filter", "move", "ping", "leave")),
            Character("filter-b", side[2:], ("filter", "filter", "ack")),
            Character("all", ["*", *side], ("ping", "ack")),
            Character("plain", side[:3], ("move", "leave", "ping"), plain=True),
            Character("plain-filter", side[:3], ("filter", "ping"), plain=True),
            Character("echo-a", side, ("publish", "ping", "move"), user="echo"),
            Character("echo-b", side, ("publish", "filter", "leave"), user="echo", device="b"),
            Character("refresh-a", side, ("refresh", "move", "ack", "read")),
            Character("refresh-b", side, ("refresh", "filter", "publish")),
            Character("resume-a", side, ("ack", "ping"), user="resuming", device="a", durable=True),
            Character("resume-b", side, ("ack", "read"), user="resuming", device="b", durable=True),
            Character("ack", side, ("ack", "ack", "read", "ping")),
            Character("read-a", side[:3], ("read", "ack"), user="reading", device="a"),
            Character("read-b", side[1:4], ("read", "move"), user="reading", device="b"),
            Character("revoked-a", side, ("move", "ack", "ping")),
            Character("revoked-b", side[:2], ("filter", "read")),
        ]
        self.members = [
            Member(history, near, character, readings, seed) for character in characters
        ]
        victims = [each for each in self.members if each.name.startswith("revoked")]
        self.revokers = [Revoker(history, near, victims, seed)]

    def _add_devices(self, history: History, far: int, near: int, max_entries: int) -> None:
        for user in USERS:
            mail = Mail(max_entries)
            for device, port in (("a", far), ("b", near)):
                inbox = Inbox(history.notes, mail, f"{user}-{device}")
                self.inboxes.append(inbox)
                reads = user.endswith("read") and device == "a"
                self.devices.append(Device(history, port, user, inbox, reads=reads))
