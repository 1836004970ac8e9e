"""Under --dev a process starts anew when a file changes, and waits if it cannot."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import pov_rt.plugins.ping
from pov_rt.cli.node import restart
from pov_rt.cli.node.restart import is_installed
from tests.processes import COMMAND, Served, environment, read_until, running, serve

PLUGIN = '''"""A plugin that is being written."""
from pov_rt.plugin import Context, Message, Plugin

plugin = Plugin("draft")

class Ask(Message, tag="draft.ask"):
    """Ask."""

class Answer(Message, tag="draft.answer"):
    """Answer."""
    version: int

@plugin.on(Ask)
def ask(message: Ask, context: Context) -> Answer:
    """Answer."""
    return Answer(version=1)
'''

LIFESPAN = """@plugin.lifespan
async def life(host):
    1 / 0
    yield
"""


def test_what_nobody_writes_is_not_looked_at() -> None:
    assert all(map(is_installed, filter(None, (json.__file__, pytest.__file__))))
    written = (restart.__file__, pov_rt.plugins.ping.__file__, __file__)
    assert not any(map(is_installed, filter(None, written)))


def problem(served: Served) -> Any:
    """Return what the console is told; None also while nobody listens."""
    try:
        with urlopen(f"{served.url}/dev/problem.json", timeout=10) as answer:
            return json.load(answer)["problem"]
    except URLError:
        return None


def test_a_changed_plugin_restarts_the_server_and_clients_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    draft = folder / "draft.py"
    draft.write_text(PLUGIN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with serve(tmp_path, "--port", port, "--plugins-dir", str(folder)) as served:
        assert served.process.stderr is not None
        log = iter(served.process.stderr.readline, "")

        def until(words: str) -> str:
            return next(line for line in log if words in line)

        def version(served: Served) -> int:
            with connect(f"{served.socket_url}?token={served.token}", proxy=None) as client:
                client.send('{"type":"draft.ask"}')
                answer: int = json.loads(client.recv(timeout=10))["version"]
                return answer

        assert version(served) == 1
        protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{served.token}")]
        with connect(served.socket_url, subprotocols=protocols, proxy=None) as client:
            assert '"welcome"' in client.recv(timeout=10)
            # A typo is named, and costs nobody anything.
            draft.write_text(PLUGIN.replace("Answer(version=1)", "Answer(version=1"))
            assert "draft.py:16: syntax error" in until("goes on as it was")
            told = problem(served)
            assert (told["file"], told["line"]) == ("plugins/draft.py", 16)
            assert told["isRunning"]
            client.send('{"type":"draft.ask"}')
            assert json.loads(client.recv(timeout=10))["version"] == 1
            # So is what only loading finds: the server that runs stays.
            for text, line, words in (
                (PLUGIN + "nothing\n", 17, "NameError: name 'nothing' is not defined"),
                (PLUGIN.replace("@plugin.on(Ask)", "@plugin.on"), 13, "@plugin.on(Vote)"),
                (PLUGIN + "import sys; sys.exit(3)\n", 17, "SystemExit: 3"),
            ):
                draft.write_text(text)
                assert f"draft.py:{line}: " in until(words)
                told = problem(served)
                assert (told["line"], told["isRunning"]) == (line, True)
                assert words in told["message"]
                client.send('{"type":"draft.ask"}')
                assert json.loads(client.recv(timeout=10))["version"] == 1
            # What only the start itself finds is waited for.
            draft.write_text(PLUGIN + LIFESPAN)
            assert json.loads(client.recv(timeout=20))["reason"] == "restarting"
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4000
        assert "draft.py:19: the lifespan failed: ZeroDivisionError" in until("ZeroDivisionError")
        until("Waiting for a change")
        while (told := problem(served)) is None:  # it listens in a moment
            pass
        assert (told["line"], told["isRunning"]) == (19, False)
        draft.write_text(PLUGIN.replace("version=1", "version=2"))
        until("started anew: draft.py")
        assert version(served) == 2
        assert problem(served) is None
        # A new file is a change, too.
        text = PLUGIN.replace("draft", "second")
        (folder / "second.py").write_text(text)
        until("started anew: second.py")
        with connect(f"{served.socket_url}?token={served.token}", proxy=None) as client:
            client.send('{"type":"second.ask"}')
            assert json.loads(client.recv(timeout=10))["type"] == "second.answer"
        assert "Traceback" not in served.stop()


BROKEN = "import pov_rt.cli.main as m, pov_rt.cli.node.serve as s; s.registry_of = None; m.main()"


@pytest.mark.parametrize(
    ("command", "wrong", "words"),
    [
        (COMMAND, "[server]\nprot = 1\n", "server.prot"),
        ([sys.executable, "-c", BROKEN], "", "TypeError: 'NoneType' object is not callable"),
    ],
)
def test_what_stops_the_start_is_waited_for_under_dev(
    tmp_path: Path, command: list[str], wrong: str, words: str
) -> None:
    file = tmp_path / "pov-rt.toml"
    file.write_text(wrong)
    flags = ["--dev", "--port", "0", "--admin-port", "0", "--config", str(file)]
    with running(
        [*command, "serve", *flags], env=environment(tmp_path), stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        waiting = "Waiting for a change; Ctrl-C ends this."
        assert words in read_until(process.stderr, waiting)
        file.write_text("[server]\n")
        if wrong:
            assert "started anew: pov-rt.toml" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        else:  # it has been started anew, which does not mend this
            assert words in read_until(process.stderr, waiting)


def test_a_changed_schema_of_activities_restarts_the_server_when_it_is_good(tmp_path: Path) -> None:
    file, schema = tmp_path / "pov-rt.toml", tmp_path / "task.json"
    file.write_text('[activities."task.completed"]\ndetails = "task.json"\n')
    schema.write_text('{"type": "objekt"}')
    flags = ["--dev", "--port", "0", "--admin-port", "0", "--config", str(file)]
    with running(
        [*COMMAND, "serve", *flags], env=environment(tmp_path), stderr=subprocess.PIPE
    ) as process:
        said = read_until(process.stderr, "Waiting for a change")
        assert f'activities."task.completed".details: {schema}: type is' in said
        schema.write_text("{}")
        read_until(process.stderr, "started anew: task.json")
        schema.write_text('{"required": "title"}')
        assert "task.json: #/required is no" in read_until(process.stderr, "goes on as it was")
        schema.write_text('{"required": ["title"]}')
        read_until(process.stderr, "started anew: task.json")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
