"""The recipes of docs/plugins.md and the plugins of examples/ do what their tests say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import mypy

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/plugins.md").read_text().split("\n## Recipes\n", 1)[1]
RECIPES = re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PAGE, re.M | re.S)
EXAMPLES = ROOT / "examples/plugins"
PACKAGE = ROOT / "examples/plugin_package"
pytestmark = pytest.mark.timeout(170)


def run(folder: Path, *command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=variables,  # nothing shows it the way to the checkout
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_there_is_a_recipe_for_each_need_and_each_is_short() -> None:
    names = [name for name, _ in RECIPES]
    assert names == [
        *("Notify on mention", "Timer", "Route", "Options", "Storage", "Follower"),
        "Typed activity",
    ]
    for _, text in RECIPES:
        plugin, test = re.findall(r"```python\n# \w+\.py\n(.*?)```", text, re.S)
        assert sum(bool(line.strip()) for line in plugin.splitlines()) <= 16
        assert sum(bool(line.strip()) for line in test.splitlines()) <= 12


def test_every_recipes_test_passes(tmp_path: Path) -> None:
    for _, text in RECIPES:
        for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.S):
            (tmp_path / name).write_text(code)
    said = run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider")
    assert f"{len(RECIPES)} passed" in said, said


def test_the_examples_pass_their_tests_and_are_well_typed(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    said = run(folder, "pytest", "-q", "-p", "no:cacheprovider")
    assert re.search(r"^\d+ passed", said, re.M), said
    said = run(folder, *mypy("--strict"), ".")
    assert said.startswith("Success: no issues found"), said


def test_pip_installs_a_package_whose_plugin_the_server_finds(tmp_path: Path) -> None:
    copy, target = tmp_path / "package", tmp_path / "installed"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*", "build"))
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    said = run(tmp_path, "pip", "install", *options, str(copy))
    assert "Successfully installed pov-rt-dice-1.0.0" in said
    path = str(target)
    said = run(tmp_path, "pov_rt.cli", "plugins", "list", PYTHONPATH=path)
    assert re.search(r"^dice +package pov-rt-dice +dice\.throw$", said, re.M), said
    # Its own tests run a server, which serves its message.
    said = run(copy / "tests", "pytest", "-q", "-p", "no:cacheprovider", PYTHONPATH=path)
    assert re.search(r"^2 passed", said, re.M), said
    said = run(copy, *mypy("--strict"), "src", "tests", PYTHONPATH=path)
    assert said.startswith("Success: no issues found"), said
    assert "dice" not in run(tmp_path, "pov_rt.cli", "plugins", "list")


@pytest.mark.parametrize(
    "path",
    sorted([*EXAMPLES.glob("*.py"), *PACKAGE.rglob("*.py")]),
    ids=lambda path: path.name,
)
def test_an_example_imports_nothing_of_ours_but_what_plugins_may(path: Path) -> None:
    for name in re.findall(r"^(?:from|import) (pov_rt[\w.]*)", path.read_text(), re.M):
        assert name in ("pov_rt.plugin", "pov_rt.testing")
