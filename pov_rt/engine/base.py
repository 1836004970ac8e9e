"""What an engine is, with its guarantees. `pov_rt.suites.EngineSuite` tests each of them.

An engine knows topics and bytes. It does not know activities, connections or permissions. Every
method may be called from any task of the event loop the engine was started on, and from nowhere
else. A method that is cancelled may or may not have taken effect, but leaves the engine intact.
When the engine cannot do what is asked (disk full, Redis away), methods raise `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Literal, NamedTuple, Protocol

import msgspec

from pov_rt.engine.copying import Copying
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.measure.histogram import Histogram

Survives = Literal["process", "primary", "second", "disk", "replicated"]
"""What an acknowledged append survives. `process`: nothing that ends this process. `primary`: that,
for it is in the memory of another. `second`: a loss of power, but for about the last second.
`disk`: a loss of power. `replicated`: the loss of a machine."""


State = Literal["ok", "degraded", "deaf"]


class Health(NamedTuple):
    """How an engine is: `ok`, or what does not work in one line, and since when (`Clock.time`).

    `degraded`: something is refused, slow or unsafe, and mends itself or by an operator; who is
    connected is better off staying. `deaf`: this node alone misses what the others are told, so
    that its clients are better off elsewhere.
    """

    state: State = "ok"
    line: str = ""
    since: float = 0.0


class Position(NamedTuple):
    """A place in a topic's log. In that of another epoch it is one while `Log.holds` it."""

    epoch: str
    offset: int


class NewEntry(NamedTuple):
    """One thing to append. `key` is unique per (topic, publisher) for the idempotency window.

    `feed` names another topic that gets the same body, atomically with the first where the engine
    can. `origin` is handed to followers unread (the connection that published). `compared` is what
    tells the entry from another one with its key; without it, that is the body.

    `producer` is one of the publisher's, which numbers what it appends to the topic, from 1: each
    `seq` is higher than those before, and what is not was appended already.
    """

    topic: str
    publisher: str
    key: str
    body: bytes
    feed: str = ""
    origin: str = ""
    compared: bytes = b""
    producer: str = ""
    seq: int = 0


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where an entry is. `duplicate`: it was there before, and nobody was told again.

    One that is known by its producer's number alone is there or before.
    """

    epoch: str
    offset: int
    duplicate: bool = False


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """The key was used before for something else; nothing was appended."""

    epoch: str
    offset: int


class Entry(msgspec.Struct, frozen=True, gc=False):
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


class Topics(NamedTuple):
    """Names of topics; `next` is from where to go on, None at the end."""

    names: Sequence[str]
    next: str | None


class Found(NamedTuple):
    """Whose entry has a key, and where it is in the topic it was appended to."""

    publisher: str
    offset: int


class Located(NamedTuple):
    """Where an entry with a key is: in which topic, whose it is, and at which offset."""

    topic: str
    publisher: str
    offset: int


class Match(NamedTuple):
    """An entry that was looked for, in the topic it was appended to.

    In its feed, if that is the only one that still has it.
    """

    topic: str
    entry: Entry


class Matches(NamedTuple):
    """What was found; `next` is from where to look on, None at the end."""

    found: Sequence[Match]
    next: str | None


class Rewrite(NamedTuple):
    """Another body for an entry, in any topic that has it, while its body still is `old`."""

    topic: str
    offset: int
    old: bytes
    body: bytes


class Amendment(NamedTuple):
    """A rewrite, and the entry that tells of it, which goes to the same topic and feed.

    What `entry` says of both is not looked at. `others` are rewritten with it.
    """

    rewrite: Rewrite
    entry: NewEntry
    others: Sequence[Rewrite] = ()


class Amended(NamedTuple):
    """Where the entry is that tells of a rewrite; `feed` is the one that it went to, or ""."""

    place: Appended
    feed: str = ""


class Follower(Protocol):
    """Who is told what happens on watched topics: the hub. Called on the loop; must not raise."""

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Take entries that the engine counts in its log. Per topic: in offset order, each once.

        None is left out; an engine that may have missed some calls `uncertain` first. One may be
        told of a little before its `append` returns. Should it be lost before that, the log has
        another epoch, as after every loss.
        """

    def signal(self, topic: str, body: bytes, origin: str) -> None:
        """Take a signal that another node sent (a node's own signals do not come back to it)."""

    def uncertain(self, topic: str) -> None:
        """Compare with `Log.top`: entries, or a new epoch, may have been missed."""

    def left(self, topic: str, leases: Sequence[Lease]) -> None:
        """Take members whose leases have ended, on every node that watches the topic.

        That is one step with their removal: whoever is told of a member that has ended, and that is
        entered again, is told of the ending before any signal that was sent after `Leases.put` had
        returned. Only a node that enters it itself may have that answer first. Where signals may
        have been missed, endings may have been, too.
        """

    def rewritten(self, topic: str) -> None:
        """Keep nothing that was made of the topic's bodies: some of them are other ones now.

        Where they are stays as it was told.
        """


