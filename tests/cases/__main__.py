"""`python -m tests.cases COMMAND...`: check any client; README.md says what it has to do."""

from __future__ import annotations

import sys

from tests.cases.case import load
from tests.cases.playing_server import Failure, Play


def main(command: list[str]) -> int:
    """Play all cases; return 1 if one fails, 2 where there is no command."""
    if not command:
        print("Say the command that starts the client: python -m tests.cases COMMAND...")
        return 2
    failed = 0
    for name, case in load().items():
        try:
            Play(case).run(command)
        except Failure as failure:
            failed += 1
            print(f"{name}: {case.about}\n  FAILED: {failure}", flush=True)
        else:
            print(f"{name}: ok", flush=True)
    print(f"{failed} failed" if failed else "All is as it should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
