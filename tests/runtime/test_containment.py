"""What a plugin raises, and how long it takes, stays its own; what others do to it does not."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from pov_rt.protocol.errors import HandlerTimeout, RateLimited, Rejected, Unavailable
from pov_rt.runtime import containment
from pov_rt.runtime.clock import SystemClock
from pov_rt.runtime.containment import PluginExit, Tasks, call, contain, end, internal, logged

log = logging.getLogger("tests.containment")


def outcome(function: Callable[..., Any], *arguments: Any, deadline_s: float = 5.0) -> Any:
    """Return what a call returned, or the exception that came out."""

    async def work() -> Any:
        try:
            return await call(function, *arguments, deadline_s=deadline_s)
        except Exception as error:
            return error

    return asyncio.run(work())


def raising(error: BaseException, turns: int) -> Callable[[], Any]:
    """Return a function that raises: at once, or `async` and after so many turns of the loop."""

    def plain() -> None:
        raise error

    async def later() -> None:
        for _ in range(turns - 1):
            await asyncio.sleep(0)
        raise error

    return later if turns else plain


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), BaseException("odd")])
def test_what_would_end_a_task_or_a_process_is_an_ordinary_error(
    error: BaseException, turns: int
) -> None:
    found = outcome(raising(error, turns))
    assert isinstance(found, PluginExit)
    assert (str(found), found.__cause__) == (f"the plugin raised {error!r}", error)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_an_ordinary_error_comes_out_as_it_is(turns: int) -> None:
    error = Rejected("closed", "It is closed")
    assert outcome(raising(error, turns)) is error


def test_ctrl_c_is_nobodys_to_contain() -> None:
    with pytest.raises(KeyboardInterrupt):
        contain(KeyboardInterrupt())


def test_plain_and_async_functions_return_what_they_return() -> None:
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value

    assert outcome(lambda value: value, 1) == 1
    assert outcome(later, 2) == 2


def test_one_that_takes_too_long_is_cancelled_and_its_caller_told() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    assert isinstance(outcome(forever, deadline_s=0.01), HandlerTimeout)
    assert ended == [True]


def test_a_caller_that_is_cancelled_stays_so() -> None:
    async def work() -> None:
        begun = asyncio.Event()

        async def forever() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(call(forever, deadline_s=5.0))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), "no error of the plugin's is made of it"

    asyncio.run(work())


def test_one_that_refuses_to_be_cancelled_is_told_of_and_its_result_still_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containment, "STUCK_S", 0.01)

    async def work() -> None:
        told = asyncio.Event()

        async def stubborn() -> str:
            while not told.is_set():
                try:
                    await told.wait()
                except asyncio.CancelledError:
                    continue
            return "late"

        assert await call(stubborn, deadline_s=0.01, stuck=told.set) == "late"
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling(), "the deadline's cancellation is over"

    asyncio.run(work())


def test_what_nobody_can_do_now_has_a_line_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with logged(log, "the hook %s failed", "x", plugin="p"):
        raising(Unavailable("the disk is full"), 0)()
    (line,) = caplog.records
    assert line.getMessage() == "the hook x failed: the disk is full"
    assert (line.levelname, line.exc_info, line.__dict__["plugin"]) == ("WARNING", None, "p")


def test_a_block_of_a_plugin_costs_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with logged(log, "the hook %s failed", "x", plugin="p"):
        raising(SystemExit(3), 0)()
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["plugin"]) == ("the hook x failed", "p")
    assert "SystemExit(3)" in str(record.exc_info and record.exc_info[1])


def test_tasks_are_ended_and_one_that_refuses_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(containment, "END_S", 0.01)

    async def work() -> None:
        let_go = asyncio.Event()

        async def stubborn() -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

        good, bad = asyncio.create_task(asyncio.sleep(60)), asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        assert await end([good], "x")
        assert good.cancelled()
        assert not await end([bad], "the plugin x")
        assert "1 tasks of the plugin x do not end" in caplog.text
        let_go.set()
        await bad

    asyncio.run(work())


def test_an_incident_is_in_the_log_and_its_number_in_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error, clock, log = KeyError("x"), SystemClock(), logging.getLogger("tests.containment")
    told = [
        internal(clock, log, "%s failed", "it", error=error, plugin="poll").as_fields()
        for _ in range(2)
    ]
    incidents = [record.__dict__["incident"] for record in caplog.records]
    assert told == [{"code": "internal", "incident": incident} for incident in incidents]
    assert len({*incidents}) == 2
    for record in caplog.records:
        assert (record.getMessage(), record.__dict__["plugin"]) == ("it failed", "poll")
        assert record.exc_info is not None
        assert record.exc_info[1] is error


def test_what_a_function_raises_leaves_nothing_for_the_collector() -> None:
    async def refuse() -> None:
        await asyncio.sleep(0)
        raise RateLimited

    async def run() -> int:
        for _ in range(20):
            with suppress(RateLimited):
                await call(refuse, deadline_s=5.0)
        return gc.collect()

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(run()) < 20
    finally:
        gc.enable()


def test_what_begins_at_once_may_be_over_or_goes_on_as_a_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        tasks, done = Tasks(log, "a task"), list[str]()
        goes_on = asyncio.Event()

        async def work(name: str, *, waits: bool = False, fails: bool = False) -> None:
            done.append(f"{name} begins")
            if waits:
                await goes_on.wait()
            if fails:
                raise ValueError(name)
            done.append(f"{name} ends")

        assert tasks.begin(work("a")).done()
        assert tasks.begin(work("b", fails=True)).done()
        waiting = [
            tasks.begin(work("c", waits=True)),
            tasks.begin(work("d", waits=True, fails=True)),
        ]
        assert (len(tasks), done) == (2, ["a begins", "a ends", "b begins", "c begins", "d begins"])
        goes_on.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)
        assert (len(tasks), done[-1]) == (0, "c ends")
        tasks.begin(work("e", waits=True))
        goes_on.clear()
        left = tasks.begin(work("f", waits=True))
        await tasks.end()
        assert left.cancelled()

    asyncio.run(run())
    assert caplog.text.count("a task failed") == 2
