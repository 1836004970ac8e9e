"""How a case is read and compared, and that a client which does something else fails."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tests.cases.case import FOLDER, AnyStep, Case, filled, load, mismatch
from tests.cases.playing_server import Failure, Play

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("pattern", "found", "told"),
    [
        ({"a": 1}, {"a": 1, "more": 2}, None),
        ({"a": None}, {}, None),
        ({"a": None}, {"a": 1}, "a is 1, not None"),
        ({"a": "$x", "b": "$x"}, {"a": 1, "b": 1}, None),
        ({"a": "$x", "b": "$x"}, {"a": 1, "b": 2}, "b is 2, not 1"),
        ({"a": "$x"}, {}, "a is missing"),
        ({"a": "$?x"}, {}, None),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, "a.b.c is 3, not 2"),
        ({"a": []}, {"a": [1]}, "a is [1], not []"),
    ],
)
def test_what_comes_is_compared_with_its_pattern(pattern: Any, found: Any, told: str) -> None:
    assert mismatch(pattern, found, {}) == told


def test_what_is_sent_is_filled_in_and_known_from_then_on() -> None:
    names = {"known": 5}
    assert filled({"a": "$known", "b": ["$new"], "c": None}, names) == {"a": 5, "b": ["new"]}
    assert mismatch({"id": "$new"}, {"id": "new"}, names) is None
    assert mismatch({"id": "$new"}, {"id": "other"}, names) == "id is 'other', not 'new'"


@pytest.mark.parametrize("name", load())
def test_a_case_names_a_section_of_the_protocol(name: str) -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/protocol.md").read_text(), re.M)
    assert load()[name].section in headings


def test_the_steps_stand_in_the_readme_with_their_fields() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (FOLDER.parent / "README.md").read_text(), re.M)
    described = {tag: set(re.findall(r"`(\w+)`", fields)) for tag, fields in rows[1:]}
    steps = {
        each.__struct_config__.tag: set(each.__struct_encode_fields__) for each in get_args(AnyStep)
    }
    assert described == steps


def test_few_cases_cannot_be_brought_about() -> None:
    cases = load().values()
    assert sum(case.scripted is not None for case in cases) * 3 <= len(cases)


SUBSCRIBE = {"step": "app", "does": {"do": "subscribe", "povId": "acme"}}
CONNECTS = {"step": "connects"}

BESIDE = """
import json, sys
from websockets.sync.client import connect
first = json.loads(sys.stdin.readline())
url, token = first["url"].replace("http", "ws"), first["tokens"][0]
with connect(f"{url}/ws/", subprotocols=["pov-rt.v1", f"bearer.{token}"], proxy=None) as socket:
    socket.recv()
    assert json.loads(sys.stdin.readline())["do"] == "close"
    """
"""A client that does all that the shortest case says, and something beside it."""


def play(steps: list[Any], command: list[str]) -> None:
    Play(msgspec.convert({"about": "", "section": "", "steps": steps}, Case)).run(command)


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ("socket.send(json.dumps({'type': 'ack'}))", "sends more"),
        ("print(json.dumps({'shows': 'gap', 'povId': 'acme'}))", "shows more"),
        ("print('hello')", "none of those"),
        ("sys.exit(3)", "ends with 3"),
    ],
)
def test_a_client_that_does_more_fails(beside: str, told: str) -> None:
    with pytest.raises(Failure, match=told):
        play([CONNECTS], [sys.executable, "-c", BESIDE + beside])
    play([CONNECTS], [sys.executable, "-c", BESIDE + "pass"])


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([CONNECTS, {"step": "drops"}, {"step": "away", "seconds": 9}], "opens a con"),
        ([SUBSCRIBE, CONNECTS, {"step": "sends", "message": {"type": "ack"}}], "not "),
        ([CONNECTS, {"step": "drops"}, {"step": "connects", "afterS": 9}], "after"),
    ],
)
def test_a_client_that_does_something_else_fails(steps: list[Any], told: str) -> None:
    with pytest.raises(Failure, match=told):
        play(steps, [sys.executable, "-m", "tests.cases.python_client"])


def test_a_program_that_is_no_client_is_told_so() -> None:
    with pytest.raises(Failure, match="ends with 1"):
        play([], [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit('no')"])
