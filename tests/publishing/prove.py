"""Proves the check: plants a bug, and says whether and by which of its parts it is found."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.publishing.planted import BUGS
from tests.publishing.run import Plan, run

ATTEMPTS = (1, 2, 4)
"""How many times its kills and activities a bug is looked for, until it is found."""
ACTIVITIES = 200
"""Published until the next kill."""
PATIENCE_S = 5.0
"""For what a bug keeps from ever being sent."""


class Proof(NamedTuple):
    """What came of planting a bug. `kinds`: what told it, by how often."""

    kinds: Mapping[str, int]
    seconds: float


def prove(name: str, seed: int) -> Proof:
    """Plant a bug, and look for it."""
    bug, begun, telling = BUGS[name], time.monotonic(), dict[str, int]()
    for attempt in ATTEMPTS:
        kills = bug.kills * attempt
        folder = Path(tempfile.mkdtemp(prefix="prove-publishing-"))
        plan = Plan(folder, seed, kills, max(1, kills) * ACTIVITIES, bug.ways, name, PATIENCE_S)
        try:
            found = run(plan, lambda _: None).notes.counts
        finally:
            shutil.rmtree(folder)
        telling = {kind: count for kind, count in found.items() if kind in bug.kinds}
        if telling:
            break
    return Proof(telling, time.monotonic() - begun)
