"""Plugins outside of the checkout have types: mypy follows the installation of scripts/prepare."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pov_rt.registry.scaffold import write_plugin
from tests.processes import mypy

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(170)  # mypy reads all of pov_rt, and what that needs

Check = Callable[[], tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's plugins: what the scaffold writes, and the example of the docs."""
    write_plugin("polls", tmp_path)
    texts = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), re.S)
    for text in texts:
        named = re.match(r"# (\w+\.py)\n", text)
        (tmp_path / (named[1] if named else "poll.py")).write_text(text)
    return tmp_path


@pytest.fixture
def check(folder: Path) -> Check:
    """Return what checks them: the exit status of mypy, and what it says."""

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", *mypy("--strict"), "."],
            cwd=folder,
            env={},  # nothing shows it the way to the checkout
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_scaffold_and_the_example_of_the_docs_are_well_typed(check: Check) -> None:
    assert check() == (0, "Success: no issues found in 17 source files\n")


@pytest.mark.parametrize(
    ("name", "good", "bad", "error"),
    [
        ("poll", "counts=dict(counts)", "counts=7", "arg-type"),
        ("polls", "text=message.text", "text=message.words", "attr-defined"),
        ("polls", "-> Said:", "-> str:", "type-var|arg-type"),
        ("test_polls", 'ana.request({"type"', "ana.ask({'type'", "attr-defined"),
    ],
)
def test_what_is_wrong_is_found(
    folder: Path, check: Check, name: str, good: str, bad: str, error: str
) -> None:
    path = folder / f"{name}.py"
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad))
    status, said = check()
    assert status == 1
    assert re.search(rf"^{name}\.py:\d+: error: .*\[({error})\]$", said, re.M), said


def test_nothing_else_of_the_checkout_can_be_imported(tmp_path: Path) -> None:
    code = "import importlib.util as util, sys; print([*filter(util.find_spec, sys.argv[1:])])"
    names = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier()]
    assert {"pov_rt", "plugins", "tests", "bench"} <= {*names}
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['pov_rt']\n"
