"""`pov-rt db`: what an operator types, with a server that runs, has stopped or has died."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pov_rt.auth.revocations import Revocations
from pov_rt.cli.main import main
from pov_rt.config.settings import AuthSettings, EngineSettings
from pov_rt.engine.base import Appended, NewEntry, Position
from pov_rt.engine.sqlite import backups
from pov_rt.engine.sqlite.schema import APPLICATION_ID, MIGRATIONS, read_epoch, reading
from pov_rt.protocol.tenants import restore
from pov_rt.runtime.clock import ManualClock, rfc3339
from pov_rt.suites.producers import numbered
from pov_rt.testing import RunningServer, make_settings
from tests.clients import notify, publish, span, subscribe
from tests.clients import offsets as offsets_of
from tests.engine.sqlite_parts import entries, offsets, opened

A = "pov/a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "pov-rt.db"


def run(folder: Path, *arguments: str | Path, **environ: str) -> Result:
    """Run `pov-rt db` without any secret: systemd gives those to the server alone."""
    command = ["db", *map(str, arguments), "--data", str(folder)]
    return CliRunner().invoke(main, command, env=environ)


def succeed(folder: Path, *arguments: str | Path) -> str:
    result = run(folder, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fail(folder: Path, *arguments: str | Path, **environ: str) -> str:
    """Return the one line that says why; nothing in the folder has changed."""
    before = snapshot(folder)
    result = run(folder, *arguments, **environ)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert snapshot(folder) == before
    return result.output


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return what is in the files; readers may leave an empty log and its index behind."""
    files = {file.name: file.read_bytes() for file in folder.glob("*")} if folder.exists() else {}
    return {
        name: content
        for name, content in files.items()
        if content and not name.endswith((".lock", "-shm"))
    }


def fill(path: Path, count: int, start: int = 0) -> str:
    """Append to a database; return its epoch."""

    async def work() -> str:
        async with opened(path) as (engine, _):
            await engine.log.append(entries(A, count, start=start))
            return engine.epoch

    return asyncio.run(work())


def read(path: Path) -> tuple[str, int]:
    """Return a database's epoch and how many entries it has; they are contiguous."""
    query = 'SELECT "offset" FROM entries JOIN topics ON id = topic WHERE name = ? ORDER BY 1'
    with reading(path) as connection:
        found = [offset for (offset,) in connection.execute(query, (A,))]
        assert found == list(range(1, len(found) + 1))
        return read_epoch(connection), len(found)


def leave_wal(path: Path, count: int) -> None:
    """Make a database as a killed server leaves it: the newest entries are in the log beside it."""
    elsewhere = path.parent.parent / "elsewhere" / path.name

    async def work() -> None:
        async with opened(elsewhere) as (engine, _):
            await engine.log.append(entries(A, count - 1))
        async with opened(elsewhere) as (engine, _):
            await engine.log.append(entries(A, 1, start=count))
            copy_all()

    def copy_all() -> None:
        path.parent.mkdir()
        for file in elsewhere.parent.glob("*"):
            shutil.copy(file, path.parent)

    asyncio.run(work())
    assert path.with_name("pov-rt.db-wal").stat().st_size > 0


# Backup:


def test_a_backup_is_one_instant_of_a_log_that_is_being_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "COPY_PAGES", 8)
    target = tmp_path / "backup.db"

    async def work() -> str:
        loop = asyncio.get_running_loop()
        async with opened(path) as (engine, _):
            await engine.log.append(entries(A, 500, b"x" * 200))
            appended = 500

            async def write(batch: Sequence[NewEntry]) -> None:
                await engine.log.append(batch)

            def append(done: int, pages: int) -> None:
                """Append more while the copy is under way."""
                nonlocal appended
                batch = entries(A, 50, start=appended)
                asyncio.run_coroutine_threadsafe(write(batch), loop).result(10)
                appended += 50
                assert 0 < done <= pages

            await asyncio.to_thread(backups.back_up, path, target, append)
            assert appended >= 600
            assert len(await offsets(engine, A)) == appended
            return engine.epoch

    epoch = asyncio.run(work())
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [target, path.parent]
    assert read(target) == (epoch, 500)


