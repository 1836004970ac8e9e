"""What an engine is, with its guarantees. `pov_rt.suites.EngineSuite` tests each of them.

An engine knows topics and bytes. It does not know activities, connections or permissions. Every
method may be called from any task of the event loop the engine was started on, and from nowhere
else. A method that is cancelled may or may not have taken effect, but leaves the engine intact.
When the engine cannot do what is asked (disk full, Redis away), methods raise `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pov_rt.runtime.bounds import Bound


class Position(NamedTuple):
    """A place in a topic's log. Offsets of another epoch mean nothing."""

    epoch: str
    offset: int


class NewEntry(NamedTuple):
    """One thing to append. `key` is unique per (topic, publisher) for the idempotency window.

    `feed` names another topic that gets the same body, atomically with the first where the engine
    can. `origin` is handed to followers unread (the connection that published). `compared` is what
    tells the entry from another one with its key; without it, that is the body.
    """

    topic: str
    publisher: str
    key: str
    body: bytes
    feed: str = ""
    origin: str = ""
    compared: bytes = b""


class Appended(NamedTuple):
    """Where an entry is. `duplicate`: it was there before, and nobody was told again."""

    epoch: str
    offset: int
    duplicate: bool = False


class Conflict(NamedTuple):
    """The key was used before for something else; nothing was appended."""

    epoch: str
    offset: int


class Entry(NamedTuple):
    """An appended entry. `at` is when it was appended, in seconds since 1970."""

    offset: int
    body: bytes
    at: float
    origin: str = ""


class Top(NamedTuple):
    """The state of a topic's log: `offset` of the newest entry (0: none was ever appended) and
    `oldest`, the offset of the oldest one still kept (top + 1 where none is).
    """  # noqa: D205  (one sentence that does not fit a line)

    epoch: str
    offset: int
    oldest: int


class Page(NamedTuple):
    """Entries with the state of the log at the instant they were read."""

    top: Top
    entries: Sequence[Entry]

    def next(self, taken: int, *, reverse: bool) -> int | None:
        """Return from where to read on behind the first `taken` entries, None if nothing follows.

        `reverse` is that of the reading.
        """
        if taken == 0:
            return None
        offset = self.entries[taken - 1].offset
        is_last = offset <= self.top.oldest if reverse else offset >= self.top.offset
        return None if is_last else offset


class Tally(NamedTuple):
    """How many entries have which head, and how many bytes were read to find out."""

    counts: Mapping[bytes, int]
    size: int


class Follower(Protocol):
    """Who is told what happens on watched topics: the hub. Called on the loop; must not raise."""

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Take entries that are durable. Per topic: in offset order, each once, none left out.

        An engine that may have missed some calls `uncertain` first.
        """

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Take a signal that another node sent (a node's own signals do not come back to it)."""

    def uncertain(self, topic: str) -> None:
        """Compare with `Log.top`: entries, or a new epoch, may have been missed."""


