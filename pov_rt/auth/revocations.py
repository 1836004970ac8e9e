"""Tokens that are void before their time: one, all of a user's, or all that were issued before."""

from __future__ import annotations

from itertools import takewhile

import msgspec

from pov_rt.auth.tokens import Identity
from pov_rt.engine.base import Sets
from pov_rt.runtime.clock import Clock

REVOCATIONS = "revocations"
"""The engine's set of them."""


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
        """What it is kept under; of two with the same name one covers all that the other does."""
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

    def is_wider(self, than: Revocation) -> bool:
        """Tell whether it covers more than another one of the same name."""
        return than.before is not None and (self.before is None or self.before > than.before)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Revocation).decode


class Revocations:
    """All that are in force on this node, each for `keep_s`, and those that are stored.

    Owner: the server. Looked at for each token.
    """

    def __init__(self, sets: Sets, clock: Clock, keep_s: float) -> None:
        self._sets = sets
        self._clock = clock
        self._keep_s = keep_s
        self._by_name: dict[str, Revocation] = {}
        # The instants (monotonic) in their order, for all are kept equally long.
        self._ends: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, revocation: Revocation) -> Revocation:
        """Put one into force; return what now is, under its name.

        One that says less than what is in force undoes nothing of it.
        """
        name = revocation.name
        known = self._by_name.get(name)
        if known is None or revocation.is_wider(known):
            self._by_name[name] = known = revocation
        self._ends.pop(name, None)
        self._ends[name] = self._clock.monotonic() + self._keep_s
        return known

    async def store(self, revocation: Revocation) -> None:
        """Have one outlast restarts, with what is stored under its name. Raises `Unavailable`."""
        stored = await self._sets.get(REVOCATIONS, revocation.name)
        if stored is not None:
            self.add(_decode(stored))
        in_force = self.add(revocation)
        expires_at = self._clock.time() + self._keep_s
        await self._sets.add(REVOCATIONS, in_force.name, _encode(in_force), expires_at=expires_at)

    async def load(self) -> None:
        """Put into force what is stored. Raises `Unavailable`."""
        for body in (await self._sets.members(REVOCATIONS)).values():
            self.add(_decode(body))

    def sweep(self, now: float) -> None:
        """Forget those that were kept for long enough; `now` is monotonic."""
        for name in list(takewhile(lambda name: self._ends[name] <= now, self._ends)):
            del self._ends[name], self._by_name[name]

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
