"""What a run says in words."""

from __future__ import annotations

from pov_rt.cli.bench.ledger import Ledger, Spread
from pov_rt.cli.bench.load import Load, Run
from pov_rt.cli.bench.report import as_json, as_text, plot
from pov_rt.remote.addresses import parse_url


def load_of() -> Load:
    address = parse_url("http://user:secret@127.0.0.1:8765/?token=secret")
    return Load(address, ["t"], "t", 1, 0, 1, 50.0, 1.0, 100, 1.0, 5.0, "bench", "bench", "sent")


def test_no_secret_of_the_url_is_told() -> None:
    run = Run(Ledger(1, 0, 1, 1.0), 0.1, 1.0, 0, 0.1)
    assert "secret" not in "".join(as_text(load_of(), run)) + str(as_json(load_of(), run))


def test_a_load_that_had_no_time_left_says_so() -> None:
    for busy, is_told in ((0.5, False), (0.97, True)):
        run = Run(Ledger(1, 0, 1, 1.0), 0.1, 1.0, 0, busy)
        text = "\n".join(as_text(load_of(), run))
        assert ("The load itself took 97% of a core" in text) == is_told


def test_a_bar_is_as_long_as_there_are_many_and_one_is_seen() -> None:
    times = Spread()
    for seconds, count in ((0.0015, 1), (0.003, 1000)):
        for _ in range(count):
            times.add(seconds)
    first, last = plot(times)
    assert first.split()[4:] == ["#", "1"]
    assert last.split()[4:] == ["#" * 40, "1,000"]
