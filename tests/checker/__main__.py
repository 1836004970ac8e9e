"""`scripts/check_delivery`: whether what is acknowledged reaches everybody, whatever happens."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.checker.habits import PLAYED
from tests.checker.planted import BUGS
from tests.checker.prove import print_proofs, prove
from tests.checker.records import print_some
from tests.checker.run import Plan, Report, run

DEFAULT_S = 60.0


def main() -> int:
    """Return 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="scripts/check_delivery", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, help=f"how long (default {DEFAULT_S:g})")
    length.add_argument("--kills", type=int, help="until so many kills")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine", choices=("sqlite", "memory"), default="sqlite")
    parser.add_argument("--rate", type=float, default=8000, help="activities per second")
    parser.add_argument(
        "--prove",
        nargs="*",
        metavar="BUG",
        choices=[*BUGS, []],
        help="plant bugs, all or these, and tell whether each is found",
    )
    given = parser.parse_args()
    if given.prove is not None:
        names = given.prove or list(BUGS)
        return print_proofs(asyncio.run(prove(names, given.seed, show)))
    seconds = DEFAULT_S if given.seconds is None and given.kills is None else given.seconds
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="check-delivery-"))
    plan = Plan(folder, given.seed, given.kills, seconds, given.engine, given.rate)
    report = asyncio.run(run(plan, show))
    print("\n".join(table(report)))
    if not report.violations:
        shutil.rmtree(folder)
        return 0
    print(f"\nseed {given.seed} failed; the server's log is in {folder}")
    print_some(report.violations)
    return 1


def show(line: str) -> None:
    """Print how far it is."""
    print(line, flush=True)


def table(report: Report) -> list[str]:
    """Return the table of a run."""
    counts = report.counts
    acked = counts.get("acked", 0)
    rows = [("seconds under faults", f"{report.seconds:.0f}")]
    rows += [(f"fault: {name}", f"{count:,}") for name, count in report.faults.items()]
    if not report.has_small_disk:
        rows.append(("fault: full disk", "left out: it takes root and a mount"))
    starts = sorted(report.starts_s)
    rows += [
        (
            "restart to serving, p50 / p99 / max (s)",
            " / ".join(
                f"{starts[min(len(starts) - 1, int(len(starts) * part))]:.2f}"
                for part in (0.5, 0.99, 1)
            ),
        ),
        ("sent", f"{counts['sent']:,}"),
        ("acknowledged", f"{acked:,} ({acked / report.seconds:,.0f} per second)"),
        ("notifications acknowledged", f"{counts.get('notified', 0):,}"),
        ("acknowledged again", f"{counts.get('repeated', 0):,}"),
        ("requests of unknown outcome", f"{counts.get('unknown', 0):,}"),
        ("given up after that", f"{counts.get('given up', 0):,}"),
        ("requests refused as unavailable", f"{counts.get('refused', 0):,}"),
    ]
    rows += [(name, f"{counts.get(name, 0):,}") for name in PLAYED]
    rows.append(("positions lost over HTTP", f"{counts.get('positions lost', 0):,}"))
    rows += [(f"received by {name}", f"{count:,}") for name, count in report.received.items()]
    rows += [(f"connections closed: {code}", f"{n:,}") for code, n in report.closes.items()]
    rows.append(("offsets excused by recovered: false", f"{report.verdict.excused:,}"))
    rows += [(f"violations: {kind}", f"{n:,}") for kind, n in report.verdict.counts.items()]
    rows.append(("violations", f"{sum(report.verdict.counts.values()):,}"))
    width = max(len(name) for name, _ in rows)
    return ["", *(f"{name:{width}}  {value}" for name, value in rows)]


if __name__ == "__main__":
    sys.exit(main())
