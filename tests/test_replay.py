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
    tail = follow(
        *(sys.executable, "-m", "pov_rt.cli", "tail", "repo", "--count", str(len(commits))),
        *("--url", f"ws://{server.address}/ws/", "--token", server.token("ben")),
    )
    url = f"ws://{server.address}/ws/?token={server.token('eve')}"
    node = follow("node", "tests/node/follow.mjs", url, "repo", str(len(commits)))
    with tail, node:
        for client in (tail, node):
            assert client.stderr is not None
            assert client.stderr.readline().startswith("following")
        done = subprocess.run(
            [
                *(sys.executable, str(ROOT / "scripts/replay_git_log"), str(repository)),
                *("--url", f"http://{server.address}", "--pov", "repo"),
            ],
            env={**os.environ, "POV_RT_TOKEN": server.token("git", Kind.SERVICE)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        received = [plain.receive() for _ in commits]
        outputs = [client.communicate(timeout=20)[0] for client in (tail, node)]
    assert [each["data"]["id"] for each in received] == commits
    assert [each["offset"] for each in received] == list(range(1, len(commits) + 1))
    for output in outputs:
        followed = [json.loads(line) for line in output.split("\n")[:-1]]
        assert followed == [{**each["data"], "offset": each["offset"]} for each in received]


def follow(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_this_repositorys_history_arrives_once_and_in_order(server: RunningServer) -> None:
    check(server, ROOT)


def test_odd_names_and_subjects_arrive_as_they_are(
    server: RunningServer, odd_repository: Path
) -> None:
    check(server, odd_repository)
