"""Tokens that are void before their time: one, all of a user's, or all that were issued before.

What a revocation looks at is the app's own token: a socket token is as old as the access token that
it was exchanged for, and void with it. An `iat` is compared with the instant as it was written: one
in whole seconds with the instant's second. That leaves tokens which may be older than the instant
and do not look it: of the same second, or of an app whose clock is ahead. Those that this node had
seen by then are made void by their ids.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Sequence

import msgspec

from pov_rt.auth.tokens import EVERYBODY_OF, Identity
from pov_rt.config.settings import AuthSettings
from pov_rt.engine.base import Sets
from pov_rt.protocol.errors import InvalidRequest, TokenRevoked, Unavailable
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.redaction import is_token
from pov_rt.protocol.tenants import SEPARATOR, TenantId, wire_of
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock, SteadyTime, rfc3339

REVOCATIONS = "revocations"
"""The engine's set of them."""

EVERYBODY = "all"

MAX_FRESH = 20_000
"""Tokens that do not look older than now and were seen: of the last second, or of a clock ahead.
Each cost a check of its signature, which keeps them below this."""

BLOCKED_RETRY_S = 3600.0
"""When a blocked user's client may ask again at the latest: the block may be lifted before its end.
"""

REMOVED_AT_ONCE = 100
"""Forgotten revocations that are removed from the engine with a new one."""


class Revocation(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is void: the token with this id, or a user's (without one: everybody's) issued earlier.

    All times are in seconds since 1970. A token that does not say when it was issued counts as
    older than any `before`.
    """

    token_id: str | None = None
    user_id: str | None = None
    before: float | None = None
    at: float | None = None
    """When it was said; versions before 0.2 did not keep it."""
    until: float | None = None
    """When the token ends, if that is known: then nothing is left to revoke."""
    by: str | None = None
    """Whose share of `auth.max_revocations` it is of; None: nobody's."""
    block: bool = False
    """All of the user's tokens are void until then, those that are issued meanwhile, too."""

    @property
    def name(self) -> str:
        """What it is kept under, one of a name."""
        if self.block:
            return f"block {self.user_id}"
        if self.token_id is not None:
            return f"token {self.token_id}"
        return EVERYBODY if self.user_id is None else f"user {self.user_id}"

    @property
    def team_id(self) -> str | None:
        """The team that it is for as a whole."""
        is_teams = self.user_id is not None and self.user_id.startswith(EVERYBODY_OF)
        return wire_of(self.user_id) if self.user_id is not None and is_teams else None

    @property
    def spelling(self) -> str:
        """Its name for people: `team blue`, `user blue/ana`."""
        if self.team_id is not None:
            return f"team {self.team_id}"
        return self.name.replace(SEPARATOR, "/", 1)

    def covers(self, identity: Identity) -> bool:
        """Tell whether a token is void by it."""
        if self.token_id is not None:
            return self.token_id in (identity.token_id, identity.parent_id)
        if self.user_id not in (None, identity.user_id, identity.everybody):
            return False
        issued_at = find_issued_at(identity)
        if self.before is None or issued_at is None:
            return True
        return issued_at < (math.floor(self.before) if issued_at.is_integer() else self.before)

    def join(self, other: Revocation) -> Revocation:
        """Return what covers all that the two do, which have one name."""
        return Revocation(
            self.token_id,
            self.user_id,
            None if None in (self.before, other.before) else _latest(self.before, other.before),
            _latest(self.at, other.at),
            None if None in (self.until, other.until) else _latest(self.until, other.until),
            other.by if self.by is None else self.by,
            self.block,
        )

    def describe(self) -> str:
        """Return in words what is void."""
        said = "" if self.at is None else f" (since {rfc3339(self.at)})"
        if self.block and self.until is not None:
            return f"the user is blocked until {rfc3339(self.until)}{said}"
        if self.token_id is not None:
            return f"one token, and those that were exchanged for it{said}"
        if self.team_id is not None:
            whose = f"all tokens of team {self.team_id}"
        else:
            whose = "everybody's tokens" if self.user_id is None else "the user's tokens"
        before = "" if self.before is None else f" issued before {rfc3339(self.before)}"
        return f"{whose}{before}{said}"


