"""`pov-rt bench` as a command: what it prints, and when it ends with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pov_rt.cli.bench.ledger import Ledger
from pov_rt.cli.main import main
from pov_rt.testing import SECRET, RunningServer


def bench(server: RunningServer, *more: str) -> Result:
    arguments = [
        "--url",
        server.address,
        "--rate",
        "100",
        "--for",
        "0.2s",
        "--clients",
        "4",
        "--settle",
        "30s",
    ]
    environment = {"POV_RT_AUTH__SECRETS": SECRET, "POV_RT_AUTH__DEFAULT_POVS": "*"}
    return CliRunner().invoke(main, ["bench", *arguments, *more], env=environment)


def test_a_run_prints_a_table_and_a_plot(server: RunningServer) -> None:
    done = bench(server, "--slow", "1", "--povs", "2")
    assert done.exit_code == 0, done.output
    assert "4 clients, 1 of them slow on 2 PoVs, connected in" in done.output
    assert f"{'lost':<18} {0:>12}" in done.output
    assert "acknowledged" in done.output
    assert "#####" in done.output


def test_it_prints_json_for_programs(server: RunningServer) -> None:
    done = bench(server, "--json")
    found = json.loads(done.output)
    assert (found["published"], found["expected"], found["received"]) == (20, 80, 80)
    assert found["deliveredS"]["p50"] <= found["deliveredS"]["longest"]


def test_one_token_or_a_file_of_them_will_do(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("\n".join(server.token(user) for user in ("ana", "ben")) + "\n")
    for given in (("--token", server.token("ana")), ("--tokens", str(file))):
        assert bench(server, *given).exit_code == 0
    file.write_text("\n")
    assert "there is none in the file" in bench(server, "--tokens", str(file)).output


@pytest.mark.parametrize("times", [0, 2])
def test_what_is_lost_or_doubled_ends_it_with_1(
    times: int, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Ledger.receive

    def planted(ledger: Ledger, client: int, number: int, now: float) -> None:
        for _ in range(times if number == 3 else 1):
            receive(ledger, client, number, now)

    monkeypatch.setattr(Ledger, "receive", planted)
    # Who waits for what never comes waits no longer than it has to.
    done = bench(server, "--json", *(["--settle", "0.5s"] if times == 0 else []))
    found = json.loads(done.output)
    assert done.exit_code == 1
    if times == 0:
        assert (found["lost"] >= 4, found["twice"]) == (True, 0)
    else:
        assert (found["lost"], found["twice"]) == (0, 4)


def test_a_run_in_which_nothing_was_published_ends_with_1(server: RunningServer) -> None:
    done = bench(server, "--type", "no type")
    assert (done.exit_code, "invalid_activity" in done.output) == (1, True)


def test_more_slow_clients_than_clients_are_none(server: RunningServer) -> None:
    assert "--slow is more than --clients" in bench(server, "--slow", "5").output
