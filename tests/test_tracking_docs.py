"""What docs/tracking.md shows works as it stands, under the server that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from bench.peers import free_port
from pov_rt.testing import SECRET, RunningServer
from pov_rt.tracker.core import CHANGING, EXCLUDED, Options
from pov_rt.tracker.sender import CAPACITY, CAPACITY_BYTES
from tests.js import SDK, node
from tests.processes import mypy, running
from tests.test_docs import DOCS, table
from tests.tracker.servers import BIN, AppServer, environment, node_modules

# Programs that begin take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)

PAGE = DOCS["tracking"]
SNIPPET = r"```(?:python|js)\n(?:#|//) (\S+): (.*?)\n(.*?)```"
RECIPES = {name: (command, code) for name, command, code in re.findall(SNIPPET, PAGE, re.S)}
APPS = [name for name in RECIPES if name != "publish.mjs"]
URL = "http://127.0.0.1:8765"
READY = {
    "uvicorn": "startup complete",
    "gunicorn": "Booting worker",
    "python": "",
    "node": "listens",
}
URLS = """
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
done = csrf_exempt(lambda request, **_: HttpResponse("done"))
urlpatterns = [path("povs/<pov_id>/tasks/<task_id>/done", done)]
"""


def test_each_snippet_is_a_recipe() -> None:
    assert PAGE.count("```python") + PAGE.count("```js") == len(RECIPES) == 9


def find(program: str) -> str | Path:
    """Return a program that a recipe runs."""
    if program == "node":
        return node(SDK)
    return sys.executable if program == "python" else BIN / program


def write(folder: Path, name: str, code: str, url: str) -> None:
    """Write a recipe's file; settings are added to those that Django makes for a new project."""
    path = folder / name
    if name.endswith(".mjs"):
        (folder / "node_modules").symlink_to(node_modules())
    if name.endswith("settings.py"):
        subprocess.run([BIN / "django-admin", "startproject", "mysite", folder], check=True)
        (folder / "mysite/urls.py").write_text(URLS)
        code = path.read_text() + code
    assert code.count(URL) == 1
    path.write_text(code.replace(URL, url))


@pytest.mark.parametrize("name", [*APPS, "mysite/settings.py, asynchronous"])
def test_a_recipe_works_as_it_stands(name: str, server: RunningServer, tmp_path: Path) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    name, _, kind = name.partition(",")
    command, code = RECIPES[name]
    if kind:
        command = "uvicorn mysite.asgi:application --port 8000"
    port = free_port()
    assert (command + code).count("8000") == 1
    write(tmp_path, name, code.replace("8000", str(port)), f"http://{server.address}")
    program, *arguments = command.replace("8000", str(port)).split()
    with running(
        [find(program), *arguments],
        env=environment() | {"POV_RT_SECRET": SECRET},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        app = AppServer(process, port, READY[program])
        assert app.call("POST", "/povs/acme/tasks/7/done", X_User="my-app") in (200, 201)
        data = ana.receive()["data"]
    assert (data["type"], data["action"], data["userId"]) == ("task", "done", "my-app")
    assert data["details"] == {"task_id": "7"}


def test_a_program_in_node_publishes(server: RunningServer, tmp_path: Path) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    write(tmp_path, "publish.mjs", RECIPES["publish.mjs"][1], f"http://{server.address}")
    done = subprocess.run(
        [node(SDK), "publish.mjs"],
        env=environment() | {"POV_RT_SECRET": SECRET},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    data = ana.receive()["data"]
    assert (data["action"], data["userId"]) == ("completed", "ana")
    assert done.stdout == f"the server has {data['id']}\n"


def test_type_checkers_take_the_recipes(tmp_path: Path) -> None:
    files = [name for name in RECIPES if name.endswith("_app.py")]
    for name in files:
        (tmp_path / name).write_text(RECIPES[name][1])
    # Flask's own way to put a middleware around an app is to set its method.
    options = "--check-untyped-defs --disable-error-code=method-assign"
    done = subprocess.run(
        [sys.executable, "-m", *mypy(options), *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_option_has_a_row_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1] for row in table(PAGE.replace("\\|", "¦"), "Options")}
    assert rows.keys() == get_type_hints(Options).keys()
    (excluded,) = EXCLUDED
    assert rows["exclude"] == f"`{excluded}`".replace("|", "¦")
    assert rows["methods"] == ", ".join(f"`{each}`" for each in sorted(CHANGING))
    assert rows["capacity"] == f"`{CAPACITY}`"
    assert rows["capacity_bytes"] == f"`{CAPACITY_BYTES}`"
