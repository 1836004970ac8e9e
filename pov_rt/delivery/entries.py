"""Entries of a log as they are sent."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from pov_rt.engine.base import Entry
from pov_rt.runtime.clock import rfc3339


class Log(Protocol):
    """Whose entries they are: a topic."""

    @property
    def name(self) -> str:
        """What the engine calls it."""

    @property
    def kind(self) -> str:
        """The first part of the name: `pov`, `team` or `user`."""


class _Expiry(msgspec.Struct, rename="camel"):
    expires_at: datetime | None = None


_expiry = msgspec.json.Decoder(_Expiry)


def has_expired(body: bytes, now: float) -> bool:
    """Tell whether a stored notification's `expiresAt` has passed."""
    if b'"expiresAt"' not in body:
        return False
    expires_at = _expiry.decode(body).expires_at
    return expires_at is not None and expires_at.timestamp() <= now


class ActivityEncoder:
    """Completes stored activities: adds `at`, which the log keeps beside the body.

    A stored body has no time in it, so that a retry has the same bytes as the first attempt and is
    recognised. To format a time is a good part of it (docs/measurements.md, times), so the last one
    is kept: a batch shares its instant, and a busy publisher's millisecond.
    """

    __slots__ = ("_millisecond", "_text")

    def __init__(self) -> None:
        self._millisecond = -1
        self._text = b""

    def complete(self, entry: Entry) -> bytes:
        """Return the activity's JSON with its time."""
        millisecond = round(entry.at * 1e6) // 1000  # as `rfc3339` rounds
        if millisecond != self._millisecond:
            self._millisecond, self._text = millisecond, rfc3339(entry.at).encode()
        return b'%b,"at":"%b"}' % (entry.body[:-1], self._text)

    def message(self, entry: Entry, kind: str) -> bytes:
        """Return the message that pushes an entry of a topic of this kind."""
        if kind == "user":
            return b'{"type":"notification","data":%b,"offset":%d}' % (
                self.complete(entry),
                entry.offset,
            )
        tail = b',"feed":"*"}' if kind == "team" else b"}"
        return b'{"type":"activity","data":%b,"offset":%d%b' % (
            self.complete(entry),
            entry.offset,
            tail,
        )

    def item(self, entry: Entry) -> bytes:
        """Return the entry as it stands in a page of history."""
        return b'{"data":%b,"offset":%d}' % (self.complete(entry), entry.offset)
