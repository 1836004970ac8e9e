"""The published conformance suite of Durable Streams: every case for a server like this passes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.testing import RunningServer, make_settings
from tests.js import SDK, node

HERE = Path(__file__).parents[2] / "node"
VITEST = HERE / "node_modules/vitest/vitest.mjs"
TITLES = [
    line
    for line in (HERE / "conformance/titles.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture
def settings() -> Settings:
    much = "1000000/s"
    return make_settings(
        server={"allowed_origins": ["https://example.com"]},
        streams={"poll_s": 3.0, "read_rate": much},
        limits={"connections_per_user": 10_000, "cost_rate": much, "pages_bytes": 1 << 30},
    )


@pytest.mark.timeout(300)
def test_every_case_of_the_suite_that_is_listed_passes(
    server: RunningServer, tmp_path: Path
) -> None:
    if not VITEST.exists():
        pytest.skip("tests/node has no node_modules: run scripts/test, which installs them")
    result = tmp_path / "result.json"
    environment = {
        **os.environ,
        "POV_RT_URL": f"http://{server.address}",
        "POV_RT_READER": server.token(),
        "POV_RT_SERVICE": server.token("suite", Kind.SERVICE),
    }
    done = subprocess.run(
        [
            *(node(SDK), str(VITEST), "run", "--config", "conformance/vitest.config.mjs"),
            *("--reporter=json", f"--outputFile={result}"),
        ],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.exists(), done.stdout + done.stderr
    cases = [
        case
        for file in json.loads(result.read_text())["testResults"]
        for case in file["assertionResults"]
    ]
    passed = [
        " > ".join([*case["ancestorTitles"], case["title"]])
        for case in cases
        if case["status"] == "passed"
    ]
    failed = {
        case["fullName"]: case["failureMessages"] for case in cases if case["status"] == "failed"
    }
    assert not failed
    assert sorted(passed) == sorted(TITLES), "a case is missing"


def test_the_list_has_all_cases_of_the_read_side_once() -> None:
    assert len(TITLES) == len(set(TITLES)) == 97
