"""The demo's board keeps what was done to it, once it has been written."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pov_rt.protocol.messages import NewActivity
from pov_rt.runtime.clock import SystemClock
from pov_rt.web.demo.board import MAX_TASKS, MAX_TITLE_CHARS, Board, Refused, Unknown
from pov_rt.web.demo.content import Pov, Task

POV = "mossgate-bank"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "demo.json"


def open_board(path: Path | None = None) -> Board:
    return Board(path, SystemClock())


def pov_of(board: Board) -> Pov:
    return board.state.povs[0]


def task_of(board: Board, task_id: str) -> Task:
    task = pov_of(board).find(task_id)
    assert task is not None
    return task


def test_what_was_done_is_there_after_a_restart(path: Path) -> None:
    board = open_board(path)
    assert board.add_task(POV, "new", "A  new\none ", "ana")
    assert board.set_done(POV, "audit-log-export", done=True)
    assert board.move(POV, "Decide")
    board.told()
    again = open_board(path)
    assert again.state == board.state
    assert task_of(again, "new") == Task("new", "A new one", "ana")
    assert task_of(again, "audit-log-export").done
    assert (pov_of(again).phase, again.state.is_told) == (3, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_is_so_already_is_no_news() -> None:
    board = open_board()
    assert board.add_task(POV, "new", "New", "ana")
    assert not board.add_task(POV, "new", "Another", "ana")
    assert board.set_done(POV, "new", done=True)
    assert not board.set_done(POV, "new", done=True)
    assert board.set_done(POV, "new", done=False)
    assert board.move(POV, "Decide")
    assert not board.move(POV, "Decide")


def test_what_there_is_not_is_unknown() -> None:
    board = open_board()
    before = board.state
    with pytest.raises(Unknown):
        board.add_task("nowhere", "new", "New", "ana")
    with pytest.raises(Unknown):
        board.set_done(POV, "nothing", done=True)
    with pytest.raises(Unknown):
        board.move(POV, "Celebrate")
    with pytest.raises(Unknown):
        board.move("nowhere", "Decide")
    assert board.state is before


def test_the_board_is_bounded() -> None:
    board = open_board()
    for title in ("", "  ", "x" * (MAX_TITLE_CHARS + 1)):
        with pytest.raises(Refused, match=str(MAX_TITLE_CHARS)):
            board.add_task(POV, "new", title, "ana")
    for number in range(MAX_TASKS - len(pov_of(board).tasks)):
        assert board.add_task(POV, f"t-{number}", "x" * MAX_TITLE_CHARS, "ana")
    with pytest.raises(Refused, match=str(MAX_TASKS)):
        board.add_task(POV, "one-more", "One more", "ana")


def test_it_can_begin_anew(path: Path) -> None:
    board = open_board(path)
    first = board.state
    board.set_done(POV, "audit-log-export", done=True)
    board.told()
    board.reset()
    assert board.state.povs == first.povs
    assert board.state.begun != first.begun
    assert board.state.since >= first.since
    assert not board.state.is_told
    assert open_board(path).state == board.state


def test_what_cannot_be_written_has_not_been_done(path: Path) -> None:
    board = open_board(path)
    path.with_suffix(".new").mkdir()  # as good as a full disk
    with pytest.raises(IsADirectoryError):
        board.set_done(POV, "audit-log-export", done=True)
    assert not task_of(board, "audit-log-export").done


@pytest.mark.parametrize("text", [b"", b"{", b'{"povs": 1}', b"\0\xff", b"[" * 100_000])
def test_a_damaged_file_is_said_and_begun_anew(
    path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(text)
    assert open_board(path).state.povs == open_board().state.povs
    assert "demo.json is damaged" in caplog.text


def test_an_activity_gets_what_the_board_knows_of_it() -> None:
    board = open_board()

    def described(**parts: str) -> object:
        activity = NewActivity(type="t", action="a", pov_id=POV, user_id="ana", details={**parts})
        return board.describe(activity).details

    href = f"/demo/board?pov={POV}"
    assert described(task="rotterdam") == {
        "title": "Answers under 200 ms from Rotterdam",
        "task": "rotterdam",
        "href": f"{href}&task=rotterdam",
    }
    board.move(POV, "Set up")
    moved = {"title": "Mossgate Bank", "href": href, "from": "Prove", "to": "Set up"}
    assert described(to="Set up") == moved
