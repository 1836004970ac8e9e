"""Messages that come in requests: each is answered, and none begins with a full bucket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.server import requests
from pov_rt.server.server import Server
from pov_rt.testing import make_settings
from pov_rt.web.fetch import fetch

Ask = Callable[[str, Any], Awaitable[Sequence[Any]]]


def run(test: Callable[[Server, Ask], Awaitable[None]], **limits: Any) -> None:
    async def within() -> None:
        settings = make_settings(limits=limits)
        server = Server(settings, build_registry({}, None), fetch=fetch, clock=ManualClock())
        await server.start()

        async def ask(user: str, message: Any) -> Sequence[Any]:
            can = ["subscribe", "publish", "collaborate"]
            token = server.tokens.issue(Kind.SOCKET, user, ttl_s=60, povs="*", can=can)
            identity = server.tokens.verify(token, frozenset({Kind.SOCKET}))
            body = json.dumps(message).encode()
            found = await server.requests.handle(
                identity, body, device="d", remote_ip="", user_agent=""
            )
            return [json.loads(each) for each in found]

        await test(server, ask)
        await server.stop()

    asyncio.run(within())


def test_what_has_an_answer_is_waited_for() -> None:
    async def test(server: Server, ask: Ask) -> None:
        assert await ask("ana", {"type": "pong"}) == []
        assert await ask("ana", {"type": "mutes", "id": 1}) == [
            {"type": "mutes", "mutes": [], "id": 1}
        ]
        assert (len(server.directory), server.hub.topics) == (0, 0)

    run(test)


def test_the_rate_of_a_type_holds_for_all_requests() -> None:
    async def test(server: Server, ask: Ask) -> None:
        message = {"type": "history", "povId": "acme"}
        codes = [(await ask("ana", message))[0].get("code") for _ in range(21)]
        assert codes == [None] * 20 + ["rate_limited"]
        assert (await ask("ben", message))[0]["type"] == "history_page"

    run(test)


def test_as_many_users_are_remembered_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "MAX_SENDERS", 2)

    async def test(server: Server, ask: Ask) -> None:
        answers = [
            (await ask(user, {"type": "ping"}))[0]["type"]
            for user in ("ana", "ana", "ana", "ben", "ana", "cy", "ben", "ana")
        ]
        # Ana's is used and kept, Ben's goes for Cy's, Ana's for Ben's new one.
        assert answers == ["pong", "pong", "error", "pong", "error", "pong", "pong", "pong"]

    run(test, message_rate="1/h")
