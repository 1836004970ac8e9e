"""A process that hangs says where, when it is asked and when the watchdog ends it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import pytest
from websockets.sync.client import connect

from pov_rt.cli.node import stacks
from pov_rt.runtime.eager import start
from tests.cli.node.test_process import BLOCKING
from tests.processes import COMMAND, Served, environment, read_until, running, serve

LAST_FRAME = "in _run_module_as_main"
"""Where the main thread began: its stack is the last one."""


def test_a_signal_has_all_stacks_and_tasks_told_and_the_server_goes_on(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        for _ in range(2):
            served.process.send_signal(stacks.SIGNAL)
            stacks_told = read_until(served.process.stderr, "tasks wait at")
            assert "sqlite/writer.py" in stacks_told, "those of other threads"
            assert LAST_FRAME in stacks_told, "the loop's"
            read_until(served.process.stderr, "Process.run (")
        served.stop()


# Each of its own: what comes before the first is at its very end is not written.
@pytest.mark.parametrize("number", [stacks.SIGNAL, signal.SIGABRT])
def test_a_process_that_hangs_says_where(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "plugins").mkdir()
    hanging = BLOCKING.replace("    while", '    os.write(2, b"hangs from here on\\n")\n    while')
    (tmp_path / "plugins/block.py").write_text(
        hanging.replace("from pov_rt", "import os\nfrom pov_rt")
    )
    # Or the thread that says that the loop is blocked would be at work just then: a stack that
    # changes while it is written, which happens without the interpreter's lock, ends the process.
    quiet = {"POV_RT_LOG__BLOCKED_LOOP_S": "3600"}
    flags = ("--port", "0", "--admin-port", "0", "--plugins-dir", "plugins")
    with running(
        [*COMMAND, "serve", "--dev", *flags],
        env=environment(tmp_path) | quiet | {"PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        served = Served(process)
        url = f"{served.socket_url}?token={served.token}"
        with connect(url, proxy=None, close_timeout=0) as client:
            client.send('{"type":"block"}')
            read_until(process.stderr, "hangs from here on")
            process.send_signal(number)
            told = read_until(process.stderr, LAST_FRAME)
            assert "plugins/block.py" in told
            if number == signal.SIGABRT:  # as systemd's watchdog ends it
                assert "Fatal Python error: Aborted" in told
                assert process.wait(20) == -signal.SIGABRT


def test_tasks_that_wait_at_one_place_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        done = asyncio.Event()

        async def wait() -> None:
            await done.wait()

        tasks = [asyncio.ensure_future(start(wait())) for _ in range(3)]
        await asyncio.sleep(0)
        stacks.log_tasks()
        done.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    (line,) = [line for line in caplog.messages if line.startswith("3 tasks: ")]
    inner, outer = line.removeprefix("3 tasks: ").split(" < ")
    assert inner.startswith("Event.wait (")
    assert f"run.<locals>.wait ({__file__}:" in outer


def test_places_are_so_many(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        done = asyncio.Event()
        names: dict[str, object] = {"done": done}
        for number in range(stacks.MOST_PLACES + 5):
            exec(f"async def wait{number}():\n    await done.wait()", names)
        tasks = [
            asyncio.ensure_future(work())
            for name, work in names.items()
            if name.startswith("wait") and callable(work)
        ]
        await asyncio.sleep(0)
        stacks.log_tasks()
        done.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert len(caplog.messages) == stacks.MOST_PLACES + 2
    assert caplog.messages[-1] == "and at 6 places more"
