"""What a token allows: which PoVs, which actions, which team."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a token is for; its audience says so."""

    ACCESS = "access"
    """The app's own token, without audience."""
    SOCKET = "socket"
    SERVICE = "service"
    """For publishers over HTTP."""


DEFAULT_TEAM = "main"


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights of one token. `povs` None stands for every PoV."""

    povs: frozenset[str] | None
    can: frozenset[str]
    team_id: str = DEFAULT_TEAM

    @property
    def sees_all(self) -> bool:
        """Tell whether every PoV may be seen, the team feed included."""
        return self.povs is None

    def sees(self, pov_id: str) -> bool:
        """Tell whether this PoV may be seen."""
        return self.povs is None or pov_id in self.povs

    def may(self, grant: str) -> bool:
        """Tell whether this action is allowed."""
        return grant in self.can


_MEMBER = frozenset({"subscribe", "collaborate"})

DEFAULT_CAN: dict[Kind, frozenset[str]] = {
    Kind.ACCESS: _MEMBER,
    Kind.SOCKET: _MEMBER,
    Kind.SERVICE: frozenset({"subscribe", "publish"}),
}
"""What a token may do that has no `can` claim and whose role is not in the settings."""
