"""Who is blamed for a blocked loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from types import FunctionType

import pytest

from pov_rt.runtime.blocked import BlockWatch
from pov_rt.testing import RunningServer, make_settings

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


def test_a_stop_at_the_worst_instant_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    stopping = threading.Thread(target=lambda: watch.stop(), daemon=True)

    class StoppedMeanwhile(threading.Event):
        def clear(self) -> None:
            stopping.start()
            begun.set()
            self.wait(5)  # for the wake-up, which is then lost
            super().clear()

    loop = asyncio.new_event_loop()  # it never runs, so nothing else wakes the thread
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", StoppedMeanwhile)
        watch = BlockWatch(loop, 0.001, ())
    watch.start()
    assert begun.wait(30)
    stopping.join(30)
    loop.close()
    assert not stopping.is_alive()


def hold(records: list[logging.LogRecord]) -> None:
    while not records:
        pass


def test_a_function_that_is_at_no_line_is_named_by_its_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one is while it is entered, which a watch meets once in a long time."""
    lineless = FunctionType(hold.__code__.replace(co_linetable=b""), globals())

    async def work() -> None:
        watch = BlockWatch(asyncio.get_running_loop(), 0.01, ())
        watch.start()
        lineless(caplog.records)
        watch.stop()

    asyncio.run(work())
    line = hold.__code__.co_firstlineno
    assert f"{__file__}:{line} in hold" in caplog.records[0].getMessage()


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
