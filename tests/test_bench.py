"""What the benchmark says: nothing is counted that did not come, and no figure is lost."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest

from bench.centrifugo import Centrifugo
from bench.load import Client, Counted, Load, LoadError
from bench.report import Check, Result, plot, read, slope, write
from bench.table import LINES, table

README = (Path(__file__).parent.parent / "README.md").read_text()


class Answering:
    """A server that upgrades one connection and sends these frames. Use it in a `with`."""

    def __init__(self, *messages: str) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._messages = messages
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        sock, _ = self._listening.accept()
        with sock:
            while b"\r\n\r\n" not in sock.recv(1 << 16, socket.MSG_PEEK):
                pass
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            for message in self._messages:
                data = message.encode()
                sock.sendall(b"\x81\x7e" + len(data).to_bytes(2) + data)
            with suppress(ConnectionResetError):  # which is how the load ends
                while sock.recv(1 << 16):
                    pass


def centrifugo_client(seen: int, folder: Path) -> Client:
    place = {"epoch": "e", "offset": seen}
    return Centrifugo(folder).recovering("ana", "acme", place, seen)


def recovered(offsets: Sequence[int]) -> list[str]:
    """Return how Centrifugo answers: what was missed is in a list, beside the newest offset."""
    publications = [
        {"data": {"title": 'a "quoted" ] } { [ \\', "t": 1, "tags": [{}, []]}, "offset": offset}
        for offset in offsets
    ]
    answer = {"recoverable": True, "publications": publications, "offset": 99}
    # Two answers in one frame, a line each, as it sends them.
    lines = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": answer}]
    return ["\n".join(json.dumps(line, separators=(",", ":")) for line in lines)]


@pytest.mark.skipif(shutil.which("cc") is None, reason="apt-get install gcc libc6-dev")
@pytest.mark.parametrize(
    ("offsets", "frames", "gaps"), [((4, 5, 6), 3, 0), ((4, 6), 2, 1), ((5, 6), 2, 1), ((), 0, 0)]
)
def test_messages_that_come_in_one_list_are_counted_one_by_one(
    offsets: Sequence[int], frames: int, gaps: int, tmp_path: Path
) -> None:
    speech = Centrifugo(tmp_path).speech("acme")
    clients = [centrifugo_client(3, tmp_path)]
    with (
        Answering(*recovered(offsets)) as server,
        Load(tmp_path, server.port, clients, speech, 0) as load,
    ):
        load.open()
        found = Counted(*map(int, load.ask(f"wait {frames} 10000")))
        assert (found.frames, found.gaps, found.lost) == (frames, gaps, 0)
        with pytest.raises(LoadError):
            load.expect(frames + 1, timeout_s=0.01)


def test_a_slope_is_said_in_words() -> None:
    assert slope({100: 2.0, 50_000: 2.04}) == "flat: 1.02x from 100 to 50,000"
    assert slope({10: 1.0, 0: 2.0}) == "falls: 0.50x from 0 to 10"
    assert slope({1: 1.0, 10: 9.0, 100: 3.0}) == "grows: 3.00x from 1 to 100"


def test_a_run_of_one_scenario_leaves_the_results_of_others(tmp_path: Path) -> None:
    for name, date in (("inbound", "1"), ("connect", "2"), ("inbound", "3")):
        result = Result(name, "us", facts={"date": date})
        result.add("case", "pov-rt", us=1.5, word="x")
        result.checks.append(Check("bar", 1.0, 2.0, 1.0))
        write([result], tmp_path)
    found = read(tmp_path)
    assert {name: result.facts["date"] for name, result in found.items()} == {
        "inbound": "3",
        "connect": "2",
    }
    assert found["inbound"] == result


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="pip install -e '.[bench]'")
def test_what_grows_is_drawn_as_lines(tmp_path: Path) -> None:
    result = Result("growth", "", grows=True)
    result.add_growth("plugins: us, a ping", "pov-rt", {0: 1.0, 50: 2.0})
    result.add_growth("topics: us, a ping", "pov-rt", {10: 1.0, 1_000_000: 1.1}, "no more")
    plot(result, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_the_table_says_what_is_won_lost_met_and_missed() -> None:
    facts = {"command": "scripts/bench inbound", "date": "today", "cpu": "a CPU", "load": 0.1}
    result = Result("inbound", "us", facts=facts)
    for peer, us in (("pov-rt", 9.0), ("node ws", 10.0), ("picows", 5.0), ("stock tornado", 99.0)):
        result.add("100 clients in turn", peer, us=us)
    result.checks.append(Check("against node ws", 0.9, 0.8, 0.7))
    lines = table({"inbound": result}).splitlines()
    (row,) = (line for line in lines if line.startswith("| ping"))
    bar = "0.9 of `ws` (bar 0.8, aim 0.7): missed by 12 %"
    figures = "**9** | 10 | 5 | - | - | - | -"
    assert row == f"| ping answered, us of CPU | {figures} | {bar} | node `ws` | picows |"
    assert "- inbound: `scripts/bench inbound`, today, a CPU, load before it 0.1" in lines
    assert any(line.endswith("not measured here") for line in lines)


def test_the_readme_has_every_row_of_the_table() -> None:
    shown = [line.split(" | ")[0].strip("| ") for line in README.splitlines() if line[:1] == "|"]
    assert [line.what for line in LINES] == [
        what for what in shown if what in {each.what for each in LINES}
    ]
