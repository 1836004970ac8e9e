"""The apps of examples/, started by the lines at their heads, do what they are there to show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest
from playwright.sync_api import expect

from bench.peers import free_port
from pov_rt.testing import SECRET, Client, RunningServer, make_settings
from tests.js import SDK, node
from tests.pages import chromium
from tests.processes import mypy, running
from tests.test_docs import ROOT
from tests.tracker.servers import BIN, AppServer, environment, node_modules

# Programs that begin take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)

EXAMPLES = ROOT / "examples"
TASK = "/povs/acme/tasks/7/done"


class Example(NamedTuple):
    """An app: the file whose head says how to run it, and where a decision is posted."""

    file: str
    decide: str
    once: tuple[str, ...] = ()
    """What is run before, by a word of the line."""
    beside: tuple[str, ...] = ()
    """What runs beside it."""
    exchanges: bool = False
    """Its access token is exchanged by pov-rt; the others sign the socket's token."""


APPS = {
    "fastapi": Example("fastapi_app.py", "/povs/acme/decision"),
    "django": Example(
        "django_app/manage.py", "/povs/acme/decision", once=("migrate",), beside=("relay",)
    ),
    "express": Example("express_app.mjs", "/povs/acme/decisions/7-11", exchanges=True),
}


class Person:
    """Somebody's browser, as far as an app sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self.cookies))

    def call(self, path: str, method: str = "GET", url: str = "") -> str:
        """Return the answer's text, after redirections. Raises HTTPError."""
        # Django's forms have this; the others do not look at it.
        given = {each.name: each.value or "" for each in self.cookies}
        request = Request((url or self.url) + path, method=method)
        if method == "POST":
            request.add_header("X-CSRFToken", given.get("csrftoken", ""))
        with self._opener.open(request, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def refused(self, path: str, method: str = "GET") -> int:
        with pytest.raises(HTTPError) as raised:
            self.call(path, method)
        raised.value.close()
        return raised.value.code


def lines_of(example: Example) -> list[str]:
    """Return the commands at the head of an example, which are indented."""
    head = (EXAMPLES / example.file).read_text().partition("\nimport ")[0]
    return re.findall(r"^(?:// )? {4}(\S.*)$", head, re.M)


def line_of(example: Example, word: str) -> str:
    (line,) = [each for each in lines_of(example) if word in each.split()]
    return line


@contextmanager
def started(name: str, url: str, folder: Path) -> Iterator[AppServer]:
    """Run an example in a copy of the checkout's folder, beside a server at `url`."""
    example = APPS[name]
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dev").mkdir()
    (folder / ".dev/dev-secret").write_text(SECRET + "\n")
    programs = str(BIN)
    if name == "express":
        (folder / "examples/node_modules").symlink_to(node_modules())
        programs += f":{Path(node(SDK)).parent}"
    variables = environment() | {"POV_RT_URL": url}
    variables["PATH"] = f"{programs}:{variables['PATH']}"
    exports = [line for line in lines_of(example) if line.startswith("export ")]
    port = free_port()

    def run(line: str) -> Any:
        return running(
            ["bash", "-c", "\n".join([*exports, line])],
            env=variables,
            cwd=folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    for word in example.once:
        with run(line_of(example, word)) as process:
            _, said = process.communicate()
            assert process.returncode == 0, said
    (main,) = [each for each in lines_of(example) if "8000" in each]
    with ExitStack() as stack:
        for word in example.beside:
            stack.enter_context(run(line_of(example, word)))
        process = stack.enter_context(run(main.replace("8000", str(port))))
        yield AppServer(process, port, "")


def follow(server: RunningServer, token: str) -> Client:
    """Open a socket with the page's token, which sees what ana may see, and follow that."""
    client = server.connect(token=token)
    assert client.welcome["userId"] == "ana"
    assert client.request({"type": "subscribe", "povId": "globex"})["code"] == "forbidden"
    assert client.request({"type": "subscribe", "povId": "acme"})["type"] == "subscribed"
    return client


def see_it_work(
    server: RunningServer, ana: Person, decide: str, *, exchanges: bool = False
) -> None:
    """See the page, its token, the tracked task and the published decision; and who may not."""
    rt = f"http://{server.address}"
    page = ana.call("/")
    assert f'<script type="module" src="{rt}/client/pov-rt-widgets.mjs"></script>' in page
    assert '<pov-team-activity pov="acme"' in page
    assert "<pov-activity-notification>" in page
    assert ana.refused(TASK, "POST") in (401, 403)
    assert ana.refused("/sign-in/nobody", "POST") == 404
    ana.call("/sign-in/ana", "POST")
    answer = ana.call("/api/auth/ws-token", url=rt) if exchanges else ana.call("/ws-token")
    socket = follow(server, json.loads(answer)["token"])
    ana.call(TASK, "POST")
    told = socket.receive()["data"]
    assert (told["type"], told["action"], told["userId"]) == ("task", "completed", "ana")
    assert told["details"] == {"task_id": "7"}
    ana.call(decide, "POST")
    told = socket.receive()["data"]
    assert (told["type"], told["action"], told["userId"]) == ("decision", "made", "ana")
    for path in (TASK, decide):
        assert ana.refused(path.replace("acme", "globex"), "POST") == 403


@pytest.mark.parametrize("name", APPS)
def test_an_app_tells_its_team_what_happens(
    name: str, server: RunningServer, tmp_path: Path
) -> None:
    example = APPS[name]
    with started(name, f"http://{server.address}", tmp_path) as app:
        ana = Person(f"http://127.0.0.1:{app.port}")
        see_it_work(server, ana, example.decide, exchanges=example.exchanges)


@pytest.mark.parametrize("name", APPS)
def test_what_must_not_be_lost_is_published_when_the_server_is_back(
    name: str, tmp_path: Path
) -> None:
    port = free_port()
    with started(name, f"http://127.0.0.1:{port}", tmp_path) as app, ThreadPoolExecutor() as pool:
        ana = Person(f"http://127.0.0.1:{app.port}")
        ana.call("/")
        ana.call("/sign-in/ana", "POST")
        answer = pool.submit(ana.call, APPS[name].decide, "POST")
        if name == "express":  # answers when the server has it
            app.said("no success at")
        else:
            answer.result()
        settings = make_settings(server={"port": port, "data": str(tmp_path)})
        with RunningServer(settings, None) as server:
            ben = server.connect("ben")
            ben.request({"type": "subscribe", "povId": "acme", "since": {"last": 10}})
            told = ben.early.pop() if ben.early else json.loads(ben.socket.recv(timeout=60))
            answer.result()
    told = told["data"]
    assert (told["type"], told["action"], told["userId"]) == ("decision", "made", "ana")


@pytest.mark.parametrize("name", APPS)
def test_the_page_shows_it(name: str, server: RunningServer, tmp_path: Path) -> None:
    with chromium() as page, started(name, f"http://{server.address}", tmp_path) as app:
        origin = f"http://127.0.0.1:{app.port}"
        server.web.settings.server.allowed_origins.append(origin)
        page.goto(origin)
        page.get_by_role("button", name=re.compile("Sign in as ana", re.I)).click()
        feed = page.locator("pov-team-activity")
        expect(feed).to_contain_text("Live")
        page.get_by_role("button", name="Task 7 is done").click()
        expect(feed).to_contain_text("completed")
        page.get_by_role("button", name="Acme buys it").click()
        expect(feed).to_contain_text("decision")


def test_each_example_says_what_to_install_and_how_to_run_it() -> None:
    for example in APPS.values():
        lines = lines_of(example)
        assert "pov-rt serve --dev" in lines
        assert any("install" in line for line in lines)
        assert sum("8000" in line for line in lines) == 1


def test_the_examples_are_well_typed() -> None:
    # Django has no types, so its classes and decorators are of any.
    untyped = " --ignore-missing-imports --disable-error-code=misc"
    untyped += " --disable-error-code=untyped-decorator"
    for folder, options, files in (
        (EXAMPLES, "", ["fastapi_app.py"]),
        (EXAMPLES / "django_app", untyped, ["manage.py", "board"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *mypy(f"--strict{options}"), *files],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
