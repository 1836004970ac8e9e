"""The browser SDK: its own tests, its size, and that what is served is what its sources build."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pov_rt.version import VERSION
from pov_rt.web.routes.client import FOLDER
from pov_rt.web.routes.pages import FOLDER as DEV
from tests.js import CLIENT, SDK, node


def run(*command: str | Path, least: int | None = None, folder: Path = CLIENT) -> str:
    """Run a script of the SDK's; return what it says."""
    program = node() if least is None else node(least)
    done = subprocess.run(
        [program, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.timeout(300)
def test_its_own_tests_pass() -> None:
    told = run("test/run.mjs", least=SDK)
    assert "fail 0\n" in told
    assert "pass 0\n" not in told


def test_its_parts_keep_their_budgets() -> None:
    lines = run("size.mjs").splitlines()
    assert {line.split()[0] for line in lines} >= {"core", "tabs", "outbox", "feed"}, lines


def test_what_is_served_is_what_its_sources_build_wherever_they_are(tmp_path: Path) -> None:
    copy = tmp_path / "deep/elsewhere"
    copy.mkdir(parents=True)
    for name in ("build.mjs", "join.mjs", "package.json", "tsconfig.json", "tsconfig.build.json"):
        shutil.copy(CLIENT / name, copy)
    shutil.copytree(CLIENT / "src", copy / "src")
    (copy / "node_modules").symlink_to(CLIENT / "node_modules")
    run(copy / "build.mjs", "--served", tmp_path / "served", folder=tmp_path)
    built, committed = contents(tmp_path / "served"), contents(FOLDER)
    assert built.keys() == committed.keys(), "run `npm run build` in clients/js"
    assert built == committed, "run `npm run build` in clients/js"


def test_what_development_pages_run_is_what_its_sources_build(tmp_path: Path) -> None:
    run("build.mjs", "--dev", tmp_path)
    for name, built in contents(tmp_path).items():
        assert (DEV / name).read_bytes() == built, f"{name}: run `npm run build` in clients/js"


def test_a_program_that_imports_the_package_has_its_types(tmp_path: Path) -> None:
    compiler = CLIENT / "node_modules/typescript/bin/tsc"
    run(compiler, "-p", "tsconfig.build.json", "--outDir", tmp_path / "pov-rt/dist/types")
    package = tmp_path / "node_modules/pov-rt"
    package.parent.mkdir()
    (tmp_path / "pov-rt").rename(package)
    shutil.copy(CLIENT / "package.json", package)
    (tmp_path / "use.ts").write_text(
        "import {connect, createFeed, type Snapshot, type wire} from 'pov-rt'\n"
        "const client = connect({getToken: () => null})\n"
        "export const shown: Snapshot = createFeed(client, ['acme']).getSnapshot()\n"
        "export const published: Promise<wire.Published> =\n"
        "  client.publish({type: 't', action: 'a', povId: 'acme'})\n"
        "export const page: Promise<wire.HistoryPage> =\n"
        "  client.request('history', {povId: 'acme'})\n"
        "// @ts-expect-error: fields are missing\n"
        "void client.publish({type: 't'})\n"
    )
    strict = ["--noEmit", "--strict", "--target", "es2023", "--module", "nodenext"]
    run(compiler, *strict, "use.ts", folder=tmp_path)


def test_its_version_is_the_servers() -> None:
    assert json.loads((CLIENT / "package.json").read_text())["version"] == VERSION
