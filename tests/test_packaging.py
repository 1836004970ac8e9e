"""What an installation has in it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

from pov_rt.web.routes.client import read_files

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from what git knows, not from what lies around."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={source}/"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_a_wheel_has_everything_and_nothing_called_plugins(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pov_rt"}
    for path in (ROOT / "pov_rt").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    client = [f"web/static/client/{name}" for name in read_files()]
    for name in ("py.typed", "web/static/dev/console.html", "plugins/ping.py", *client):
        assert f"pov_rt/{name}" in names


def test_an_installation_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import pov_rt, sys; print(pov_rt.__file__); from pov_rt.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "plugins", "list"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path))
    assert "ping" in done.stdout


def test_versions_with_known_holes_are_excluded() -> None:
    needed = {re.split(r"[\[<>=]", each)[0].lower(): each for each in requires("pov-rt") or ()}
    assert ">=6.6.1" in needed["tornado"]
    assert ">=2.15.1" in needed["pyjwt"]
