"""What a failing test has started is gone before the next one, however it fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import end, launch, read_until, running

ROOT = Path(__file__).parent.parent
# A shell that has started another program.
PROGRAM = ["bash", "-c", "sleep 600 & echo started; wait"]

FAILING = f"""
import os
import subprocess
import pytest
from tests.processes import running

HELD = int(os.environ["HELD"])

@pytest.fixture
def program():
    with running({PROGRAM}, stdout=subprocess.PIPE, pass_fds=[HELD]) as program:
        assert program.stdout.readline() == "started\\n"
        yield program

def test_fails(program):
    assert False

@pytest.mark.timeout(1)
def test_hangs(program):
    program.stdout.read()

def test_fails_in_the_block():
    with running({PROGRAM}, pass_fds=[HELD]):
        assert False

def test_leaves_one_behind():
    global left
    left = subprocess.Popen(["cat"], stdin=-1, stdout=-1, pass_fds=[HELD])
    left.stdin.write(b"it runs\\n")  # before that it has no name yet
    left.stdin.flush()
    left.stdout.readline()

def test_comes_after():
    pass
"""


@pytest.fixture
def held() -> Iterator[tuple[int, int]]:
    """The ends of a pipe: reading one comes to an end when no program has the other any more."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.mark.timeout(30)
def test_what_a_failing_test_has_started_is_gone(tmp_path: Path, held: tuple[int, int]) -> None:
    reading, writing = held
    (tmp_path / "test_failing.py").write_text(FAILING)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.conftest"),
            *("-rA", "--import-mode=importlib", "--rootdir", str(tmp_path), str(tmp_path)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HELD": str(writing)},
        pass_fds=[writing],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(writing)
    assert os.read(reading, 1) == b""
    said = re.findall(r"^(PASSED|FAILED|ERROR) \S+::test_(\w+)", done.stdout, re.M)
    assert sorted(said) == [
        ("ERROR", "leaves_one_behind"),
        ("FAILED", "fails"),
        ("FAILED", "fails_in_the_block"),
        ("FAILED", "hangs"),
        ("PASSED", "comes_after"),
        ("PASSED", "leaves_one_behind"),
    ], done.stdout
    assert "left behind: ['cat']" in done.stdout


@pytest.mark.timeout(10)
def test_the_end_of_a_program_is_that_of_what_it_started(held: tuple[int, int]) -> None:
    reading, writing = held
    with running(
        PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[writing]
    ) as program:
        os.close(writing)
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "started\n"
        program.stdin.write("never read")  # and so it cannot be flushed
    assert os.read(reading, 1) == b""
    assert (program.stdin.closed, program.stdout.closed) == (True, True)
    assert program.returncode == -9


def test_one_that_has_ended_keeps_its_status() -> None:
    program = launch(["bash", "-c", "exit 3"])
    assert program.wait(10) == 3
    end(program)
    assert program.returncode == 3


def test_output_that_ends_too_early_is_shown_and_not_waited_for() -> None:
    with (
        running(["echo", "something else"], stdout=subprocess.PIPE) as program,
        pytest.raises(EOFError, match="without a line with 'ready': something else"),
    ):
        read_until(program.stdout, "ready")
