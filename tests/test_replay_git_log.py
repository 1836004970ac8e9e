"""A repository's history reaches clients that nobody here wrote: each commit once, in order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.processes import Served, running, serve

ROOT = Path(__file__).parent.parent
ODD = [
    ("Zoë 🦄", "plain"),
    ("عربي", "\u202eright to left\u202c and back"),
    ("a\tb", "tab\tand \x1b[31mcolour"),
    ("e\u0301 é", "the same letter twice"),
    ("x" * 300, "s" * 5000),
    ("\u2028", "line separator \u2028 inside"),
]


def git(folder: Path, *arguments: str, **environ: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **environ}
    ).stdout


@pytest.fixture
def odd_repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    for name, subject in ODD:
        git(
            tmp_path,
            *("-c", f"user.name={name}", "-c", "user.email=x@y.example", "commit"),
            *("-q", "--allow-empty", "--no-gpg-sign", "-m", subject),
        )
    return tmp_path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """What `scripts/run` starts."""
    folder = tmp_path_factory.mktemp("served")
    with serve(folder, program=[str(ROOT / "scripts/run")]) as served:
        yield served
        assert "Traceback" not in served.stop()


def replay(repository: Path, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/replay_git_log"), str(repository), *arguments],
        env={**os.environ, "POV_RT_TOKEN": token, "LC_ALL": "C.UTF-8"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check(served: Served, repository: Path, data: Path, pov: str) -> None:
    """Replay to a command, a Python client and a Node client that know nothing but the contract."""
    commits = git(repository, "log", "--reverse", "--format=%H").split()
    assert commits
    url = f"{served.socket_url}?token={served.token}"
    following = follow(
        *(sys.executable, "-m", "pov_rt.cli", "tail", pov, "--count", str(len(commits))),
        *("--url", served.url, "--data", str(data)),
    )
    following_too = follow("node", "tests/node/follow.mjs", url, pov, str(len(commits)))
    where = ["--url", served.url, "--data", str(data), "--pov", pov]
    with following as tail, following_too as node, connect(url, proxy=None) as plain:
        plain.send(json.dumps({"type": "subscribe", "povId": pov}))
        assert json.loads(plain.recv(timeout=10))["type"] == "subscribed"
        for client in (tail, node):
            assert client.stderr is not None
            assert client.stderr.readline().startswith("following")
        done = replay(repository, *where)
        assert done.returncode == 0, done.stderr
        assert done.stderr == f"{len(commits)} published\n"
        received = [json.loads(plain.recv(timeout=10)) for _ in commits]
        outputs = [client.communicate(timeout=20)[0] for client in (tail, node)]
        # Once more, and nobody hears of it.
        again = replay(repository, *where)
        assert again.stderr == f"0 published, {len(commits)} there already\n"
        plain.send('{"type":"ping"}')
        assert plain.recv(timeout=10) == '{"type":"pong"}'
    assert [each["data"]["id"] for each in received] == commits
    assert [each["offset"] for each in received] == list(range(1, len(commits) + 1))
    for output in outputs:
        followed = [json.loads(line) for line in output.split("\n")[:-1]]
        assert followed == [{**each["data"], "offset": each["offset"]} for each in received]


def follow(*command: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return running(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def data(served: Served) -> Path:
    (folder,) = re.findall(r"--data (\S+)", served.text)[:1]
    return Path(folder)


def test_this_repositorys_history_arrives_once_and_in_order(served: Served, data: Path) -> None:
    check(served, ROOT, data, "this")


def test_odd_names_and_subjects_arrive_as_they_are(
    served: Served, data: Path, odd_repository: Path
) -> None:
    check(served, odd_repository, data, "odd")


def test_what_has_no_commits_is_named(tmp_path: Path) -> None:
    for words in ("No such file", "not a git repository", "does not have any commits"):
        folder = tmp_path / ("absent" if words == "No such file" else "")
        if words.startswith("does"):
            git(tmp_path, "init", "-q")
        done = replay(folder)
        assert done.returncode == 1
        assert f"cannot read the commits of {folder}: fatal: " in done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
