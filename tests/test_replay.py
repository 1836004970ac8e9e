"""A repository's history reaches clients that nobody here wrote: each commit once, in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.testing import RunningServer

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


def check(server: RunningServer, repository: Path) -> None:
    commits = git(repository, "log", "--reverse", "--format=%H").split()
    assert commits
    plain = server.connect("ana", v1=False)
    plain.send('{"type":"subscribe","povId":"repo"}')
    assert plain.receive()["type"] == "subscribed"
    tail = subprocess.Popen(
        [
            *(sys.executable, "-m", "pov_rt.cli", "tail", "repo", "--count", str(len(commits))),
            *("--url", f"ws://{server.address}/ws/", "--token", server.token("ben")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with tail:
        assert tail.stderr is not None
        assert tail.stderr.readline().startswith("following repo")
        url = f"http://{server.address}"
        done = subprocess.run(
            [
                *(sys.executable, str(ROOT / "scripts/replay_git_log"), str(repository)),
                *("--url", url, "--pov", "repo"),
            ],
            env={**os.environ, "POV_RT_TOKEN": server.token("git", Kind.SERVICE)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        received = [plain.receive() for _ in commits]
        out, _ = tail.communicate(timeout=20)
    tailed = [json.loads(line) for line in out.split("\n")[:-1]]
    assert [each["data"]["id"] for each in received] == commits
    assert [each["offset"] for each in received] == list(range(1, len(commits) + 1))
    assert [{**each["data"], "offset": each["offset"]} for each in received] == tailed


def test_this_repositorys_history_arrives_once_and_in_order(server: RunningServer) -> None:
    check(server, ROOT)


def test_odd_names_and_subjects_arrive_as_they_are(
    server: RunningServer, odd_repository: Path
) -> None:
    check(server, odd_repository)
