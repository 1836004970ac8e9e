"""`scripts/check_faults`: two nodes on one Redis, and all that can happen to it and to the network.

Whoever is connected is told of every loss within 5 s, and nothing is missing in silence.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.checker.records import print_some
from tests.faults.planted import BUGS
from tests.faults.prove import prove
from tests.faults.run import Plan, Report, run
from tests.faults.spaces import missing
from tests.faults.table import FAULTS
from tests.faults.world import PROGRAM
from tests.redis_servers import HOW, find_program


def main() -> int:
    """Return 0 if every promise was kept, 77 if something is missing on this machine."""
    parser = argparse.ArgumentParser(prog="scripts/check_faults", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20, help="so many faults (default 20)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=1, help="the cycle to begin with")
    parser.add_argument(
        "--fault", action="append", choices=list(FAULTS), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--netns", action="store_true", help="each node in a network namespace (takes root)"
    )
    parser.add_argument(
        "--prove",
        nargs="*",
        metavar="BUG",
        choices=[*BUGS, []],
        help="plant bugs, all or these, and tell whether each is found",
    )
    given = parser.parse_args()
    lacking = missing() if given.netns else ""
    if find_program(PROGRAM) is None:
        lacking = f"there is no {PROGRAM}; {HOW[PROGRAM]}"
    if lacking:
        print(f"scripts/check_faults: {lacking}", file=sys.stderr)
        return 77
    if given.prove is not None:
        return asyncio.run(prove(given.prove or list(BUGS), given.seed, show))
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    plan = Plan(
        folder,
        given.seed,
        given.cycles,
        given.fault or tuple(FAULTS),
        netns=given.netns,
        first=given.first,
    )
    report = asyncio.run(run(plan, show))
    print("\n".join(table(report)))
    if not report.violations:
        shutil.rmtree(folder)
        return 0
    print(f"\nseed {given.seed} failed; the logs of nodes and Redis are in {folder}")
    print_some(report.violations)
    return 1


def show(line: str) -> None:
    """Print how far it is."""
    print(line, flush=True)


def table(report: Report) -> Sequence[str]:
    """Return the table of a run."""
    took = sorted(report.recovery_s)
    parts = [took[min(len(took) - 1, int(len(took) * part))] for part in (0.5, 0.95, 1)]
    rows = [(f"fault: {name}", f"{count:,}") for name, count in sorted(report.faults.items())]
    rows += [(f"left out: {name}", "see CONTRIBUTING") for name in report.left_out]
    rows += [(name, f"{count:,}") for name, count in sorted(report.counts.items())]
    rows += [
        ("received", f"{report.received:,}"),
        ("gaps told", f"{report.told:,}"),
        ("new epochs told to who lost nothing", f"{report.moves:,}"),
        ("all is where the log is, p50 / p95 / max (s)", " / ".join(f"{s:.1f}" for s in parts)),
        ("a publisher waited at most (s)", f"{report.slowest_s:.1f}"),
    ]
    rows += [
        (f"memory of node {number}, then and in the end (MB)", f"{a / 1e6:.0f} / {b / 1e6:.0f}")
        for number, (a, b) in enumerate(report.memory, 1)
    ]
    rows += [(f"violations: {kind}", f"{count:,}") for kind, count in report.kinds.items()]
    rows.append(("violations", f"{sum(report.kinds.values()):,}"))
    width = max(len(name) for name, _ in rows)
    return ["", *(f"{name:{width}}  {value}" for name, value in rows)]


if __name__ == "__main__":
    sys.exit(main())
