"""What systemd is told, and the sockets it hands over."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pov_rt.runtime.process.systemd import listen_sockets, notify, watchdog_interval_s


def test_notify_reaches_the_manager_if_there_is_one(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        assert notify("READY=1", {"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1"
    assert not notify("READY=1", {"NOTIFY_SOCKET": path})
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:3"})


def test_notify_speaks_to_abstract_sockets() -> None:
    name = f"pov-rt-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert notify("STOPPING=1", {"NOTIFY_SOCKET": "@" + name})
        assert manager.recv(100) == b"STOPPING=1"


def test_the_watchdog_is_fed_at_half_its_time() -> None:
    pid = str(os.getpid())
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": pid}) == 15.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "x"}) is None
    assert watchdog_interval_s({}) is None


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_PID": str(os.getpid())}]
)
def test_sockets_for_others_are_not_taken(environ: dict[str, str]) -> None:
    assert listen_sockets(environ) == []


def test_a_wrong_number_of_sockets_is_none() -> None:
    assert listen_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}) == []
