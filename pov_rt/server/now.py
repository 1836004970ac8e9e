"""What operators see of a node as it is: its last hour in numbers, and what is published.

Neither outlives the node. What is published is kept only while somebody looks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from pov_rt.auth.grants import Grants
from pov_rt.connections.borders import Observer, Stored
from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Conflict
from pov_rt.protocol.bodies import Happened, NodeHour, NodeSample, NodeState
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.tenants import wire_of
from pov_rt.protocol.topics import pov_of
from pov_rt.runtime.clock import Clock, rfc3339
from pov_rt.server.trace.explain import sees

EVERY_S = 30.0
SAMPLES = 121
"""The ends of an hour, and all in between."""
SHOWN = 30
"""Activities that are kept: the newest."""
AWAY_S = 15.0
"""After so long without a question nobody looks any more."""


@dataclass
class Hour:
    """The node's numbers, one sample each half minute. Owner: the web server, which has them."""

    clock: Clock
    _samples: deque[NodeSample] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _refused: deque[Mapping[str, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _at: float = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether the next sample is to be taken."""
        return self.clock.monotonic() - self._at >= EVERY_S

    def take(self, state: NodeState) -> None:
        """Keep a sample."""
        self._at = self.clock.monotonic()
        self._refused.append(dict(state.refused))
        self._samples.append(
            NodeSample(
                at=rfc3339(self.clock.time()),
                connections=state.connections,
                behind=state.behind,
                lag_s=state.lag_s,
                published=state.published,
                delivered=state.delivered,
                refused=sum(state.refused.values()),
            )
        )

    def told(self, node: str) -> NodeHour:
        """Return all that is kept."""
        before = dict(self._refused[0]) if self._refused else {}
        return NodeHour(node=node, samples=list(self._samples), refused_before=before)


class _Seen(NamedTuple):
    at: float
    topic: str
    body: bytes
    audience: int


class _Said(msgspec.Struct, rename="camel"):
    """What of an activity is shown."""

    id: str
    type: str
    action: str
    user_id: str


_decode = msgspec.json.Decoder(_Said).decode


class Happening(Observer):
    """The newest activities that this node published. Owner: the server, which calls `sweep`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._clock = services.clock
        self._seen: deque[_Seen] = deque(maxlen=SHOWN)
        self._asked_at: float | None = None

    def look(self, grants: Grants) -> Sequence[Happened]:
        """Return what was published since somebody began to look, newest first.

        Of PoVs that these grants may operate on.
        """
        if self._asked_at is None:
            self._services.borders.add(self)
        self._asked_at = self._clock.monotonic()
        return [
            shown
            for each in reversed(self._seen)
            if sees(grants, each.topic) and (shown := _shown(each)) is not None
        ]

    def stored(self, done: Stored) -> None:
        """Keep what was published, but not what was there before."""
        hub, now = self._services.hub, self._clock.time()
        newest = zip(done.entries[-SHOWN:], done.places[-SHOWN:], strict=True)
        for entry, place in newest:
            if isinstance(place, Conflict) or place.duplicate or entry.topic[:4] != "pov/":
                continue
            audience = hub.audience(entry.topic) + (hub.audience(entry.feed) if entry.feed else 0)
            self._seen.append(_Seen(now, entry.topic, entry.body, audience))

    def sweep(self) -> None:
        """End it when nobody looks any more; called about once a second."""
        if self._asked_at is not None and self._clock.monotonic() - self._asked_at > AWAY_S:
            self._asked_at = None
            self._services.borders.remove(self)
            self.clear()

    def clear(self) -> None:
        """Forget what was published, for some of it is erased."""
        self._seen.clear()


def _shown(seen: _Seen) -> Happened | None:
    try:
        said = _decode(seen.body)
    except DECODE_ERRORS:  # what tells of a change is no activity by itself
        return None
    return Happened(
        at=rfc3339(seen.at),
        pov_id=wire_of(pov_of(seen.topic)),
        id=said.id,
        type=said.type,
        action=said.action,
        user_id=said.user_id,
        to=seen.audience,
    )
