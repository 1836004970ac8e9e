"""What a token allows: which PoVs, which actions, which team.

The one judge of tokens: whoever must know whether one allows something asks here. `may` is a
question, `require` raises what the client is told. What the app says beside its tokens is asked by
`dispatch/permissions`, which asks here first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from pov_rt.protocol.errors import Forbidden
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.tenants import TenantId
from pov_rt.protocol.topics import TEAM_FEED, pov_topic, team_topic


class Kind(StrEnum):
    """What a token is for; its audience says so."""

    ACCESS = "access"
    """The app's own token, without audience."""
    SOCKET = "socket"
    SERVICE = "service"
    """For publishers over HTTP."""


DEFAULT_TEAM = "main"

OPERATE_ALL = "operate_all"
"""With `operate` and `auth.tenants`: everybody is the users of all teams. No token has it unless
its `can`, or its role, names it."""

GRANTS = frozenset({"subscribe", "collaborate", "publish", "operate", OPERATE_ALL})
"""Those that the server knows by itself; a plugin may declare more."""

Action = Literal["see", "collaborate", "write"]
"""What may be done on a PoV, as the app is asked about it."""

_ACTIONS: Mapping[str | None, Action] = {
    None: "see",
    "subscribe": "see",
    "collaborate": "collaborate",
    "publish": "write",
}


def action_of(grant: str | None) -> Action:
    """Return what a message or route that needs this grant does on its PoVs.

    Without one it sees; what needs a plugin's own grant counts as the most, which is to write.
    """
    return _ACTIONS.get(grant, "write")


class Grants(msgspec.Struct, frozen=True, gc=False):
    """The rights of one token. `povs` None stands for every PoV."""

    povs: Collection[str] | None
    can: frozenset[str]
    team_id: str = DEFAULT_TEAM
    tenant: str | None = None
    """The team below which all of its bearer's ids lie; None without `auth.tenants`."""

    def scope(self, wire_id: str) -> str:
        """Return what the bearer means by an id; `*` stays what it is."""
        if self.tenant is None or wire_id == TEAM_FEED:
            return wire_id
        return TenantId.of(self.tenant, wire_id)

    @property
    def operates_on(self) -> str | None:
        """The team of which an operator means everybody; None: of all teams.

        An id always is one of the token's own team: what another calls `ana` is somebody else.
        """
        return None if self.may(OPERATE_ALL) else self.tenant

    def may(self, grant: str) -> bool:
        """Tell whether this action is allowed."""
        return grant in self.can

    def may_subscribe(self, pov_id: str) -> bool:
        """Tell whether a PoV, or with `*` the team feed, may be subscribed to.

        None of `povs` is `*`, which is no id.
        """
        return (self.povs is None or pov_id in self.povs) and self.may("subscribe")

    def topic(self, pov_id: str) -> str:
        """Return the topic that the token's bearer means by a PoV's id, or by `*`."""
        if pov_id == TEAM_FEED:
            return team_topic(self.team_id)
        if self.tenant is not None and type(pov_id) is not TenantId:
            pov_id = TenantId.of(self.tenant, pov_id)
        return pov_topic(pov_id)

    def require(self, grant: str) -> None:
        """Raise `Forbidden` unless this action is allowed."""
        if grant not in self.can:
            raise Forbidden(f"The token does not grant '{grant}'")

    def require_pov(self, pov_id: str, field: str = "povId") -> None:
        """Raise `InvalidId` for what is no PoV's id, and `Forbidden` unless it may be seen.

        Those that the token lists were checked with it.
        """
        if self.povs is not None and pov_id in self.povs:
            return
        check_id(pov_id, field)
        if self.povs is not None:
            raise _not_covered(field)

    def require_every_pov(self, field: str = "povId") -> None:
        """Raise `Forbidden` unless every PoV may be seen."""
        if self.povs is not None:
            raise _not_covered(field)

    def require_pov_or_feed(self, pov_id: str, field: str = "povId") -> None:
        """Raise as `require_pov` unless a PoV, or with `*` the team feed, may be seen."""
        if pov_id == TEAM_FEED:
            self.require_every_pov(field)
        else:
            self.require_pov(pov_id, field)


def _not_covered(field: str) -> Forbidden:
    return Forbidden("The token does not cover this PoV", field=field)


_MEMBER = frozenset({"subscribe", "collaborate"})

DEFAULT_CAN: dict[Kind, frozenset[str]] = {
    Kind.ACCESS: _MEMBER,
    Kind.SOCKET: _MEMBER,
    Kind.SERVICE: frozenset({"subscribe", "collaborate", "publish"}),
}
"""What a token may do that has no `can` claim and whose role is not in the settings."""
