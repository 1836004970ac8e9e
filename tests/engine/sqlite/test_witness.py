"""A database that somebody put into the other's place by hand is known, and gets another epoch."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pov_rt.engine.base import Appended, NewEntry
from pov_rt.engine.sqlite import witness
from pov_rt.engine.sqlite.backups import back_up, renew, restore
from pov_rt.engine.sqlite.members import remove_member
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock
from tests.engine.sqlite_parts import opened, rows

TOPICS = ("pov/a", "pov/b", "team/main")


class Place:
    """A database's folder, and the server's runs there.

    `told` has what publishers were told of, by its place: no two entries may have one, and none may
    be gone as long as its epoch is the one in use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "pov-rt.db"
        self.told: dict[tuple[str, str, int], bytes] = {}
        self.epoch = ""
        self.number = 0

    def run(self, appends: int = 2, *, killed: bool = False, during: Any = None) -> str:
        """Start, append, and stop; or leave behind what a killed server does. Return the epoch.

        `during` is called between two halves of the entries.
        """

        async def work() -> None:
            engine: Any
            async with opened(self.path) as (engine, _):
                self.epoch = engine.epoch
                await self.look(engine)
                for half in (0, 1):
                    for _ in range(appends):
                        await self.append(engine)
                    if half == 0 and during is not None:
                        during()
                if killed:
                    engine.witness.let_go()
                    left.update(
                        (path, path.read_bytes())
                        for path in self.folder.iterdir()
                        if path.name.endswith((".db", "-wal"))
                    )

        left: dict[Path, bytes] = {}
        asyncio.run(work())
        for path, content in left.items():
            path.write_bytes(content)
        return self.epoch

    async def append(self, engine: Any) -> None:
        self.number += 1
        body = b"%d" % self.number
        topic = TOPICS[self.number % 2]
        (done,) = await engine.log.append(
            [NewEntry(topic, "p", str(self.number), body, feed=TOPICS[2])]
        )
        assert isinstance(done, Appended)
        assert self.told.setdefault((topic, done.epoch, done.offset), body) == body

    async def look(self, engine: Any) -> None:
        """Find all that publishers were told, if its epoch goes on."""
        for topic in TOPICS[:2]:
            page = await engine.log.read(topic, 0, 1000)
            found = {entry.offset: entry.body for entry in page.entries}
            for (name, epoch, offset), body in self.told.items():
                if (name, epoch) == (topic, page.top.epoch):
                    assert found[offset] == body


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "data"
    folder.mkdir()
    return Place(folder)


