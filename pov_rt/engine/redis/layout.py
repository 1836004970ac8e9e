"""Which partition a topic is in, and the bytes that entries, ids and states are made of.

The files of `functions/` say of each key what is in it; here is what Python reads and writes of it.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from pov_rt.engine import copying
from pov_rt.engine.base import Entry
from pov_rt.engine.copying import HASH_BYTES, key_hash

CHANNEL = b"c:"
REMEMBERED = 50_000
"""Topics whose hash and partition are remembered."""


class Partitions:
    """Names of keys: those of one partition begin with `PREFIX:{017}:`, and lie in one slot.

    The braces have a number and never a topic, whose name may hold braces.
    """

    def __init__(self, prefix: str, number: int) -> None:
        self.prefix: Final = prefix
        self.number: Final = number
        self.all: Final = tuple(f"{prefix}:{{{at:03d}}}:".encode() for at in range(number))
        self._channel: Final = len(self.all[0]) + len(CHANNEL)

    def index(self, name: str) -> int:
        """Return the number of the partition of a topic, a set, a space or a user."""
        return zlib.crc32(name.encode()) % self.number

    def of(self, name: str) -> bytes:
        """Return what the keys of a partition begin with."""
        return self.all[zlib.crc32(name.encode()) % self.number]

    def key(self, name: str) -> str:
        """Return a key of no partition."""
        return f"{self.prefix}:{name}"

    def channel(self, topic: str) -> bytes:
        """Return on which channel is told of a topic."""
        return self.of(topic) + CHANNEL + topic.encode()

    def topic(self, channel: bytes) -> str:
        """Return of which topic is told on a channel."""
        return channel[self._channel :].decode()


@lru_cache(REMEMBERED)
def hash_of(topic: str) -> bytes:
    """Return what the ids of a topic begin with."""
    return blake2b(topic.encode(), digest_size=HASH_BYTES).digest()


def id_of(topic: str, key: str) -> bytes:
    """Return under what a publisher's id for an entry is remembered in the topic's partition."""
    return hash_of(topic) + key_hash(key)


def digest_of(content: bytes) -> bytes:
    """Return what tells an entry from another one with its key."""
    return copying.digest_of(content).to_bytes(HASH_BYTES, "big")


class State(NamedTuple):
    """Where a topic's log is: functions/02_state.lua has the text of it."""

    epoch: str
    offset: int
    run: str


def parse_state(value: bytes) -> State:
    """Read the state of a topic."""
    offset, epoch, run, _ = value.split(b" ", 3)
    return State(epoch.decode(), int(offset), run.decode())


class Stored(NamedTuple):
    """An entry as a list has it; `source` is the topic it was appended to, if this is a feed."""

    entry: Entry
    source: str


def parse_entry(value: bytes) -> Stored:
    """Read an entry: functions/02_lists.lua has the bytes of it."""
    place_in_log, origin, place, body = value.split(b"\0", 3)
    at, offset = place_in_log.split(b" ")
    source = place.split(b" ", 2)[2].decode() if place.startswith(b"<") else ""
    return Stored(Entry(int(offset), body, int(at) / 1e6, origin.decode()), source)
