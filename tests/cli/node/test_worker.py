"""A worker that its supervisor keeps: a process of the test's own in its place, which misbehaves.

`test_workers` has real ones.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pov_rt.cli.node import worker as module
from pov_rt.cli.node.manager import WORKER
from pov_rt.cli.node.worker import Worker
from pov_rt.config.settings import ServerSettings, SettingsError
from pov_rt.web.sockets import WorkerSockets
from tests.engine.redis.engines import until

TELLS = f"""
import json, os, time

channel = json.loads(os.environ["{WORKER}"])["channel"]
tell = lambda state: os.write(channel, state.encode())
"""
DRAINS_FOREVER = f"""{TELLS}
tell("READY=1")
tell("STOPPING=1\\nEXTEND_TIMEOUT_USEC=300000")
while True:
    tell("READY=1")
    tell("WATCHDOG=1")
    time.sleep(0.05)
"""
"""It lives and says so, but never ends."""
ENDS = f"""{TELLS}
tell("READY=1")
"""

Kept = tuple[Worker, WorkerSockets, "asyncio.Task[None]"]


@asynccontextmanager
async def kept(program: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    """Have a worker kept that runs a program."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-I", "-S", "-c", program])
    settings = ServerSettings(host="127.0.0.1", port=0)
    sockets = WorkerSockets(settings, [])
    worker = Worker(1, sockets, settings, watchdog_s=20.0, port_stays=False)
    task = asyncio.create_task(worker.keep())
    try:
        yield worker, sockets, task
    finally:
        worker.stop()
        await asyncio.wait([task])
        sockets.close()


def test_a_drain_has_an_end_whatever_the_worker_tells(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with kept(DRAINS_FOREVER, monkeypatch):
            await until(lambda: "worker 1 was ended by SIGABRT after" in caplog.text)
        assert "worker 1 has not drained within 0.3 s, and is ended" in caplog.text

    asyncio.run(work())


def test_a_worker_whose_port_was_taken_is_started_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.3, 0.3))

    async def work() -> None:
        async with kept(ENDS, monkeypatch) as (_, sockets, task):
            taken: socket.socket | None = None

            def is_taken() -> bool:
                nonlocal taken
                try:
                    taken = socket.create_server(("127.0.0.1", sockets.port))
                except OSError:
                    return False
                return True

            await until(lambda: "worker 1 ended with status 0" in caplog.text)
            await until(is_taken)
            assert taken is not None
            with taken:
                await until(lambda: "worker 1 could not be started (cannot listen" in caplog.text)
            caplog.clear()
            await until(lambda: "worker 1 ended with status 0" in caplog.text)
            assert not task.done()

    asyncio.run(work())


def test_a_worker_that_never_had_its_port_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with kept(ENDS, monkeypatch) as (_, sockets, task):
            with socket.create_server(("127.0.0.1", sockets.port)):
                await asyncio.wait([task])
            with pytest.raises(SettingsError, match="another program does already"):
                task.result()

    asyncio.run(work())