def copy_database(place: Place, to: Path) -> None:
    """Copy the database's file, and its log if there is one, as `cp pov-rt.db* there` does."""
    to.mkdir(exist_ok=True)
    for name in ("pov-rt.db", "pov-rt.db-wal"):
        (to / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copy2(place.folder / name, to / name)


def back_up_database(place: Place, to: Path) -> None:
    to.mkdir(exist_ok=True)
    back_up(place.path, to / "pov-rt.db")


def copy_folder(place: Place, to: Path) -> None:
    shutil.copytree(place.folder, to)


def put_files(saved: Path, place: Place) -> None:
    """Copy over what is there; what is beside it stays, a write-ahead log, too."""
    shutil.copytree(saved, place.folder, dirs_exist_ok=True)


def put_files_alone(saved: Path, place: Place) -> None:
    for name in ("pov-rt.db-wal", "pov-rt.db-shm"):
        (place.folder / name).unlink(missing_ok=True)
    put_files(saved, place)


def move_files(saved: Path, place: Place) -> None:
    """Put other files into the place of those that are there."""
    for path in saved.iterdir():
        path.rename(place.folder / path.name)


def swap_folder(saved: Path, place: Place) -> None:
    shutil.rmtree(place.folder)
    shutil.copytree(saved, place.folder)


SAVES: tuple[Callable[[Place, Path], None], ...] = (back_up_database, copy_database, copy_folder)
PUTS = (put_files, put_files_alone, move_files, swap_folder)


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("when", ["running", "stopped", "earlier"])
def test_what_is_put_into_place_by_hand_has_another_epoch(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save: Any,
    put: Any,
    killed: bool,
    when: str,
) -> None:
    if killed and when == "running":
        monkeypatch.setattr(witness, "RENEW_S", -1.0)  # the copy is ten minutes old
    saved = tmp_path / "saved"
    place.run()
    if when == "running":
        before = place.run(killed=killed, during=lambda: save(place, saved))
    else:
        save(place, saved)
        before = place.run(killed=killed)
        if when == "earlier":
            place.run(killed=killed)
    put(saved, place)
    after = place.run()
    assert after != before
    assert place.run() == after, "once, not at each start"
    assert rows(place.path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_that_starts_again_keeps_its_epoch(place: Place, killed: bool) -> None:
    first = place.run(killed=killed)
    assert [place.run(appends, killed=killed) for appends in (0, 1, 0, 3)] == [first] * 4
    moved = place.folder.rename(place.folder.with_name("elsewhere"))
    place.folder, place.path = moved, moved / "pov-rt.db"
    os.chmod(f"{place.path}.witness", 0o660)  # as a volume that is given to another group
    assert place.run() == first


def test_a_database_of_an_older_version_keeps_its_epoch(place: Place) -> None:
    first = place.run(killed=True)
    Path(f"{place.path}.witness").unlink()
    with closing(sqlite3.connect(place.path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta WHERE name IN ('run', 'gone')")
    assert place.run() == first


def test_restore_and_renew_change_the_epoch_once_and_nobody_is_warned(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = place.run()
    back_up(place.path, tmp_path / "backup")
    place.run()
    restore(place.path, tmp_path / "backup")
    restored = place.run()
    assert place.run() == restored != first
    renewed = renew(place.path)
    assert place.run() == renewed != restored
    assert not [each for each in caplog.records if "copied into place" in each.message]


def test_a_log_that_is_another_files_is_set_aside_also_by_commands(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.run()
    back_up(place.path, tmp_path / "backup")
    place.run(killed=True)
    shutil.copyfile(tmp_path / "backup", place.path)
    assert not remove_member(place.path, "revocations", "all")
    assert [each.message for each in caplog.records if "was put beside it" in each.message]
    assert Path(f"{place.path}-wal.old").stat().st_size > 0
    assert rows(place.path, "SELECT count(*) FROM bodies") == [(4,)]


def test_forgotten_topics_count_on(place: Place) -> None:
    async def work(clock: ManualClock) -> str:
        async with opened(place.path, clock, max_age_s=10.0, id_window_s=10.0) as (engine, _):
            await engine.log.append([NewEntry("pov/a", "p", "1", b"1")])
            clock.advance(4000)
            while await engine.read(lambda each: each.execute("SELECT 1 FROM topics").fetchone()):
                clock.advance(600)  # a round may have begun just before
                await engine.log.append([])
                await asyncio.sleep(0.01)
            return engine.epoch

    clock = ManualClock()
    first = asyncio.run(work(clock))
    assert place.run(1) == first


def test_on_a_full_disk_a_known_database_is_opened_and_another_is_not(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    first = place.run()
    back_up(place.path, tmp_path / "backup")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("pov_rt.engine.sqlite.witness.os.fsync", refuse)
        assert place.run() == first
        assert "No space left" in caplog.text
        shutil.copyfile(tmp_path / "backup", place.path)
        with pytest.raises(Unavailable, match=r"\.witness"):
            place.run()
    assert place.run() != first


steps = st.sampled_from(
    ["run", "kill", "save backup", "save files", "save folder", "put", "put alone", "move", "swap"]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(steps, st.integers(0, 2)), max_size=10))
def test_no_place_has_two_entries_and_none_is_gone_whatever_is_copied(
    tmp_path_factory: pytest.TempPathFactory, course: list[tuple[str, int]]
) -> None:
    base = tmp_path_factory.mktemp("model")
    (base / "data").mkdir()
    place, saved, count = Place(base / "data"), [], 0
    place.run()
    ways: dict[str, Any] = dict(zip(("put", "put alone", "move", "swap"), PUTS, strict=True))
    kept: dict[str, Any] = dict(zip(("backup", "files", "folder"), SAVES, strict=True))
    for step, number in course:
        if step in ("run", "kill"):
            place.run(number, killed=step == "kill")
        elif step.startswith("save"):
            count += 1
            saved.append(base / str(count))
            kept[step.removeprefix("save ")](place, saved[-1])
        elif saved:
            # A copy of the copy: it may be put back twice.
            copy = base / f"copy-{(count := count + 1)}"
            shutil.copytree(saved[number % len(saved)], copy)
            ways[step](copy, place)
    place.run()


def test_restore_and_renew_keep_producers_numbers(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def append(key: str, seq: int) -> bool:
        async with opened(path) as (engine, _):
            (done,) = await engine.log.append(
                [NewEntry("pov/a", "p", key, b"{}", producer="spool", seq=seq)]
            )
        assert isinstance(done, Appended)
        return done.duplicate

    assert asyncio.run(append("1", 5)) is False
    back_up(path, tmp_path / "backup")
    assert asyncio.run(append("2", 6)) is False
    restore(path, tmp_path / "backup")
    assert asyncio.run(append("3", 5)) is True
    assert asyncio.run(append("2", 6)) is False, "it is not in the backup, and comes again"
    renew(path)
    assert asyncio.run(append("4", 6)) is True
