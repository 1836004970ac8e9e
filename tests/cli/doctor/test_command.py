"""`pov-rt doctor` as people and programs run it."""

from __future__ import annotations

import json
from pathlib import Path

from pov_rt.testing import SECRET, RunningServer
from tests.processes import run


def settings_of(server: RunningServer) -> dict[str, str]:
    return {
        "POV_RT_AUTH__SECRETS": json.dumps([SECRET]),
        "POV_RT_SERVER__ADMIN_PORT": str(server.web.admin_port),
    }


def test_it_looks_at_the_machine_the_node_and_the_way_to_it(
    server: RunningServer, tmp_path: Path
) -> None:
    arguments = ("doctor", "--url", f"http://{server.address}", "--quick")
    done = run(tmp_path, *arguments, "--json", **settings_of(server))
    found = {each["check"]: each for each in json.loads(done.stdout)}
    for check in ("settings", "disk", "SQLite", "clock", "units", "node", "upgrade"):
        assert check in found, done.stderr
    for check in ("node", "reached", "upgrade", "address", "origin", "buffering", "body size"):
        assert found[check]["level"] == "ok", found[check]
    worst = any(each["level"] == "bad" for each in json.loads(done.stdout))
    assert done.returncode == int(worst)
    text = run(tmp_path, *arguments, **settings_of(server)).stdout
    assert f"ok    reached     pov-rt answers at http://{server.address}" in text.splitlines()


def test_what_is_bad_is_said_with_what_mends_it_and_the_exit_code(tmp_path: Path) -> None:
    more = {"POV_RT_AUTH__SECRETS": json.dumps([SECRET]), "POV_RT_SERVER__ADMIN_PORT": "9"}
    done = run(tmp_path, "doctor", **more)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (at,) = [place for place, line in enumerate(lines) if line.startswith("BAD   node")]
    assert "systemctl start pov-rt" in lines[at + 1]
    assert any(line.startswith("-     reached") for line in lines)
    assert SECRET not in done.stdout + done.stderr


def test_without_a_secret_it_says_what_it_cannot_look_at(tmp_path: Path) -> None:
    done = run(tmp_path, "doctor", "--json")
    found = json.loads(done.stdout)
    assert [each["level"] for each in found if each["check"] == "node"] == ["skipped"]
    assert "Traceback" not in done.stderr
