"""What a run found: a table for the terminal, JSON, and a picture."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLAT = 0.1
"""What grows by less, from the least to the most, is flat."""
FILE = "results.json"
DPI = 110
LINEAR_SPREAD = 50
"""By how much the bars of a picture may differ before short ones cannot be told apart."""


@dataclass
class Row:
    """One line of a scenario's table: what was measured, of whom."""

    case: str
    peer: str
    values: dict[str, float | str]


@dataclass
class Check:
    """A figure that has a bar; `at_most` says which side of it is good."""

    what: str
    value: float
    bar: float
    aim: float
    at_most: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Tell whether the bar was met."""
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def __str__(self) -> str:
        side = "at most" if self.at_most else "at least"
        word = "met" if self.met else "MISSED"
        return (
            f"{self.what}: {show(self.value)} {self.unit}, {word} "
            f"({side} {show(self.bar)}, aim {show(self.aim)})"
        )


@dataclass
class Result:
    """All that one scenario found."""

    scenario: str
    unit: str
    plots: tuple[str, ...] = ()
    """The columns that the picture shows; none: the first."""
    grows: bool = False
    """Whether the columns are how much there was: each row is a line, named `panel: line`."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where and when the run took place."""
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def add(self, case: str, peer: str, **values: float | str) -> None:
        """Add a line."""
        self.rows.append(Row(case, peer, values))

    def add_growth(self, case: str, peer: str, found: Mapping[int, float], why: str = "") -> None:
        """Add a line of what was found by how much there was, with its slope in words.

        `why` says why it ends where it does.
        """
        values = {f"{size:,}": value for size, value in sorted(found.items())}
        self.add(case, peer, slope=slope(found), ends=why, **values)


def show(value: float | str) -> str:
    """Return a number with three digits that matter."""
    if isinstance(value, str):
        return value
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(result: Result) -> str:
    """Return the scenario as a Markdown table."""
    names = list(dict.fromkeys(name for row in result.rows for name in row.values))
    if result.grows:
        names.sort(key=size_of)
    lines = [["case", "server", *(name.replace("_", " ") for name in names)]]
    for row in result.rows:
        lines.append([row.case, row.peer, *(show(row.values.get(name, "")) for name in names)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    head = f"\n### {result.scenario} ({result.unit})\n"
    return "\n".join([head, *text, "", *(f"- {check}" for check in result.checks)])


def slope(found: Mapping[int, float]) -> str:
    """Return in words how a figure changes from the least to the most."""
    first, last = min(found), max(found)
    ratio = found[last] / found[first]
    word = "flat" if abs(ratio - 1) <= FLAT else "falls" if ratio < 1 else "grows"
    return f"{word}: {ratio:.2f}x from {first:,} to {last:,}"


def machine_facts() -> dict[str, Any]:
    """Return where a run is about to take place, and how busy it is already."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": model,
        "load": os.getloadavg()[0],
    }


class Document(msgspec.Struct):
    """The file with the newest result of each scenario."""

    results: list[Result] = msgspec.field(default_factory=list)


def read(folder: Path) -> dict[str, Result]:
    """Return the newest result of each scenario that was measured, by its name."""
    path = folder / FILE
    found = msgspec.json.decode(path.read_bytes(), type=Document) if path.exists() else Document()
    return {result.scenario: result for result in found.results}


def write(results: Sequence[Result], folder: Path) -> None:
    """Write `results.json` and `results.md`, with what is there of other scenarios."""
    together = read(folder) | {result.scenario: result for result in results}
    document = msgspec.json.encode(Document([*together.values()]))
    (folder / FILE).write_bytes(msgspec.json.format(document, indent=1))
    lines = []
    for result in together.values():
        facts = ", ".join(f"{name}: {value}" for name, value in result.facts.items())
        lines.append(f"{table(result)}\n\n{facts}")
    (folder / "results.md").write_text("\n".join(lines).lstrip() + "\n")


def plot(result: Result, path: Path) -> None:
    """Draw the result: lines of what grows, and columns as bars."""
    (_lines(result) if result.grows else _bars(result)).savefig(path, dpi=DPI)


def _lines(result: Result) -> Figure:
    """Draw rows as lines, relative to where each begins; a panel for each part before a colon."""
    from matplotlib.figure import Figure

    panels: dict[str, list[Row]] = {}
    for row in result.rows:
        panels.setdefault(row.case.partition(": ")[0], []).append(row)
    figure = Figure(figsize=(10, 3.4 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), squeeze=False)
    for axes, (panel, rows) in zip(grid[:, 0], panels.items(), strict=True):
        for row in rows:
            found = points(row)
            first, last = (show(found[size]) for size in (min(found), max(found)))
            name, words = row.case.partition(": ")[2], row.values["slope"]
            label = f"{name}: {first} to {last}\n{words}"
            relative = [value / found[min(found)] for value in found.values()]
            axes.plot([*found], relative, marker="o", label=label)
        _style_lines(axes, panel, [size for row in rows for size in points(row)])
    return figure


def size_of(name: str) -> int:
    """Return how much there was in a column of a row of growth; below 0: it is another column."""
    return int(name.replace(",", "")) if name[0].isdigit() else -1


def points(row: Row) -> dict[int, float]:
    """Return a line's figures by how much there was, the least first."""
    found = {
        size: value
        for name, value in row.values.items()
        if (size := size_of(name)) >= 0 and isinstance(value, int | float)
    }
    return dict(sorted(found.items()))


def _style_lines(axes: Axes, panel: str, sizes: Sequence[int]) -> None:
    # There is no logarithm of 0, which some begin with.
    axes.set_xscale("symlog", linthresh=max(1, min(filter(None, sizes))))
    axes.set_xticks(sorted(set(sizes)), [f"{size:,}" for size in sorted(set(sizes))])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.axhline(1, color="#9aa5b1", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{panel}: each figure by its first", loc="left")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _bars(result: Result) -> Figure:
    """Draw columns as bars, one panel each; ours stand out."""
    from matplotlib.figure import Figure

    measured = {name for row in result.rows for name in row.values}
    columns = [name for name in result.plots if name in measured]
    columns = columns or [next(iter(result.rows[0].values))]
    panels = [
        [
            (f"{row.peer}, {row.case}", value)
            for row in reversed(result.rows)
            if isinstance(value := row.values.get(column), int | float)
        ]
        for column in columns
    ]
    sizes = [len(bars) for bars in panels]
    height = 0.7 * len(panels) + 0.36 * sum(sizes)
    figure = Figure(figsize=(10, height), layout="constrained")
    grid = figure.subplots(len(panels), height_ratios=sizes, squeeze=False)
    for column, axes, bars in zip(columns, grid[:, 0], panels, strict=True):
        names = [name for name, _ in bars]
        values = [value for _, value in bars]
        colours = ["#1a7f5a" if name.startswith("pov-rt") else "#9aa5b1" for name in names]
        drawn = axes.barh(names, values, color=colours)
        axes.bar_label(drawn, labels=[show(value) for value in values], padding=4)
        if max(values) > LINEAR_SPREAD * min(values):
            axes.set_xscale("log")
        axes.margins(x=0.2, y=0.6 / len(bars))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{result.scenario}: {result.unit}, {column.replace('_', ' ')}", loc="left")
    return figure
