"""docs/clients.md says what the SDK's sources say, and its snippets work as they stand.

The tables of docs/widgets.md, too; its snippets are in test_widgets_page.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import jwt
import pytest

from pov_rt.auth.grants import Kind
from pov_rt.testing import SECRET, RunningServer
from pov_rt.web.routes.client import FOLDER
from tests.js import CLIENT, SDK, node
from tests.processes import running

# Compilers take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGES = ROOT / "tests/node"
RECIPES = {
    name: code
    for page in ("clients", "moving")
    for name, code in re.findall(
        r"```(?:js|ts|tsx)\n// (\S+)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S
    )
}
"""The snippets in JavaScript and TypeScript by their file names, which their first lines say."""
DIFFS = re.findall(r"```diff\n(.*?)```", (DOCS / "moving.md").read_text(), re.S)

# What the snippets have of others. Of frameworks only what is used, as their types say it.
AROUND = """\
declare module 'react' {
  export function useEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void
  export function useState<S>(): [S | undefined, (value: S | undefined) => void]
  export function useSyncExternalStore<S>(
    subscribe: (listener: () => void) => () => void, get: () => S, getServer?: () => S): S
}
declare namespace JSX {
  interface Element {}
  interface ElementChildrenAttribute {children: unknown}
  interface IntrinsicElements {
    button: {onClick(): void; children: unknown}
    li: {key: string; children: unknown}
    p: {children: unknown}
    section: {children: unknown}
    ul: {children: unknown}
  }
}
declare module 'vue' {
  export function onScopeDispose(end: () => void): void
  export function shallowRef<T>(value: T): {value: T}
}
declare module 'next/headers' {
  export function cookies(): Promise<{get(name: string): {value: string} | undefined}>
}
declare module 'ws' {
  const made: typeof WebSocket
  export default made
}
declare module '@/lib/session' {
  export function getSession(): Promise<{userId: string; povs: string[]} | null>
}
declare const client: import('pov-rt').Client
declare const subscription: import('pov-rt').Subscription
declare const PovError: typeof import('pov-rt').PovError
declare const createFeed: typeof import('pov-rt').createFeed
declare const PovRT: typeof import('pov-rt')
declare function getToken(): Promise<string | null>
declare function show(state: unknown): void
declare function apply(activity: import('pov-rt').wire.Activity): void
"""


def run(*command: str | Path, folder: Path = CLIENT, **more: str) -> str:
    done = subprocess.run(
        [node(SDK), *command],
        cwd=folder,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Return a folder in which programs may `import 'pov-rt'`, `ws` and `jose`."""
    package = tmp_path / "node_modules/pov-rt"
    shutil.copytree(FOLDER, package / "dist")
    shutil.copy(CLIENT / "package.json", package)
    for name in ("ws", "jose"):
        (tmp_path / "node_modules" / name).symlink_to(PACKAGES / "node_modules" / name)
    return tmp_path


def copied(folder: Path) -> Path:
    """Copy the sources and the docs, to be spoiled."""
    client = folder / "clients/js"
    shutil.copytree(CLIENT / "src", client / "src")
    for name in ("reference.mjs", "manifest.mjs", "package.json"):
        shutil.copy(CLIENT / name, client)
    shutil.copytree(DOCS, folder / "docs")
    (client / "node_modules").symlink_to(CLIENT / "node_modules")
    return client


def test_the_tables_are_what_the_sources_say() -> None:
    run("reference.mjs", "--check")