class Log(Protocol):
    """Append-only logs, one per topic.

    Order: one total order per topic, the same for every reader and follower on every node. Offsets
    start at 1 and are contiguous. A log that was lost, reset or restored has a new epoch.

    A topic that nothing needs is forgotten: all its entries are too old, all its keys too, it has
    no mark, and no node watches it. It is an unknown topic then, and has another epoch than ever
    before.
    """

    async def append(self, batch: Sequence[NewEntry]) -> list[Appended | Conflict]:
        """Append a batch; return what became of each, in order.

        Returns when all are as durable as the engine's `guarantee` says; followers on every node
        that watch the topic are told then and not before, and on this node before this returns.
        Entries of one batch keep their order. Not atomic as a whole: after `Unavailable`, any
        prefix may be there, and a retry with the same keys is safe. A retry with an equal body
        answers the first offset with `duplicate`; with another one `Conflict`. The memory of keys
        lasts for the idempotency window, whatever the retention.

        `Unavailable` also for more topics than `EngineSettings.max_topics`, or than one publisher
        may begin in an hour.
        """

    async def read(
        self,
        topic: str,
        after: int,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        """Return up to `limit` entries with offset > `after`, oldest first.

        The entry that fills `max_bytes` is the last one.

        With `reverse`: those with offset < `after`, newest first (`after` 0: from the top). Entries
        that retention took are left out: compare with `top.oldest`.
        """

    async def tally(
        self, topic: str, first: int, last: int, head_of: Callable[[bytes], bytes]
    ) -> Tally:
        """Count the entries between two offsets, these included, by what `head_of` makes of each.

        It may be called in another thread. Of those that retention took some may be counted.
        """

    async def topics(self, prefix: str) -> Sequence[str]:
        """Return the names that begin with `prefix` of all topics that have a log."""

    async def top(self, topic: str) -> Top:
        """Return the state of the topic's log; an unknown topic has an epoch, too.

        The epoch stays the same as long as the log does. That of an unknown topic stays for as long
        as the topic is watched, and begins its log; else until some topic is forgotten.
        """


class Signals(Protocol):
    """Ephemeral messages between nodes: at most once, unordered with the log, never stored."""

    def send(self, topic: str, body: bytes, origin: str = "") -> None:
        """Hand `body` to the followers of all other nodes that watch `topic`. Never blocks."""


class Marks(Protocol):
    """Watermarks: how far somebody got in a topic. They only ever move forward in an epoch.

    A mark that its user does not use for `mark_age_s` is forgotten, but none before the entries it
    speaks of (`max_age_s`). To advance a mark, even to where it is, and to get it is to use it.
    """

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        """Move the mark to the later of what is there and `position`; return what is there now.

        A position of another epoch than the mark's replaces it (the log was reset). A user has
        `EngineSettings.marks_per_user` at most, and a tenth of `max_marks`: for one more the user's
        longest unused mark is forgotten. Raises `Unavailable` for more than `max_marks` in all.
        """

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        """Return one mark, or None if there is none."""

    async def get_many(
        self, user: str, topics: Sequence[str], names: Sequence[str]
    ) -> Sequence[Sequence[Position | None]]:
        """Return a user's marks of these names by topic, in the order asked for.

        Those of one topic are as they were at one instant. It is one question, however many.
        """

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        """Return every user's mark of that name on the topic. Nobody has used theirs by that."""

    async def drop(self, topic: str, user: str, name: str) -> None:
        """Forget one mark; nothing happens if there is none."""

    async def drop_all(self, user: str, name: str) -> None:
        """Forget a user's marks of that name, on whatever topic."""


class Lease(NamedTuple):
    """A member under a lease; `leaving_at` (`Clock.monotonic`) is set once it is going."""

    member: str
    body: bytes
    node: str
    leaving_at: float | None = None


class Leases(Protocol):
    """Members of a topic that vanish when their node stops renewing."""

    async def put(self, topic: str, member: str, body: bytes) -> bool:
        """Enter or update a member under this node's lease; return whether it is new.

        A member that another node holds becomes this node's. It clears `leaving_at`.
        """

    async def leave(self, topic: str, member: str, after_s: float) -> bool:
        """Mark a member as leaving in `after_s` seconds; False if another node holds it now."""

    async def remove(self, topic: str, member: str) -> bool:
        """Remove a member at once, whoever holds it; return whether it was there."""

    async def members(self, topic: str) -> Sequence[Lease]:
        """Return the members, those who are leaving included, expired ones not."""

    async def expire(self) -> Sequence[tuple[str, Lease]]:
        """Remove members whose node is gone or whose `leaving_at` has passed; return them.

        Each removed member is returned to exactly one caller on one node. A crowd may take several
        calls, the last of which returns nobody.
        """

    async def renew(self) -> None:
        """Renew this node's lease: one operation, however many members it has."""


class NewMember(NamedTuple):
    """A member to add to the set `name`; the fields are those of `Sets.add`."""

    name: str
    member: str
    body: bytes = b""
    expires_at: float | None = None


class Sets(Protocol):
    """Named sets whose members have a value and may expire. A set without members is forgotten."""

    async def add(
        self, name: str, member: str, body: bytes = b"", expires_at: float | None = None
    ) -> None:
        """Add or replace a member; `expires_at` in seconds since 1970, None for never."""

    async def remove(self, name: str, member: str) -> bool:
        """Remove a member; return whether it was there."""

    async def update(
        self, add: Sequence[NewMember] = (), remove: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Remove members (set and member) and add others, all of it or nothing."""

    async def get(self, name: str, member: str) -> bytes | None:
        """Return the member's value, or None if it is not there or has expired."""

    async def members(self, name: str) -> Mapping[str, bytes]:
        """Return the members that have not expired."""


class Stored(NamedTuple):
    """A value in the store, with where it is."""

    space: str
    key: str
    body: bytes


class Store(Protocol):
    """Values by key in named spaces, one for each plugin; as durable as the engine's `guarantee`.

    A value may belong to somebody, its `owner` (a user's id; empty: to nobody): what is known of a
    user is found, and erased, by that.

    All of them together have `EngineSettings.store_bytes`, names and owners counted, and those of
    one space half of that: what would be more is refused with `Unavailable`, and nothing changes.
    """

    async def get(self, space: str, key: str) -> bytes | None:
        """Return a value, or None if there is none."""

    async def put(self, space: str, key: str, body: bytes, owner: str = "") -> None:
        """Set a value, and whose it is."""

    async def swap(
        self, space: str, key: str, old: bytes | None, new: bytes | None, owner: str = ""
    ) -> bool:
        """Set a value, or with None remove it, if it still is `old` (None: absent).

        Returns whether it was.
        """

    async def remove(self, space: str, key: str) -> bool:
        """Remove a value; return whether it was there."""

    async def read(
        self, space: str, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[tuple[str, bytes]]:
        """Return up to `limit` values of a space whose keys begin with `prefix`, behind `after`.

        In the order of their keys, by code points.
        """

    async def owned(
        self, owner: str, after: tuple[str, str] = ("", ""), limit: int = 100
    ) -> Sequence[Stored]:
        """Return up to `limit` values of an owner, in any space, behind a space and key."""

    async def erase(self, owner: str) -> int:
        """Remove every value of an owner, all or none; return how many there were."""


class Engine(Protocol):
    """All six parts behind one URL. Owner: the Server, which starts and closes it."""

    guarantee: str
    """What an acknowledged append survives: `process`, `disk` or `primary`."""

    @property
    def waiting_bytes(self) -> int:
        """What was accepted and is not acknowledged yet, of `engine.backlog_bytes`."""

    @property
    def log_bytes(self) -> Mapping[str, int]:
        """How large its files on this machine are, by what they are; none for an engine without."""

    @property
    def bounds(self) -> Sequence[Bound]:
        """What its users share: topics, marks, what waits."""

    @property
    def log(self) -> Log:
        """The topics' logs."""

    @property
    def signals(self) -> Signals:
        """Messages between nodes."""

    @property
    def marks(self) -> Marks:
        """Watermarks."""

    @property
    def leases(self) -> Leases:
        """Members under a lease."""

    @property
    def sets(self) -> Sets:
        """Sets with expiry."""

    @property
    def store(self) -> Store:
        """Values by key."""

    async def start(self, follower: Follower) -> None:
        """Connect, open, recover. Raises `Unavailable` with a reason that names what to mend."""

    async def close(self) -> None:
        """Finish what was accepted, then release everything. May be called twice."""

    async def watch(self, topic: str) -> Top:
        """Tell the follower of the topic's entries and signals from now on.

        Every entry after the returned top reaches the follower.
        """

    async def unwatch(self, topic: str) -> None:
        """Stop telling the follower; an entry that is on its way may still arrive."""

    def health(self) -> str | None:
        """Return None when the engine works, else one line that says what does not."""
