"""The ledger counts what is lost, doubled and late, and nothing else as that."""

from __future__ import annotations

import pytest

from pov_rt.cli.bench.ledger import Ledger, Spread


def ledger_of(sent: int, *, clients: int = 2, slow: int = 0, povs: int = 1) -> Ledger:
    """Return a ledger of messages that were due one a second, from 0 on, and acknowledged."""
    ledger = Ledger(clients, slow, povs, late_s=1.0)
    for number in range(sent):
        ledger.send(float(number))
        ledger.accept(number, number + 0.1)
    return ledger


def test_what_everybody_got_once_and_soon_is_good() -> None:
    ledger = ledger_of(3)
    for client in (0, 1):
        for number in range(3):
            assert not ledger.is_complete()
            ledger.receive(client, number, number + 0.5)
    assert ledger.is_complete()
    assert (ledger.expected, ledger.received) == (6, 6)
    assert (ledger.lost, ledger.twice, ledger.late) == (0, 0, 0)


def test_what_is_lost_twice_and_late_is_counted_for_each_client() -> None:
    ledger = ledger_of(3)
    for client, number, took_s in ((0, 0, 0.5), (0, 2, 3.0), (0, 2, 3.5), (0, 2, 4.0)):
        ledger.receive(client, number, number + took_s)
    assert (ledger.received, ledger.lost, ledger.twice, ledger.late) == (2, 4, 2, 1)
    ledger.repeated += 3
    assert (ledger.received, ledger.twice) == (2, 5)


def test_what_was_not_acknowledged_is_not_lost() -> None:
    ledger = ledger_of(1, clients=1)
    ledger.send(1.0)
    ledger.refuse("unavailable")
    ledger.receive(0, 0, 0.5)
    assert (ledger.lost, ledger.refused, ledger.refusals["unavailable"]) == (0, 1, 1)
    assert ledger.is_complete()
    ledger.receive(0, 1, 1.5)
    assert (ledger.lost, ledger.twice) == (0, 0)


def test_each_client_is_owed_what_is_on_its_own_pov() -> None:
    ledger = ledger_of(5, clients=3, povs=2)
    for client, mine in ((0, (0, 2, 4)), (1, (1, 3)), (2, (0, 2, 4))):
        for number in mine:
            ledger.receive(client, number, number + 0.1)
    assert (ledger.expected, ledger.lost, ledger.is_complete()) == (8, 0, True)


def test_a_slow_client_is_late_by_its_own_will_and_loses_nothing_either() -> None:
    ledger = ledger_of(1, slow=1)
    ledger.receive(0, 0, 0.5)
    ledger.receive(1, 0, 30.0)
    assert (ledger.late, ledger.lost) == (0, 0)
    assert (len(ledger.delivered), len(ledger.delivered_slow)) == (1, 1)


def test_quantiles_are_right_to_two_percent() -> None:
    times = Spread()
    assert times.quantile(0.5) is None
    for number in range(1, 1001):
        times.add(number / 1000)
    for part in (0.01, 0.5, 0.95, 0.99):
        assert times.quantile(part) == pytest.approx(part, rel=0.021)
    assert times.quantile(1.0) == times.longest_s == 1.0


def test_a_plot_has_each_doubling_from_the_first_to_the_last() -> None:
    times = Spread()
    for seconds in (0.0015, 0.0016, 0.012):
        times.add(seconds)
    assert list(times.doublings()) == [(0.002, 2), (0.004, 0), (0.008, 0), (0.016, 1)]
    assert list(Spread().doublings()) == []
