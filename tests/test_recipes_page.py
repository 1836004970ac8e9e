"""docs/recipes.md: Flask's app runs; Next.js's is compiled, and its route publishes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers import free_port
from pov_rt.testing import SECRET, RunningServer
from tests.js import CLIENT
from tests.processes import mypy, running
from tests.test_clients_page import run
from tests.test_docs import DOCS
from tests.test_examples import Person, see_it_work
from tests.test_widgets_page import install
from tests.tracker.servers import BIN, AppServer, environment, node_module

# Compilers and programs that begin take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)

PAGE = DOCS["recipes"]
FLASK = re.findall(r"```python\n# flask_app\.py: (.*?)\n(.*?)```", PAGE, re.S)
NEXT = dict(re.findall(r"```tsx?\n// (\S+)\n(.*?)```", PAGE, re.S))
RT = "http://127.0.0.1:8765"
ROUTE = "app/api/povs/[povId]/decisions/[id]/route.ts"

# What the app has of Next.js and of its own.
AROUND = """\
declare module 'next/navigation' {
  export function notFound(): never
}
declare module '@/lib/session' {
  export function getSession(): Promise<{userId: string; povs: string[]} | null>
}
"""


def test_no_snippet_is_left_out() -> None:
    assert PAGE.count("```") == 2 * (len(FLASK) + len(NEXT))


def test_the_flask_app_tells_its_team_what_happens(server: RunningServer, tmp_path: Path) -> None:
    ((command, code),) = FLASK
    rt = f"http://{server.address}"
    (tmp_path / "flask_app.py").write_text(code.replace(RT, rt))
    port = free_port()
    program, *arguments = command.replace("8000", str(port)).split()
    with running(
        [BIN / program, *arguments],
        env=environment() | {"POV_RT_SECRET": SECRET, "APP_SECRET": "of this test alone"},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        app = AppServer(process, port, "Booting worker")
        see_it_work(server, Person(f"http://127.0.0.1:{app.port}"), "/povs/acme/decision")


def test_the_flask_app_is_well_typed(tmp_path: Path) -> None:
    ((_, code),) = FLASK
    (tmp_path / "flask_app.py").write_text(code)
    # Flask's own way to put a middleware around an app is to set its method.
    options = "--check-untyped-defs --disable-error-code=method-assign"
    done = subprocess.run(
        [sys.executable, "-m", *mypy(options), "flask_app.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def write(folder: Path, files: dict[str, str]) -> None:
    for name, code in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def test_compilers_take_the_app_for_next(tmp_path: Path) -> None:
    """With the types of React that are published, and those of the SDK's package."""
    write(tmp_path, {**NEXT, "around.d.ts": AROUND})
    install(tmp_path)
    options = {
        "jsx": "react-jsx",
        "lib": ["ES2023", "DOM", "DOM.Iterable"],
        "module": "esnext",
        "moduleResolution": "bundler",
        "noEmit": True,
        "noUnusedLocals": True,
        "paths": {"@/*": ["./*"]},
        "strict": True,
        "target": "es2023",
        "typeRoots": [str(CLIENT / "node_modules/@types")],
        "types": ["node"],
    }
    config = {"compilerOptions": options, "include": ["app", "lib", "around.d.ts"]}
    write(tmp_path, {"tsconfig.json": json.dumps(config)})
    run(CLIENT / "node_modules/typescript/bin/tsc", "-p", ".", folder=tmp_path)


def test_the_route_of_next_publishes_and_only_what_its_user_may(
    server: RunningServer, tmp_path: Path
) -> None:
    session = (
        "export const getSession = async () => process.env.WHO ? JSON.parse(process.env.WHO) : null"
    )
    files = {**NEXT, "lib/session.ts": session}
    files["lib/publisher.ts"] = NEXT["lib/publisher.ts"].replace(
        "https://rt.example", f"http://{server.address}"
    )
    files["bundle.mjs"] = (
        f"import {{build}} from '{CLIENT}/node_modules/esbuild/lib/main.js'\n"
        f"const alias = {{'@': '{tmp_path}', 'pov-rt/node': '{node_module()}'}}\n"
        f"await build({{entryPoints: ['{ROUTE}'], bundle: true, platform: 'node', format: 'esm',\n"
        "  alias, outfile: 'route.mjs'})\n"
    )
    files["ask.mjs"] = (
        "const {POST} = await import('./route.mjs')\n"
        "const params = Promise.resolve({povId: process.argv[2], id: 'd-1'})\n"
        "console.log((await POST(undefined, {params})).status)\n"
    )
    write(tmp_path, files)
    run("bundle.mjs", folder=tmp_path)
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    who = json.dumps({"userId": "ana", "povs": ["acme"]})
    given = {"POV_RT_SECRET": SECRET}
    assert run("ask.mjs", "acme", folder=tmp_path, **given) == "401\n"
    assert run("ask.mjs", "globex", folder=tmp_path, WHO=who, **given) == "403\n"
    for _ in range(2):
        assert run("ask.mjs", "acme", folder=tmp_path, WHO=who, **given) == "201\n"
    told = ana.receive()["data"]
    assert (told["id"], told["action"], told["userId"]) == ("d-1", "made", "ana")
    page = ana.request({"type": "history", "povId": "acme"})
    assert len(page["activities"]) == 1
