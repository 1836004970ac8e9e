"""`pov-rt token`, `publish` and `tail` as processes: what a user types and sees."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.testing import RunningServer
from tests.processes import COMMAND, SECRET, environment, run, running, serve

ONE = '{"type":"task","action":"done","povId":"demo"}\n'


def start(
    tmp_path: Path, *arguments: str, **more: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    return running(
        [*COMMAND, *arguments],
        env=environment(tmp_path) | more,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_line_is_published_while_others_are_still_to_come(
    server: RunningServer, tmp_path: Path
) -> None:
    address = server.address
    ben, app = server.token("ben"), server.token("app", Kind.SERVICE)
    with (
        start(tmp_path, "tail", "demo", "--url", f"ws://{address}", "--token", ben) as tail,
        start(tmp_path, "publish", "--url", address, POV_RT_TOKEN=app) as publish,
    ):
        assert tail.stderr is not None
        assert tail.stdout is not None
        assert publish.stdin is not None
        assert tail.stderr.readline() == "following demo, 0 activities so far\n"
        for number in range(2):
            publish.stdin.write(ONE)
            publish.stdin.flush()
            assert json.loads(tail.stdout.readline())["offset"] == number + 1
        publish.stdin.write('\n{"typ":"x"}\n' + ONE.replace("{", '{"id":"a-1",') * 2)
        out, err = publish.communicate(timeout=20)
        assert (publish.returncode, out) == (1, "")
        assert err == (
            "line 4: There is no field 'typ' (invalid_activity)\n"
            "3 published, 1 there already, 1 refused\n"
        )
        last = json.loads(tail.stdout.readline())
        assert (last["id"], last["userId"], last["offset"]) == ("a-1", "app", 3)
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=20) == ("", "\n")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_a_line_is_for_people(
    server: RunningServer, tmp_path: Path, no_color: str
) -> None:
    ours, theirs = pty.openpty()
    token = server.token("ben")
    command = ["tail", "demo", "--count", "1", "--url", server.address, "--token", token]
    with running(
        [*COMMAND, *command],
        env=environment(tmp_path) | {"NO_COLOR": no_color, "TZ": "XYZ-5"},
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as tail:
        os.close(theirs)
        assert tail.stderr is not None
        assert tail.stderr.readline().startswith("following demo")
        given = ONE.replace("}", ',"userId":"añb","details":{"n":"\u202e\x9b"}}')
        app = server.token("app", Kind.SERVICE)
        run(tmp_path, "publish", "--url", server.address, "--token", app, given=given)
        line = os.read(ours, 1000).decode()
        assert tail.wait(20) == 0
    os.close(ours)
    at = datetime.now(UTC) + timedelta(hours=5)
    assert any(f"{at - timedelta(seconds=n):%H:%M:%S}" in line for n in range(20))
    words = 'demo añb task.done {"n": "\\u202e\\u009b"}\r\n'
    if no_color:
        assert line.partition(" ")[2] == words
    else:
        assert "\x1b[36mdemo\x1b[0m añb \x1b[1mtask.done\x1b[0m" in line


@pytest.mark.parametrize("command", ["tail", "publish"])
def test_what_is_wrong_with_a_server_is_words(
    server: RunningServer, tmp_path: Path, command: str
) -> None:
    def refusal(url: str, token: str = "x", given: str = ONE) -> str:
        arguments = [command, *(["demo"] if command == "tail" else [])]
        done = run(tmp_path, *arguments, "--url", url, "--token", token, given=given)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "refuses the token (401)" in refusal(server.address)
    assert "nobody listens" in refusal("127.0.0.1:1")
    assert "is no address" in refusal("ftp://x")
    other = refusal(f"127.0.0.1:{server.web.admin_port}")
    assert ("HTTP 400" in other) if command == "tail" else ("answers 404" in other)


def test_tail_says_why_it_ends(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with serve(tmp_path) as served:
        given = ["--url", served.url, "--data", data]
        refused = run(tmp_path, "tail", "a\nb", *given)
        assert refused.returncode == 1
        assert re.search(r"refuses: .*U\+000A.* \(invalid_id povId\)", refused.stderr)
        with start(tmp_path, "tail", "demo", *given) as tail:
            assert tail.stderr is not None
            assert tail.stderr.readline().startswith("following demo")
            served.stop()
            _, err = tail.communicate(timeout=20)
    assert (tail.returncode, "closed the connection: 4000 restarting" in err) == (1, True)


class TestToken:
    def test_it_prints_the_token_alone(self, tmp_path: Path) -> None:
        done = run(tmp_path, "token", "--user", "ana", "--ttl", "5m", POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(".") == 2
        assert len(done.stdout.split()) == 1

    @pytest.mark.parametrize("ttl", ["0s", "-1h", "1", "1y", "h", "inf"])
    def test_a_wrong_duration_is_named(self, tmp_path: Path, ttl: str) -> None:
        done = run(tmp_path, "token", "--user", "ana", f"--ttl={ttl}", POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, "is no duration" in done.stderr) == (2, True)

    def test_a_wrong_id_is_named(self, tmp_path: Path) -> None:
        done = run(tmp_path, "token", "--user", "*", POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, "reserved" in done.stderr) == (1, True)


class TestTheSecret:
    def test_a_development_servers_is_found_by_its_folder(self, tmp_path: Path) -> None:
        data, elsewhere = str(tmp_path / "data"), tmp_path / "elsewhere"
        elsewhere.mkdir()
        with serve(tmp_path) as served:
            for flags in ([], ["--dev"]):
                given = ["--data", data, *flags]
                token = run(elsewhere, "token", "--user", "x", "--kind", "service", *given).stdout
                for bearer in (["--token", token.strip()], given):
                    done = run(elsewhere, "publish", "--url", served.url, *bearer, given=ONE)
                    assert done.stderr == "1 published\n"
            served.stop()

    @pytest.mark.parametrize(
        "command", [["token", "--user", "x"], ["tail", "demo"], ["publish"], ["config", "check"]]
    )
    def test_only_a_server_makes_one(self, tmp_path: Path, command: list[str]) -> None:
        done = run(tmp_path, *command, "--dev")
        assert not (tmp_path / "data").exists()
        if command[0] != "config":
            assert done.returncode == 1
            assert f"there is no {tmp_path}/data/dev-secret" in done.stderr
            assert "--data" in done.stderr
            assert ("--token" in done.stderr) == (command[0] != "token")
