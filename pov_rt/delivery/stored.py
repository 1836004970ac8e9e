"""What comes out of the log, looked at before it is sent: a bad entry must not spoil a page.

What is published is checked, so that a bad one is an older version's or damage on the disk. It is
left out, as what a filter leaves out is, and an incident in the log says where it lies. One without
a body is left out as well: what it said was erased, or is too old for its PoV, and its place stays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

import msgspec

from pov_rt.delivery.filters import Head, read_head
from pov_rt.engine.base import Entry
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.topics import user_topic
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.process.logs import Throttle

log = logging.getLogger(__name__)


class _Notification(msgspec.Struct, rename="camel"):
    id: str
    type: str
    expires_at: datetime | None = None


def read_stored(body: bytes) -> Head:
    """Return the head of an activity as it is stored.

    Raises one of `DECODE_ERRORS` for one that no client could read.
    """
    head = read_head(body)
    if not body.isascii():
        body.decode()
    return head


_INBOX = user_topic("")
_read_notification = msgspec.json.Decoder(_Notification).decode


class Reader:
    """Looks at entries of logs. Owner: the hub; shared by all that read logs for clients.

    It goes through each entry but builds nothing of `details`, and so does not care how deep they
    are (docs/measurements.md, pages of history).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines = Throttle(log, clock=clock)
        self.bad = 0
        """Entries left out since the start, each as often as it was read."""

    def head(self, topic: str, entry: Entry) -> Head | None:
        """Return the head of a stored activity, None for one that nobody could read."""
        if not entry.body:
            return None
        try:
            return read_stored(entry.body)
        except DECODE_ERRORS as error:
            self.refuse(topic, entry, error)
            return None

    def is_good(self, topic: str, entry: Entry) -> bool:
        """Tell whether a client could read an entry of a topic of any kind."""
        if not entry.body:
            return False
        if not topic.startswith(_INBOX):
            return self.head(topic, entry) is not None
        try:
            _read_notification(entry.body)
            entry.body.decode()
        except DECODE_ERRORS as error:
            self.refuse(topic, entry, error)
            return False
        return True

    def heads(self, topic: str, entries: Sequence[Entry]) -> list[Head]:
        """Return the heads of those that can be read."""
        found = (self.head(topic, entry) for entry in entries)
        return [head for head in found if head is not None]

    def refuse(self, topic: str, entry: Entry, error: Exception) -> None:
        """Log an entry that is left out, a line a second at most."""
        self.bad += 1
        self._lines.log(
            logging.ERROR,
            "an entry of the log cannot be read and is left out: %s",
            error,
            incident=self._clock.new_id()[-12:],
            topic=topic,
            offset=entry.offset,
        )
