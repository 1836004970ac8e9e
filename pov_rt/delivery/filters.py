"""What of a PoV a subscriber wants: from where on, and which activities."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.engine.base import Position
from pov_rt.protocol.errors import InvalidMessage
from pov_rt.protocol.messages import MAX_NAME_CHARS, AuthorId, Length, Offset, Part, Range

Kinds = Annotated[frozenset[Annotated[str, Length(1, MAX_NAME_CHARS)]], Length(1, 50)]
Users = Annotated[frozenset[AuthorId], Length(1, 50)]


Since = Position | int
"""From where a subscriber wants everything: a position, or a number of the last entries."""


class Place(Part):
    """After which position (`epoch`, `offset`), or how many of the `last` entries, is wanted."""

    epoch: Annotated[str, Length(1, 64)] | UnsetType = UNSET
    offset: Offset | UnsetType = UNSET
    last: Annotated[int, Range(1, 1000)] | UnsetType = UNSET

    def since(self) -> Since:
        """Return what is meant. Raises `InvalidMessage` if it is neither or both."""
        if self.last is not UNSET and self.epoch is self.offset is UNSET:
            return self.last
        if self.last is not UNSET or self.epoch is UNSET or self.offset is UNSET:
            raise InvalidMessage(field="since", detail="Send epoch and offset, or last")
        return Position(self.epoch, self.offset)


class Head(msgspec.Struct, rename="camel"):
    """What of an activity filters look at."""

    type: str
    action: str
    user_id: str


read_head = msgspec.json.Decoder(Head).decode


class Only(Part, cache_hash=True, forbid_unknown_fields=True):
    """Of which types, actions and users activities are wanted; those of `notUsers` never are."""

    # Equal ones are one: subscribers share its work. Another name is refused: mistyped, it would
    # leave nothing out.
    types: Kinds | UnsetType = UNSET
    actions: Kinds | UnsetType = UNSET
    users: Users | UnsetType = UNSET
    not_users: Users | UnsetType = UNSET

    def __bool__(self) -> bool:
        """Tell whether it leaves anything out."""
        return self != _EVERYTHING

    def wants(self, head: Head) -> bool:
        """Tell whether an activity gets through."""
        return (
            (self.types is UNSET or head.type in self.types)
            and (self.actions is UNSET or head.action in self.actions)
            and (self.users is UNSET or head.user_id in self.users)
            and (self.not_users is UNSET or head.user_id not in self.not_users)
        )


_EVERYTHING = Only()