def test_tables_that_are_old_are_written_anew(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    pages = {copy.parents[1] / f"docs/{name}.md": word for name, word in WORDS.items()}
    right = {page: page.read_text() for page in pages}
    for page, word in pages.items():
        page.write_text(right[page].replace(f"| {word} |", "| `old` |", 1))
    run(copy / "reference.mjs")
    assert {page: page.read_text() for page in pages} == right


API = "clients/js/src/api.ts"
WIDGETS = "clients/js/src/widgets"
TAG, BASE, TOKENS = (
    f"{WIDGETS}/{name}" for name in ("team-activity.ts", "element.ts", "tokens.css")
)
WORDS = {"clients": "`network`", "widgets": "`--pov-accent`"}
"""Of each page, what begins a line of a table."""
FAULTS = [
    *(
        (f"docs/{name}.md", f"| {word} |", "| `old` |", f"docs/{name}.md is old")
        for name, word in WORDS.items()
    ),
    (API, "  /** The state now. */\n", "", "status has no comment"),
    (API, " * - `aborted`", " * - `abort`", "lacks aborted"),
    (API, "| 'busy' ", "| 'bust' ", "lacks bust"),
    (
        API,
        "import type * as wire",
        "export interface More { a: string }\nimport type * as wire",
        "no table of More",
    ),
    (TAG, " * @csspart header ", " * @csspart head ", "not tell: header"),
    (TAG, " * @csspart header ", " * @csspart head ", "no source has: head"),
    (TAG, " * @slot empty ", " * @slot nothing ", "not tell: empty"),
    (TAG, "} pov-count - ", "} pov-counts - ", "not tell: pov-count\n"),
    (TAG, " * @cssprop --pov-pad ", " * @cssprop --pov-pads ", "not tell: --pov-pad\n"),
    (TAG, " * @cssstate live ", " * @cssstate alive ", "not tell: live"),
    (BASE, "  /** Names of PoVs, by id. */\n", "", "povs has no comment"),
    (BASE, " * @cssprop --pov-ink - Text.\n", "", "not tell: --pov-ink\n"),
    (TOKENS, "  --pov-ink:", "  --pov-odd: 1px;\n  --pov-ink:", "not tell: --pov-odd"),
    (BASE, " * @cssprop --pov-ink ", " * @cssprop --pov-inks ", "--pov-inks is used nowhere"),
    (f"{WIDGETS}/words.ts", "  you: 'You',", "  you: 'You',\n  now: 'Now',", "two sentences"),
]
"""What is changed in which file, and what is then told."""
EACH = """const told = []
for (const each of process.argv.slice(3)) {
  try { told.push(String(await import(each))) } catch (error) { told.push(error.message) }
}
console.log(JSON.stringify(told))"""
"""Checks one copy after the other: TypeScript is loaded once."""


def test_what_the_sources_do_not_tell_is_told(tmp_path: Path) -> None:
    copies = []
    for number, (file, before, after, _) in enumerate(FAULTS):
        folder = tmp_path / str(number)
        copies.append(copied(folder) / "reference.mjs")
        text = (folder / file).read_text()
        assert before in text
        (folder / file).write_text(text.replace(before, after, 1))
    told = json.loads(run("--input-type=module", "-e", EACH, "x", "--check", *copies))
    for (*_, expected), each in zip(FAULTS, told, strict=True):
        assert expected in each


def test_every_snippet_has_the_types_of_the_sdk(tmp_path: Path) -> None:
    assert len(RECIPES) >= 12
    text = (DOCS / "clients.md").read_text()
    (page,) = re.findall(r"```html\n.*?<script>\n(.*?)</script>\n```", text, re.S)
    after = {
        f"after-{number}.js": re.sub(r"^(-.*\n|\+)", "", diff, flags=re.M)
        for number, diff in enumerate(DIFFS)
    }
    assert len(after) == 2
    files = {**RECIPES, **after, "page.js": page}
    fenced = re.findall(r"^```(?:js|ts|tsx|html)$", text, re.M)
    names = re.findall(r"^```(?:js|ts|tsx)\n// \S+$", text, re.M)
    assert len(fenced) == len(names) + 1, "the first line of a snippet names its file"
    for name, code in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    (tmp_path / "around.d.ts").write_text(AROUND)
    jose = PACKAGES / "node_modules/jose"
    paths = {"pov-rt": [str(CLIENT / "src/index.ts")], "jose": [str(jose)]}
    options = {
        "allowJs": True,
        "checkJs": True,
        "jsx": "preserve",
        "moduleDetection": "force",
        "noEmit": True,
        "paths": paths,
        "rootDir": "/",
        "strict": True,
        "typeRoots": [str(CLIENT / "node_modules/@types")],
    }
    inherited = {"extends": str(CLIENT / "tsconfig.json"), "compilerOptions": options}
    config = tmp_path / "tsconfig.json"
    config.write_text(json.dumps({**inherited, "include": ["**/*"]}))
    run(CLIENT / "node_modules/typescript/bin/tsc", "-p", config)


def test_the_program_for_node_follows_a_pov(server: RunningServer, built: Path) -> None:
    ana = server.connect()
    for number in range(3):
        data = {"type": "task", "action": "done", "povId": "acme", "details": {"n": number}}
        assert ana.request({"type": "publish", "data": data})["type"] == "published"
    code = RECIPES["follow.mjs"].replace("https://rt.example", f"http://{server.address}")
    (built / "follow.mjs").write_text(code)
    with running(
        [node(SDK), "follow.mjs"],
        cwd=built,
        env={**os.environ, "TOKEN": server.token("ben")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        for offset in (1, 2, 3):
            assert program.stdout.readline() == f"{offset} ana done task\n"
        ana.request({"type": "publish", "data": {**data, "action": "undone"}})
        assert program.stdout.readline() == "4 ana undone task\n"
        program.send_signal(signal.SIGINT)
        assert program.wait(10) == 0, program.stderr.read()


def test_the_route_of_next_signs_tokens_that_the_server_takes(
    server: RunningServer, built: Path
) -> None:
    (built / "session.ts").write_text(
        "export const getSession = async () => process.env.WHO ? JSON.parse(process.env.WHO) : null"
    )
    route = RECIPES["app/api/ws-token/route.ts"].replace("@/lib/session", "./session")
    (built / "route.ts").write_text(route)
    (built / "bundle.mjs").write_text(
        f"import {{build}} from '{CLIENT}/node_modules/esbuild/lib/main.js'\n"
        "await build({entryPoints: ['route.ts'], bundle: true, platform: 'node', format: 'esm',\n"
        "  outfile: 'route.mjs'})\n"
    )
    run("bundle.mjs", folder=built)
    (built / "ask.mjs").write_text(
        "const {GET} = await import('./route.mjs')\n"
        "const answer = await GET()\n"
        "console.log(answer.status, await answer.text())\n"
    )
    assert run("ask.mjs", folder=built, POV_RT_SECRET=SECRET) == "401 \n"
    who = json.dumps({"userId": "ana", "povs": ["acme"]})
    status, body = run("ask.mjs", folder=built, POV_RT_SECRET=SECRET, WHO=who).split(" ", 1)
    token = json.loads(body)["token"]
    assert status == "200"
    claims = jwt.decode(token, SECRET, ["HS256"], audience="pov-rt.socket")
    assert claims["exp"] - claims["iat"] == 900
    identity = server.call(lambda: server.web.server.tokens.verify(token, frozenset({Kind.SOCKET})))
    assert (identity.user_id, identity.grants.povs) == ("ana", ("acme",))
