"""What a run found: a table for the terminal, JSON, and a picture."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def add(self, case: str, peer: str, **values: float | str) -> None:
        """Add a line."""
        self.rows.append(Row(case, peer, values))


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


def write(results: list[Result], facts: dict[str, Any], folder: Path) -> None:
    """Write `results.json`, `results.md` and one picture per scenario."""
    document = {**facts, "results": [asdict(result) for result in results]}
    (folder / "results.json").write_text(json.dumps(document, indent=1))
    text = ", ".join(f"{name}: {value}" for name, value in facts.items())
    (folder / "results.md").write_text("\n".join([text, *map(table, results)]) + "\n")
    for result in results:
        plot(result, folder / f"{result.scenario}.png")


def plot(result: Result, path: Path) -> None:
    """Draw columns as bars, one panel each; ours stand out."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

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
    figure, grid = pyplot.subplots(
        len(panels),
        figsize=(10, 0.7 * len(panels) + 0.36 * sum(sizes)),
        height_ratios=sizes,
        layout="constrained",
        squeeze=False,
    )
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
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
