"""One budget for each user, over connections and HTTP, that waiting pays and leaving does not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.connections.budgets import BURST_S, DEBT_S, MAX_OWNERS, Budgets
from pov_rt.protocol.errors import RateLimited
from pov_rt.runtime.bounds import payer
from pov_rt.runtime.clock import ManualClock


def test_a_price_is_paid_before_and_what_was_done_may_lead_into_debt() -> None:
    clock = ManualClock()
    budgets = Budgets("10/s", clock)
    budgets.pay("ana", 1)
    budgets.charge_owner("ana", 10 * BURST_S)
    with pytest.raises(RateLimited) as error:
        budgets.pay("ana", 1)
    assert error.value.retry_after_s == pytest.approx(0.1)
    budgets.pay("ben", 1)
    budgets.pay("ana", 0)  # what is free is free in a debt, too
    clock.advance(0.1)
    budgets.pay("ana", 1)
    assert budgets.bound.refused == 1


def test_a_debt_is_never_for_longer_than_its_bound() -> None:
    budgets = Budgets("10/s", ManualClock())
    for _ in range(100):
        budgets.charge_owner("ana", 1e6)
    assert budgets.debt_s("ana") == DEBT_S


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, DEBT_S)), max_size=60),
    st.integers(1, 100),
)
def test_nobody_gets_more_than_the_rate_and_a_burst_and_retry_after_is_true(
    steps: list[tuple[float, float]], rate: int
) -> None:
    clock = ManualClock()
    budgets = Budgets(f"{rate}/s", clock)
    began, paid = clock.monotonic(), 0.0
    for wait, cost in steps:
        clock.advance(wait)
        if (debt_s := budgets.debt_s("ana")) > 0:
            with pytest.raises(RateLimited) as error:
                budgets.pay("ana", cost or 1)
            assert error.value.retry_after_s == debt_s
            clock.advance(debt_s + 1e-6)
        budgets.pay("ana", cost)
        # Each may lead into a debt, which is paid before the next one.
        assert paid <= rate * (clock.monotonic() - began + BURST_S) + 1e-3
        paid += cost


def test_what_is_charged_is_the_owners_for_whom_the_task_works() -> None:
    clock = ManualClock()
    budgets = Budgets("1/s", clock)

    async def work(owner: str) -> None:
        payer.set(owner)
        budgets.charge(100)

    asyncio.run(work("ana"))
    asyncio.run(work(""))
    assert (budgets.debt_s("ana") > 0, budgets.debt_s("ben") > 0) == (True, False)


def test_what_waited_for_its_turn_is_refused_if_its_owner_went_into_debt_meanwhile() -> None:
    budgets = Budgets("1/s", ManualClock())

    async def work(owner: str) -> None:
        payer.set(owner)
        budgets.check()
        budgets.charge(100)
        budgets.check()

    asyncio.run(work(""))
    with pytest.raises(RateLimited) as error:
        asyncio.run(work("ana"))
    assert error.value.retry_after_s == budgets.debt_s("ana")
    with pytest.raises(RateLimited):
        asyncio.run(work("ana"))
    assert budgets.debt_s("ben") <= 0


def test_a_debt_outlasts_who_made_it_and_a_full_budget_does_not() -> None:
    clock = ManualClock()
    budgets = Budgets("1/s", clock)
    held = budgets.hold("ana")
    assert budgets.of("ana") is held
    clock.advance(BURST_S + 1)
    budgets.sweep(clock.monotonic())
    assert budgets.bound.used() == 0
    assert budgets.of("ana") is held, "as long as somebody holds it"
    held.charge(100, clock.monotonic())
    budgets.release(held)  # its connection is closed
    budgets.sweep(clock.monotonic())
    assert budgets.debt_s("ana") > 0
    clock.advance(DEBT_S + BURST_S)
    budgets.sweep(clock.monotonic())
    assert budgets.bound.used() == 0
    assert budgets.debt_s("ana") <= 0
    assert budgets.of("ana") is not held


def test_there_is_a_bounded_number_of_them_and_the_greatest_debts_are_kept() -> None:
    clock = ManualClock()
    budgets = Budgets("1/s", clock)
    for number in range(MAX_OWNERS + 1):
        budgets.charge_owner(str(number), 1 + (number == 7))
    budgets.sweep(clock.monotonic())
    assert budgets.bound.used() == MAX_OWNERS // 2
    assert not budgets.of("7").is_full(clock.monotonic())
