"""What systemd is told, the sockets it hands over, and who is blamed for a blocked loop."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from pov_rt.runtime.blocked import BlockWatch
from pov_rt.runtime.systemd import listen_sockets, notify, watchdog_interval_s
from pov_rt.testing import RunningServer, make_settings


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


BLOCKING = """
import time
from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("sleepy")

class Sleep(Message, tag="sleepy.sleep"):
    pass

@plugin.on(Sleep)
def sleep(message: Sleep, context: Context) -> None:
    time.sleep(0.7)
"""


def test_a_stop_at_the_worst_instant_is_not_missed() -> None:
    class StoppedMeanwhile(threading.Event):
        def clear(self) -> None:
            watch._stop.set()
            self.set()
            super().clear()

    loop = asyncio.new_event_loop()  # it never runs, so nothing else wakes the thread
    watch = BlockWatch(loop, 0.001, ())
    watch._alive = StoppedMeanwhile()
    watch.start()
    watch._thread.join(5)
    loop.close()
    assert not watch._thread.is_alive()


def test_the_line_that_blocks_the_loop_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sleepy.py").write_text(BLOCKING)
    with RunningServer(make_settings(), tmp_path) as server:
        ana = server.connect("ana")
        ana.send({"type": "sleepy.sleep"})
        ana.request({"type": "ping"})
    lines = [r.getMessage() for r in caplog.records if "is blocked" in r.getMessage()]
    assert len(lines) == 1
    assert f"{tmp_path / 'sleepy.py'}:12 in sleep" in lines[0]