class Log(Protocol):
    """Append-only logs, one per topic.

    Order: one total order per topic, the same for every reader and follower on every node. Offsets
    start at 1 and are contiguous. A log that was reset or restored, or lost any entry that somebody
    may have been told of, has a new epoch from before its next entry on, whether or not a node was
    there to see the loss. What was not lost stays where it was: see `holds`.

    A topic that nothing needs is forgotten: all its entries are too old, all its keys and producers
    too, it has no mark, and no node watches it. It is an unknown topic then, and has another epoch
    than ever before.

    How much is kept of a topic, `keeping.Keeping` says. In a feed a stub stays of an entry that is
    too old where it was appended to, before it is too old for the feed.

    An entry has one body in its topic and in its feed. That may be replaced (`amend`, `edit`):
    offsets, instants and keys stay, readers find the new body everywhere, and the follower is told
    of both topics (`rewritten`), watched or not, before the method returns. What was replaced or
    removed is gone from the engine's own files after `Engine.scrub`.
    """

    def append(self, batch: Sequence[NewEntry]) -> Awaitable[list[Appended | Conflict]]:
        """Append a batch; return what became of each, in order.

        What is awaited is done when all are as durable as the engine's `guarantee` says; followers
        on every node that watch the topic are told then and not before, and on this node before
        that. Of a future, which may be done already, nobody needs to make a task.
        Entries of one batch keep their order. Not atomic as a whole: after `Unavailable`, any
        prefix may be there, and a retry with the same keys is safe. A retry with an equal body
        answers the first offset with `duplicate`; with another one `Conflict`. The memory of keys
        lasts for the idempotency window, whatever the retention. A `seq` that is not higher than
        its producer's last one in the topic is a `duplicate`, too; that one is remembered, in the
        step that appends, for `producer_age_s` from then on, and its topic as long.

        `Unavailable` also for more topics than `EngineSettings.max_topics`, or than one publisher
        may begin in an hour, and for more producers of all topics than `max_producers`.
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

    async def find(self, topic: str, key: str) -> Sequence[Found]:
        """Return where the entries with a key are, of whichever publisher, as long as it is known.

        That is for the idempotency window. The entries themselves may be gone.
        """

    async def locate(self, key: str) -> Sequence[Located]:
        """Return where the entries with a key are in whatever topic, as `find` does; some of many.

        It costs a look into every topic.
        """

    async def search(
        self, prefix: str, matches: Callable[[bytes], bool], after: str = ""
    ) -> Matches:
        """Look at some entries of all topics that begin with `prefix`, and return those that match.

        Begin with `after` empty and go on from `Matches.next`: so each entry is looked at once that
        is there all the while, those of a topic in their order. Those that retention hides, but has
        not removed yet, are looked at, too. `matches` may be called in another thread.
        """

    async def amend(self, amendment: Amendment) -> Amended | Conflict | None:
        """Rewrite an entry and append the one that tells of it, all or nothing.

        Durable and told like what is appended; followers are told of the rewriting first. The new
        entry's key is that of `append`: a retry answers `duplicate` or `Conflict`, and rewrites
        nothing. None if one of the entries is not there, or its body is not `old` any more: nothing
        changed.
        """

    async def edit(self, rewrites: Sequence[Rewrite]) -> Sequence[bool]:
        """Rewrite entries, in one step; return which: not one that is gone or has another body."""

    async def drop(self, topic: str, stub: Callable[[bytes], bytes]) -> None:
        """Remove a topic's log with its keys and marks; should it come back, it is another log.

        A feed keeps its places: of a body that is in one only `stub` of it remains, which may be
        called in another thread. To drop a feed leaves what is in it where it was appended to. The
        oldest entries go first, in steps; what is appended meanwhile goes as well. Who follows the
        topic is told `uncertain`.
        """

    async def disown(self, publisher: str) -> int:
        """Forget a publisher's keys and producers before their time; return how many keys it were.

        Not those of what is appended meanwhile. Its entries stay as they are.
        """

    async def topics(self, prefix: str, after: str = "", limit: int = 1000) -> Topics:
        """Return some names that begin with `prefix` of topics that have a log, about `limit`.

        Begin with `after` empty and go on from `Topics.next`: so each topic that is there all the
        while is named, in whatever order, most of them once. A page may be empty before the end.
        """

    async def holds(self, topic: str, position: Position) -> bool:
        """Tell whether a position that was given out is still a place in the topic's log.

        If so, the log is to that offset what it was: who has everything up to there misses nothing
        by going on from the same offset in the log's epoch (`top`), save for what retention took.
        So are those of the log's own epoch that are not above its top, and of an older epoch those
        not above the smallest offset at which the log has changed its epoch since. What is not held
        never is again: a position that is held has been all the while.

        False of what the engine does not know. Offset 0 is no exception: of a log that was dropped,
        or forgotten because all in it was too old, entries may have come and gone behind it.
        """

    async def top(self, topic: str) -> Top:
        """Return the state of the topic's log; an unknown topic has an epoch, too.

        The epoch stays the same as long as the log does. That of an unknown topic stays for as long
        as the topic is watched, and begins its log; else until some topic is forgotten.
        """


class Room(Enum):
    """How many bytes of a kind of signals may wait to be sent: none takes the room of another."""

    USERS = 1024 * 1024
    """What is delivered to users."""
    LETTERS = 4 * 1024 * 1024
    """Questions of nodes, and their answers."""
    ORDERS = 16 * 1024 * 1024
    """Small ones that nodes must not miss, such as revocations."""


class Signals(Protocol):
    """Ephemeral messages between nodes: at most once, unordered with the log, never stored."""

    def send(self, topic: str, body: bytes, origin: str = "", *, room: Room = Room.USERS) -> bool:
        """Hand `body` to the followers of all other nodes that watch `topic`. Never blocks.

        Returns whether it was taken: not while there is no way to them, or no `room`.
        """


class Marks(Protocol):
    """Watermarks: how far somebody got in a topic. They only ever move forward in an epoch.

    A mark goes over to a new epoch of its topic's log with the log: wherever one is returned,
    compared or replaced, it counts as one of the log's epoch while the log holds it (`Log.holds`).
    The epoch of a mark is that of a log, or begins with that and `-`; what follows stays as it is.

    A mark that its user does not use for `mark_age_s` is forgotten, but none before the entries it
    speaks of (`max_age_s`). To advance a mark, even to where it is, and to get it is to use it.
    """

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        """Move the mark to the later of what is there and `position`; return what is there now.

        A position of another epoch than the mark's replaces it (the log was reset, or has lost what
        the mark speaks of). A user has `EngineSettings.marks_per_user` at most, and a tenth of
        `max_marks`: for one more the user's longest unused mark is forgotten. Raises `Unavailable`
        for more than `max_marks` in all.
        """

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        """Return one mark, or None if there is none."""

    async def get_many(
        self, user: str, topics: Sequence[str], names: Sequence[str]
    ) -> Sequence[Sequence[Position | None]]:
        """Return a user's marks of these names by topic, in the order asked for.

        Those of one topic are as they were at one instant. It is one question, however many.
        """

    async def carry(self, topic: str, name: str, start: Position, end: Position) -> None:
        """Move every user's mark of that name that is at `start` on to `end`, in the same epoch."""

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        """Return every user's mark of that name on the topic. Nobody has used theirs by that."""

    async def drop(self, topic: str, user: str, name: str) -> None:
        """Forget one mark; nothing happens if there is none."""

    async def drop_all(self, user: str, name: str) -> None:
        """Forget a user's marks of that name, on whatever topic."""

    async def of(self, user: str) -> Sequence[tuple[str, str, Position]]:
        """Return all marks of a user: topic, name and position. They are not used by that."""

    async def drop_user(self, user: str) -> int:
        """Forget all marks of a user; return how many there were."""


