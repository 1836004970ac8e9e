"""Ids below a team: what `auth.tenants` makes of the ids of PoVs and users.

A door turns each id that it lets in into a `TenantId`: so the same id of two teams is two ids to
topics, marks, sets, dictionaries and comparisons, whoever makes a name of it. `encode` writes the
part behind the team, so that the wire never shows more than the client's own ids. Without
`auth.tenants` there are none.
"""

from __future__ import annotations

from typing import Self

SEPARATOR = "\x1f"
"""Between team and id: no id has a control character (`messages.check_id`)."""


class TenantId(str):
    """An id of a team; as a string it is unique among all teams."""

    __slots__ = ()

    @classmethod
    def of(cls, team_id: str, wire_id: str) -> Self:
        """Return what a team means by an id."""
        return cls(team_id + SEPARATOR + wire_id)

    @property
    def team_id(self) -> str:
        """The team."""
        return self.partition(SEPARATOR)[0]

    @property
    def wire_id(self) -> str:
        """What the team calls it."""
        return self.partition(SEPARATOR)[2]


def restore(text: str) -> str:
    """Return an id that was kept as a plain string, such as a member of a set, as it was."""
    return TenantId(text) if SEPARATOR in text else text


def team_of(text: str) -> str | None:
    """Return the team of an id, None if it has none."""
    team_id, is_tenants, _ = text.partition(SEPARATOR)
    return team_id if is_tenants else None


def wire_of(text: str) -> str:
    """Return what the wire calls an id, which may have been kept as a plain string."""
    return text.rpartition(SEPARATOR)[2]


def encode_tenant_id(value: object) -> str:
    """Return what JSON shows of a `TenantId`; msgspec asks for what it does not know."""
    if isinstance(value, TenantId):
        return value.wire_id
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
