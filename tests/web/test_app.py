"""Where a node listens, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.registry.build import build_registry
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.app import WebServer

REGISTRY = build_registry({})
CAN = ["publish", "operate"]


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
            # Who connects now waits for the next server that has the port.
            _, writer = await asyncio.open_connection(*given.getsockname())
            waiting, _ = given.accept()
            waiting.close()
            writer.close()

    asyncio.run(run())


class Asked(NamedTuple):
    """A request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def status(self) -> int:
        """Return the status of the answer, once it comes."""
        return int((await self.reader.readuntil(b"\r\n\r\n")).split()[1])


async def ask(web: WebServer, method: str, target: str, body: bytes = b"", sent: int = 0) -> Asked:
    """Ask as an app, with so much of the body at first; return when the server reads the rest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    token = web.server.tokens.issue(Kind.SERVICE, "app", ttl_s=60, povs="*", can=CAN)
    expect = "Expect: 100-continue\r\n" if sent else ""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\n{expect}\r\n"
    )
    writer.write(head.encode() + body[: sent or None])
    if sent:
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
    return Asked(reader, writer)


def publication(name: str) -> bytes:
    return json.dumps(
        {"id": name, "type": "t", "action": "a", "povId": "acme", "userId": "eve"}
    ).encode()


def test_nobody_is_sent_away_before_what_was_under_way_is_answered() -> None:
    async def run() -> None:
        web = WebServer(make_settings(server={"drain_s": 60.0}), REGISTRY)
        await web.start()
        body = publication("slow")
        slow = await ask(web, "POST", "/api/activities", body, sent=10)
        is_draining, stopping = web.server.leaving.is_set, asyncio.create_task(web.stop())
        other = await ask(web, "POST", "/api/activities", publication("meanwhile"))
        assert await other.status() == 201
        assert not is_draining(), "all goes on as ever"
        slow.writer.write(body[10:])
        assert await slow.status() == 201
        await stopping
        assert is_draining()
        for each in (slow, other):
            each.writer.close()

    asyncio.run(run())


def test_what_has_no_end_of_its_own_is_not_waited_for() -> None:
    async def run() -> None:
        web = WebServer(make_settings(server={"drain_s": 60.0}), REGISTRY)
        await web.start()
        follower = await ask(web, "GET", "/api/trace?userId=ana&follow=true")
        assert await follower.status() == 200
        async with asyncio.timeout(30):
            await web.stop()
            assert await follower.reader.read() is not None
        follower.writer.close()

    asyncio.run(run())