class Lease(NamedTuple):
    """A member under a lease; `leaving_at` (`Clock.monotonic`) is set once it is going."""

    member: str
    body: bytes
    node: str
    leaving_at: float | None = None


class Leases(Protocol):
    """Members of a topic that vanish when their node stops renewing."""

    @property
    def held(self) -> Mapping[str, int]:
        """How many members this node holds, by the first part of their topics' names."""

    async def put(self, topic: str, member: str, body: bytes) -> bool:
        """Enter or update a member under this node's lease; return whether it is new.

        A member that another node holds becomes this node's, and is the other's again when this
        one has it leave, or is gone. It clears `leaving_at`.
        """

    async def leave(self, topic: str, member: str, after_s: float) -> bool:
        """Mark a member as leaving in `after_s` seconds; False if another node holds it now.

        That is so as well if another node had entered it, too, and has not had it leave.
        """

    async def remove(self, topic: str, member: str) -> bool:
        """Remove a member at once, whoever holds it; return whether it was there."""

    async def members(self, topic: str) -> Sequence[Lease]:
        """Return the members, those who are leaving included, expired ones not."""

    async def expire(self) -> Sequence[tuple[str, Lease]]:
        """Remove members whose node is gone or whose `leaving_at` has passed; return them.

        Each removed member is returned to one caller on one node, or to none if that node ends just
        then; every node that watches its topic is told all the same (`Follower.left`), this one
        before the method returns. A crowd may take several calls, the last of which returns nobody.
        """

    async def renew(self) -> bool:
        """Renew this node's lease: one operation, however many members it has.

        Returns whether it had not run out. If it had, members of this node may be gone already, and
        the caller enters them again; those that are left are this node's as before.
        """


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

    async def drop(self, name: str) -> int:
        """Remove a set, with members that have expired too; return how many it had."""

    async def get(self, name: str, member: str) -> bytes | None:
        """Return the member's value, or None if it is not there or has expired."""

    async def members(self, name: str) -> Mapping[str, bytes]:
        """Return the members that have not expired."""

    async def having(self, member: str, prefix: str = "") -> Sequence[str]:
        """Return the sets that have this member and begin with `prefix`, in the order of names.

        Expired ones too, as long as they are there. It looks at all sets.
        """


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


