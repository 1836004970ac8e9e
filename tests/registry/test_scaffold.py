"""A new plugin comes with a test that passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.processes import run


def output(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    ).stdout


def test_a_new_plugins_test_passes_as_it_stands(tmp_path: Path) -> None:
    made = run(tmp_path, "plugins", "new", "wave", "--dir", str(tmp_path))
    assert made.returncode == 0, made.stderr
    (test_it,) = re.findall("^test it: (.*)$", made.stdout, re.M)
    assert "1 passed" in output(["bash", "-c", f"{test_it} -p no:cacheprovider"], tmp_path)
    # Where only pov-rt is installed, one is told what is missing.
    hide = "import sys; sys.modules['websockets'] = None; import pytest; pytest.main()"
    told = output([sys.executable, "-c", hide], tmp_path)
    assert "pip install 'pov-rt[testing]'" in told
    assert "pov-rt[testing]" in made.stdout
    again = run(tmp_path, "plugins", "new", "wave", "--dir", str(tmp_path))
    assert (again.returncode, "there already" in again.stderr) == (1, True)
    wrong = run(tmp_path, "plugins", "new", "No-Name")
    assert (wrong.returncode, "no plugin name" in wrong.stderr) == (1, True)
    for taken in ("presence", "user"):  # they could not be loaded
        wrong = run(tmp_path, "plugins", "new", taken)
        assert (wrong.returncode, "the server's own" in wrong.stderr) == (1, True)
