"""Boots the units and does to them what happens to servers; says what held and what did not."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from functools import partial

from tests.units.checks import CHECKS, Check, Skipped, install, mend, restart
from tests.units.machine import Unbootable, booted

CANNOT = 77
"""The exit status where nothing can be said: the container does not boot."""


def main() -> int:
    """Do the checks; return 1 if one failed, `CANNOT` if the machine does not boot."""
    names = [*CHECKS, "restart"]
    parser = argparse.ArgumentParser(prog="scripts/test_units", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(names)}")
    parser.add_argument("--clients", type=int, default=2000, help="of `restart`")
    given = parser.parse_args()
    if unknown := sorted(set(given.checks) - set(names)):
        parser.error(f"no check {unknown[0]!r}; there are: {', '.join(names)}")
    wanted = [name for name in names if not given.checks or name in (*given.checks, "start")]
    checks: dict[str, Check] = {**CHECKS, "restart": partial(restart, clients=given.clients)}
    # So that the container ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        with booted(lambda what: print(f"{what} ...", flush=True)) as machine:
            install(machine)
            for name in wanted:
                began = time.monotonic()
                try:
                    if name != "start":
                        mend(machine)
                    said, sort = checks[name](machine), "passed"
                except Skipped as error:
                    said, sort = str(error), "skipped"
                except AssertionError as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    said, sort = f"line {where.lineno}: {where.line}: {error}", "failed"
                    print(machine.said("journalctl --output=cat --no-pager --lines=40"), flush=True)
                counts[sort] += 1
                print(f"{sort} {name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    except Unbootable as error:
        print(f"systemd does not boot in a container here; it said:\n{error}", file=sys.stderr)
        return CANNOT
    print(", ".join(f"{number} {sort}" for sort, number in counts.items()))
    return int(bool(counts["failed"]))


if __name__ == "__main__":
    sys.exit(main())
