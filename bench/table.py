"""Prints the README's table of speed from the newest results: `scripts/bench --table [DIR]`.

Each row is a scenario's, with every server that the scenario has measured, and says against whom it
is won or lost and which bars it meets.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from bench.report import DPI, Check, Result, read, show

PEERS = {
    "node ws": "node `ws`",
    "picows": "picows",
    "websockets": "`websockets`",
    "socket.io": "socket.io",
    "nchan": "nchan",
    "centrifugo": "Centrifugo",
}
"""How they are named here, by how the scenarios name them."""
OURS = "pov-rt"
NONE = "-"


class Line(NamedTuple):
    """A row: where its figures stand, and which checks are about it."""

    what: str
    scenario: str
    case: str
    """How its rows are named; `*` stands for anything."""
    column: str
    ours: str = OURS
    more_is_better: bool = False
    checks: Mapping[str, str] = {}
    """How checks are named here, by how their names begin."""


LINES = (
    Line("connect and subscribe, us of CPU", "connect", "handshake*", "us",
         checks={"against node ws": "of `ws`", "against stock": "of stock Tornado"}),
    Line("HTTP publications one by one, a second", "publish", "HTTP, batches of 1", "per_second",
         more_is_better=True, checks={"HTTP, one by one": ""}),
    Line("HTTP batches of 1,000, in memory, a second", "publish", "HTTP, batches of 1000",
         "per_second", more_is_better=True, checks={"HTTP, batched": ""}),
    Line("HTTP batches of 1,000, durable, a second", "durable", "batches of 1,000, 4 publishers",
         "per_second", "pov-rt, sqlite", more_is_better=True, checks={"batches": ""}),
    Line("socket publications, a second", "publish", "sockets, one subscriber", "per_second",
         "pov-rt, socket", more_is_better=True, checks={"sockets": ""}),
    Line("ping answered, us of CPU", "inbound", "100 clients in turn", "us",
         checks={"against node ws": "of `ws`"}),
    Line("delivery to one of 500, 1 a turn, us of CPU", "fanout", "500 subscribers, 1 per turn",
         "us",
         "pov-rt, socket",
         checks={"1 per turn against node ws": "of `ws`", "1 per turn against nchan": "of nchan"}),
    Line("delivery to one of 500, 32 a turn, us of CPU", "fanout", "500 subscribers, 32 per turn",
         "us",
         checks={"32 per turn against nchan": "of nchan"}),
    Line("idle connection, KiB", "idle", "*subscribed, pings", "KiB",
         checks={"memory per connection": "", "memory against node ws": "of `ws`"}),
    Line("latency at half of its own most, p99, ms", "latency", "50 % of*", "p99_ms",
         "pov-rt, socket",
         checks={"p99 at half": ""}),
    Line("p99 of others beside 10,000 who come and go, ms", "presence", "*come and go in 10 s",
         "p99_ms", "pov-rt, socket", checks={"p99 of the others": "more than alone"}),
    Line("10,000 back at once with 10 missed, s of CPU", "recover", "*nobody else served",
         "server_cpu_s", checks={"CPU to recover": "of Centrifugo"}),
    Line("functions that a socket publication crosses", "crossings", "Send `publish`*", "functions",
         "pov-rt, sqlite", checks={"a publication over a socket": ""}),
)  # fmt: skip


def table(found: Mapping[str, Result]) -> str:
    """Return the table as Markdown, and below it from which runs it is."""
    heads = ["", OURS, *PEERS.values(), "bars", "ahead of", "behind"]
    lines = [heads, ["---"] * len(heads)]
    lines += [_row(line, found[line.scenario]) for line in LINES if line.scenario in found]
    runs: dict[str, list[str]] = {}
    for scenario in dict.fromkeys(line.scenario for line in LINES):
        runs.setdefault(_run(found.get(scenario)), []).append(scenario)
    text = [f"| {' | '.join(line)} |" for line in lines]
    text += ["", *(f"- {', '.join(scenarios)}: {run}" for run, scenarios in runs.items())]
    return "\n".join(text)


def _run(result: Result | None) -> str:
    if result is None:
        return "not measured here"
    if not result.facts:
        return "by a version that did not note where and when"
    facts = result.facts
    load = show(facts["load"])
    return f"`{facts['command']}`, {facts['date']}, {facts['cpu']}, load before it {load}"


def _figures(line: Line, result: Result) -> tuple[float, dict[str, float]]:
    """Return our figure, and that of each peer which has one."""
    values = {
        row.peer: value
        for row in result.rows
        if fnmatchcase(row.case, line.case)
        and isinstance(value := row.values.get(line.column), int | float)
    }
    theirs = {name.partition(",")[0]: value for name, value in values.items()}
    return values[line.ours], {peer: theirs[peer] for peer in PEERS if peer in theirs}


def _row(line: Line, result: Result) -> list[str]:
    own, theirs = _figures(line, result)
    won = [peer for peer, value in theirs.items() if (own > value) == line.more_is_better]
    lost = [peer for peer in theirs if peer not in won]
    bars = [_bar(check, name) for begins, name in line.checks.items()
            for check in result.checks if check.what.startswith(begins)]  # fmt: skip
    shown = [show(theirs.get(peer, NONE)) for peer in PEERS]
    return [line.what, f"**{show(own)}**", *shown, "; ".join(bars), *map(_names, (won, lost))]


def _names(peers: list[str]) -> str:
    return ", ".join(PEERS[peer] for peer in peers) or NONE


def _bar(check: Check, name: str) -> str:
    """Return what a check found, and whether that is good, or by how much it is not."""
    word = "met" if check.met else f"missed by {100 * abs(check.value / check.bar - 1):.0f} %"
    unit = "" if check.unit == "x" else f" {check.unit}"
    goal = f"bar {show(check.bar)}, aim {show(check.aim)}"
    return " ".join(filter(None, [show(check.value) + unit, name, f"({goal}): {word}"]))


def draw(found: Mapping[str, Result], path: Path) -> None:
    """Draw how many times better pov-rt is than each peer, a line for each row that has peers."""
    from matplotlib.figure import Figure

    shown = [line for line in LINES if line.scenario in found]
    rows = [(line, *_figures(line, found[line.scenario])) for line in reversed(shown)]
    rows = [row for row in rows if row[-1]]
    figure = Figure(figsize=(11, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for peer, name in PEERS.items():
        factors = {
            place: own / theirs[peer] if line.more_is_better else theirs[peer] / own
            for place, (line, own, theirs) in enumerate(rows)
            if peer in theirs
        }
        axes.plot([*factors.values()], [*factors], "o", label=name.replace("`", ""), alpha=0.8)
    axes.axvline(1, color="#1a7f5a")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.set_yticks(range(len(rows)), [line.what for line, *_ in rows])
    axes.set_title("how many times better pov-rt is; left of the line it is worse", loc="left")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=DPI)


def main() -> None:
    """Print the table, and draw it beside the results."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "bench/results")
    if not (found := read(folder)):
        raise SystemExit(f"there are no results in {folder}: scripts/bench writes them")
    print(table(found))
    draw(found, folder / "speed.png")


if __name__ == "__main__":
    main()
