"""The functions that a message crosses, counted by a program that needs no other server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.report import Check, Result
from bench.run import Run

PROGRAM = Path(__file__).parent / "crossings.py"


def counted(*options: str) -> dict[str, dict[str, Any]]:
    """Return the figures of each way; `options` are the program's."""
    command = [sys.executable, str(PROGRAM), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def crossings(run: Run) -> Result:
    """Count what one message crosses on its way through a server with SQLite."""
    run.progress("some seconds")
    result = Result("crossings", "what one message crosses", plots=("functions",))
    for way, figures in counted().items():
        result.add(way, "pov-rt, sqlite", **figures)
        if "`publish`" in way:
            check = Check("a publication over a socket", figures["functions"], 80, 60)
            check.unit = "functions"
            result.checks.append(check)
    return result
