"""What the server has of what was published."""

from __future__ import annotations

import json
from typing import Any

from pov_rt.auth.grants import Kind
from pov_rt.client import NewActivity
from pov_rt.testing import MovableClock, RunningServer

PATIENCE_S = 60.0
"""How long what waits may take to be sent, on a machine and a disk that are others' as well."""


def activity(number: int, pov: str = "acme", **more: Any) -> NewActivity:
    fields: dict[str, Any] = {"type": "t", "action": "a", "user_id": "ana"}
    return NewActivity(pov_id=pov, details={"n": number}, **fields | more)


def numbers(server: RunningServer, pov: str = "acme") -> list[int]:
    """Return the numbers of what a PoV's log has, in its order."""
    engine = server.web.server.engine
    page = server.run(lambda: engine.log.read(f"pov/{pov}", 0, 10_000))
    return [json.loads(entry.body)["details"]["n"] for entry in page.entries]


def service(server: RunningServer) -> str:
    return server.token("app", Kind.SERVICE, ttl_s=3600)


def pass_days(server: RunningServer, days: int) -> None:
    """Put the server's clocks forward; its timers are not run for each second of it."""
    clock = server.web.server.clock
    assert isinstance(clock, MovableClock)
    clock.ahead += days * 86400.0
