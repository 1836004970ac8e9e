"""Which activities of a PoV a subscriber wants; the others are left out at the server."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Head(msgspec.Struct, rename="camel"):
    """What of an activity filters look at."""

    type: str
    action: str
    user_id: str


read_head = msgspec.json.Decoder(Head).decode


class Only(NamedTuple):
    """A filter; None lets all through. Equal ones are one: subscribers share its work."""

    types: frozenset[str] | None = None
    actions: frozenset[str] | None = None
    users: frozenset[str] | None = None
    not_users: frozenset[str] = frozenset()

    def wants(self, head: Head) -> bool:
        """Tell whether an activity gets through."""
        return (
            (self.types is None or head.type in self.types)
            and (self.actions is None or head.action in self.actions)
            and (self.users is None or head.user_id in self.users)
            and head.user_id not in self.not_users
        )
