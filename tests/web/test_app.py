"""Where a node listens, and what it leaves behind."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.registry.build import build_registry
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.app import WebServer

REGISTRY = build_registry({})


def test_it_serves_on_a_unix_socket_and_takes_it_away(tmp_path: Path) -> None:
    path = tmp_path / "rt.sock"
    settings = make_settings(server=ServerSettings(unix=str(path), admin_port=0, drain_s=0.1))
    with RunningServer(settings, None) as server:
        assert server.web.port == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(
                b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\n\r\n"
            )
            assert client.recv(4096).startswith(b"HTTP/1.1 404")
    assert not path.exists()


def test_an_address_that_is_taken_is_named() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            settings = make_settings(server=ServerSettings(port=port, admin_port=0))
            web = WebServer(settings, REGISTRY)
            with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
                await web.start()
            await web.stop()

    asyncio.run(run())


def test_it_listens_on_the_sockets_it_is_given() -> None:
    async def run() -> None:
        given = socket.create_server(("127.0.0.1", 0))
        given.setblocking(False)
        with given:
            web = WebServer(make_settings(), REGISTRY)
            await web.start([given])
            assert web.port == given.getsockname()[1]
            await web.stop()
            assert given.fileno() >= 0, "it is not ours to close"

    asyncio.run(run())
