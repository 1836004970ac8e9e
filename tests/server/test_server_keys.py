"""A node whose keys come from `auth.jwks_url`: fetched late, or named by a reload."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import AuthSettings, EngineSettings, Settings
from pov_rt.protocol.errors import TokenError
from pov_rt.runtime.clock import ManualClock
from pov_rt.server import server as server_module
from pov_rt.server.server import Server
from pov_rt.testing import SECRET
from tests.server.test_server import REGISTRY, Issuer, asked

URL = "https://issuer.example/keys"
SOCKET = frozenset({Kind.SOCKET})


def make(issuer: Issuer, auth: AuthSettings) -> tuple[Server, ManualClock]:
    clock = ManualClock()
    settings = Settings(auth=auth, engine=EngineSettings(url="memory://"))
    return Server(settings, REGISTRY, fetch=issuer, clock=clock), clock


def test_a_node_without_a_key_is_not_ready_and_asks_until_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "NO_KEY_WAIT_S", 0.01)

    async def run() -> None:
        issuer = Issuer()
        issuer.status = 503
        server, clock = make(issuer, AuthSettings(jwks_url=URL, jwks_refresh_s=1e6))
        await server.start()
        assert (server.not_welcome() or "").startswith("no usable key")
        await asked(issuer, 3)
        issuer.status = 200
        await asked(issuer, issuer.asked + 1)
        assert server.not_welcome() is None
        kid = str(issuer.asked)
        assert server.tokens.verify(issuer.token(clock, kid), SOCKET).user_id == "ana"
        await server.stop()

    asyncio.run(run())


def test_a_url_that_a_reload_brings_is_fetched() -> None:
    async def run() -> None:
        issuer = Issuer()
        server, clock = make(issuer, AuthSettings(secrets=[SECRET]))
        await server.start()
        assert (issuer.asked, server.not_welcome()) == (0, None)
        with pytest.raises(TokenError):
            server.tokens.verify(issuer.token(clock, "1"), SOCKET)
        server.reload(AuthSettings(secrets=[SECRET], jwks_url=URL))
        await asked(issuer, 1)
        assert server.tokens.verify(issuer.token(clock, "1"), SOCKET).user_id == "ana"
        server.reload(AuthSettings(secrets=[SECRET], key_overlap_s=1))
        clock.advance(2)
        with pytest.raises(TokenError):
            server.tokens.verify(issuer.token(clock, "1"), SOCKET)
        assert server.not_welcome() is None
        await server.stop()

    asyncio.run(run())
