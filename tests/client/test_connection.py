"""How a connection comes back: with which token, after how long, and when no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from pov_rt.client import ConnectionLost, PovClient, Refused, SessionEnded, Status
from pov_rt.client.lines import Line, TokenRefused
from pov_rt.config.settings import AuthSettings, Settings
from pov_rt.protocol.errors import CloseCode
from pov_rt.remote.addresses import Address
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.client.support import cut, offsets, run, settled
from tests.clients import publish


class Script:
    """A line whose other end does what a test says."""

    def __init__(self, *said: dict[str, Any] | Exception) -> None:
        self.sent: list[dict[str, Any]] = []
        self._said = asyncio.Queue[dict[str, Any] | Exception]()
        self.say({"type": "welcome", "pingInterval": 25})
        for each in said:
            self.say(each)

    def say(self, message: dict[str, Any] | Exception) -> None:
        self._said.put_nowait(message)

    async def send(self, text: str) -> None:
        self.sent.append(json.loads(text))

    async def receive(self) -> str:
        found = await self._said.get()
        if isinstance(found, Exception):
            raise found
        return json.dumps(found)

    async def close(self) -> None:
        pass


def statuses_of(
    outcomes: list[Callable[[], Line]], token: Any = "x", count: int = 9
) -> list[Status]:
    """Connect again and again, with these outcomes, and return what the client said of it."""
    seen: list[Status] = []

    async def opener(address: Address, token: str, device: str | None) -> Line:
        return outcomes.pop(0)()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def note(status: Status) -> None:
            seen.append(status)
            if status.state == "closed":
                loop.call_soon(ended.set)

        client = PovClient("h", token, opener=opener, clock=ManualClock(), on_status=note)
        async with client:
            await ended.wait()

    run(work)
    return seen


def failing(error: Exception) -> Callable[[], Line]:
    def fail() -> Line:
        raise error

    return fail


def test_it_waits_longer_after_each_failure_or_as_long_as_the_server_asks() -> None:
    closing = {"type": "closing", "code": 4000, "reason": "restarting", "retryAfter": 0.01}
    seen = statuses_of(
        [
            failing(ConnectionLost("away")),
            failing(ConnectionLost("429", 0.02)),
            lambda: Script(closing, ConnectionLost("4000 restarting")),
            failing(SessionEnded("no server")),
        ]
    )
    waits = [each.retry_in_s for each in seen if each.state == "waiting"]
    assert waits == [0.25, 0.02, 0.01]
    assert [each.failures for each in seen if each.state == "waiting"] == [1, 2, 3]
    assert (seen[-1].state, str(seen[-1].error)) == ("closed", "no server")


def test_a_refused_token_is_asked_for_once_more() -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append("x")
        return "x"

    refused = failing(TokenRefused("refused"))
    seen = statuses_of([refused, refused], token)
    assert (len(asked), seen[-1].state) == (2, "closed")
    assert getattr(seen[-1].error, "status", None) == 401
    fixed = statuses_of([refused])
    assert [each.state for each in fixed] == ["connecting", "closed"]


def test_a_token_that_cannot_be_had_is_asked_for_again() -> None:
    asked: list[str] = []

    async def token() -> str:
        asked.append("x")
        if len(asked) == 1:
            raise OSError("the app is away")
        return "x"

    seen = statuses_of([failing(SessionEnded("enough"))], token)
    assert "the app is away" in str(seen[1].error)
    assert (len(asked), seen[-1].state) == (2, "closed")


def test_another_server_is_none() -> None:
    class Other(Script):
        async def receive(self) -> str:
            return '{"hello": "world"}'

    (_, end) = statuses_of([lambda: Other()])
    assert "is no pov-rt server" in str(end.error)


class TestTokens:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            auth=AuthSettings(secrets=[SECRET], default_povs="*", grace_s=0.5, warning_s=3590)
        )

    def test_one_that_expires_is_replaced_while_the_connection_stays(
        self, server: RunningServer
    ) -> None:
        given: list[str] = []

        async def work() -> None:
            refreshed = asyncio.Event()

            async def token() -> str:
                povs = ["acme"] if given else ["acme", "other"]
                given.append(await asyncio.to_thread(server.token, "ana", povs=povs))
                if len(given) == 2:
                    refreshed.set()
                return given[-1]

            async with PovClient(server.address, token) as rt:
                kept, lost = rt.subscribe("acme"), rt.subscribe("other")
                await settled(rt)
                server.web.server.clock.ahead += 12  # type: ignore[attr-defined]
                await refreshed.wait()
                with pytest.raises(Refused, match="does not cover"):
                    await anext(lost)
                publish(server, 1)
                assert await offsets(kept, 1) == [1]
                assert rt.status == Status("open")

        run(work)

    def test_a_fixed_one_ends_the_session_with_it(self, server: RunningServer) -> None:
        async def work() -> None:
            async with PovClient(server.address, server.token("ana", ttl_s=2)) as rt:
                following = rt.subscribe("acme")
                await settled(rt)
                with pytest.raises(SessionEnded, match="expired"):
                    await anext(following)

        run(work)


def test_who_is_sent_away_stays_away(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, server.token("ana")) as rt:
            following = rt.subscribe("acme")
            await settled(rt)
            cut(server, code=CloseCode.DISCONNECTED)
            with pytest.raises(SessionEnded, match="4500 disconnected by an operator"):
                await anext(following)
            with pytest.raises(SessionEnded):
                await rt.request({"type": "ping"})

    run(work)


def test_what_the_apps_own_function_raises_is_not_swallowed(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(status: Status) -> None:
        if status.state == "open":
            raise ZeroDivisionError

    async def work() -> None:
        async with PovClient(server.address, server.token("ana"), on_status=fail) as rt:
            with pytest.raises(SessionEnded, match="ZeroDivisionError"):
                await rt.request({"type": "ping"})

    run(work)
    assert "the client failed" in caplog.text
