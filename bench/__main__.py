"""Measures pov-rt beside its peers, or beside another checkout, and says which bars are met."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from bench import against, machine, report
from bench.load import LoadError
from bench.machine import LOAD_CORE
from bench.run import Run
from bench.scenarios import SCENARIOS

SOCKETS = 10_000
"""The most that a scenario opens to one server."""


def main() -> int:
    """Run the scenarios; return 1 if a bar was missed, 2 if a message was lost."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog="What may be lost or doubled is looked for by scripts/check_delivery (server and "
        "readers) and scripts/check_publishing (spools, outboxes, relays), each with --help.",
    )
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"default: all of {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (median)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, few peers")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        help="of `hostile`, `cluster`, `growth` and `off`: run this case alone; may be given "
        "several times; of `screen`: firefox is the second browser",
    )
    parser.add_argument("--seed", type=int, help="of `screen`: do what a run did that printed it")
    parser.add_argument("--kills", type=int, default=40, help="of `screen`: 500 activities each")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bench/results"),
        help="folder for the results and, meanwhile, for what the servers store: on a disk",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare with another checkout, which its own .venv has installed, and not with peers",
    )
    given = parser.parse_args()
    known = SCENARIOS
    if given.against:
        if not against.python_of(given.against).exists():
            parser.error(f"there is no {against.python_of(given.against)}")
        known = against.scenarios(given.against)
        given.out /= "against"
    if unknown := sorted(set(given.scenarios) - set(known)):
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(known)}")
    machine.check(SOCKETS // 10 if given.quick else SOCKETS)
    os.sched_setaffinity(0, {LOAD_CORE})
    facts = report.machine_facts() | {"command": " ".join(["scripts/bench", *sys.argv[1:]])}
    results, void = list[report.Result](), list[str]()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="running-", dir=given.out) as name:
        run = Run(
            Path(name).resolve(),
            rounds=min(2, given.rounds) if given.quick else given.rounds,
            quick=given.quick,
            cases=frozenset(given.case),
            seed=random.randrange(10**6) if given.seed is None else given.seed,  # noqa: S311
            kills=given.kills,
        )
        for scenario in given.scenarios or known:
            print(f"{scenario} ...", file=sys.stderr, flush=True)
            try:
                result = known[scenario](run)
            except LoadError as error:
                print(f"{scenario}: {error}; nothing of it counts", file=sys.stderr)
                void.append(scenario)
                continue
            result.facts = facts
            print(report.table(result), flush=True)
            results.append(result)
            report.write([result], given.out)
            report.plot(result, given.out / f"{scenario}.png")
    missed = [check for result in results for check in result.checks if not check.met]
    checks = sum(len(result.checks) for result in results)
    print(f"\n{checks - len(missed)} of {checks} bars met; written to {given.out}", file=sys.stderr)
    if void:
        print(f"nothing counts of: {', '.join(void)}", file=sys.stderr)
        return 2
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
