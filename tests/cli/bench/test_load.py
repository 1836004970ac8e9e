"""The load against a real server: everything is counted, and what cannot be is said."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pov_rt.cli.bench import load
from pov_rt.cli.bench.load import Bench, BenchError, Load, Run
from pov_rt.remote.addresses import parse_url
from pov_rt.testing import RunningServer
from tests.client.publishing.reading import service


def load_of(server: RunningServer, **more: Any) -> Load:
    given = Load(
        parse_url(server.address),
        [server.token(f"bench-{each}") for each in range(more.get("clients", 6))],
        service(server),
        clients=6,
        slow=0,
        povs=2,
        rate=200.0,
        seconds=0.2,
        size=50,
        late_s=60.0,
        settle_s=30.0,
        pov="bench",
        type="bench",
        action="sent",
    )
    return given._replace(**more)


def run(given: Load) -> Run:
    return asyncio.run(Bench(given).run())


def test_all_that_is_published_comes_to_everybody_once(server: RunningServer) -> None:
    done = run(load_of(server))
    ledger = done.ledger
    assert (ledger.accepted, ledger.refused) == (40, 0)
    assert (ledger.expected, ledger.received, ledger.lost, ledger.twice) == (120, 120, 0, 0)
    assert (len(ledger.acknowledged), len(ledger.delivered)) == (40, 120)
    assert (ledger.gaps, done.reconnects) == (0, 0)


def test_slow_clients_get_all_in_the_end(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PAUSE_S", 0.05)
    ledger = run(load_of(server, slow=2, size=2000)).ledger
    assert (ledger.lost, ledger.twice) == (0, 0)
    assert (len(ledger.delivered), len(ledger.delivered_slow)) == (80, 40)


def test_clients_that_are_cut_off_come_back_and_lose_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off() -> None:
        for each in server.web.server.directory.all():
            each.transport.abort()

    async def disturbed() -> Run:
        bench = Bench(load_of(server))
        send = bench.ledger.send

        def then(due: float) -> None:
            if bench.ledger.sent == 20:  # what is behind it is not on its way yet
                server.call(cut_off)
            send(due)

        monkeypatch.setattr(bench.ledger, "send", then)
        return await bench.run()

    done = asyncio.run(disturbed())
    assert (done.ledger.lost, done.ledger.twice) == (0, 0)
    assert done.reconnects >= 6


def test_what_a_server_sends_again_is_counted_though_no_client_gives_it_twice(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_all_twice() -> None:
        for topic in server.web.server.hub.all():
            for group in topic.groups.values():
                for connection, transport in group.items():
                    group[connection] = twice(transport)

    def twice(transport: Any) -> Any:
        def send_again(*what: Any) -> None:
            transport.send(*what)
            transport.send(*what)

        return SimpleNamespace(send=send_again)

    async def disturbed() -> Run:
        bench = Bench(load_of(server, clients=2, povs=1, size=13_000))  # several batches
        send = bench.ledger.send

        def then(due: float) -> None:
            if bench.ledger.sent == 0:
                server.call(send_all_twice)
            send(due)

        monkeypatch.setattr(bench.ledger, "send", then)
        return await bench.run()

    ledger = asyncio.run(disturbed()).ledger
    assert (ledger.lost, ledger.received) == (0, 80)
    # Each comes before what follows it; nobody waits for what comes after the last.
    assert ledger.repeated >= 2
    assert ledger.twice == ledger.repeated


def test_what_is_refused_is_counted_by_its_reason(server: RunningServer) -> None:
    ledger = run(load_of(server, type="no type")).ledger
    assert (ledger.accepted, ledger.refused, ledger.lost) == (0, 40, 0)
    (why,) = ledger.refusals
    assert "invalid_activity" in why


def test_whoever_does_not_get_in_ends_the_run_in_words(server: RunningServer) -> None:
    with pytest.raises(BenchError, match=r"a client was refused: .*401"):
        run(load_of(server, tokens=[server.token("x") + "x"]))
    with pytest.raises(BenchError, match="nothing can be published: 401"):
        run(load_of(server, publish_token=server.token("x")))


def test_a_server_that_is_not_there_ends_the_run(server: RunningServer) -> None:
    with pytest.raises(BenchError, match="0 of 6 clients could connect: nobody listens at"):
        run(load_of(server, address=parse_url("127.0.0.1:1")))
