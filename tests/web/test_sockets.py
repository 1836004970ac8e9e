"""A Unix socket belongs to the server that listens on it, and to nobody else."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.registry.build import build_registry
from pov_rt.testing import make_settings
from pov_rt.web.app import WebServer
from pov_rt.web.sockets import WorkerSockets, port_of

REGISTRY = build_registry({})


def make(path: Path) -> WebServer:
    settings = ServerSettings(unix=str(path), admin_port=0, drain_s=0.1)
    return WebServer(make_settings(server=settings), REGISTRY)


@pytest.mark.parametrize("host", ["::", "::1", "0.0.0.0"])
def test_all_addresses_are_those_of_both_kinds(host: str) -> None:
    here = {"::": ["127.0.0.1", "::1"], "::1": ["::1"], "0.0.0.0": ["127.0.0.1"]}[host]
    server = ServerSettings(host=host, port=0, admin_host=host, admin_port=0, drain_s=0.1)

    async def asks(address: str, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection(address, port)
        except ConnectionRefusedError:
            return False
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: laptop\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line.startswith(b"HTTP/1.1 404")

    async def run() -> None:
        web = WebServer(make_settings(server=server), REGISTRY)
        await web.start()
        for port in (web.port, web.admin_port):
            found = [address for address in ("127.0.0.1", "::1") if await asks(address, port)]
            assert found == here
        await web.stop()

    asyncio.run(run())


async def answers(path: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: rt.example\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line.startswith(b"HTTP/1.1 404")


def test_a_second_server_does_not_take_the_path_of_one_that_listens(tmp_path: Path) -> None:
    path = tmp_path / "rt.sock"

    async def run() -> None:
        first, second = make(path), make(path)
        await first.start()
        with pytest.raises(SettingsError, match=f"^cannot listen on {path}: another server"):
            await second.start()
        await second.stop()
        assert await answers(path)
        await first.stop()
        assert not path.exists()

    asyncio.run(run())


def test_one_that_is_too_busy_to_accept_listens_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rt.sock"

    async def run() -> None:
        with ExitStack() as stack:
            busy = stack.enter_context(socket.socket(socket.AF_UNIX))
            busy.bind(str(path))
            busy.listen(0)
            with pytest.raises(BlockingIOError):  # noqa: PT012  (how many fit is the kernel's choice)
                while True:
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(str(path))
            web = make(path)
            with pytest.raises(SettingsError, match="another server listens there"):
                await web.start()
            await web.stop()
            assert path.is_socket()

    asyncio.run(run())


def test_one_that_was_left_behind_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path, file = tmp_path / "rt.sock", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    file.write_text("precious")

    async def run() -> None:
        web = make(path)
        await web.start()
        assert await answers(path)
        await web.stop()
        web = make(file)
        with pytest.raises(SettingsError, match=f"^cannot listen on {file}: "):
            await web.start()
        await web.stop()
        web = make(tmp_path / "no folder" / "rt.sock")
        with pytest.raises(SettingsError, match="No such file or directory"):
            await web.start()
        await web.stop()

    asyncio.run(run())
    assert file.read_text() == "precious"


def test_what_took_the_place_of_ours_is_not_deleted(tmp_path: Path) -> None:
    path, other = tmp_path / "rt.sock", tmp_path / "other"

    async def run() -> None:
        web = make(path)
        await web.start()
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(str(other))
            os.replace(other, path)
            await web.stop()
        assert path.is_socket()

    asyncio.run(run())


def connects_to(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_workers_have_a_socket_each_on_one_port_which_nobody_else_gets() -> None:
    with closing(WorkerSockets(ServerSettings(port=0), [])) as sockets:
        assert not connects_to(sockets.port), "before there is a worker"
        (one,), (two,) = sockets.of(1), sockets.of(2)
        assert one.fileno() != two.fileno()
        assert port_of(one) == port_of(two) == sockets.port != 0
        assert sockets.of(1) == [one], "it stays, however often it is asked for"
        with pytest.raises(SettingsError, match="another program does already; choose another"):
            WorkerSockets(ServerSettings(port=sockets.port), [])
        sockets.leave(1)
        sockets.leave(1)
        for _ in range(16):  # which the kernel would spread over both
            assert connects_to(sockets.port)
        with two:
            two.setblocking(False)
            for _ in range(16):
                two.accept()[0].close()
        sockets.of(1)
    assert not connects_to(sockets.port)


def test_workers_share_a_unix_socket_and_one_that_was_inherited(tmp_path: Path) -> None:
    path = tmp_path / "rt.sock"
    with closing(WorkerSockets(ServerSettings(unix=str(path)), [])) as sockets:
        assert sockets.of(1) == sockets.of(2)
        assert sockets.port == 0
        sockets.leave(1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        with closing(WorkerSockets(ServerSettings(), [inherited])) as sockets:
            assert sockets.of(1) == sockets.of(2) == [inherited]
            assert sockets.port == port_of(inherited)
        assert connects_to(sockets.port), "it is not ours to close"
