"""`pov-rt user` and `pov-rt pov`, at a server that runs and on the files of one that does not."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pov_rt.activities.publishing import Publisher
from pov_rt.protocol.messages import NewActivity
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.clients import place, subscribe
from tests.processes import COMMAND, environment, run, running
from tests.server.test_people import EVE, MARK, Stage, files_of, live, publish, stage, wait_for

__all__ = ["stage"]

NUMBERS = (
    "removed: 5 activities, 0 changed, 1 notifications, 1 inbox, 1 ids, 2 marks, 1 devices, "
    "1 subscriptions, 1 values, {} connections\n"
)


class Operator:
    """Runs the commands in a stage's folder; where no server is asked, without any secret."""

    def __init__(self, stage: Stage, server: RunningServer | None = None) -> None:
        self.folder = stage.folder.parent
        self.environ = {"POV_RT_SERVER__PLUGINS_DIR": str(stage.plugins)}
        if server is not None:
            host, _, port = server.address.partition(":")
            self.environ |= {
                "POV_RT_AUTH__SECRETS": json.dumps([SECRET]),
                "POV_RT_SERVER__HOST": host,
                "POV_RT_SERVER__PORT": port,
            }

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return run(self.folder, *arguments, given=given, **self.environ)

    def do(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


def kinds(text: str) -> Counter[str]:
    return Counter(json.loads(line)["kind"] for line in text.splitlines())


def test_a_running_server_is_asked(stage: Stage) -> None:
    with stage.run() as server:
        eve = live(server)
        operator = Operator(stage, server)
        exported = kinds(operator.do("user", "export", EVE))
        assert exported["activity"] == 5
        assert exported["connection"] == exported["end"] == 1
        assert operator.do("user", "erase", EVE, "--yes") == NUMBERS.format(1)
        assert wait_for(eve, "closing")["code"] == 4500
        assert MARK.encode() not in files_of(stage.folder)
        assert kinds(operator.do("user", "export", EVE)) == {"end": 1}


def test_the_files_of_a_stopped_server_are_worked_on(stage: Stage) -> None:
    with stage.run() as server:
        live(server)
        before = subscribe(server.connect("ben"), "acme")
    operator = Operator(stage)
    exported = kinds(operator.do("user", "export", EVE))
    assert (exported["activity"], exported["connection"], exported["end"]) == (5, 0, 1)
    assert operator.do("user", "erase", EVE, "--yes") == NUMBERS.format(0)
    assert MARK.encode() not in files_of(stage.folder)
    with stage.run() as server:
        publish(server, "ben", "acme", "later")
        ben = server.connect("ben")
        answer = subscribe(ben, "acme", since=place(before))
        assert (answer["recovered"], answer["epoch"]) == (True, before["epoch"])
        assert wait_for(ben, "activity")["data"]["details"] == {"text": "later"}


def test_it_is_asked_first_and_nothing_happens_without_a_yes(stage: Stage) -> None:
    with stage.run() as server:
        live(server)
    operator = Operator(stage)
    for what in (("user", "erase", EVE), ("pov", "delete", "acme")):
        for given in ("", "n\n"):
            done = operator.run(*what, given=given)
            assert done.returncode == 1
            assert "for good?" in done.stderr
    assert kinds(operator.do("user", "export", EVE))["activity"] == 5
    assert operator.run("user", "erase", EVE, given="y\n").stdout == NUMBERS.format(0)


def test_a_pov_is_deleted(stage: Stage) -> None:
    with stage.run() as server:
        live(server)
    operator = Operator(stage)
    words = "removed: 7 activities, 1 subscriptions, 0 ended\n"
    assert operator.do("pov", "delete", "acme", "--yes") == words
    assert kinds(operator.do("user", "export", EVE))["activity"] == 1


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        (("user", "export", "*"), {}, "may not be '*'"),
        (("user", "export", EVE), {"POV_RT_ENGINE__URL": "memory://"}, "there is no secret"),
        (("user", "export", EVE), {"POV_RT_AUTH__TENANTS": "true"}, "say whose id it is: --team"),
        (("user", "export", EVE, "--url", "127.0.0.1:9", "--token", "x"), {}, "nobody listens at"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    stage: Stage, arguments: tuple[str, ...], more: dict[str, str], words: str
) -> None:
    with stage.run():
        pass
    operator = Operator(stage)
    operator.environ |= more
    done = operator.run(*arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_plugin_could_not_do_is_said_and_done_the_next_time(stage: Stage) -> None:
    with stage.run() as server:
        eve = live(server)
        eve.send({"type": "likes.like", "what": "stubborn"})
        eve.request({"type": "ping"})
        operator = Operator(stage, server)
        done = operator.run("user", "export", EVE)
        assert (done.returncode, kinds(done.stdout)["failed"]) == (1, 1)
        assert "a plugin failed" in done.stderr
        done = operator.run("user", "erase", EVE, "--yes")
        assert done.returncode == 1
        assert "these plugins could not erase what they keep: likes" in done.stderr
        assert operator.run("user", "erase", EVE, "--yes").returncode == 0


def left(path: Path) -> int:
    """Return how many activities still have something of the user in them."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        ask = "SELECT count(*) FROM bodies WHERE instr(body, ?) > 0"
        found: tuple[int] = connection.execute(ask, (MARK.encode(),)).fetchone()
        return found[0]


def test_one_that_is_killed_half_way_is_completed_by_the_next(stage: Stage) -> None:
    many = 20_000
    app = Publisher("service:app", "app", "main")
    with stage.run() as server:
        for start in range(0, many, 1000):
            batch = [
                NewActivity(
                    type="t", action="a", pov_id="acme", user_id=EVE if n % 2 else "ben",
                    details={"text": MARK if n % 2 else "ben's"},
                )
                for n in range(start, start + 1000)
            ]  # fmt: skip
            server.run(partial(server.web.server.publishing.publish, batch, app))
        before = subscribe(server.connect("ben"), "acme")
    path = stage.folder / "pov-rt.db"
    all_of_hers = left(path)
    options: dict[str, Any] = {
        "env": environment(stage.folder.parent) | Operator(stage).environ,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    with running([*COMMAND, "user", "erase", EVE, "--yes"], **options) as erasing:
        while left(path) == all_of_hers:
            assert erasing.poll() is None
        erasing.send_signal(signal.SIGKILL)
        assert erasing.wait() == -signal.SIGKILL
    half = left(path)
    assert 0 < half < all_of_hers
    # Nobody is disturbed by what is half done.
    with stage.run() as server:
        ben = server.connect("ben")
        answer = subscribe(ben, "acme", since={"epoch": before["epoch"], "offset": many - 1000})
        assert (answer["recovered"], answer["epoch"]) == (True, before["epoch"])
        offsets = [ben.receive()["offset"] for _ in range(1000)]
        assert offsets == list(range(many - 999, many + 1))
    operator = Operator(stage)
    assert operator.do("user", "erase", EVE, "--yes").startswith(f"removed: {half} activities")
    assert MARK.encode() not in files_of(stage.folder)


def test_with_teams_it_is_said_whose_id_it_is(stage: Stage) -> None:
    stage.settings = make_settings(
        server={"data": str(stage.folder)}, engine={"url": "sqlite://"}, auth={"tenants": True}
    )
    with stage.run() as server:
        for team in ("blue", "red"):
            client = server.connect("eve", team_id=team)
            data = {"type": "t", "action": "a", "povId": "acme", "details": {"team": team}}
            client.request({"type": "publish", "data": data})
        asked = Operator(stage, server)
        asked.environ["POV_RT_AUTH__TENANTS"] = "true"
        words = asked.do("user", "erase", "eve", "--team", "blue", "--yes")
        assert words.startswith("removed: 1 activities")
    operator = Operator(stage)
    operator.environ["POV_RT_AUTH__TENANTS"] = "true"
    assert kinds(operator.do("user", "export", "eve", "--team", "blue")) == {"end": 1}
    line, *_ = operator.do("user", "export", "eve", "--team", "red").splitlines()
    assert json.loads(line)["data"]["details"] == {"team": "red"}
    words = operator.do("pov", "delete", "acme", "--team", "red", "--yes")
    assert words.startswith("removed: 1 activities")
    assert b'"team":' not in files_of(stage.folder)


def test_a_user_is_blocked_and_let_in_again_at_a_server_and_on_its_files(stage: Stage) -> None:
    with stage.run() as server:
        operator = Operator(stage, server)
        eve = live(server)
        done = operator.do("user", "block", EVE, "--for", "1h")
        assert done.startswith("blocked until ")
        assert done.endswith("; 1 connections were closed\n")
        assert wait_for(eve, "closing")["code"] == 4500
    operator = Operator(stage)
    assert f"block {EVE}: the user is blocked until " in operator.do("db", "revocations")
    assert operator.do("user", "unblock", EVE) == "not blocked any more\n"
    assert operator.do("user", "block", EVE, "--for", "7d").endswith(
        "; 0 connections were closed\n"
    )
    with stage.run() as server:
        operator = Operator(stage, server)
        assert operator.do("user", "unblock", EVE) == "not blocked any more\n"
        assert operator.do("user", "unblock", EVE) == "this user was not blocked\n"
        live(server)
