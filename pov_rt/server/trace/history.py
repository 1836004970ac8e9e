"""A user's events, told anew: the connections of each device, and what each was sent of a topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pov_rt.server.trace.case import Case
from pov_rt.server.trace.events import Event


@dataclass
class Span:
    """For how long a connection got a topic: everything after `after`, up to `until`.

    `until` is None while that goes on, or where nobody knows, for the server ended at once.
    """

    began: float
    after: int
    top: int
    epoch: str
    recovered: bool | None
    missed: int | None
    only: Any
    ended: float | None = None
    until: int | None = None
    was_left: bool = False
    """Its client, or the server, ended it before the connection ended."""


@dataclass
class Visit:
    """A connection from its begin to its end; `reason` is why it ended, `node` where it was."""

    id: str
    began: float
    node: str = ""
    ended: float | None = None
    reason: str = ""
    expired: bool = False
    spans: list[Span] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Topics that it was subscribed to, without the one that is asked about."""


@dataclass
class Device:
    """What is known of one device on one topic."""

    name: str
    visits: list[Visit] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """Those that are no begin or end of a connection or of a span."""

    def last(self, *kinds: str, topic: str | None = None, after: float = 0.0) -> Event | None:
        """Return the newest event of these kinds, on this topic, if it is newer than that."""
        for event in reversed(self.events):
            if event.kind in kinds and topic in (None, event.topic) and event.at >= after:
                return event
        return None

    def touched(self, topic: str) -> float:
        """Return when something happened here on a topic, the last time; 0: nothing has."""
        mine = [each.at for each in self.events if each.topic == topic]
        spans = [each.ended or each.began for visit in self.visits for each in visit.spans]
        return max([*mine, *spans], default=0.0)


def tell(case: Case, topic: str) -> Mapping[str, Device]:
    """Return what became of each device, by its name, on one topic."""
    devices: dict[str, Device] = {}
    by_node: dict[str, dict[str, Visit]] = {}
    for event in case.events:
        node = case.nodes.get(event.run, case.node)
        open_visits = by_node.setdefault(node, {})
        if event.kind in ("started", "stopped"):
            for left in open_visits.values():  # the node that had them is gone
                reason = "the server ended" if event.kind == "started" else "restarting"
                _end(left, event.at, reason)
            open_visits.clear()
            continue
        if not event.connection:
            continue
        device = devices.setdefault(event.device, Device(event.device))
        visit: Visit | None = open_visits.get(event.connection)
        if visit is None:
            ended = [each for each in device.visits if each.id == event.connection]
            if ended and event.kind == "closed":
                visit = ended[-1]
            else:  # its begin may be forgotten already
                visit = open_visits[event.connection] = Visit(event.connection, event.at, node)
                device.visits.append(visit)
        _take(device, visit, event, topic)
        if event.kind == "closed":
            open_visits.pop(event.connection, None)
    return devices


def left_at(events: Iterable[Event]) -> Mapping[str, float]:
    """Return when each user's last connection ended, as the node's begins and ends tell it, too.

    Of a node that crashed nobody knows it better than by the last that was written of it.
    """
    found: dict[str, float] = {}
    there: dict[str, str] = {}
    last = 0.0
    for event in events:
        if event.kind in ("started", "stopped"):
            ended = last if event.kind == "started" else event.at
            found.update((user, max(ended, found[user])) for user in there.values())
            there.clear()
        elif event.connection:
            found[event.user] = event.at
            if event.kind == "closed":
                there.pop(event.connection, None)
            else:
                there[event.connection] = event.user
        last = event.at
    found.update((user, max(last, found[user])) for user in there.values())
    return found


def _take(device: Device, visit: Visit, event: Event, topic: str) -> None:
    more = event.more
    if event.kind == "closed":
        visit.expired = bool(more.get("expired"))
        _end(visit, event.at, str(more.get("reason", "")))
    elif event.kind == "joined" and event.topic == topic:
        if visit.spans and visit.spans[-1].ended is None:
            last = visit.spans[-1]  # the same subscription, asked for anew
            last.ended, last.until = event.at, more.get("sent", last.after)
        visit.spans.append(
            Span(
                event.at, event.offset, more.get("top", event.offset), more.get("epoch", ""),
                more.get("recovered"), more.get("missed"), more.get("only"),
            )
        )  # fmt: skip
    elif event.kind == "joined":
        visit.others.append(event.topic)
    elif event.kind == "left" and event.topic == topic:
        if visit.spans and visit.spans[-1].ended is None:
            span = visit.spans[-1]
            span.ended, span.until = event.at, event.offset
            span.was_left = not more.get("ended")
            if not span.was_left:
                span.ended = event.at
        device.events.append(event)
    elif event.kind == "left":
        if not more.get("ended") and event.topic in visit.others:
            visit.others.remove(event.topic)
    elif event.kind != "opened":
        device.events.append(event)


def _end(visit: Visit, at: float, reason: str) -> None:
    if visit.ended is None:
        visit.ended, visit.reason = at, reason
    for span in visit.spans:
        if span.ended is None:
            span.ended = at
