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


async def find(name: str, seed: int) -> Counter[str]:
    """Return what a run with a bug finds, by kind: it ends with what tells the bug."""
    folder, bug = Path(tempfile.mkdtemp(prefix="faults-")), BUGS[name]
    command = (*LAUNCHER, f"bug={name}")
    plan = Plan(
        folder, seed, CYCLES, bug.faults, patience_s=PATIENCE_S, command=command, until=bug.kinds
    )
    try:
        report = await run(plan, lambda _: None)
    finally:
        shutil.rmtree(folder)
    return Counter(report.kinds)


async def prove(names: Sequence[str], seed: int, say: Callable[[str], None]) -> int:
    """Plant each of these bugs; return 0 if all are found."""
    missed = 0
    for name in names:
        bug = BUGS[name]
        found = await find(name, seed)
        telling = sorted(bug.kinds & found.keys())
        missed += not telling
        say(f"{name:18} {', '.join(telling) or f'NOT CAUGHT, but {dict(found)}':30}  {bug.text}")
    say(f"\n{len(names) - missed} of {len(names)} planted bugs were caught")
    return 1 if missed else 0
