"""What README shows can be typed as it stands."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from pov_rt import testing
from pov_rt.auth.grants import Kind
from pov_rt.testing import RunningServer
from tests.processes import SECRET, environment, running

ROOT = Path(__file__).parent.parent
SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
URL = "http://127.0.0.1:8765"


def snippet(language: str, word: str) -> str:
    found: str
    (found,) = [text for kind, text in SNIPPETS if kind == language and word in text]
    return found


def test_no_snippet_is_left_out() -> None:
    kinds = [kind for kind, _ in SNIPPETS]
    # tests/browser/test_pages.py has those in html and js, tests/test_widgets_page.py the tags.
    assert sorted(kinds) == ["bash"] * 4 + ["html", "html", "js", "js", *["python"] * 2]


@pytest.mark.skipif(shutil.which("curl") is None, reason="it publishes with curl")
def test_an_app_publishes_to_those_who_follow(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    done = subprocess.run(
        ["bash", "-c", snippet("bash", "curl").replace(URL, f"http://{server.address}")],
        env={**os.environ, "TOKEN": server.token("my-app", Kind.SERVICE)},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["offset"] == 1
    assert ana.receive()["data"]["action"] == "completed"


def test_a_backend_signs_the_socket_token_with_pyjwt(server: RunningServer) -> None:
    given: dict[str, Any] = {"SECRET": testing.SECRET}
    exec(snippet("python", "jwt.encode"), given)
    lets_in(server, given["socket_token"]("ana", ["acme", "other"]))


def test_a_backend_signs_the_socket_token_with_node(server: RunningServer) -> None:
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no node")
    code = f"const SECRET = {json.dumps(testing.SECRET)}\n" + snippet("js", "createHmac")
    done = subprocess.run(
        [program, "-e", f"{code}\nprocess.stdout.write(socketToken('ana', ['acme', 'other']))"],
        capture_output=True,
        text=True,
        check=True,
    )
    lets_in(server, done.stdout)


def lets_in(server: RunningServer, token: str) -> None:
    """See that a token opens a socket of ana's that sees the two PoVs and no other."""
    client = server.connect(token=token)
    assert client.welcome["userId"] == "ana"
    for pov_id, outcome in (("acme", None), ("other", None), ("third", "forbidden")):
        answer = client.request({"type": "subscribe", "povId": pov_id})
        assert answer.get("code") == outcome


def test_an_applications_requests_become_activities(server: RunningServer) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})

    class Done(RequestHandler):
        def post(self) -> None:
            self.write("done")

    async def use(app: Application) -> None:
        http = HTTPServer(app)
        sock, port = bind_unused_port()
        http.add_socket(sock)
        client = AsyncHTTPClient(force_instance=True)
        await client.fetch(
            f"http://127.0.0.1:{port}/povs/acme/tasks/t/done", method="POST", body=b""
        )
        client.close()
        http.stop()
        await http.close_all_connections()

    text = snippet("python", "ActivityTracker").replace(URL, f"http://{server.address}")
    assert text.count("\n...\n") == 1
    code = compile(
        text.replace("\n...\n", "\nawait use(app)\n"),
        "README.md",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    given: dict[str, Any] = {
        "SECRET": testing.SECRET,
        "app": Application([(".*", Done)]),
        "use": use,
    }

    async def run() -> None:
        result = eval(code, given)
        assert inspect.isawaitable(result)
        await result

    asyncio.run(run())
    data = ana.receive()["data"]
    assert (data["type"], data["action"], data["userId"]) == ("task", "done", "my-app")


@pytest.mark.parametrize("word", ["plugins new", "config check"])
def test_what_authors_and_operators_type_works(word: str, tmp_path: Path) -> None:
    config = tmp_path / "pov-rt.toml"
    config.write_text(f'[auth]\nsecrets = ["{SECRET}"]\n')
    config.chmod(0o600)
    folder = str(Path(sys.executable).parent)
    env = environment(tmp_path) | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "POV_RT_SERVER__PORT": "0",
        "POV_RT_SERVER__ADMIN_PORT": "0",
        "POV_RT_CONFIG": str(config),
    }
    for line in snippet("bash", word).splitlines():
        command = line.partition("#")[0].strip().replace("/etc/pov-rt/pov-rt.toml", str(config))
        if command.startswith("pip install"):
            continue
        with running(
            ["bash", "-c", f"exec {command}"],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            if " serve" in command:
                next(text for text in process.stdout if "listens on" in text)
                process.terminate()
            out = process.communicate(timeout=30)[0]
        assert process.returncode == 0, f"{command}: {out}"


def test_what_is_not_json_has_no_id_in_its_answer(server: RunningServer) -> None:
    client = server.connect()
    for number in ("1e999", "NaN"):
        data = '{"type":"t","action":"a","povId":"acme","details":{"n":NUMBER}}'
        message = '{"type":"publish","id":7,"data":DATA}'
        client.send(message.replace("DATA", data).replace("NUMBER", number))
        answer = client.receive()
        assert (answer["code"], "id" in answer) == ("invalid_message", False)
