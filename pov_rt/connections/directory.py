"""Who is connected to this node, and how nodes reach a user or connection wherever it is."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from secrets import token_hex
from typing import NamedTuple

import msgspec

from pov_rt.auth.revocations import Revocation, Revocations
from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import LimitSettings
from pov_rt.connections.connection import Connection
from pov_rt.connections.last_seen import LastSeen
from pov_rt.engine.base import Room, Signals
from pov_rt.protocol.bodies import MissingNode
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode, LimitExceeded
from pov_rt.protocol.tenants import team_of
from pov_rt.protocol.topics import NODES
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import Clock

log = logging.getLogger(__name__)


TRANSPORTS = ("ws", "sse", "poll")
"""The kinds of transports (`Framing.transport`)."""
REMEMBERED = 1000
"""Orders of which a node knows what they closed: it is asked right behind them."""


class Order(NamedTuple):
    """What all nodes were told to close: by which name, and how many this one has closed."""

    name: str
    closed: int


class Closed(NamedTuple):
    """How many connections of all nodes an order closed, without those of nodes that are missing.

    These did not say so within a second. They close them when they hear of it.
    """

    number: int
    missing: Sequence[MissingNode]


class Ordered(NamedTuple):
    """A revocation as it is in force now, and the order that told all nodes of it."""

    revocation: Revocation
    order: Order


class Command(msgspec.Struct, omit_defaults=True):
    """What one node tells the others: close or send to these connections, or refuse tokens.

    `unblock` is the user of a block that is lifted; `order` names what closes connections.
    """

    user: str | None = None
    connection: str | None = None
    message: str | None = None
    pov: str | None = None
    close: str | None = None
    revoke: Revocation | None = None
    unblock: str | None = None
    order: str = ""


_decode = msgspec.json.Decoder(Command).decode


class Directory:
    """The connections of one node, and the tokens that none may have. Owner: the server."""

    def __init__(
        self, signals: Signals, revocations: Revocations, limits: LimitSettings, clock: Clock
    ) -> None:
        self._signals = signals
        self._revocations = revocations
        self._limits = limits
        self._by_id: dict[str, Connection] = {}
        # A user's only one without a list around it: nearly all have one (docs/measurements.md,
        # idle parts).
        self._by_user: dict[str, Connection | list[Connection]] = {}
        self.last_seen = LastSeen(clock, limits.last_seen_users)
        self._closed: OrderedDict[str, int] = OrderedDict()
        """How many connections other nodes' orders closed here."""

    def __len__(self) -> int:
        return len(self._by_id)

    def by_transport(self) -> Mapping[str, int]:
        """Return how many there are of each kind."""
        found = Counter(each.transport.framing.transport for each in self._by_id.values())
        return {name: found[name] for name in TRANSPORTS}

    def get(self, connection_id: str) -> Connection | None:
        """Return a connection of this node."""
        return self._by_id.get(connection_id)

    def all(self) -> list[Connection]:
        """Return every connection."""
        return list(self._by_id.values())

    def users(self) -> list[str]:
        """Return the users who have a connection."""
        return list(self._by_user)

    def of(self, user_id: str) -> list[Connection]:
        """Return a user's connections."""
        found = self._by_user.get(user_id, [])
        return [*found] if isinstance(found, list) else [found]

    def find(self, user_id: str | None, tenant: str | None) -> list[Connection]:
        """Return a user's connections, or everybody's; with `auth.tenants` those of a team."""
        found = self.all() if user_id is None else self.of(user_id)
        if tenant is None:
            return found
        return [each for each in found if each.identity.grants.tenant == tenant]

    def check_room(self, identity: Identity, device: str) -> None:
        """Raise `LimitExceeded` if the user has as many connections or devices as are allowed."""
        mine = self.of(identity.user_id)
        if not mine:
            return
        if len(mine) >= self._limits.connections_per_user:
            raise LimitExceeded(
                f"This user already has {len(mine)} connections; close one", retry_after_s=5.0
            )
        devices = {connection.device for connection in mine}
        if device not in devices and len(devices) >= self._limits.devices_per_user:
            raise LimitExceeded(f"This user already has {len(devices)} devices", field="device")

    def add(self, connection: Connection) -> None:
        """Enter a connection."""
        self._by_id[connection.id] = connection
        user_id = connection.identity.user_id
        if (mine := self._by_user.get(user_id)) is None:
            self._by_user[user_id] = connection
        elif isinstance(mine, list):
            mine.append(connection)
        else:
            self._by_user[user_id] = [mine, connection]
        self.last_seen.came(user_id)

    def remove(self, connection: Connection) -> None:
        """Forget a connection; nothing happens if it was not entered."""
        if self._by_id.pop(connection.id, None) is None:
            return
        user_id = connection.identity.user_id
        mine = self._by_user[user_id]
        if isinstance(mine, list) and len(mine) > 1:
            mine.remove(connection)
        else:
            del self._by_user[user_id]
            self.last_seen.left(user_id)

    def send_user(self, user_id: str, body: bytes, pov_id: str | None = None) -> None:
        """Send one encoded message to every connection of a user, on all nodes.

        With a PoV to those alone whose token covers it.
        """
        pov = None if pov_id is None else str(pov_id)
        self._tell_all(Command(user=str(user_id), message=body.decode(), pov=pov))

    async def revoke(
        self,
        *,
        token_id: str | None,
        user_id: str | None,
        before: float | None,
        tenant: str | None = None,
    ) -> Ordered:
        """Refuse tokens on all nodes, after restarts too, and close the connections with one.

        Raises `InvalidId` or `InvalidRequest` as `Revocations.make` does, and `Unavailable` if
        there is no room for it, or if it could not be stored: then it is in force, but not after
        restarts.
        """
        owner = payer.get()
        wanted = self._revocations.make(
            token_id, user_id, before, tenant, team_of(owner) or owner or None
        )
        return await self._put(wanted)

    async def block(self, user_id: str, for_s: float) -> Ordered:
        """Keep a user out of all nodes for a time, over restarts, and close their connections.

        Raises `InvalidId`, `InvalidRequest` and `Unavailable` as `revoke` does.
        """
        owner = payer.get()
        return await self._put(
            self._revocations.make_block(user_id, for_s, team_of(owner) or owner or None)
        )

    async def unblock(self, user_id: str) -> bool:
        """Let a user in again; return whether there was a block.

        Raises `Unavailable` if that could not be stored: then it is so until a restart.
        """
        lifted = self._revocations.lift(user_id)
        self._tell(Command(unblock=str(user_id)))
        stored = await self._revocations.forget_block(user_id)
        return lifted or stored

    async def _put(self, wanted: Revocation) -> Ordered:
        self._revocations.check_room(wanted)
        in_force, closed = self._enforce(wanted)
        order = Order(token_hex(8), closed)
        for each in in_force:
            self._tell(Command(revoke=each, order=order.name))
        # Not the other way round: while the disk is full, a stolen token would stay good.
        await self._revocations.store(in_force)
        return Ordered(in_force[0], order)

    async def reread_revocations(self) -> None:
        """Enforce what is stored: other nodes may have told of it unheard. Raises `Unavailable`."""
        await self._revocations.load()
        self._close_those(self._revocations.covers, self.all())

    def disconnect(
        self, *, user_id: str | None, connection_id: str | None, code: CloseCode
    ) -> Order:
        """Close a user's connections, or one, on all nodes."""
        if user_id is None and connection_id is None:
            raise ValueError("disconnect needs a user_id or a connection_id")
        user = None if user_id is None else str(user_id)
        name = token_hex(8)
        command = Command(user=user, connection=connection_id, close=code.name, order=name)
        return Order(name, self._tell_all(command))

    def closed_by(self, order: str) -> int | None:
        """Return how many connections another node's order closed here; None: it was not heard."""
        return self._closed.get(order)

    def hear(self, body: bytes) -> None:
        """Carry out what another node says."""
        try:
            command = _decode(body)
        except msgspec.DecodeError as error:
            log.warning("another node said something unknown: %s", error)
            return
        closed = self._carry_out(command)
        if command.order:
            # A revocation may come in parts.
            self._closed[command.order] = self._closed.get(command.order, 0) + closed
            if len(self._closed) > REMEMBERED:
                self._closed.popitem(last=False)

    def _tell_all(self, command: Command) -> int:
        closed = self._carry_out(command)
        self._tell(command)
        return closed

    def _tell(self, command: Command) -> None:
        room = Room.ORDERS if command.message is None else Room.USERS
        self._signals.send(NODES, encode(command), room=room)

    def _carry_out(self, command: Command) -> int:
        """Do what is said; return how many connections that closed."""
        closed = 0
        if command.revoke is not None:
            _, closed = self._enforce(command.revoke)
        if command.unblock is not None:
            self._revocations.lift(command.unblock)
        matching = self._matching(command)
        if command.message is not None:
            for connection in matching:
                if connection.plain:
                    continue
                if command.pov is None or connection.identity.grants.may_subscribe(command.pov):
                    connection.send(command.message.encode())
        if command.close is not None:
            closed += _close(matching, CloseCode[command.close])
        return closed

    def _enforce(self, revocation: Revocation) -> tuple[list[Revocation], int]:
        """Put a revocation into force; return what now is, and how many connections it closed."""
        in_force = self._revocations.add(revocation)
        are_void = in_force[0].covers if len(in_force) == 1 else self._revocations.covers
        user_id = revocation.user_id
        is_ones = user_id is not None and revocation.team_id is None
        mine = self.of(user_id) if user_id is not None and is_ones else self.all()
        code = CloseCode.DISCONNECTED if revocation.block else CloseCode.TOKEN
        return in_force, self._close_those(are_void, mine, code)

    def _close_those(
        self,
        are_void: Callable[[Identity], bool],
        connections: Iterable[Connection],
        code: CloseCode = CloseCode.TOKEN,
    ) -> int:
        return _close([each for each in connections if are_void(each.identity)], code)

    def _matching(self, command: Command) -> list[Connection]:
        if command.connection is None:
            return [] if command.user is None else self.of(command.user)
        found = self._by_id.get(command.connection)
        return [found] if found and command.user in (None, found.identity.user_id) else []


def _close(connections: Iterable[Connection], code: CloseCode) -> int:
    """Close those that are not being closed; return how many those were."""
    closed = 0
    for connection in connections:
        if connection.close_reason is None:
            connection.close(code)
            closed += 1
    return closed
