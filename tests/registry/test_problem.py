"""A mistake is told with its place, from the author's file on, and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.registry.discovery import PluginError, load_file
from pov_rt.registry.problem import problem_of

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VySWQiOiJhbmEifQ.c2lnbmF0dXJl"


def load(folder: Path, text: str) -> PluginError:
    path = folder / "poll.py"
    path.write_text(text)
    with pytest.raises(PluginError) as raised:
        load_file(path)
    return raised.value


def test_a_syntax_error_shows_its_line_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    found = problem_of(load(tmp_path / "plugins", "x = 1\ndef ask()\n    pass\n"))
    assert (found.file, found.line) == ("plugins/poll.py", 2)
    assert found.message == "syntax error: expected ':'"
    assert "def ask()" in found.traceback
    assert "discovery.py" not in found.traceback
    assert not found.is_running


def test_what_fails_while_loading_begins_in_the_file(tmp_path: Path) -> None:
    text = f"def ask():\n    return nothing\n\nask()  # {TOKEN}\n"
    found = problem_of(load(tmp_path, text), is_running=True)
    assert (found.file, found.line) == (str(tmp_path / "poll.py"), 2)
    assert found.message == "NameError: name 'nothing' is not defined"
    lines = found.traceback.splitlines()
    assert "poll.py" in lines[1]
    assert "line 2, in ask" in found.traceback
    assert TOKEN not in found.traceback
    assert found.is_running


def test_a_folder_may_be_named_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plugins").mkdir()
    found = problem_of(load(Path("plugins"), "x = 1\nnothing\n"))
    assert (found.file, found.line) == ("plugins/poll.py", 2)
    assert "discovery.py" not in found.traceback


def test_any_other_mistake_has_the_place_where_it_came_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as raised:
        load_file({"token": tmp_path}[f"token={TOKEN}"])
    found = problem_of(raised.value)
    assert found.file.endswith("tests/registry/test_problem.py")
    assert "KeyError" in found.message
    assert TOKEN not in found.message + found.traceback
    assert problem_of(ValueError("never raised")).file == ""