class Peer(NamedTuple):
    """Another node that shares what the engine keeps: this run of it.

    `run` is the `node` that its engine was opened with, `name` what operators call it. It was heard
    of `silent_s` ago.
    """

    run: str
    name: str
    host: str
    version: str
    silent_s: float


class Engine(Protocol):
    """All six parts behind one URL. Owner: the Server, which starts and closes it."""

    @property
    def peers(self) -> Sequence[Peer]:
        """The other nodes, in the order of their names; none, for an engine in this process.

        One that has begun or ended is there or gone after a moment; one that crashed, a minute.
        """

    @property
    def guarantee(self) -> Survives:
        """What an acknowledged append survives; ask each time, for it may change at any time."""

    @property
    def waiting_bytes(self) -> int:
        """What was accepted and is not acknowledged yet, of `engine.backlog_bytes`."""

    @property
    def log_bytes(self) -> Mapping[str, int]:
        """How large its files on this machine are, by what they are; none for an engine without."""

    @property
    def measures(self) -> Mapping[str, float]:
        """What else there is to watch of it, by its name; nothing for an engine in this process."""

    @property
    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """How often things have happened since the start, by their name and by their outcome."""

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """How long things took, or how many they were, by their name, which ends with the unit."""

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

    @property
    def copying(self) -> Copying:
        """All of it as records that another engine can take over."""

    async def start(self, follower: Follower, name: str = "") -> None:
        """Connect, open, recover. Raises `Unavailable` with a reason that names what to mend.

        `name` is what the other nodes' operators call this one.
        """

    async def close(self) -> None:
        """Finish what was accepted, then release everything. May be called twice."""

    async def watch(self, topic: str) -> Top:
        """Tell the follower of the topic's entries and signals from now on.

        Every entry after the returned top reaches the follower.
        """

    async def unwatch(self, topic: str) -> None:
        """Stop telling the follower; an entry that is on its way may still arrive."""

    async def scrub(self) -> None:
        """Return once the engine's own files have no byte left of what was replaced or removed.

        That is before this was called, by whatever method. It may take as long as to copy the
        files, and what is to be written waits meanwhile. Raises `Unavailable` with the reason when
        that cannot be, such as another program that reads the database for long; a later call, or
        the next start, tries again. Backups and other copies are not the engine's.
        """

    def health(self) -> Health:
        """Return how the engine is. Called often: it asks nobody."""