_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Revocation).decode


class Revocations:
    """All that are in force on this node, and those that are stored.

    Kept for `auth.revocation_s`, for ever without it, and never after their token's end. At the
    bound a new one is refused: one that is forgotten would make a stolen token good again. Half of
    it is the most that is kept for one of those who revoke. Owner: the server. Looked at for each
    token.
    """

    def __init__(self, sets: Sets, clock: Clock, settings: AuthSettings) -> None:
        self._sets = sets
        self._clock = clock
        self._steady = SteadyTime(clock)  # ahead for a while, the clock must end none
        self._settings = settings
        self.bound = Bound(
            "revocations",
            "auth.max_revocations and auth.revocation_s",
            settings.max_revocations,
            self.__len__,
        )
        self._by_name: dict[str, Revocation] = {}
        self._blocked: dict[str, float] = {}
        """Until when which users are kept out, of those above."""
        self._held: Counter[str] = Counter()
        """How many are of whose share."""
        self._ends: list[tuple[float, str]] = []
        """A heap; an end that is no longer the one of its name is passed over."""
        self._fresh: dict[str, _Seen] = {}
        self._forgotten: list[str] = []
        """Names of those that are still stored."""

    def __len__(self) -> int:
        return len(self._by_name)

    def make(
        self,
        token_id: str | None,
        user_id: str | None,
        before: float | None,
        tenant: str | None = None,
        by: str | None = None,
    ) -> Revocation:
        """Return the revocation that somebody asks for now; `tenant`: of this one's tokens alone.

        `by` is whose share it is of.

        Raises `InvalidId` for what can be no user, `InvalidRequest` for a token in place of its id,
        which would be kept and listed, and for an instant that lies ahead by more than clocks may
        differ: tokens that are issued until then would be void for life.
        """
        now = self._clock.time()
        if token_id is not None:
            if is_token(token_id):
                raise InvalidRequest(
                    "This is a token: send its id, which is its claim jti", field="tokenId"
                )
            whole = token_id if tenant is None else str(TenantId.of(tenant, token_id))
            return Revocation(whole, at=now, by=by)
        if user_id is not None:
            check_id(user_id, "userId")
            user_id = str(user_id)
        elif tenant is not None:
            user_id = EVERYBODY_OF + tenant
        if before is None:
            before = now
        if not before <= now + self._settings.leeway_s:
            raise InvalidRequest(
                f"issuedBefore lies ahead: it is {rfc3339(now)}", field="issuedBefore"
            )
        # Nothing was issued before 1970, and not every earlier instant can be written as a date.
        return Revocation(None, user_id, max(before, 0.0), now, by=by)

    def make_block(self, user_id: str, for_s: float, by: str | None = None) -> Revocation:
        """Return what keeps a user out from now on. Raises `InvalidId` as `make` does."""
        check_id(user_id, "userId")
        now = self._clock.time()
        return Revocation(None, str(user_id), at=now, until=now + for_s, by=by, block=True)

    @property
    def blocked(self) -> Sequence[str]:
        """The users who are kept out."""
        return list(self._blocked)

    def blocked_until(self, user_id: str) -> float | None:
        """Return until when a user is kept out, in seconds since 1970; None: not at all."""
        return self._blocked.get(user_id)

    def lift(self, user_id: str) -> bool:
        """End a block on this node; tell whether there was one."""
        if user_id not in self._blocked:
            return False
        self._drop(Revocation(user_id=user_id, block=True).name)
        return True

    async def forget_block(self, user_id: str) -> bool:
        """Remove a block that is stored; tell whether there was one. Raises `Unavailable`."""
        return await self._sets.remove(REVOCATIONS, Revocation(user_id=user_id, block=True).name)

    def refusal(self, identity: Identity) -> TokenRevoked:
        """Return the error for a token that is covered; a block says when it ends."""
        until = self._blocked.get(identity.user_id)
        if until is None:
            return TokenRevoked()
        left_s = min(max(1.0, until - self._clock.time()), BLOCKED_RETRY_S)
        return TokenRevoked("An operator has blocked this user for a time", retry_after_s=left_s)

    def add(self, revocation: Revocation) -> list[Revocation]:
        """Put one into force; return what now is: under its name, and of tokens that were seen.

        One that says less than what is in force undoes nothing of it. There is room for it: ask
        `check_room`, unless another node did.
        """
        return [self._put(each) for each in (revocation, *self._find_seen(revocation))]

    def check_room(self, revocation: Revocation) -> None:
        """Raise `Unavailable` if a new one and what was seen would be more than are kept.

        There always is room for everybody's, and a team's as a whole: they answer a leaked key.
        """
        if revocation.name == EVERYBODY or revocation.team_id is not None:
            return
        wanted = {each.name for each in (revocation, *self._find_seen(revocation))}
        if self._has_room(wanted, revocation.by):
            return
        self.sweep()
        if not self._has_room(wanted, revocation.by):
            limit, by = self._settings.max_revocations, revocation.by
            self.bound.refuse(
                by or "",
                f"no room for the revocation of {revocation.spelling}: {len(self)} of {limit} are "
                f"in force, {self._held[by] if by else 0} of them this owner's, who may have half",
            )
            raise Unavailable("No more tokens can be revoked now: the operator's log says why")

    def _has_room(self, wanted: set[str], by: str | None) -> bool:
        limit = self._settings.max_revocations
        count = sum(name not in self._by_name for name in wanted)
        if not count:
            return True
        share = limit if by is None else max(limit // 2, 1)
        return len(self) + count <= limit and (by is None or self._held[by] + count <= share)

    async def store(self, revocations: Iterable[Revocation]) -> None:
        """Have some outlast restarts, with what is stored under their names. Raises `Unavailable`.

        All are written together, or each would wait for the disk.
        """
        await _all(self._store(each) for each in revocations)
        names = self._forgotten[:REMOVED_AT_ONCE]
        del self._forgotten[:REMOVED_AT_ONCE]
        removed = (name for name in names if name not in self._by_name)
        await _all(self._sets.remove(REVOCATIONS, name) for name in removed)

    async def load(self) -> None:
        """Put into force what is stored. Raises `Unavailable`."""
        bodies = (await self._sets.members(REVOCATIONS)).values()
        found = sorted(map(decode, bodies), key=lambda each: each.at or 0.0)
        for each in found:
            self._put(each)
        # Those of older versions would be gone from the engine after a time.
        now = self._clock.time()
        undated = [msgspec.structs.replace(each, at=now) for each in found if each.at is None]
        await self.store(self._put(each) for each in undated)
        self.sweep()

    def reload(self, settings: AuthSettings) -> None:
        """Take over for how long they are kept, and how many."""
        self._settings = settings
        self.bound.limit = settings.max_revocations
        self._ends = [
            (end, name)
            for name, each in self._by_name.items()
            if (end := self._end(each)) < math.inf
        ]
        heapq.heapify(self._ends)

    def sweep(self) -> None:
        """Forget those that were kept for long enough; called about once a second."""
        now = self._steady.now()
        while self._ends and self._ends[0][0] <= now:
            _, name = heapq.heappop(self._ends)
            known = self._by_name.get(name)
            if known is not None and self._end(known) <= now:
                self._forget(name)
        if self._fresh:
            self._fresh = {
                token_id: seen for token_id, seen in self._fresh.items() if seen.looks_old_at >= now
            }

    def covers(self, identity: Identity) -> bool:
        """Tell whether a token is void."""
        if not self._by_name:
            return False
        names = (
            f"token {identity.token_id}",
            f"token {identity.parent_id}",
            f"user {identity.user_id}",
            f"block {identity.user_id}",
            f"user {identity.everybody}",
            EVERYBODY,
        )
        found = (self._by_name.get(name) for name in names)
        return any(each is not None and each.covers(identity) for each in found)

    def see(self, identity: Identity) -> None:
        """Remember a token for as long as it would not look older than a revocation of now."""
        issued_at, now = find_issued_at(identity), self._steady.now()
        if issued_at is None:
            return
        looks_old_at = issued_at + 1.0 if issued_at.is_integer() else issued_at
        if looks_old_at < now or len(self._fresh) >= MAX_FRESH:
            return
        if identity.parent_id is None:
            token_id, until = identity.token_id, identity.expires_at
        else:  # how long the access token is good is not said
            token_id, until = identity.parent_id, None
        if token_id is not None:
            at = self._clock.monotonic()
            seen = _Seen(identity.user_id, identity.everybody, at, looks_old_at, until)
            self._fresh.setdefault(token_id, seen)

    def _find_seen(self, revocation: Revocation) -> Iterator[Revocation]:
        at, before = revocation.at, revocation.before
        if revocation.token_id is not None or at is None or before is None:
            return
        # As the clocks are now: the wall clock may have been put right since a token was seen.
        latest = min(at, before) - self._clock.time() + self._clock.monotonic()
        for token_id, seen in self._fresh.items():
            users = (None, seen.user_id, seen.everybody)
            if revocation.user_id in users and seen.at <= latest:
                yield Revocation(token_id, at=at, until=seen.until, by=revocation.by)

    def _put(self, revocation: Revocation) -> Revocation:
        name = revocation.name
        known = self._by_name.get(name)
        if known is not None:
            self._give_back(known)
            revocation = known.join(revocation)
        self._by_name[name] = revocation
        if revocation.by is not None:
            self._held[revocation.by] += 1
        if revocation.block and revocation.user_id is not None and revocation.until is not None:
            self._blocked[revocation.user_id] = revocation.until
        end = self._end(revocation)
        if end < math.inf:
            heapq.heappush(self._ends, (end, name))
        return revocation

    def _forget(self, name: str) -> None:
        self._drop(name)
        self._forgotten.append(name)

    def _drop(self, name: str) -> None:
        dropped = self._by_name.pop(name)
        self._give_back(dropped)
        if dropped.block and dropped.user_id is not None:
            del self._blocked[dropped.user_id]

    def _give_back(self, revocation: Revocation) -> None:
        if revocation.by is not None:
            self._held[revocation.by] -= 1
            if not self._held[revocation.by]:
                del self._held[revocation.by]

    async def _store(self, revocation: Revocation) -> None:
        stored = await self._sets.get(REVOCATIONS, revocation.name)
        if stored is not None:
            revocation = self._put(decode(stored).join(revocation))
        await self._sets.add(
            REVOCATIONS, revocation.name, _encode(revocation), expires_at=revocation.until
        )

    def _end(self, revocation: Revocation) -> float:
        end = math.inf if revocation.until is None else revocation.until
        if self._settings.revocation_s is None or revocation.at is None or revocation.block:
            return end
        # From the instant, not before it is said: what it covers was issued up to there.
        since = max(revocation.at, revocation.before or 0.0)
        return min(end, since + self._settings.revocation_s + self._settings.leeway_s + 1.0)


class _Seen(msgspec.Struct, frozen=True, gc=False):
    """A token that was seen at an instant (monotonic), and looks older than now from one on."""

    user_id: str
    everybody: str
    at: float
    looks_old_at: float
    until: float | None


def find_issued_at(identity: Identity) -> float | None:
    """Return when the app's own token was issued that this one is, or was exchanged for."""
    return identity.issued_at if identity.parent_id is None else identity.parent_issued_at


async def _all(work: Iterable[Awaitable[object]]) -> None:
    """Wait for all of it, and raise the first of what was raised."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _latest(*times: float | None) -> float | None:
    return max((time for time in times if time is not None), default=None)
