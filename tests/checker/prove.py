"""Proves the checker: plants one bug after the other, and says whether and how each is found."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.checker.launcher import LAUNCHER
from tests.checker.planted import BUGS, Bug
from tests.checker.run import Plan, Say, run

BUDGET_S = 120.0
"""A bug has to be found within this."""
PATIENCE_S = 3.0
"""For clients whom a bug keeps from ever being done."""
PLAIN_PATIENCE_S = 10.0
ATTEMPTS = (0.5, 1.0, 2.0)
"""For which parts of its time a bug is looked for, until it is found."""
CLEARLY = 3
"""What a server without the bug is found guilty of, too, has to be found so many times as often."""


class Proof(NamedTuple):
    """What came of planting a bug. `kinds`: the violations that tell it, by how many there were."""

    name: str
    bug: Bug
    seconds: float
    kinds: Mapping[str, int]

    @property
    def is_caught(self) -> bool:
        """Whether it was found in time."""
        return bool(self.kinds) and self.seconds <= BUDGET_S


async def prove(names: Sequence[str], seed: int, say: Say, *, control: bool = True) -> list[Proof]:
    """Plant each of these bugs in turn.

    With `control` the same is run without the bug before, and what that finds is no proof.
    """
    proofs = []
    controls: dict[tuple[object, ...], Counter[str]] = {}
    for name in names:
        bug = BUGS[name]
        same = (tuple(bug.clients), tuple(bug.faults), bug.engine, bug.rate, bug.max_entries)
        if same not in controls and control:
            controls[same] = await find(bug, seed, LAUNCHER, bug.seconds, PLAIN_PATIENCE_S)
            if controls[same]:
                say(f"without {name}: {dict(controls[same])}")
        begun, without = time.monotonic(), controls.get(same, Counter())
        proof = Proof(name, bug, 0.0, {})
        for attempt, part in enumerate(ATTEMPTS):
            command = (*LAUNCHER, f"bug={name}")
            found = await find(bug, seed + attempt, command, bug.seconds * part, PATIENCE_S)
            seconds = time.monotonic() - begun
            # Where both find it, it has to be plain which one has the bug.
            telling = {
                kind: count
                for kind, count in found.items()
                if kind in bug.kinds and count > CLEARLY * without[kind]
            }
            proof = Proof(name, bug, seconds, telling)
            if telling or seconds > BUDGET_S:
                break
            say(f"{name}: not found after {seconds:.0f} s, but {dict(found)}")
        proofs.append(proof)
        say(row(proof))
    return proofs


async def find(
    bug: Bug, seed: int, command: Sequence[str], seconds: float, patience_s: float
) -> Counter[str]:
    """Return what a run finds, by kind."""
    folder = Path(tempfile.mkdtemp(prefix="prove-"))
    plan = Plan(
        folder,
        seed,
        seconds=seconds,
        engine=bug.engine,
        rate=bug.rate,
        patience_s=patience_s,
        faults=bug.faults,
        command=command,
        max_entries=bug.max_entries,
        clients=bug.clients,
    )
    try:
        report = await run(plan, lambda _: None)
    finally:
        shutil.rmtree(folder)
    return Counter(report.verdict.counts)


def row(proof: Proof) -> str:
    """Return a line about a bug."""
    found = ", ".join(sorted(proof.kinds)) if proof.is_caught else "NOT CAUGHT"
    return f"{proof.name:17} {proof.seconds:5.0f} s  {found:25}  {proof.bug.text}"


def print_proofs(proofs: Sequence[Proof]) -> int:
    """Print the table; return the exit status."""
    missed = [proof.name for proof in proofs if not proof.is_caught]
    sys.stdout.write("\n" + "\n".join(map(row, proofs)) + "\n")
    sys.stdout.write(f"\n{len(proofs) - len(missed)} of {len(proofs)} planted bugs were caught\n")
    return 1 if missed else 0
