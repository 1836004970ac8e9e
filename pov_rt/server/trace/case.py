"""What is known of a user and an activity: all that the judge looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pov_rt.delivery.filters import Head
from pov_rt.protocol.bodies import MissingNode
from pov_rt.server.trace.events import Event
from pov_rt.server.trace.trace import Append, Handout

State = Literal["there", "retracted", "erased", "removed", "expired"]


class Activity(NamedTuple):
    """What is asked about, as the log has it.

    `removed`: retention took it. `head` is None then, and where it was erased. `publisher` is "" if
    nobody knows any more.
    """

    id: str
    topic: str
    epoch: str
    offset: int
    state: State
    at: float | None = None
    head: Head | None = None
    publisher: str = ""
    traceparent: str | None = None


class Live(NamedTuple):
    """A connection that is open now; `delivered` is how far it was sent all, None: not subscribed.

    `only` is its filter as `Event.more` has it, and `behind` says that it is being replayed to.
    """

    id: str
    device: str
    delivered: int | None
    behind: bool
    unsent_bytes: int
    only: object = None
    others: Sequence[str] = ()
    """The PoVs that it is subscribed to, with `*` for the team's feed."""
    node: str = ""
    """Where it is."""


@dataclass(frozen=True)
class Case:
    """Everything about one user and one activity. Times are in seconds since 1970.

    `activity` is None if there is none of that id: `elsewhere` then says where one is that this
    user cannot have, and `publishing` what became of attempts to publish it.
    """

    user: str
    activity_id: str
    now: float
    activity: Activity | None
    events: Sequence[Event] = ()
    publishing: Sequence[Event] = ()
    elsewhere: str = ""
    device: str = ""
    """The device that was asked about; "": all of them."""
    pov: str = ""
    """The PoV that was asked about, if any, as the wire calls it."""
    feed: Case | None = None
    """The same by way of the team's feed that has the activity, too: its log, place, marks."""
    other_feed: str = ""
    """A team whose feed the user follows, and which does not have the activity."""
    live: Sequence[Live] = ()
    devices: Mapping[str, float] = field(default_factory=dict)
    """The user's devices that are remembered, with when each was used last."""
    acked: Mapping[str, int] = field(default_factory=dict)
    read: int = 0
    mute: str = ""
    """How loud the PoV is for the user, if it is not as by default."""
    append: Append | None = None
    handouts: Mapping[str, Handout] = field(default_factory=dict)
    """When it was handed out on each node."""
    since: float | None = None
    """Since when the trace knows of what happened; None: there is none."""
    run: str = ""
    node: str = ""
    """The node that was asked."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Of other nodes' events: the node of each run."""
    missing: Sequence[MissingNode] = ()
    """The nodes of which nothing is known."""
