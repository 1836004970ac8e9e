"""`pov-rt explain` against a server that runs: the answer first, then the line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pov_rt.testing import SECRET
from tests.processes import COMMAND, environment, read_until, run, running
from tests.server.trace.plant import Plant, planted


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    with planted() as made:
        phone, laptop = made.follow("phone"), made.follow("laptop")
        offset = made.publish(details={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
        made.get(phone)
        made.get(laptop)
        phone.request({"type": "ack", "povId": "acme", "offset": offset, "shown": True})
        yield made


def where(plant: Plant) -> dict[str, str]:
    host, _, port = plant.server.address.partition(":")
    return {
        "POV_RT_AUTH__SECRETS": json.dumps([SECRET]),
        "POV_RT_AUTH__DEFAULT_POVS": "*",
        "POV_RT_SERVER__HOST": host,
        "POV_RT_SERVER__PORT": port,
    }


def explain(plant: Plant, folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "explain", *given, **where(plant))


def test_the_answer_comes_first_and_then_a_lane_a_device(plant: Plant, tmp_path: Path) -> None:
    done = explain(plant, tmp_path, "x", "--user", "ana")
    assert done.returncode == 0, done.stderr
    first, since, following, *rest = done.stdout.splitlines()
    assert first == "phone has it and showed it  [shown]"
    assert since.startswith("  since  ")
    assert following.startswith("  next   ")
    assert "x: task done by ben, #1 of PoV acme, published by service:app" in rest
    assert any(line.startswith("traceparent 00-aaaa") for line in rest)
    lanes = [line for line in rest if line.startswith(("device", "laptop", "phone"))]
    assert lanes[0].split()[1:] == [
        "published", "log", "node", "queue", "socket", "acknowledged", "shown",
    ]  # fmt: skip
    assert [line.split()[-1] for line in lanes[1:]] == ["written", "shown"]


def test_one_device_is_asked_about_alone_and_programs_get_json(
    plant: Plant, tmp_path: Path
) -> None:
    done = explain(plant, tmp_path, "x", "--user", "ana", "--device", "laptop", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["cause"], found["delivered"]) == ("written", True)
    assert [lane["device"] for lane in found["lanes"]] == ["laptop"]


def test_what_no_device_has_is_exit_1(plant: Plant, tmp_path: Path) -> None:
    done = explain(plant, tmp_path, "none", "--user", "ana")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith("[unknown]")


def test_a_question_that_is_not_whole_is_told_how_it_goes(plant: Plant, tmp_path: Path) -> None:
    for given in (["x"], ["--user", "ana"], ["--trace"], ["x", "--trace", "--user", "ana"]):
        done = explain(plant, tmp_path, *given)
        assert done.returncode == 2
        assert "say" in done.stderr


def test_what_happens_is_followed(plant: Plant, tmp_path: Path) -> None:
    command = [*COMMAND, "explain", "--trace", "--user", "ana"]
    env = environment(tmp_path) | where(plant)
    with running(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE) as process:
        # What is in memory comes first: who has read of it is told of what follows.
        read_until(process.stdout, "joined")
        plant.follow("tablet", pov="other")
        told = read_until(process.stdout, "povId=other")
        assert "device=tablet" in told.splitlines()[-1]
