"""Reads are done for their owners in turn; what nobody waits for any more is not done."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pov_rt.engine.sqlite import readers as readers_module
from pov_rt.engine.sqlite.readers import THREADS, TURN, Readers
from pov_rt.engine.sqlite.schema import open_writer
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import payer

WAIT_S = 30.0


class Desk:
    """Readers whose reads are held up until they are let go, and what they have done."""

    def __init__(self, path: Path) -> None:
        self.readers = Readers(path)
        self.done: list[str] = []
        self.go = threading.Semaphore(0)

    def ask(self, owner: str, name: str = "") -> asyncio.Task[None]:
        """Read something for an owner."""

        def operation(connection: sqlite3.Connection) -> None:
            assert self.go.acquire(timeout=WAIT_S)
            self.done.append(name or owner)

        async def work() -> None:
            payer.set(owner)
            await self.readers.read(operation)

        return asyncio.create_task(work())

    async def busy(self) -> None:
        """Return when all threads are held up by the node's own reads."""
        began = threading.Semaphore(0)

        def operation(connection: sqlite3.Connection) -> None:
            began.release()
            assert self.go.acquire(timeout=WAIT_S)

        self.node = [asyncio.create_task(self.readers.read(operation)) for _ in range(THREADS)]
        for _ in range(THREADS):
            await asyncio.to_thread(began.acquire)

    def let(self, count: int) -> None:
        """Let reads go on."""
        self.go.release(count + THREADS)


def with_desk(path: Path, test: Callable[[Desk], Awaitable[None]]) -> None:
    async def work() -> None:
        open_writer(path).close()
        desk = Desk(path)
        await test(desk)
        desk.readers.close()

    asyncio.run(work())


def test_who_reads_after_a_read_that_failed_sees_what_was_written_since(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    kept: list[sqlite3.Cursor] = []

    def fail(connection: sqlite3.Connection) -> None:
        kept.append(connection.execute("SELECT 1 FROM meta UNION ALL SELECT 2 FROM meta"))
        next(kept[-1])
        raise ValueError("half-way")

    def count(connection: sqlite3.Connection) -> int:
        found: int = connection.execute("SELECT count(*) FROM marks").fetchone()[0]
        return found

    async def work() -> None:
        writer = open_writer(path)
        readers = Readers(path)
        for number in range(1, 2 * THREADS + 1):
            with pytest.raises(ValueError, match="half-way"):
                await readers.read(fail)
            writer.execute("INSERT INTO marks VALUES (?, 'n', 'u', 'e', 1, 0)", (str(number),))
            assert await readers.read(count) == number
        readers.close()
        writer.close()

    asyncio.run(work())


def test_200_reads_of_one_user_delay_anothers_by_one(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.busy()
        many = [desk.ask("greedy") for _ in range(200)]
        await asyncio.sleep(0)
        one = desk.ask("bystander")
        await asyncio.sleep(0)
        desk.let(201)
        await asyncio.gather(one, *many, *desk.node)
        assert desk.done.index("bystander") <= THREADS

    with_desk(tmp_path / "log.db", test)


def test_who_is_read_for_already_lets_others_go_first(tmp_path: Path) -> None:
    async def work() -> None:
        open_writer(tmp_path / "log.db").close()
        readers = Readers(tmp_path / "log.db")
        began, done = threading.Semaphore(0), list[str]()
        gates = {name: threading.Event() for name in ("first", "other")}

        def ask(owner: str, name: str) -> asyncio.Task[None]:
            def operation(connection: sqlite3.Connection) -> None:
                began.release()
                if name in gates:
                    assert gates[name].wait(WAIT_S)
                done.append(name)

            async def read() -> None:
                payer.set(owner)
                await readers.read(operation)

            return asyncio.create_task(read())

        held = [ask("greedy", "first"), ask("ben", "other")]
        for _ in held:
            await asyncio.to_thread(began.acquire)
        late = [ask("greedy", "second"), ask("ana", "bystander")]
        await asyncio.sleep(0)
        gates["other"].set()  # one thread is free, and greedy's first read goes on
        await asyncio.gather(held[1], *late)
        assert done == ["other", "bystander", "second"]
        gates["first"].set()
        await held[0]
        readers.close()

    asyncio.run(work())


def test_each_owners_reads_keep_their_order(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.busy()
        tasks = [desk.ask(owner, f"{owner}{n:02}") for n in range(20) for owner in "abc"]
        await asyncio.sleep(0)
        for _ in range(60 + THREADS):  # one at a time: two threads would pass each other
            desk.go.release()
        await asyncio.gather(*tasks, *desk.node)
        taken = [sorted(desk.done[n : n + 3]) for n in range(0, 60, 3)]
        assert [each[0][0] + each[1][0] + each[2][0] for each in taken].count("abc") >= 18

    with_desk(tmp_path / "log.db", test)


def test_what_nobody_waits_for_is_not_read(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.busy()
        gone = [desk.ask("ana", f"gone {n}") for n in range(50)]
        stays = desk.ask("ana", "stays")
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        desk.let(1)
        await asyncio.gather(stays, *desk.node)
        assert desk.done == ["stays"]

    with_desk(tmp_path / "log.db", test)


def test_one_owner_has_a_bounded_number_of_reads_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers_module, "MAX_WAITING", 3)

    async def test(desk: Desk) -> None:
        await desk.busy()
        waiting = [desk.ask("ana") for _ in range(4)]
        other = desk.ask("ben")
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [Unavailable]
        assert desk.readers.bound.refused == 1
        desk.let(4)
        await asyncio.gather(other, *desk.node, *(set(waiting) - done))

    with_desk(tmp_path / "log.db", test)


def test_what_waits_at_the_end_is_read(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.busy()
        many = [desk.ask(f"user-{number}") for number in range(5 * TURN)]
        await asyncio.sleep(0)
        desk.let(len(many))
        desk.readers.close()
        await asyncio.gather(*many, *desk.node)
        assert len(desk.done) == len(many)

    with_desk(tmp_path / "log.db", test)


def test_one_that_fails_keeps_nobodys_answer_back(tmp_path: Path) -> None:
    def stop(connection: sqlite3.Connection) -> None:
        raise StopIteration

    async def work() -> None:
        open_writer(tmp_path / "log.db").close()
        readers = Readers(tmp_path / "log.db")
        reads = [stop, *3 * [lambda connection: None]]
        found = await asyncio.gather(*map(readers.read, reads), return_exceptions=True)
        assert [type(each) for each in found] == [RuntimeError, *3 * [type(None)]]
        readers.close()

    asyncio.run(work())


def test_whoever_else_needs_a_thread_does_not_wait_for_all_reads(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.busy()
        many = [desk.ask(f"user-{number}") for number in range(5 * THREADS * TURN)]
        await asyncio.sleep(0)
        other = desk.readers.executor.submit(desk.done.append, "other")
        desk.let(len(many))
        await asyncio.gather(asyncio.wrap_future(other), *many, *desk.node)
        assert desk.done.index("other") <= THREADS * TURN

    with_desk(tmp_path / "log.db", test)


def test_a_database_that_cannot_be_read_is_said_without_its_path(tmp_path: Path) -> None:
    async def work() -> None:
        readers = Readers(tmp_path / "none.db")
        with pytest.raises(Unavailable, match="cannot be read") as error:
            await readers.read(lambda connection: None)
        assert str(tmp_path) not in str(error.value)
        readers.close()

    asyncio.run(work())
