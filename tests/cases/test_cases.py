"""The recorded cases, played against both clients, and against the server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cases import playing_client
from tests.cases.case import load
from tests.cases.playing_server import Play
from tests.js import SDK, node

ROOT = Path(__file__).parent.parent.parent
CASES = load()
REAL = [name for name, case in CASES.items() if case.scripted is None]


@pytest.mark.parametrize("name", CASES)
def test_the_python_client_does_as_the_case_says(name: str) -> None:
    Play(CASES[name]).run([sys.executable, "-m", "tests.cases.python_client"])


@pytest.mark.parametrize("name", CASES)
def test_the_javascript_client_does_as_the_case_says(name: str) -> None:
    if not (ROOT / "tests/node/node_modules").exists():
        pytest.skip("tests/node has no node_modules: run scripts/test, which installs them")
    Play(CASES[name]).run([node(SDK), ROOT / "tests/node/case.mjs"])


@pytest.mark.parametrize("name", REAL)
def test_the_server_does_as_the_case_says(name: str) -> None:
    playing_client.play(CASES[name])
