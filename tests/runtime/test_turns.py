"""Budgets of a turn: what is too much for one goes on in the next, in order."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path

import pytest

from pov_rt.runtime import turns
from pov_rt.runtime.turns import Backlog, Slots

ROOT = Path(__file__).parents[2]


def test_a_backlog_is_worked_off_in_turns_and_in_order() -> None:
    async def run() -> None:
        done: list[int] = []
        backlog = Backlog(3, done.append)
        for number in range(7):
            backlog.add(number)
        assert done == [], "not within the turn of who adds"
        seen = []
        while len(done) < 7:
            await asyncio.sleep(0)
            seen.append(len(done))
        assert seen == [3, 6, 7]
        backlog.add(7)
        backlog.finish()
        assert done == list(range(8))
        await asyncio.sleep(0)
        assert len(backlog) == 0

    asyncio.run(run())


def test_what_fails_stops_neither_the_others_nor_the_loop() -> None:
    async def run() -> None:
        done: list[int] = []
        errors: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

        def work(number: int) -> None:
            if number == 1:
                raise ValueError("one")
            done.append(number)

        backlog = Backlog(10, work)
        for number in range(4):
            backlog.add(number)
        for _ in range(3):
            await asyncio.sleep(0)
        assert done == [0, 2, 3]
        assert [type(error) for error in errors] == [ValueError]

    asyncio.run(run())


def test_slots_let_as_many_go_on_in_each_turn() -> None:
    async def run() -> None:
        slots, gone = Slots(2), 0

        async def go() -> None:
            nonlocal gone
            await slots.take()
            gone += 1

        tasks = [asyncio.create_task(go()) for _ in range(6)]
        before = 0
        while gone < 6:
            await asyncio.sleep(0)
            assert gone - before <= 2
            before = gone
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_who_has_gone_lets_no_more_go_on_in_a_turn() -> None:
    async def run() -> None:
        slots, gone = Slots(2), 0

        def go() -> bool:
            nonlocal gone
            gone += 1
            return True

        assert [slots.take_now() for _ in range(3)] == [True, True, False]
        for _ in range(10):
            slots.wait(lambda: False)
        for _ in range(20):
            slots.wait(go)
        before = 0
        while gone < 20:
            await asyncio.sleep(0)
            assert gone - before <= 2
            before = gone

    asyncio.run(run())


def test_few_go_on_while_those_before_them_wait_elsewhere() -> None:
    async def run() -> None:
        behind = True
        slots = Slots(4, 1, lambda: behind)
        gone: list[int] = []

        async def go(number: int) -> None:
            await slots.take()
            gone.append(number)

        tasks = [asyncio.create_task(go(number)) for number in range(10)]
        seen = []
        while len(gone) < 10:
            await asyncio.sleep(0)
            seen.append(len(gone))
            behind = len(gone) < 3
        await asyncio.gather(*tasks)
        assert gone == list(range(10)), "in order"
        steps = {after - before for before, after in pairwise(seen) if before < 3}
        assert steps <= {0, 1}
        assert max(after - before for before, after in pairwise(seen)) == 4

    asyncio.run(run())


def test_the_documentation_says_how_much_of_a_turn_each_gets() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = dict(re.findall(r"^\| `turns\.(\w+)` \| ([\d,]+(?: KiB)?) \|", page, re.M))
    here = {
        name: f"{value // 1024} KiB" if name.endswith("BYTES") else f"{value:,}"
        for name, value in vars(turns).items()
        if isinstance(value, int)
    }
    assert rows == here


@pytest.mark.parametrize("name", [name for name in vars(turns) if name.isupper()])
def test_every_budget_is_somebodys(name: str) -> None:
    users = [
        path
        for path in (ROOT / "pov_rt").glob("**/*.py")
        if path.name != "turns.py" and f"turns.{name}" in path.read_text()
    ]
    assert users
