"""A node as a whole: draining, other nodes' words, keys from afar, Unix sockets, reload."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from pov_rt.auth.grants import Kind
from pov_rt.auth.revocations import Revocation
from pov_rt.config.settings import (
    AuthSettings,
    EngineSettings,
    LimitSettings,
    Settings,
    SettingsError,
)
from pov_rt.connections.connection import Connection
from pov_rt.plugin.interfaces import Response
from pov_rt.protocol.errors import CloseCode, TokenError, Unavailable
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.transport.test_wire import publish, raw_client, text, wait_until
from tests.transports import Recorder

REGISTRY = build_registry({})


class Issuer:
    """Serves a JWK Set, as `fetch`."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.status = 200
        self.asked = 0

    async def __call__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 5.0,
    ) -> Response:
        self.asked += 1
        algorithm = jwt.get_algorithm_by_name("EdDSA")
        key = {**json.loads(algorithm.to_jwk(self.key.public_key())), "kid": str(self.asked)}
        return Response(self.status, {}, json.dumps({"keys": [key]}).encode())

    def token(self, clock: ManualClock, kid: str) -> str:
        claims = {"userId": "ana", "exp": clock.time() + 60}
        return jwt.encode(claims, self.key, "EdDSA", headers={"kid": kid})


async def asked(issuer: Issuer, times: int) -> None:
    """Wait until the keys were fetched so often, and taken over."""
    while issuer.asked < times:  # noqa: ASYNC110  (the fetch is started by a task of the server)
        await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_keys_are_fetched_at_start_and_when_a_token_names_another() -> None:
    async def run() -> None:
        issuer, clock = Issuer(), ManualClock()
        auth = AuthSettings(jwks_url="https://issuer.example/keys")
        server = Server(
            Settings(auth=auth, engine=EngineSettings(url="memory://")),
            REGISTRY,
            fetch=issuer,
            clock=clock,
        )
        assert server.not_welcome() == "starting"
        await server.start()
        assert server.not_welcome() is None
        accept = frozenset({Kind.SOCKET})
        assert server.tokens.verify(issuer.token(clock, "1"), accept).user_id == "ana"
        clock.advance(31)
        issuer.key = Ed25519PrivateKey.generate()
        with pytest.raises(TokenError):
            server.tokens.verify(issuer.token(clock, "2"), accept)
        await asked(issuer, 2)
        assert server.tokens.verify(issuer.token(clock, "2"), accept).user_id == "ana"
        clock.advance(31)
        issuer.status = 500
        with pytest.raises(TokenError):
            server.tokens.verify(issuer.token(clock, "3"), accept)
        await asked(issuer, 3)
        assert server.tokens.verify(issuer.token(clock, "2"), accept).user_id == "ana"
        await server.stop()
        assert server.not_welcome() is not None

    asyncio.run(run())


ALL = ("subscribe", "publish", "collaborate")


def connect(
    server: Server, user: str, *, v1: bool = True, can: Sequence[str] = ALL
) -> tuple[Any, Recorder]:
    token = server.tokens.issue(Kind.SOCKET, user, ttl_s=60, can=can)
    identity = server.tokens.verify(token, frozenset({Kind.SOCKET}))
    recorder = Recorder()
    connection = server.arrivals.open(
        recorder,
        identity,
        kind=Connection,
        device="d",
        remote_ip="::1",
        user_agent="",
        v1=v1,
    )
    return connection, recorder


async def nothing(url: str, **_: Any) -> Response:
    raise Unavailable


def test_a_revocation_is_in_force_though_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable

    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=ManualClock())
        await server.start()
        _, to_ana = connect(server, "ana")
        monkeypatch.setattr(server.engine.sets, "add", refuse)
        with pytest.raises(Unavailable):
            await server.directory.revoke(token_id=None, user_id="ana", before=None)
        assert to_ana.closed_with is CloseCode.TOKEN
        await server.stop()

    asyncio.run(run())


def test_revocations_are_swept_and_a_reload_says_for_how_long_they_are_kept() -> None:
    async def run() -> None:
        clock = ManualClock()
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=clock)
        await server.start()
        server.revocations.add(Revocation(token_id="t", at=clock.time()))
        clock.advance(400 * 86400.0)
        server.sweep()
        assert len(server.revocations) == 1
        server.reload(replace(server.settings.auth, revocation_s=86400.0))
        server.sweep()
        assert len(server.revocations) == 0
        await server.stop()

    asyncio.run(run())


def test_a_node_that_drains_refuses_new_connections_and_says_what_still_goes() -> None:
    async def run() -> None:
        server = Server(make_settings(), REGISTRY, fetch=nothing, clock=ManualClock())
        await server.start()
        connection, to_ana = connect(server, "ana")
        server.leave()
        await server.drain()
        assert to_ana.closed_with is CloseCode.RESTARTING
        with pytest.raises(Unavailable) as refused:
            server.admit(connection.identity, "d")
        assert refused.value.retry_after_s is not None
        assert server.not_welcome() == "draining: this node is about to stop"
        assert server.not_publishing() is None
        await server.stop()

    asyncio.run(run())


def test_a_new_secret_is_taken_over_and_the_old_one_stays_for_a_while(
    server: RunningServer,
) -> None:
    old = server.token("ana")
    settings = replace(server.web.settings.auth, secrets=["n" * 32, SECRET])
    server.call(lambda: server.web.server.reload(settings))
    accept = frozenset({Kind.SOCKET})
    for token in (old, server.token("ana")):
        assert server.call(lambda t=token: server.web.server.tokens.verify(t, accept)).user_id  # type: ignore[misc]
    with pytest.raises(SettingsError):
        server.call(lambda: server.web.server.reload(replace(settings, secrets=["short"])))


class TestSlowForLong:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            limits=LimitSettings(queue_slow_bytes=20_000, queue_slow_s=0.3, details_bytes=16_384)
        )

    def test_a_client_that_is_behind_for_too_long_is_closed(
        self, server: RunningServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with raw_client(server, receive_buffer=4096) as slow:
            slow.send(text('{"type":"subscribe","povId":"acme"}'))
            assert b"subscribed" in slow.receive()[1]
            while not server.call(lambda: _unsent(server) > 20_000):
                publish(server, 15_000, 5)
            wait_until(server, lambda: len(server.web.server.directory) == 0)
        assert "bytes unsent for 0.3 s" in caplog.text

    def test_one_that_catches_up_in_time_stays(self, server: RunningServer) -> None:
        with raw_client(server, receive_buffer=4096) as client:
            client.send(text('{"type":"subscribe","povId":"acme"}'))
            client.receive()
            count = 0
            while not server.call(lambda: _unsent(server) > 20_000):
                publish(server, 15_000, 5)
                count += 5
            for offset in range(1, count + 1):
                assert json.loads(client.receive()[1])["offset"] == offset
            client.send(text('{"type":"ping"}'))
            assert client.receive()[1] == b'{"type":"pong"}'


def _unsent(server: RunningServer) -> int:
    return sum(each.transport.unsent_bytes for each in server.web.server.directory.all())
