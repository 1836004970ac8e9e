"""The browser SDK: its own tests, its size, and that what is served is what its sources build."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pov_rt.config.settings import ActivitySettings, Settings
from pov_rt.registry.build import build_registry
from pov_rt.registry.schema.typescript import typescript
from pov_rt.version import VERSION
from pov_rt.web.routes.admin.page import FOLDER as ADMIN
from pov_rt.web.routes.client import FOLDER
from pov_rt.web.routes.dev.pages import FOLDER as DEV
from tests.js import CLIENT, SDK, node, package


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


@pytest.mark.parametrize(("option", "folder"), [("--dev", DEV), ("--admin", ADMIN)])
def test_what_our_pages_run_is_what_its_sources_build(
    tmp_path: Path, option: str, folder: Path
) -> None:
    run("build.mjs", option, tmp_path)
    for name, built in contents(tmp_path).items():
        assert (folder / name).read_bytes() == built, f"{name}: run `npm run build` in clients/js"


def test_a_program_that_imports_the_package_has_its_types(tmp_path: Path) -> None:
    compiler = CLIENT / "node_modules/typescript/bin/tsc"
    shutil.copytree(package(), tmp_path / "node_modules/pov-rt")
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
    (tmp_path / "serve.ts").write_text(
        "import {activityTracker, createPublisher} from 'pov-rt/node'\n"
        "import type {Facts, NewActivity} from 'pov-rt/node'\n"
        "const given = {url: 'http://127.0.0.1:8765', token: async () => 'token'}\n"
        "const describe = ({method, pathArguments}: Facts): NewActivity =>\n"
        "  ({type: 'request', action: method, povId: pathArguments['pov'] ?? 'none'})\n"
        "export const tracker = activityTracker({...given, describe, sampleRate: 0.5})\n"
        "export const id: Promise<string> = createPublisher(given)\n"
        "  .publish({type: 't', action: 'a', povId: 'acme'}).then(taken => taken.id)\n"
        "// @ts-expect-error: an option of another name\n"
        "activityTracker({...given, sample_rate: 0.5})\n"
    )
    strict = ["--noEmit", "--strict", "--target", "es2023", "--module", "nodenext"]
    run(compiler, *strict, "use.ts", "serve.ts", folder=tmp_path)


def test_the_details_that_a_server_declares_are_what_the_package_knows(tmp_path: Path) -> None:
    """Compile the page's example, with what `pov-rt schema typescript` prints for such a server."""
    compiler = CLIENT / "node_modules/typescript/bin/tsc"
    shutil.copytree(package(), tmp_path / "node_modules/pov-rt")
    schema = tmp_path / "task.json"
    schema.write_text('{"properties": {"title": {"type": "string"}}, "required": ["title"]}')
    declared = {"task.completed": ActivitySettings(details=str(schema))}
    module = typescript(build_registry({}, None, declared), Settings())
    (tmp_path / "wire.ts").write_text(module)
    page = (
        (CLIENT.parent.parent / "docs/clients.md").read_text().split("\n## Typed activities\n")[1]
    )
    for name, code in re.findall(r"```typescript\n// ([\w.-]+)\n(.*?)```", page, re.S):
        (tmp_path / name).write_text(code)
    (tmp_path / "wrong.ts").write_text(
        "import type {Activity, Client} from 'pov-rt'\n"
        "export const due = (task: Activity<'task', 'completed'>) => task.details.title.trim()\n"
        "export const whatever = (other: Activity<'task', 'begun'>) => other.details?.['x']\n"
        "export const send = (client: Client) => [\n"
        "  // @ts-expect-error: a title is a text\n"
        "  client.publish({type: 'task', action: 'completed', povId: 'a', details: {title: 5}}),\n"
        "  // @ts-expect-error: there has to be one\n"
        "  client.publish({type: 'task', action: 'completed', povId: 'a'}),\n"
        "  client.publish({type: 'task', action: 'begun', povId: 'a'}),\n"
        "]\n"
    )
    names = ["use.ts", "pov-rt.d.ts", "wrong.ts"]
    strict = ["--noEmit", "--strict", "--target", "es2023", "--module", "nodenext"]
    run(compiler, *strict, *names, folder=tmp_path)


def test_its_version_is_the_servers() -> None:
    assert json.loads((CLIENT / "package.json").read_text())["version"] == VERSION
