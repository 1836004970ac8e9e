"""Tokens that are void before their time: one, all of a user's, or all that were issued before."""

from __future__ import annotations

import msgspec

from pov_rt.auth.tokens import Identity


class Revocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is void: the token with this id, or a user's (without one: everybody's) issued earlier.

    `before` is in seconds since 1970. A token that does not say when it was issued counts as older.
    A socket token is void with the access token that it was exchanged for.
    """

    token_id: str | None = None
    user_id: str | None = None
    before: float | None = None

    @property
    def name(self) -> str:
        """What it is kept under; a later one of the same name takes its place."""
        if self.token_id is not None:
            return f"token {self.token_id}"
        return "all" if self.user_id is None else f"user {self.user_id}"

    def covers(self, identity: Identity) -> bool:
        """Tell whether a token is void by it."""
        if self.token_id is not None:
            return self.token_id in (identity.token_id, identity.parent_id)
        if self.user_id is not None and self.user_id != identity.user_id:
            return False
        issued_at = identity.issued_at
        return self.before is None or issued_at is None or issued_at < self.before


decode_revocation = msgspec.json.Decoder(Revocation).decode


class Revocations:
    """All that are in force on this node. Owner: the server. Looked at for each token."""

    def __init__(self) -> None:
        self._by_name: dict[str, Revocation] = {}

    def add(self, revocation: Revocation) -> None:
        """Put one into force."""
        self._by_name[revocation.name] = revocation

    def covers(self, identity: Identity) -> bool:
        """Tell whether a token is void."""
        if not self._by_name:
            return False
        names = (
            f"token {identity.token_id}",
            f"token {identity.parent_id}",
            f"user {identity.user_id}",
            "all",
        )
        found = (self._by_name.get(name) for name in names)
        return any(each is not None and each.covers(identity) for each in found)
