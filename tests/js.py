"""The browser SDK's folder, and the Node that its tests run with."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

CLIENT = Path(__file__).parent.parent / "clients/js"
TOOLS = 18
"""From which version of Node esbuild and TypeScript run: Debian 12 has it."""
SDK = 20
"""From which version the SDK itself runs."""


def node(least: int = TOOLS) -> str:
    """Return a Node of this version or a newer one: the machine's, or else Playwright's own.

    Skips the test where there is none, and says what to do.
    """
    if not (CLIENT / "node_modules/.package-lock.json").exists():
        pytest.skip("clients/js has no node_modules: run scripts/test, which installs them")
    found = {program: version(program) for program in programs()}
    for program, has in found.items():
        if has >= least:
            return program
    pytest.skip(
        f"this needs Node {least}, and there is {found or 'none'}: install `nodejs` of Debian 13 or"
        " that of https://nodejs.org, so that it comes first in PATH"
    )


@cache
def version(program: str) -> int:
    """Return the major version of a Node."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return int(re.findall(r"\d+", done.stdout)[0])


def programs() -> list[str]:
    """Return what may be a Node, the machine's first."""
    found: list[str | None] = [shutil.which("node")]
    playwright = find_spec("playwright")
    if playwright is not None and playwright.origin is not None:
        found.append(shutil.which(str(Path(playwright.origin).parent / "driver/node")))
    return [program for program in found if program is not None]