def test_backup_works_beside_a_server_and_without_and_restore_does_not_beside_one(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        async with opened(path) as (engine, _):
            await engine.log.append(entries(A, 3))
            text = await asyncio.to_thread(succeed, folder, "backup", tmp_path / "1.db")
            assert text.startswith(f"wrote {tmp_path}/1.db (")
            text = await asyncio.to_thread(fail, folder, "restore", tmp_path / "1.db")
            assert f"is in use by another process (pid {os.getpid()})" in text
            await engine.log.append(entries(A, 1, start=3))

    asyncio.run(work())
    succeed(folder, "backup", tmp_path / "2.db")
    assert read(tmp_path / "1.db")[1] == 3
    assert read(tmp_path / "2.db")[1] == 4


def test_a_backup_of_what_a_killed_server_left_is_complete(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    leave_wal(path, 7)
    succeed(folder, "backup", tmp_path / "backup.db")
    assert read(tmp_path / "backup.db")[1] == 7


def test_backup_replaces_nothing_and_leaves_nothing_half_done(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no database" in fail(folder, "backup", tmp_path / "backup.db")
    fill(path, 3)
    (tmp_path / "mine").write_text("mine")
    assert "is there already" in fail(folder, "backup", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
    assert "No such file or directory" in fail(folder, "backup", tmp_path / "none" / "backup.db")

    def break_off(file: int) -> None:
        raise OSError(28, "No space left on device", os.readlink(f"/proc/self/fd/{file}"))

    monkeypatch.setattr(os, "fsync", break_off)
    assert "No space left on device" in fail(folder, "backup", tmp_path / "backup.db")
    assert {file.name for file in tmp_path.iterdir()} == {"data", "mine"}


def test_backup_shows_its_progress_on_a_terminal(path: Path, tmp_path: Path) -> None:
    fill(path, 3)
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "pov_rt.cli", "db", "backup", str(tmp_path / "backup.db")]
    with closing(os.fdopen(terminal, "rb", buffering=0)) as screen:
        done = subprocess.run(
            [*command, "--data", str(path.parent)], stderr=theirs, capture_output=False, check=True
        )
        os.close(theirs)
        assert done.returncode == 0
        assert b"copying" in (text := screen.read(10_000))
        assert b"100%" in text


# Restore:


def test_renew_gives_the_stopped_servers_database_a_new_epoch(path: Path, folder: Path) -> None:
    epoch = fill(path, 3)
    text = succeed(folder, "renew")
    renewed, count = read(path)
    assert (text, count) == (f"{path} has a new epoch: {renewed}\n", 3)
    assert renewed != epoch
    assert fill(path, 1, start=3) == renewed

    async def beside() -> None:
        async with opened(path):
            assert "is in use by another process" in fail(folder, "renew")

    asyncio.run(beside())


def test_scrub_writes_the_stopped_servers_database_anew(path: Path, folder: Path) -> None:
    epoch = fill(path, 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("INSERT INTO bodies VALUES (99, 9, 9, 0, 0, x'', 'MARKER')")
        connection.commit()
        connection.execute("DELETE FROM bodies WHERE id = 99")
        connection.execute("INSERT INTO meta VALUES ('remnants', 'unknown')")
        connection.commit()
    assert b"MARKER" in path.read_bytes()
    files = set(snapshot(folder))
    assert succeed(folder, "scrub").startswith(f"wrote {path} anew (")
    assert set(snapshot(folder)) == files
    assert b"MARKER" not in path.read_bytes()
    assert read(path) == (epoch, 3)
    with closing(sqlite3.connect(path)) as connection:
        assert not connection.execute("SELECT * FROM meta WHERE name = 'remnants'").fetchall()
    assert fill(path, 1, start=3) == epoch

    async def beside() -> None:
        async with opened(path):
            assert "is in use by another process" in fail(folder, "scrub")

    asyncio.run(beside())


def test_a_restore_brings_back_the_log_under_a_new_epoch_and_keeps_the_old_one(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    epoch = fill(path, 3)
    succeed(folder, "backup", tmp_path / "backup.db")
    fill(path, 2, start=3)
    text = succeed(folder, "restore", tmp_path / "backup.db")
    kept = folder / "pov-rt.db.before-restore"
    assert text == f"restored {path}\nthe database that was there is now {kept}\n"
    assert set(snapshot(folder)) == {"pov-rt.db", "pov-rt.db.before-restore"}
    restored, count = read(path)
    assert (restored != epoch, count) == (True, 3)
    assert read(kept) == (epoch, 5)
    assert read(tmp_path / "backup.db") == (epoch, 3)

    async def go_on() -> None:
        async with opened(path) as (engine, _):
            assert await engine.log.append(entries(A, 2, start=2)) == [
                Appended(restored, 3, duplicate=True),
                Appended(restored, 4),
            ]

    asyncio.run(go_on())
    text = fail(folder, "restore", tmp_path / "backup.db")
    assert f"{kept}, which an earlier restore kept, would be lost" in text
    kept.unlink()
    succeed(folder, "restore", tmp_path / "backup.db")
    assert read(path)[0] not in (epoch, restored)


def test_after_a_restore_what_was_read_is_read_and_what_clients_hold_is_void(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    """Their positions may be of what came after the backup; the marks in it cannot be."""
    settings = make_settings(engine=EngineSettings(url=f"sqlite://{path}"))
    source = tmp_path / "backup.db"
    with RunningServer(settings, None) as server:
        phone = server.connect("ana", device="phone")
        first = subscribe(phone, durable=True)
        publish(server, 5)
        assert offsets_of(phone, 5) == span(1, 5)
        for number in range(3):
            notify(server, id=str(number))
        assert [phone.receive()["offset"] for _ in range(3)] == span(1, 3)
        phone.request({"type": "ack", "povId": "acme", "offset": 4})
        phone.request({"type": "read", "povId": "acme", "offset": 3})
        phone.request({"type": "read", "inbox": True, "offset": 3})
        phone.request({"type": "seen", "povId": "acme", "offset": 4})
        phone.request({"type": "unread", "povId": "acme", "offset": 3})
        succeed(folder, "backup", source)
        publish(server, 2)
        while phone.receive().get("offset") != 7:
            pass  # what was read is told, too
        phone.request({"type": "ack", "povId": "acme", "offset": 7})
    for _ in range(2):
        succeed(folder, "restore", source)
        (folder / "pov-rt.db.before-restore").unlink()
        with RunningServer(settings, None) as server:
            for offset in (1, 4, 5, 7):
                laptop = server.connect("ana", device="laptop")
                held = {"epoch": first["epoch"], "offset": offset}
                answer = subscribe(laptop, since=held)
                assert (answer["recovered"], answer["offset"]) == (False, 5)
                assert (answer["readOffset"], answer["unreadFrom"], answer["unread"]) == (3, 3, 3)
                assert (answer["seenOffset"], answer["unseen"]) == (4, 1)
                assert laptop.request({"type": "ping"})["type"] == "pong"
                assert not laptop.early, "no notification comes again"
            phone = server.connect("ana", device="phone")
            (result,) = phone.request({"type": "resume"})["results"]
            assert result["recovered"] is True
            assert offsets_of(phone, 1) == [5]
            publish(server, 1)
            assert offsets_of(phone, 1) == [6]
            assert not phone.early


def test_a_restore_needs_no_old_database(path: Path, folder: Path, tmp_path: Path) -> None:
    fill(tmp_path / "backup.db", 3)
    assert succeed(folder, "restore", tmp_path / "backup.db") == f"restored {path}\n"
    assert read(path)[1] == 3


def test_what_a_killed_server_left_beside_the_database_goes_with_it(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    leave_wal(path, 7)
    fill(tmp_path / "backup.db", 3)
    succeed(folder, "restore", tmp_path / "backup.db")
    kept = folder / "pov-rt.db.before-restore"
    assert set(snapshot(folder)) == {path.name, kept.name}
    assert read(path)[1] == 3
    assert read(kept)[1] == 7


def test_a_damaged_database_is_replaced_and_kept(path: Path, folder: Path, tmp_path: Path) -> None:
    leave_wal(path, 7)
    with open(path, "r+b") as file:
        file.write(b"damaged")
    fill(tmp_path / "backup.db", 3)
    succeed(folder, "restore", tmp_path / "backup.db")
    assert read(path)[1] == 3
    assert snapshot(folder)["pov-rt.db.before-restore"].startswith(b"damaged")


def test_a_log_that_a_reader_holds_is_kept_with_its_database(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    leave_wal(path, 7)
    fill(tmp_path / "backup.db", 3)
    count = "SELECT count(*) FROM entries"
    with reading(path) as reader:
        reader.execute("BEGIN")
        assert reader.execute(count).fetchone() == (7,)
        succeed(folder, "restore", tmp_path / "backup.db")
        assert reader.execute(count).fetchone() == (7,)
    assert "pov-rt.db.before-restore-wal" in snapshot(folder)
    assert read(path)[1] == 3
    assert read(folder / "pov-rt.db.before-restore")[1] == 7


def damage(path: Path) -> None:
    fill(path, 2000)
    with open(path, "r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096)


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(MIGRATIONS))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE meta (x)")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (damage, "is damaged: "),
        (make_newer, "was written by a newer pov-rt"),
        (make_foreign, "is a database of another program"),
        (lambda path: path.write_bytes(b"x" * 9000), "is no database"),
        (lambda path: path.touch(), "is an empty database"),
        (lambda path: None, "there is no database"),
    ],
)
def test_a_restore_refuses_what_is_no_whole_backup(
    path: Path, folder: Path, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    fill(path, 3)
    make(tmp_path / "backup.db")
    assert f"{tmp_path}/backup.db {reason}" in fail(folder, "restore", tmp_path / "backup.db") or (
        f"{reason} {tmp_path}/backup.db" in fail(folder, "restore", tmp_path / "backup.db")
    )
    assert "is the database itself" in fail(folder, "restore", path)


@pytest.mark.parametrize("flushes", range(5))
def test_a_restore_that_dies_half_way_leaves_the_old_database_or_the_new_one(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    epoch = fill(path, 5)
    fill(tmp_path / "backup.db", 3)
    left = iter(range(flushes))

    def flush(file: int) -> None:
        next(left)  # raises StopIteration where the restore dies

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flush)
        assert isinstance(run(folder, "restore", tmp_path / "backup.db").exception, StopIteration)
    kept = folder / "pov-rt.db.before-restore"
    if flushes < 4:
        assert read(path) == (epoch, 5)
        succeed(folder, "restore", tmp_path / "backup.db")
    assert read(path)[1] == 3
    assert read(kept) == (epoch, 5)


def test_a_journal_that_a_restore_left_spoils_no_later_one(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    fill(path, 5)
    died = tmp_path / "died.db"
    fill(died, 2000)
    # What is there of a restore that is killed while it renews its copy; of another backup.
    with closing(sqlite3.connect(died, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = OFF")  # the journal is complete without a flush
        connection.execute("BEGIN")
        connection.execute("UPDATE bodies SET body = zeroblob(500)")
        connection.execute("PRAGMA cache_spill = 0")
        journal = folder / "pov-rt.db.restored-journal"
        shutil.copy(f"{died}-journal", journal)
    assert journal.stat().st_size > 10_000
    fill(tmp_path / "backup.db", 300)
    succeed(folder, "restore", tmp_path / "backup.db")
    with reading(path) as restored:
        assert restored.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    assert read(path)[1] == 300
    assert set(snapshot(folder)) == {"pov-rt.db", "pov-rt.db.before-restore"}


def test_a_copy_that_is_spoilt_on_its_way_is_not_put_in_place(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, 3)
    fill(tmp_path / "backup.db", 2000)
    copied = []

    def spoil(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        if path.suffix == ".partial":
            copied.append(path)
            with open(path, "r+b") as target:
                target.seek(4096 * 12)
                target.write(b"\xff" * 4096 * 3)

    monkeypatch.setattr(os, "fsync", spoil)
    assert "is damaged" in fail(folder, "restore", tmp_path / "backup.db")
    assert len(copied) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for the server's user")
def test_what_root_restores_is_the_servers_to_write(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "backup.db", 3)
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    for _ in range(2):
        succeed(folder, "restore", tmp_path / "backup.db")
        owners = {file.name: file.stat().st_uid for file in folder.iterdir()}
        assert set(owners.values()) == {65534}, owners


# Stats:


def test_stats_count_what_is_there_for_people_and_programs(path: Path, folder: Path) -> None:
    async def work() -> str:
        clock = ManualClock()
        async with opened(path, clock) as (engine, _):
            await engine.log.append(entries(A, 1200))
            clock.advance(5)
            await engine.log.append(entries("pov/b", 1))
            await engine.marks.advance(A, "ana", "read", Position("e", 1))
            await engine.sets.add("durable", "ana")
            await engine.sets.add("durable", "ben")
            await engine.store.put("poll", "tally", b"{}")
            text = await asyncio.to_thread(succeed, folder, "stats")
            stats = json.loads(await asyncio.to_thread(succeed, folder, "stats", "--json"))
            assert stats.pop("sizeBytes") > 0
            assert stats.pop("walBytes") > 10_000
            assert stats == {
                "file": str(path),
                "schema": len(MIGRATIONS),
                "epoch": engine.epoch,
                "topics": 2,
                "entries": 1201,
                "oldest": rfc3339(clock.time() - 5),
                "newest": rfc3339(clock.time()),
                "ids": 1201,
                "producers": 0,
                "marks": 1,
                "stored": 1,
                "setMembers": 2,
                "patterns": {},
            }
            return text

    lines = asyncio.run(work()).splitlines()
    assert f"{'entries':<16} 1,201" in lines
    assert {line[:17].rstrip() for line in lines} == {
        "file", "size", "write-ahead log", "schema", "epoch", "topics", "entries",
        "oldest entry", "newest entry", "ids remembered", "producers", "marks",
        "set members", "plugins' values",
    }  # fmt: skip


def test_stats_say_what_is_kept_by_which_pattern_and_how_many_producers_there_are(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "pov-rt.toml"
    config.write_text('[pov."acme-*"]\nmax_age_s = 43200\n[pov."nowhere"]\nmax_entries = 5\n')

    async def work() -> None:
        async with opened(path) as (engine, _):
            for topic, number in (("pov/acme-1", 3), ("pov/acme-2", 2), ("pov/b", 4)):
                await engine.log.append(entries(topic, number))
            await engine.log.append([numbered(1, "x", topic) for topic in ("pov/b", "pov/acme-1")])

    asyncio.run(work())
    options = ("--config", config)
    stats = json.loads(succeed(folder, "stats", "--json", *options))
    assert stats["producers"] == 2
    assert stats["patterns"] == {
        "acme-*": {"povs": 2, "entries": 6, "maxEntries": 10_000, "maxAgeS": 43200.0},
        "nowhere": {"povs": 0, "entries": 0, "maxEntries": 5, "maxAgeS": 604800.0},
    }
    lines = succeed(folder, "stats", *options).splitlines()
    kept = '[pov."acme-*"]: 2 PoVs, 6 entries; kept are 10,000 of each, for 0.5 days'
    assert kept in lines


def test_stats_of_a_log_that_is_empty_or_all_too_old(path: Path, folder: Path) -> None:
    fill(path, 0)
    stats = json.loads(succeed(folder, "stats", "--json"))
    assert (stats["entries"], stats["oldest"], stats["newest"]) == (0, None, None)
    assert f"{'oldest entry':<16} -" in succeed(folder, "stats").splitlines()


def test_revocations_are_listed_in_words_and_removed_when_the_server_is_stopped(
    path: Path, folder: Path
) -> None:
    odd = 'token "\x1b[2J'

    async def work() -> None:
        async with opened(path) as (engine, _):
            void = Revocations(engine.sets, ManualClock(60.0), AuthSettings())
            for which in ((None, "ana", 30.0), (None, None, 0.0), ('"\x1b[2J', None, None)):
                await void.store(void.add(void.make(*which)))
            listed = succeed(folder, "revocations")
            since = "(since 1970-01-01T00:01:00.000Z)"
            assert listed.splitlines() == [
                f"all: everybody's tokens issued before 1970-01-01T00:00:00.000Z {since}",
                f"{json.dumps(odd)}: one token, and those that were exchanged for it {since}",
                f"user ana: the user's tokens issued before 1970-01-01T00:00:30.000Z {since}",
            ]
            found = json.loads(succeed(folder, "revocations", "--json"))
            assert found["user ana"] == {
                "issuedBefore": "1970-01-01T00:00:30.000Z",
                "at": "1970-01-01T00:01:00.000Z",
                "until": None,
            }
            assert "in use by another process" in fail(folder, "revocations", "--remove", "all")

    asyncio.run(work())
    assert succeed(folder, "revocations", "--remove", "user ana") == "removed: user ana\n"
    succeed(folder, "revocations", "--remove", json.dumps(odd))
    assert json.loads(succeed(folder, "revocations", "--json")).keys() == {"all"}
    for name, words in (("user ana", "there is no revocation"), ('"x', "as the list writes it")):
        assert words in fail(folder, "revocations", "--remove", name)


def test_every_revocation_is_removed_by_what_the_list_calls_it(path: Path, folder: Path) -> None:
    wanted: list[tuple[str | None, str | None, float | None, str | None]] = [
        ("j1", None, None, "blue"),
        ("blue/j1", None, None, None),
        ("a: b", None, None, "red"),
        (None, "ana", 30.0, None),
        (None, "blue\x1fana", 30.0, None),
        (None, None, 30.0, "blue"),
        (None, None, 30.0, None),
    ]

    async def work() -> None:
        async with opened(path) as (engine, _):
            void = Revocations(engine.sets, ManualClock(60.0), AuthSettings())
            for token_id, user_id, before, tenant in wanted:
                # As a request's body has it: an id below its team.
                user = None if user_id is None else restore(user_id)
                await void.store(void.add(void.make(token_id, user, before, tenant)))

    asyncio.run(work())
    lines = succeed(folder, "revocations").splitlines()
    listed = [line[: line.rindex(": ")] for line in lines]
    assert {"team blue", "user blue/ana", "user ana", "token red/a: b"} <= set(listed)
    assert (
        sum(
            json.loads(name) in ("token blue/j1", "token blue\x1fj1")
            for name in listed
            if name.startswith('"')
        )
        == 2
    )
    in_json = list(json.loads(succeed(folder, "revocations", "--json")))
    # Each is called by its name in the list or in JSON, some by the one and some by the other.
    for name in (*listed[::2], *in_json[1::2]):
        succeed(folder, "revocations", "--remove", name)
    assert succeed(folder, "revocations") == ""


def test_revocations_of_no_database_are_words(folder: Path) -> None:
    for flags in ((), ("--remove", "all")):
        assert "there is no database" in fail(folder, "revocations", *flags)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (999, "999 B"), (4096, "4.1 kB"), (2 * 10**6, "2 MB"), (5 * 10**12, "5000 GB")],
)
def test_sizes_are_readable(amount: int, text: str) -> None:
    from pov_rt.cli.db import size

    assert size(amount) == text


def test_settings_that_name_no_database_are_words(folder: Path, tmp_path: Path) -> None:
    text = fail(folder, "stats", POV_RT_ENGINE__URL="memory://")
    assert "engine.url: memory:// has no database file" in text
    assert "there is no engine 'x'" in fail(folder, "stats", POV_RT_ENGINE__URL="x://")
    assert "there is no database" in fail(folder, "stats")
    result = CliRunner().invoke(main, ["db", "stats"], env={"POV_RT_SERVER__DATA": None})
    assert "names no file" in result.output
