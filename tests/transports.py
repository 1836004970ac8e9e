"""A transport for tests that keeps what was sent, and connections that have one."""

from __future__ import annotations

import json
from typing import Any

from pov_rt.auth.grants import Grants, Kind
from pov_rt.auth.tokens import Identity
from pov_rt.connections.connection import Connection, Deliveries
from pov_rt.protocol.errors import CloseCode
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.limits import Bucket, Budget, Rate, Terms
from pov_rt.transport.frames import TEXT_FRAMING, Opcode


class Recorder:
    """Takes frames apart and keeps their messages."""

    framing = TEXT_FRAMING

    def __init__(self) -> None:
        self.sends: list[bytes] = []
        self.closed_with: CloseCode | None = None
        self.paused = False
        self.pings = 0
        self.is_heard = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message so far."""
        data = b"".join(self.sends)
        found, at = [], 0
        while at < len(data):
            assert data[at] == 0x80 | Opcode.TEXT
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            found.append(json.loads(data[start : start + size]))
            at = start + size
        return found

    @property
    def unsent_bytes(self) -> int:
        return 0

    @property
    def traffic(self) -> tuple[int, int]:
        return 0, sum(map(len, self.sends))

    def send(self, data: bytes) -> None:
        if self.closed_with is None:
            self.sends.append(data)

    def send_soon(self, data: bytes) -> None:
        self.send(data)

    def ping(self) -> None:
        self.pings += 1

    def heard(self) -> bool:
        return self.is_heard

    def pause_reads(self, paused: bool) -> None:
        self.paused = paused

    async def drained(self) -> None:
        return

    def close(self, code: CloseCode, body: bytes = b"") -> None:
        if body:
            self.send(self.framing.frame(body))
        self.closed_with = self.closed_with or code

    def abort(self) -> None:
        self.close(CloseCode.INTERNAL)


class Nothing:
    """Deliveries of which none ever waits."""

    unsettled = False

    def settle(self, connection: Connection) -> None: ...


class Nobody:
    """An owner of connections that does nothing."""

    def __init__(self, deliveries: Deliveries | None = None) -> None:
        self.deliveries = deliveries or Nothing()

    def come_back_after_s(self) -> float:
        return 1.0

    def receive(self, connection: Connection, payload: bytes, is_text: bool) -> None: ...

    def lagging(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection, reason: str) -> None: ...


def connection(
    name: str,
    user: str,
    clock: ManualClock,
    *,
    v1: bool = True,
    deliveries: Deliveries | None = None,
) -> Connection:
    identity = Identity(
        user, None, None, Kind.SOCKET, Grants(None, frozenset()), clock.time() + 100, None, None
    )
    return Connection(
        Nobody(deliveries),
        Recorder(),
        name,
        identity,
        device=name,
        remote_ip="",
        user_agent="",
        v1=v1,
        opened_at=clock.monotonic(),
        bucket=Bucket(Rate(1, 1), 0),
        budget=Budget(user, Terms.of(Rate(1000, 3000), 10), 0),
    )


def recorder(made: Connection) -> Recorder:
    assert isinstance(made.transport, Recorder)
    return made.transport
