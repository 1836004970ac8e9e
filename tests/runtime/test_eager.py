"""What is started eagerly behaves as any other task, but has begun already."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from pov_rt.runtime.eager import Begun, start

name: ContextVar[str] = ContextVar("name", default="outside")


def run(test: Coroutine[Any, Any, None]) -> None:
    problems: list[dict[str, Any]] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, problem: problems.append(problem))
        before = asyncio.current_task()
        await test
        assert asyncio.current_task() is before
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {before}

    asyncio.run(work())
    assert problems == []


def test_what_does_not_wait_is_over_at_once() -> None:
    async def quick() -> int:
        name.set("inside")
        return 3

    async def broken() -> None:
        raise LookupError

    async def gone() -> None:
        raise asyncio.CancelledError

    async def test() -> None:
        assert start(quick()).result() == 3
        assert name.get() == "outside", "it has a context of its own"
        assert isinstance(start(broken()).exception(), LookupError)
        assert start(gone()).cancelled()

    run(test())


def test_what_waits_goes_on_as_the_task_that_it_was_from_the_beginning() -> None:
    async def slow(gate: asyncio.Future[int]) -> tuple[object, object, int, str]:
        name.set("inside")
        before = asyncio.current_task()
        found = await gate
        return before, asyncio.current_task(), found, name.get()

    async def test() -> None:
        gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = start(slow(gate))
        assert not task.done()
        gate.set_result(7)  # before the loop has come to the task
        assert await task == (task, task, 7, "inside")

    run(test())


def test_several_may_wait_for_the_same_thing_before_the_loop_has_come_to_them() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        shared: asyncio.Future[str] = loop.create_future()

        async def ask(n: int) -> str:
            return f"{n} {await shared}"

        async def ask_shielded() -> str:
            return await asyncio.shield(shared)

        gone = start(ask_shielded())  # without a shield it may take what it waits for along
        gone.cancel()
        asking = [start(ask(1)), start(ask(2)), loop.create_task(ask(3))]
        loop.call_soon(loop.call_soon, shared.set_result, "x")
        assert await asyncio.gather(*asking) == ["1 x", "2 x", "3 x"]
        assert gone.cancelled()

    run(test())


def test_what_is_over_may_be_cancelled() -> None:
    async def quick() -> None: ...

    async def test() -> None:
        before = asyncio.all_tasks()
        start(quick())
        for task in asyncio.all_tasks() - before:
            task.cancel()

    run(test())


def test_what_refers_to_its_task_works_in_the_first_step() -> None:
    async def late() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        except TimeoutError:
            return "late"
        return "in time"

    async def together() -> list[int]:
        async def one(n: int) -> int:
            await asyncio.sleep(0)
            return n

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(n)) for n in range(3)]
        return [task.result() for task in tasks]

    async def test() -> None:
        assert await start(late()) == "late"
        assert await start(together()) == [0, 1, 2]

        async def nested() -> list[int]:
            return await start(together())

        assert await start(nested()) == [0, 1, 2]

    run(test())


def test_a_cancellation_reaches_what_has_begun() -> None:
    async def test() -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("ended")

        for turns in (0, 1):
            task = start(work())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert ended == ["ended", "ended"]

    run(test())


def test_what_has_begun_can_be_awaited_thrown_into_and_closed() -> None:
    async def work(gate: asyncio.Future[int], log: list[str]) -> int:
        try:
            return await gate
        except LookupError:
            log.append("thrown")
            await asyncio.sleep(0)
            return -1
        finally:
            log.append("end")

    async def test() -> None:
        loop, log = asyncio.get_running_loop(), list[str]()
        gate: asyncio.Future[int] = loop.create_future()
        begun = work(gate, log)
        loop.call_soon(gate.set_result, 5)
        assert await Begun(begun, begun.send(None)) == 5
        failing: asyncio.Future[int] = loop.create_future()
        begun = work(failing, log)
        loop.call_soon(failing.set_exception, LookupError())
        assert await Begun(begun, begun.send(None)) == -1
        begun = work(loop.create_future(), log)
        Begun(begun, begun.send(None)).close()
        assert log == ["end", "thrown", "end", "end"]

    run(test())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="its tasks are made for nothing else")
def test_those_that_do_not_wait_share_a_task_unless_one_keeps_it() -> None:
    kept: list[object] = []

    async def quick() -> int:
        return id(asyncio.current_task())

    async def keeping() -> int:
        kept.append(asyncio.current_task())
        return id(kept[-1])

    async def cancelled() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return id(task)

    async def nested() -> set[int]:
        return {id(asyncio.current_task()), start(quick()).result()}

    async def test() -> None:
        first = start(quick()).result()
        assert start(quick()).result() == first
        assert len(start(nested()).result()) == 2, "not while the other is in its first step"
        for other in (keeping, cancelled):
            used = start(other()).result()
            assert start(quick()).result() != used
        first = start(quick()).result()
        before = asyncio.all_tasks()
        await asyncio.sleep(0)
        assert {id(each) for each in before - asyncio.all_tasks()} >= {first}, "none stays"

    run(test())


def test_what_waits_keeps_its_context_after_others_have_not_waited() -> None:
    async def quick(text: str) -> None:
        name.set(text)

    async def slow(text: str) -> str:
        name.set(text)
        await asyncio.sleep(0)
        before = name.get()
        await asyncio.sleep(0)
        return f"{before} {name.get()}"

    async def broken(gate: asyncio.Future[None]) -> str:
        name.set("broken")
        try:
            await gate
        except LookupError:
            return name.get()
        return ""

    async def test() -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks = []
        for number in range(3):
            start(quick("other"))
            tasks.append(start(slow(str(number))))
        start(quick("other"))
        failing = start(broken(gate))
        gate.set_exception(LookupError())
        assert await asyncio.gather(*tasks) == ["0 0", "1 1", "2 2"]
        assert await failing == "broken"
        assert name.get() == "outside"

    run(test())
