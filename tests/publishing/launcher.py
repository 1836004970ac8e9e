"""A program of a run: `python -m tests.publishing.launcher [bug=NAME] app ...`, or our command.

With `bug=NAME` it has one of the bugs of `planted` as well.
"""

from __future__ import annotations

import sys

LAUNCHER = (sys.executable, "-m", "tests.publishing.launcher")


def launch() -> None:
    """Be the program. Each imports what it needs alone: many are started."""
    if sys.argv[1:2] and sys.argv[1].startswith("bug="):
        from tests.publishing.planted import BUGS

        BUGS[sys.argv.pop(1).partition("=")[2]].plant()
    if sys.argv[1:2] == ["app"]:
        from tests.publishing import apps

        apps.main(*sys.argv[2:])
    else:
        from pov_rt.cli.main import main

        main()


if __name__ == "__main__":
    launch()
