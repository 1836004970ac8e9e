"""What other nodes say is carried out, and what was not heard is looked up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pov_rt.auth.revocations import Revocation, Revocations
from pov_rt.config.settings import AuthSettings
from pov_rt.protocol.errors import CloseCode, Unavailable
from pov_rt.protocol.topics import NODES
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.testing import make_settings
from tests.server.test_server import REGISTRY, connect, nothing


def test_what_another_node_says_is_carried_out(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=ManualClock())
        await server.start()
        follower: Any = server.engine.log.follower  # type: ignore[attr-defined]
        (ana, to_ana), (_, to_ben) = connect(server, "ana"), connect(server, "ben")
        _, to_plain = connect(server, "ana", v1=False)
        follower.signal(NODES, b'{"user":"ana","message":"{\\"type\\":\\"hello\\"}"}', "")
        assert to_ana.messages[-1] == {"type": "hello"}
        assert to_plain.messages == []
        follower.signal(NODES, json.dumps({"connection": ana.id, "close": "DISCONNECTED"}), "")
        assert to_ana.closed_with is not None
        assert to_ana.messages[-1]["code"] == 4500
        assert to_ben.closed_with is None
        follower.signal(NODES, b'{"user":7}', "")
        assert "another node said something unknown" in caplog.text
        follower.uncertain(NODES)
        follower.signal("pov/none", b"{}", "")
        with pytest.raises(ValueError, match="needs a user_id or"):
            server.directory.disconnect(user_id=None, connection_id=None, code=None)  # type: ignore[arg-type]
        await server.stop()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (a task of the server changes it)
        await asyncio.sleep(0)


def test_revocations_that_were_not_heard_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pov_rt.server.follower.RETRY_S", 0.0)

    async def run() -> None:
        clock = ManualClock()
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=clock)
        await server.start()
        (_, to_ana), (_, to_ben) = connect(server, "ana"), connect(server, "ben")
        other = Revocations(server.engine.sets, clock, AuthSettings())
        await other.store([Revocation(user_id="ana", before=clock.time() + 1, at=clock.time())])
        follower: Any = server.engine.log.follower  # type: ignore[attr-defined]
        members, asked = server.engine.sets.members, 0

        async def fail_once(name: str) -> Mapping[str, bytes]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise Unavailable
            return await members(name)

        monkeypatch.setattr(server.engine.sets, "members", fail_once)
        follower.uncertain(NODES)
        follower.uncertain(NODES)
        await until(lambda: to_ana.closed_with is CloseCode.TOKEN)
        assert to_ben.closed_with is None
        assert asked == 2
        await other.store([Revocation(user_id="ben", before=clock.time() + 1, at=clock.time())])
        follower.uncertain(NODES)
        await until(lambda: to_ben.closed_with is CloseCode.TOKEN)
        await server.stop()

    asyncio.run(run())
