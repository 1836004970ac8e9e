"""The browser SDK's folder, and what its tests need of Node."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENT = Path(__file__).parent.parent / "clients/js"
TOOLS = 18
"""From which version of Node esbuild and TypeScript run: Debian 12 has it."""
RUNS = 20
"""From which version the SDK itself runs."""


def needs_node(least: int = TOOLS) -> None:
    """Skip the test, and say what to do, where there is no Node or an older one."""
    if shutil.which("node") is None:
        pytest.skip("there is no Node; scripts/test installs it")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    major = int(re.findall(r"\d+", version.stdout)[0])
    if major < least:
        pytest.skip(
            f"the SDK runs on Node {least} and newer, and this is {version.stdout.strip()}: have a"
            " newer `node` come first in PATH (Debian 13 has 20; https://nodejs.org)"
        )
    if not (CLIENT / "node_modules/.package-lock.json").exists():
        pytest.skip("clients/js has no node_modules; scripts/test installs them")
