"""`pov-rt token`, `publish` and `tail` as processes: what a user types and sees."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pov_rt.auth.grants import Kind
from pov_rt.testing import RunningServer
from tests.auth.apps import app_token
from tests.processes import COMMAND, SECRET, environment, read_until, run, running, serve

ONE = '{"type":"task","action":"done","povId":"demo","userId":"cy"}\n'


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
            "line 4: There is no field 'typ'; did you mean 'type'? (invalid_activity)\n"
            "3 published, 1 there already, 1 refused\n"
        )
        last = json.loads(tail.stdout.readline())
        assert (last["id"], last["userId"], last["offset"]) == ("a-1", "cy", 3)
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
        with start(tmp_path, "tail", "demo", "--once", *given) as tail:
            assert tail.stderr is not None
            assert tail.stderr.readline().startswith("following demo")
            served.stop()
            _, err = tail.communicate(timeout=20)
    assert (tail.returncode, "closed the connection: 4000 restarting" in err) == (1, True)


def test_client_commands_find_the_server_of_their_settings_and_tail_outlives_it(
    tmp_path: Path,
) -> None:
    unix = str(tmp_path / "rt.sock")
    where = {"POV_RT_SERVER__UNIX": unix, "POV_RT_SERVER__ALLOWED_HOSTS": "rt.example"}
    command = [*COMMAND, "serve", "--dev", "--data", str(tmp_path / "data"), "--admin-port", "0"]

    def up() -> AbstractContextManager[subprocess.Popen[str]]:
        return running(
            command,
            env=environment(tmp_path) | where | {"PYTHONUNBUFFERED": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def publish(count: int) -> None:
        more = {**where, "POV_RT_SERVER__DATA": str(tmp_path / "data")}
        with start(tmp_path, "publish", **more) as publishing:
            _, err = publishing.communicate(ONE * count, timeout=20)
            assert err == f"{count} published\n"

    given = {**where, "POV_RT_SERVER__DATA": str(tmp_path / "data"), "PYTHONIOENCODING": "ascii"}
    with up() as first:
        read_until(first.stdout, "listens on")
        with start(tmp_path, "tail", "demo", "--count", "5", **given) as tail:
            assert tail.stderr is not None
            assert tail.stderr.readline().startswith("following demo")
            publish(2)
            first.send_signal(signal.SIGTERM)
            assert first.wait(20) == 0
            assert "(4000 restarting); trying again" in tail.stderr.readline()
            with up() as second:
                read_until(second.stdout, "listens on")
                publish(3)
                out, err = tail.communicate(timeout=30)
                done = [json.loads(line)["offset"] for line in out.splitlines()]
                assert (done, tail.returncode) == ([1, 2, 3, 4, 5], 0)
                assert "again" in err
                for since, count in (("3", 2), ("10m", 5), ("2020-01-01T00:00:00Z", 5)):
                    command_line = ["tail", "demo", "--since", since, "--count", str(count)]
                    with start(tmp_path, *command_line, **given) as late:
                        out, _ = late.communicate(timeout=20)
                    offsets = [json.loads(line)["offset"] for line in out.splitlines()]
                    assert offsets == list(range(6 - count, 6))


POLL = '''"""A plugin with a grant of its own."""
from pov_rt.plugin import Plugin

plugin = Plugin("poll", grants=["poll.vote"])
'''


class TestToken:
    def test_it_prints_the_token_alone_and_says_beside_it_when_it_ends(
        self, tmp_path: Path
    ) -> None:
        done = run(tmp_path, "token", "--user", "ana", "--ttl", "5m", POV_RT_AUTH__SECRETS=SECRET)
        assert done.returncode == 0
        end = jwt.decode(done.stdout.strip(), SECRET, ["HS256"], {"verify_aud": False})["exp"]
        (said,) = re.findall(r"it ends at (\S+); --ttl says when\n", done.stderr)
        assert abs(datetime.fromisoformat(said).timestamp() - end) < 1
        assert done.stdout.count(".") == 2
        assert len(done.stdout.split()) == 1

    def test_a_grant_that_there_is_not_is_warned_of(self, tmp_path: Path) -> None:
        (tmp_path / "poll.py").write_text(POLL)
        more = {"POV_RT_AUTH__SECRETS": SECRET, "POV_RT_SERVER__PLUGINS_DIR": str(tmp_path)}
        asked = ("token", "--user", "ana", "--can", "subscribe,poll.vote,publsh")
        done = run(tmp_path, *asked, **more)
        assert (done.returncode, done.stdout.count(".")) == (0, 2)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        assert line.startswith("warning: there is no grant 'publsh' (did you mean 'publish'?)")

    @pytest.mark.parametrize("ttl", ["0s", "-1h", "1", "1y", "h", "inf"])
    def test_a_wrong_duration_is_named(self, tmp_path: Path, ttl: str) -> None:
        done = run(tmp_path, "token", "--user", "ana", f"--ttl={ttl}", POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, "is no duration" in done.stderr) == (2, True)

    def test_a_wrong_id_is_named(self, tmp_path: Path) -> None:
        done = run(tmp_path, "token", "--user", "*", POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, "reserved" in done.stderr) == (1, True)


class TestTokenCheck:
    """`pov-rt token check` says what the server would do."""

    def check(self, tmp_path: Path, token: str, *more: str, **settings: str) -> tuple[int, str]:
        secret = {"POV_RT_AUTH__SECRETS": SECRET}
        done = run(tmp_path, "token", "check", *more, given=token, **secret | settings)
        assert "Traceback" not in done.stderr
        assert token not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    def test_a_good_one_with_its_doors_and_grants(self, tmp_path: Path) -> None:
        token = app_token(SECRET, exp=time.time() + 3.3 * 3600, povs=["a", "b"], teamId="north")
        for given in (token, f"{token}\n", f"  Bearer {token}\r\n"):
            code, said = self.check(tmp_path, given)
            assert code == 0
            assert re.fullmatch(
                r"good until \S+Z, for 3 h\n"
                r"  user +alice\n  team +north\n"
                r"  for +access \(GET /api/auth/ws-token\), socket \(/ws/\)\n"
                r"  povs +a, b\n  can +collaborate, subscribe\n"
                r"  signed +HS256, by key 1 of 1\n",
                said,
            )
        done = run(tmp_path, "token", "check", token, POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, done.stdout) == (0, said)

    @pytest.mark.parametrize(
        ("claims", "settings", "words"),
        [
            ({"exp": 1e9}, {}, "expired: it ended at 2001-09-09T01:46:40.000Z, "),
            ({"aud": "api"}, {}, "refused: the audience is another: 'api' instead of"),
            ({"aud": "api"}, {"AUDIENCES": '["api"]'}, "good until "),
            ({"userId": None, "sub": "x"}, {}, "refused: it has no userId, which would say whose"),
            ({"userId": None, "sub": 5}, {"USER_CLAIM": "sub"}, "good until "),
            (
                {"iss": "me"},
                {"ISSUER": "you"},
                "refused: the issuer is another: 'me' and not 'you'",
            ),
            ({"povs": None}, {}, "refused: povs has to be '*' or a list of ids, and is null"),
            ({"userId": "a\x1b[1m"}, {}, "refused: userId: "),
            ({"secret": "another secret of more than 32 bytes"}, {}, "refused: no key has signed"),
        ],
    )
    def test_every_other_with_the_reason(
        self, tmp_path: Path, claims: dict[str, Any], settings: dict[str, str], words: str
    ) -> None:
        given = {f"POV_RT_AUTH__{name}": value for name, value in settings.items()}
        more = {"exp": time.time() + 60} | claims
        token = app_token(more.pop("secret", SECRET), **more)
        code, said = self.check(tmp_path, token, **given)
        assert said.startswith(words)
        assert code == (0 if words.startswith("good") else 1)
        assert "\x1b" not in said
        if words.startswith("refused"):
            assert ("nobody signed that it says" in said) == ("secret" in claims)
            assert '"exp": ' in said

    @pytest.mark.parametrize("text", ["", "\n", "x", "a.b.c", "a.b.c.d.e", "\xff", "x" * 100_000])
    def test_what_is_no_token(self, tmp_path: Path, text: str) -> None:
        done = run(tmp_path, "token", "check", given=text, POV_RT_AUTH__SECRETS=SECRET)
        assert (done.returncode, done.stdout.partition(": ")[0]) == (1, "refused")
        assert ("encrypted" in done.stdout) == (text == "a.b.c.d.e")

    def test_keys_are_fetched_as_the_server_does(self, tmp_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        token = jwt.encode({"sub": "ana", "exp": time.time() + 60}, key, "ES256", {"kid": "k"})
        settings = {"POV_RT_AUTH__USER_CLAIM": "sub"}
        with serving(json.dumps({"keys": [jwk | {"kid": "k"}]}).encode()) as url:
            code, said = self.check(tmp_path, token, POV_RT_AUTH__JWKS_URL=url, **settings)
            assert (code, "by key 2 of 2" in said) == (0, True)
        code, said = self.check(tmp_path, token, POV_RT_AUTH__JWKS_URL=url, **settings)
        assert (code, "the keys are of HS256" in said) == (1, True)
        assert f"warning: no keys from auth.jwks_url, {url}" in said

    def test_one_that_was_revoked(self, tmp_path: Path) -> None:
        with serve(tmp_path) as served:
            given = ["--data", str(tmp_path / "data")]
            ana = run(tmp_path, "token", "--user", "ana", *given).stdout.strip()
            can = ["--kind", "service", "--can", "operate"]
            operator = run(tmp_path, "token", "--user", "op", *can, *given).stdout.strip()
            assert run(tmp_path, "token", "check", ana, *given).returncode == 0
            request = Request(
                f"{served.url}/api/tokens/revoke",
                json.dumps({"userId": "ana"}).encode(),
                {"Authorization": f"Bearer {operator}", "Content-Type": "application/json"},
            )
            urlopen(request).close()
            done = run(tmp_path, "token", "check", ana, *given)
            assert (done.returncode, done.stdout.splitlines()[0]) == (
                1,
                "revoked: `pov-rt db revocations` says by what",
            )
            served.stop()

    def test_options_stand_behind_it(self, tmp_path: Path) -> None:
        for words, code in ((["--dev", "check", "x"], 2), (["check", "x", "--dev"], 1), ([], 2)):
            done = run(tmp_path, "token", *words, POV_RT_AUTH__SECRETS=SECRET)
            assert done.returncode == code, done


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """Answer every request with this body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        finally:
            server.shutdown()
            thread.join()


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
