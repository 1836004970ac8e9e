"""Proves the checks: plants one bug after the other into the nodes, and says what finds it."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.planted import BUGS, LAUNCHER
from tests.faults.run import TOLD_S, Plan, run

CYCLES = 6
"""Of the bug's faults; it has to be found in these."""
PATIENCE_S = 2 * TOLD_S


async def find(name: str, seed: int, say: Callable[[str], None], cycles: int = CYCLES) -> Counter[str]:
    """Return what a run with a bug finds, by kind."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    command = (*LAUNCHER, f"bug={name}")
    plan = Plan(
        folder, seed, cycles, BUGS[name].faults, patience_s=PATIENCE_S, command=command
    )
    try:
        report = await run(plan, say)
    finally:
        shutil.rmtree(folder)
    return Counter(report.kinds)


async def prove(names: Sequence[str], seed: int, say: Callable[[str], None]) -> int:
    """Plant each of these bugs; return 0 if all are found."""
    missed = 0
    for name in names:
        bug = BUGS[name]
        found = await find(name, seed, lambda _: None)
        telling = sorted(bug.kinds & found.keys())
        missed += not telling
        say(f"{name:18} {', '.join(telling) or f'NOT CAUGHT, but {dict(found)}':30}  {bug.text}")
    say(f"\n{len(names) - missed} of {len(names)} planted bugs were caught")
    return 1 if missed else 0
