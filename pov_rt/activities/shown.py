"""What clients say of what they were sent: whether its user was shown it, and why not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pov_rt.engine.base import Position

Reason = Literal["muted", "filtered", "hidden", "quiet", "feed", "digest", "own", "closed"]
"""Why something was not shown by itself: the user has muted the PoV, or filters on the device; the
page was not visible; the user's quiet hours; a visible feed shows it; it was one of many in a
digest; the user did it; the component was closed or is not there."""

MAX_USERS = 2000
EACH = 32
"""Of one user: devices times topics."""


class Shown(NamedTuple):
    """The last entry of a topic of which a device said so; without a `reason` it was shown.

    `at` is when, in seconds since 1970.
    """

    position: Position
    reason: Reason | None
    at: float


class Reports:
    """What was said last, by user, device and topic: in memory, of this node. Owner: the server.

    Of too many those go that were said first: each user's own, and of too many users those of whom
    nothing was heard for longest.
    """

    def __init__(self) -> None:
        self._users: OrderedDict[str, OrderedDict[tuple[str, str], Shown]] = OrderedDict()

    def note(self, user_id: str, device: str, topic: str, shown: Shown) -> None:
        """Remember what a device says."""
        mine = self._users.setdefault(user_id, OrderedDict())
        mine[topic, device] = shown
        mine.move_to_end((topic, device))
        self._users.move_to_end(user_id)
        for each, most in ((mine, EACH), (self._users, MAX_USERS)):
            if len(each) > most:
                each.popitem(last=False)

    def clear(self, user_id: str) -> None:
        """Forget what a user's devices said."""
        self._users.pop(user_id, None)

    def of(self, user_id: str, topic: str) -> Mapping[str, Shown]:
        """Return what was said last of a topic, by device."""
        mine = self._users.get(user_id, OrderedDict())
        return {device: shown for (name, device), shown in mine.items() if name == topic}
