"""The functions that a message crosses, counted by a program that needs no other server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.report import Check, Result
from bench.run import Run

PROGRAM = Path(__file__).parent / "crossings.py"


def crossings(run: Run) -> Result:
    """Count what one message crosses on its way through a server with SQLite."""
    run.progress("some seconds")
    command = [sys.executable, str(PROGRAM), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = Result("crossings", "what one message crosses", plots=("functions",))
    for way, figures in json.loads(done.stdout).items():
        result.add(way, "pov-rt, sqlite", **figures)
        if "`publish`" in way:
            check = Check("a publication over a socket", figures["functions"], 80, 60)
            check.unit = "functions"
            result.checks.append(check)
    return result
