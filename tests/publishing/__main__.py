"""`scripts/check_publishing`: what was said to be safe, or committed, is published once, in order.

Apps publish by a spool, and by the transactions of SQLite and PostgreSQL, while they, their relays
and the server are killed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.checker.records import print_some
from tests.checker.servers import ServerError
from tests.client.publishing.databases import find_postgresql
from tests.publishing.apps import WAYS
from tests.publishing.planted import BUGS
from tests.publishing.prove import prove
from tests.publishing.run import Plan, Report, run


def main() -> int:
    """Return 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="scripts/check_publishing", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kill so often (default 20)")
    parser.add_argument(
        "--activities", type=int, default=20_000, help="publish so many at least (default 20000)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--way", action="append", choices=list(WAYS), help="only so; may be given several times"
    )
    parser.add_argument(
        "--prove",
        nargs="*",
        metavar="BUG",
        choices=[*BUGS, []],
        help="plant bugs, all or these, and tell whether each is found",
    )
    given = parser.parse_args()
    ways = [way for way in given.way or WAYS if way != "postgresql" or find_postgresql()]
    print(f"seed {given.seed}", flush=True)
    if given.prove is not None:
        missed = [name for name in given.prove or BUGS if not show_proof(name, given.seed)]
        print(f"not found: {', '.join(missed)}" if missed else "all of them were found")
        return int(bool(missed))
    folder = Path(tempfile.mkdtemp(prefix="check-publishing-"))
    try:
        report = run(Plan(folder, given.seed, given.kills, given.activities, ways), show)
    except ServerError as error:
        print(f"{error}; all logs are in {folder}")
        return 1
    print("\n".join(table(report, ways)))
    if not report.notes.counts:
        shutil.rmtree(folder)
        return 0
    print(f"\nseed {given.seed} failed; all logs are in {folder}")
    print_some(report.notes.violations)
    return 1


def show(line: str) -> None:
    """Print how far it is."""
    print(line, flush=True)


def show_proof(name: str, seed: int) -> bool:
    """Plant a bug; print and return whether it was found."""
    proof = prove(name, seed)
    found = ", ".join(sorted(proof.kinds)) or "NOT FOUND"
    show(f"{name:11} {proof.seconds:4.0f} s  {found:16} {BUGS[name].text}")
    return bool(proof.kinds)


def table(report: Report, ways: Sequence[str]) -> list[str]:
    """Return the table of a run."""
    rows = [("seconds", f"{report.seconds:.0f}")]
    rows += [(f"kill -9: {name}", f"{count:,}") for name, count in sorted(report.kills.items())]
    rows.append(("kill -9", f"{sum(report.kills.values()):,}"))
    if "postgresql" not in ways:
        rows.append(("postgresql", "left out"))
    rows += [(name, f"{count:,}") for name, count in report.counts.items()]
    rows += [(f"published by {way}", f"{count:,}") for way, count in report.published.items()]
    rows += [(f"violations: {kind}", f"{n:,}") for kind, n in report.notes.counts.items()]
    rows.append(("violations", f"{sum(report.notes.counts.values()):,}"))
    width = max(len(name) for name, _ in rows)
    return ["", *(f"{name:{width}}  {value}" for name, value in rows)]


if __name__ == "__main__":
    sys.exit(main())
