"""What a worker is handed over by its supervisor, and what they say to each other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pov_rt.cli.node.manager import REPLACED, WORKER, HandOver, Manager, find_manager
from pov_rt.cli.options import SettingsOptions
from pov_rt.config.settings import SettingsError
from pov_rt.runtime.process import logs

WAIT_S = 30.0


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return a supervisor's end; the other one is handed over to a worker with the number 3."""
    monkeypatch.setattr(logs, "name_worker", lambda _: None)  # for all of this process
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = HandOver(
        number=3,
        channel=theirs.fileno(),
        sockets=[],
        admin_port=18000,
        watchdog_s=8.0,
        port_stays=False,
    )
    monkeypatch.setenv(WORKER, msgspec.json.encode(given).decode())
    with ours, theirs:
        yield ours


def options(tmp_path: Path, **server: object) -> SettingsOptions:
    file = tmp_path / "none.toml"
    file.write_text("")
    return SettingsOptions(file, {f"server.{name}": value for name, value in server.items()})


def test_who_is_no_worker_is_as_it_was_told(tmp_path: Path) -> None:
    given = options(tmp_path, workers=4)
    manager, own = find_manager(given)
    assert (type(manager), own) == (Manager, given)
    assert (manager.sockets(), manager.port_stays) == ([], False)


@pytest.mark.parametrize(("first", "own"), [(9001, 9003), (0, 18000)])
def test_a_worker_is_one_node_with_a_port_and_a_folder_of_its_own(
    tmp_path: Path, channel: socket.socket, first: int, own: int
) -> None:
    data = tmp_path / "data"
    given = options(tmp_path, workers=4, admin_port=first, data=str(data))
    manager, changed = find_manager(given)
    server = changed.load().settings.server
    assert (server.workers, server.admin_port, server.data) == (1, own, str(data / "worker-3"))
    assert (data / "worker-3").stat().st_mode & 0o777 == 0o700
    assert WORKER not in os.environ
    assert manager.watchdog_interval_s() == 4.0
    manager.notify("READY=1")
    assert channel.recv(100) == b"READY=1"


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path, channel: socket.socket) -> None:
    (tmp_path / "data").write_text("a file")
    given = options(tmp_path, workers=4, data=str(tmp_path / "data"))
    with pytest.raises(SettingsError, match=r"server\.data: cannot make .*worker-3: "):
        find_manager(given)


@pytest.mark.parametrize("said", [REPLACED, b"", None])
def test_a_worker_ends_when_it_is_replaced_or_its_supervisor_is_gone(
    tmp_path: Path, channel: socket.socket, said: bytes | None
) -> None:
    manager, _ = find_manager(options(tmp_path))

    async def wait() -> None:
        ended = asyncio.Event()
        manager.on_replaced(ended.set)
        if said is None:
            manager.notify("WATCHDOG=1")  # which is left unread
        if said:
            channel.send(said)
        else:
            channel.close()
        await asyncio.wait_for(ended.wait(), WAIT_S)
        manager.notify("STOPPING=1")  # whoever hears it

    asyncio.run(wait())
    assert manager.port_stays == (said == REPLACED)
