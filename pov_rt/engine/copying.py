"""Moving what an engine keeps to another one: as records that every engine can give and take.

A copy is for an instant: what is too old by then, or too much, is left out. It is right where
nobody changes the source meanwhile, and nobody uses the target before it is finished.

Instants are in microseconds since 1970. What is compared of an entry, and the key that its
publisher gave it, are known by what `digest_of` and `key_hash` make of them: not every engine keeps
more, so all have these in common.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

import msgspec

from pov_rt.protocol.errors import Unavailable

HASH_BYTES = 8
DIGEST_BYTES = 16
UNPRINTABLE = "\0"
"""What begins the name that stands for a key of which only the hash is known: no id has it."""


def microseconds(seconds: float) -> int:
    """Return a time, or an instant, as records have it."""
    return round(seconds * 1e6)


def digest_of(content: bytes) -> int:
    """Return what tells an entry from another one with its key: a number of 64 bits.

    A checksum is enough: both are the same publisher's, who gains nothing by a clash.
    """
    return zlib.crc32(content) | len(content) << 32


def key_hash(key: str) -> bytes:
    """Return what is known of a key everywhere."""
    return blake2b(key.encode(), digest_size=HASH_BYTES).digest()


def hashed_name(key: str) -> str:
    """Return by what name a key stands that was taken over as its hash."""
    return name_of_hash(key_hash(key))


def name_of_hash(hashed: bytes) -> str:
    """Return by what name a key stands of which only the hash is known."""
    return UNPRINTABLE + hashed.hex()


def hash_of_name(name: str) -> bytes:
    """Return the hash of a key, which may be the name of a hash."""
    return bytes.fromhex(name[1:]) if name.startswith(UNPRINTABLE) else key_hash(name)


Epochs = tuple[tuple[str, int], ...]
"""Epochs of a log, its own first: with its top, and others with where the log left them."""


def was_kept(epochs: Epochs, epoch: str, offset: int) -> bool:
    """Tell whether a place in one of these epochs, the newest first, is one in the log.

    It is if the log was left behind it each time.
    """
    least = None
    for its, last in epochs:
        least = last if least is None else min(least, last)
        if its == epoch:
            return offset <= least
    return False


class Begun(NamedTuple):
    """In which epochs logs begin that are not there yet.

    One of them for each part of all topics: the part is the topic's CRC-32 modulo their number.
    """

    epochs: tuple[str, ...]


class CopiedLog(NamedTuple):
    """A topic's log. `at` is until when it was in use, more or less."""

    topic: str
    offset: int
    epochs: Epochs
    at: int


class CopiedEntry(NamedTuple):
    """An entry, and where else it is: `side` is `>` if that is its feed, `<` if this is the feed.

    Without a side it is nowhere else. Where it was once and is no more is said, too, as long as
    that log is there.
    """

    topic: str
    offset: int
    at: int
    origin: str
    body: bytes
    side: str = ""
    other: str = ""
    other_offset: int = 0

    def alone(self, body: bytes | None = None) -> CopiedEntry:
        """Return it as one that is nowhere else; with another body it is a stub of its own."""
        mine = self._replace(side="", other="", other_offset=0)
        return mine if body is None else mine._replace(body=body, origin="")


class CopiedId(NamedTuple):
    """A publisher's id for an entry."""

    topic: str
    key: bytes
    publisher: str
    digest: int
    offset: int
    at: int


class CopiedNumber(NamedTuple):
    """The last number of a producer."""

    topic: str
    publisher: str
    name: str
    seq: int
    at: int


class CopiedMark(NamedTuple):
    """A mark. `at` is when it was used last, in seconds."""

    topic: str
    name: str
    user: str
    epoch: str
    offset: int
    at: int


class CopiedMember(NamedTuple):
    """A member of a set; `expires_at` is 0 of one that stays."""

    name: str
    member: str
    body: bytes
    expires_at: int


class CopiedValue(NamedTuple):
    """A value in the store."""

    space: str
    key: str
    owner: str
    body: bytes


Record = (
    Begun | CopiedLog | CopiedEntry | CopiedId | CopiedNumber | CopiedMark | CopiedMember
    | CopiedValue
)  # fmt: skip
Records = Sequence[Record]
"""Some of one kind."""
KINDS: dict[type, str] = {
    CopiedLog: "topics",
    CopiedEntry: "entries",
    CopiedId: "ids",
    CopiedNumber: "producers",
    CopiedMark: "marks",
    CopiedMember: "set members",
    CopiedValue: "plugins' values",
}


class Copying(Protocol):
    """What there is of an engine to copy; pages of it are small enough to be in memory."""

    def dump(self, at: float) -> AsyncIterator[Records]:
        """Yield what is kept at an instant (seconds since 1970): all logs before any entry.

        The entries of a log come in their order. Each record comes once, if nobody changes
        anything meanwhile. Raises `Unavailable`.
        """

    async def restore(self, records: Records) -> None:
        """Take over records, in the order of `dump`, where nothing is. Raises `Unavailable`.

        Logs go on from where they were: under the same epoch, and a position that the other engine
        held is held (`Log.holds`).
        """

    async def finish(self) -> None:
        """Make it ready to be used, after the last record. Raises `Unavailable`."""


class Sum(NamedTuple):
    """How many records of a kind there are, and the sum of their digests, in whatever order."""

    number: int = 0
    digest: int = 0


Sums = dict[str, Sum]
Progress = Callable[[int], None]
"""Is told how many records were copied or looked at."""
Look = Callable[[CopiedLog], None]


async def copy(source: Copying, target: Copying, at: float, progress: Progress) -> None:
    """Copy everything, in pages (docs/measurements.md, copying). Raises `Unavailable`."""
    async for records in source.dump(at):
        await target.restore(records)
        progress(len(records))
    await target.finish()


async def total(copying: Copying, at: float, progress: Progress, look: Look | None = None) -> Sums:
    """Return how many records of each kind there are, and their digests. Raises `Unavailable`.

    `look` is given each log.
    """
    sums = dict.fromkeys(KINDS.values(), Sum())
    async for records in copying.dump(at):
        kind = type(records[0])
        if kind is Begun:
            continue
        digest = 0
        for each in records:
            if isinstance(each, CopiedLog):
                if look is not None:
                    look(each)
                each = each._replace(at=0)
            packed = msgspec.msgpack.encode(each)
            hashed = blake2b(packed, digest_size=DIGEST_BYTES)
            digest += int.from_bytes(hashed.digest(), "big")
        before = sums[KINDS[kind]]
        digest = (before.digest + digest) % (1 << 8 * DIGEST_BYTES)
        sums[KINDS[kind]] = Sum(before.number + len(records), digest)
        progress(len(records))
    return sums


def compare(source: Sums, target: Sums) -> None:
    """Raise `Unavailable` with what differs, if anything does."""
    differing = [
        f"{kind} ({sums.number:,} and {target[kind].number:,})"
        for kind, sums in source.items()
        if sums != target[kind]
    ]
    if differing:
        raise Unavailable(
            f"the copy is not what it was copied of: {', '.join(differing)}; something was changed "
            "meanwhile: stop whatever uses either of them, and copy again"
        )
