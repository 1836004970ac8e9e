"""What is published: by whom, on what, and how what is received is compared with it."""

from __future__ import annotations

from random import Random
from typing import Any
from zlib import crc32

import msgspec

from tests.checker.records import History, Kind

MAIN, QUIET, SIDE, WIDE = "main", "quiet", "side", "wide"
POVS = {
    MAIN: [f"pov-{number}" for number in range(12)],
    QUIET: [f"quiet-{number}" for number in range(3)],
    SIDE: [f"side-{number}" for number in range(6)],
    WIDE: [f"wide-{number}" for number in range(40)],
}
"""By team. The feed of the quiet one is slow enough for its readers to recover after any fault;
the members of the side one do all that clients may; the wide one has many PoVs with large
activities, of which who comes back to all misses more than may wait for a socket."""
TYPES = ("task", "phase", "comment")
ACTIONS = ("created", "completed")
PAD_CHARS = 200
LARGE_CHARS = 8000
"""One in a hundred is large, so that sockets fill up."""
WIDE_CHARS = 6000


class Activity(msgspec.Struct, rename="camel"):
    """An activity as it is sent; what is received has its time as well."""

    id: str
    type: str
    action: str
    pov_id: str
    user_id: str
    details: dict[str, Any]


class Push(msgspec.Struct, rename="camel"):
    """What a subscriber is sent."""

    data: msgspec.Raw
    offset: int
    feed: str = ""


encode = msgspec.json.Encoder().encode
decode_push = msgspec.json.Decoder(Push).decode
_decode = msgspec.json.Decoder(Activity).decode


def decode_activity(data: msgspec.Raw) -> Activity:
    """Return what was received; what has a name in its details is known by that, not by its id."""
    found = _decode(data)
    return msgspec.structs.replace(found, id=found.details.get("name", found.id))


def checksum(activity: Activity) -> int:
    """Return a checksum of what was published."""
    return crc32(encode(activity))


class Source:
    """Makes one producer's activities."""

    def __init__(
        self, history: History, name: str, team: str, random: Random, prefix: str = ""
    ) -> None:
        self.made = 0
        self._prefix = prefix or name
        self._history = history
        self._name = name
        self._team = team
        self._random = random

    def make(self, *, is_named: bool = False) -> Activity:
        """Return the next activity, which is noted as sent.

        One that has a name in its details is known by that, whatever id the server gives it.
        """
        random = self._random
        self.made += 1
        size = LARGE_CHARS if random.random() < 0.01 else random.randrange(PAD_CHARS)
        if self._team == WIDE:
            size = WIDE_CHARS
        activity = Activity(
            f"{self._prefix}-{self.made}",
            random.choice(TYPES),
            random.choice(ACTIONS),
            random.choice(POVS[self._team]),
            self._name,
            {"number": self.made, "text": "é" + "x" * size},
        )
        if is_named:
            activity.details["name"] = activity.id
        kind = Kind(activity.type, activity.action, activity.user_id)
        self._history.send(activity.id, activity.pov_id, self._team, checksum(activity), kind)
        return activity
