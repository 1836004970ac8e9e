"""The browser SDK's folder, its package, and the Node that its tests run with."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import pytest

from pov_rt.web.routes.client import FOLDER

CLIENT = Path(__file__).parent.parent / "clients/js"
TOOLS = 18
"""From which version of Node esbuild and TypeScript run: Debian 12 has it."""
SDK = 20
"""From which version the SDK itself runs."""
BUILT = CLIENT / "node_modules/.cache/packages"
"""Where packages are kept, each under a name that says what it was built of."""


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


def package() -> Path:
    """Build what npm has of the SDK, types included, unless that was done; return its folder.

    Compilers take seconds for it, and all workers have the same one.
    """
    program = node()
    BUILT.mkdir(parents=True, exist_ok=True)
    made = BUILT / _fingerprint()
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for old in BUILT.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            folder = Path(mkdtemp(dir=BUILT))
            _build(folder, program)
            folder.rename(made)
    return made


def _fingerprint() -> str:
    """Return what is the same as long as all files are that the package is built of."""
    found = sha256()
    for path in sorted([*CLIENT.glob("*.*"), *CLIENT.glob("src/**/*.*"), *FOLDER.iterdir()]):
        if path.is_file():
            found.update(f"{path} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def _build(folder: Path, program: str) -> None:
    shutil.copytree(FOLDER, folder / "dist")
    shutil.copy(CLIENT / "package.json", folder)
    types = str(folder / "dist/types")
    for command in (
        ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json", "--outDir", types],
        ["node_modules/typescript/bin/tsc", "-p", "tsconfig.node.json", "--outDir", types],
        ["types.mjs", types],
        ["manifest.mjs", str(folder / "dist/custom-elements.json")],
    ):
        done = subprocess.run(
            [program, *command], cwd=CLIENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
