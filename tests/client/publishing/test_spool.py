"""The spool: what `publish` has returned of is published once, whatever happens to whom."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pov_rt.client import Closed, Publisher, SpoolFull
from pov_rt.client.publishing.outbox import Counts
from pov_rt.client.publishing.spool import SpoolError, connect
from pov_rt.protocol.errors import InvalidActivity, InvalidId
from pov_rt.testing import RunningServer
from tests.client.publishing.reading import PATIENCE_S, activity, numbers, pass_days, service
from tests.client.support import kept_server
from tests.clients import span
from tests.engine.sqlite_parts import small_disk
from tests.processes import running

pytestmark = pytest.mark.timeout(3 * PATIENCE_S)
ROOT = Path(__file__).parents[3]
NOBODY = "127.0.0.1:1"
HEAD = """
import os, sys
from pov_rt.client import Publisher
from tests.client.publishing.reading import PATIENCE_S, activity
spool, url, token = sys.argv[1:4]
"""


def run_program(code: str, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", HEAD + code, *given]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def publisher(spool: Path, server: RunningServer) -> Iterator[Publisher]:
    with Publisher(server.address, service(server), spool) as made:
        yield made


def test_what_is_published_arrives_in_order(publisher: Publisher, server: RunningServer) -> None:
    for number in span(1, 50):
        publisher.publish(activity(number))
    asyncio.run(publisher.apublish(activity(51)))
    assert publisher.flush(PATIENCE_S)
    assert (numbers(server), publisher.counts()) == (span(1, 51), Counts(0, 0))


def test_what_waits_outlives_the_app_and_a_server_that_is_away_for_long(
    spool: Path, tmp_path: Path
) -> None:
    with kept_server(tmp_path) as before:
        port, token = before.web.port, service(before)
    code = """
Publisher(url, token, spool).publish(activity(int(sys.argv[4])))
os.kill(os.getpid(), 9)
"""
    for number in span(1, 3):
        done = run_program(code, str(spool), NOBODY, "x", str(number))
        assert done.returncode == -signal.SIGKILL, done.stderr
    with kept_server(tmp_path, port) as after, Publisher(after.address, token, spool) as publisher:
        assert publisher.flush(PATIENCE_S)
        assert numbers(after) == span(1, 3)


def test_a_server_that_comes_back_gets_what_waits(spool: Path, tmp_path: Path) -> None:
    with kept_server(tmp_path) as before:
        port, token = before.web.port, service(before)
        publisher = Publisher(f"127.0.0.1:{port}", token, spool)
        publisher.publish(activity(1))
        assert publisher.flush(PATIENCE_S)
    publisher.publish(activity(2))
    assert not publisher.flush(0)
    assert publisher.counts() == Counts(1, 0)
    with kept_server(tmp_path, port) as after:
        assert publisher.flush(PATIENCE_S)
        assert numbers(after) == [1, 2]
    assert publisher.close()


def test_a_full_spool_says_so_and_takes_more_once_there_is_room(
    spool: Path, server: RunningServer
) -> None:
    publisher = Publisher(NOBODY, "x", spool, max_rows=2)
    for number in (1, 2):
        publisher.publish(activity(number))
    with pytest.raises(
        SpoolFull, match=r"is full: 2 activities wait, of 2, .* pov-rt spool status"
    ):
        publisher.publish(activity(3))
    assert not publisher.close(0)
    small = Publisher(NOBODY, "x", spool, max_bytes=400)
    with pytest.raises(SpoolFull, match="bytes, of 400"):
        small.publish(activity(3, id="x" * 100))
    small.close(0)
    with Publisher(server.address, service(server), spool, max_rows=2) as publisher:
        assert publisher.flush(PATIENCE_S)
        publisher.publish(activity(3))
        assert publisher.flush(PATIENCE_S)
    assert numbers(server) == [1, 2, 3]


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, server: RunningServer) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, "200k") as remount:
        publisher = Publisher(server.address, service(server), folder / "spool")
        publisher.start = lambda: None  # type: ignore[method-assign]
        said, taken = "", 0
        while not said:
            try:
                publisher.publish(activity(taken + 1, id=f"{taken:0>128}"))
                taken += 1
            except SpoolError as error:
                said = str(error)
        assert "cannot be written: database or disk is full" in said
        del publisher.start
        remount("size=2m")
        assert publisher.flush(PATIENCE_S)
        publisher.publish(activity(taken + 1))
        assert publisher.close()
        assert numbers(server) == span(1, taken + 1)


def test_many_processes_and_threads_share_a_spool(spool: Path, server: RunningServer) -> None:
    code = """
publisher = Publisher(url, token, spool)
for number in range(1, 31):
    publisher.publish(activity(number, sys.argv[4]))
publisher.close(0)
"""
    given = [str(spool), server.address, service(server)]
    command = [sys.executable, "-c", HEAD + code, *given]
    with Publisher(server.address, service(server), spool) as publisher:

        def work(name: str) -> None:
            for number in span(1, 30):
                publisher.publish(activity(number, name))

        threads = [threading.Thread(target=work, args=[f"t{each}"]) for each in range(3)]
        for thread in threads:
            thread.start()
        with running([*command, "p0"], cwd=ROOT) as one, running([*command, "p1"], cwd=ROOT) as two:
            assert (one.wait(PATIENCE_S), two.wait(PATIENCE_S)) == (0, 0)
        for thread in threads:
            thread.join()
        assert publisher.flush(PATIENCE_S)
    for name in ("t0", "t1", "t2", "p0", "p1"):
        assert numbers(server, name) == span(1, 30)


def test_a_fork_goes_on_by_itself_and_the_parent_too(spool: Path, server: RunningServer) -> None:
    code = """
publisher = Publisher(url, token, spool)
publisher.publish(activity(1, "parent"))
child = os.fork()
name = "parent" if child else "child"
for number in range(2, 12):
    publisher.publish(activity(number, name))
if child:
    assert os.waitpid(child, 0)[1] == 0
sys.exit(not publisher.close(PATIENCE_S))
"""
    # Python 3.12 warns of a fork where there are threads, which is what this is about.
    done = run_program(
        "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + code,
        *[str(spool), server.address, service(server)],
    )
    assert done.returncode == 0, done.stderr
    assert numbers(server, "parent") == span(1, 11)
    assert numbers(server, "child") == span(2, 11)


def test_forks_at_any_moment_of_a_publisher(spool: Path, server: RunningServer) -> None:
    """Also while another thread has just begun to publish, or to send."""
    code = """
import threading
FORKS, EACH = 10, 5
def some(name):
    for number in range(1, EACH + 1):
        publisher.publish(activity(number, name))
children = []
for number in range(FORKS):
    publisher = Publisher(url, token, spool)
    thread = threading.Thread(target=some, args=[f"parent{number}"])
    thread.start()
    if not (child := os.fork()):
        some(f"child{number}")
        sys.exit(not publisher.close(PATIENCE_S))
    children.append(child)
    thread.join()
    publisher.close(0)
ended = [os.waitpid(child, 0)[1] for child in children]
with Publisher(url, token, spool) as publisher:
    assert publisher.flush(PATIENCE_S)
assert not any(ended), ended
"""
    done = run_program(
        "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + code,
        *[str(spool), server.address, service(server)],
    )
    assert done.returncode == 0, done.stderr
    for number in range(10):
        for name in (f"parent{number}", f"child{number}"):
            assert numbers(server, name) == span(1, 5), name


def test_who_opens_a_spool_leaves_the_locks_of_others_in_its_process(spool: Path) -> None:
    """A system ends all locks of a process on a file when it closes that once."""
    writing = connect(spool)
    writing.execute("BEGIN IMMEDIATE")
    connect(spool).close()
    done = run_program(
        """
import sqlite3
try:
    sqlite3.connect(spool, timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    assert str(error) == "database is locked", error
else:
    sys.exit("the lock has gone")
""",
        *[str(spool), NOBODY, "none"],
    )
    writing.close()
    assert done.returncode == 0, done.stderr


def test_what_the_server_refuses_is_kept_and_holds_nothing_up(
    publisher: Publisher, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    too_large = {"n": 1, "text": "x" * 20_000}
    publisher.publish(msgspec.structs.replace(activity(1), details=too_large))
    for number in (2, 3):
        publisher.publish(activity(number))
    assert publisher.flush(PATIENCE_S)
    assert numbers(server) == [2, 3]
    assert publisher.counts() == Counts(0, 1)
    assert "the server refuses an activity of 'acme', which is kept: too_large" in caplog.text


def test_a_copy_of_a_spool_publishes_what_is_new(spool: Path, server: RunningServer) -> None:
    with Publisher(server.address, service(server), spool) as publisher:
        publisher.publish(activity(1))
        assert publisher.flush(PATIENCE_S)
    copy = spool.with_name("copy")
    shutil.copy(spool, copy)
    for number, path in ((2, spool), (3, copy)):
        with Publisher(server.address, service(server), path) as publisher:
            publisher.publish(activity(number))
            assert publisher.flush(PATIENCE_S)
    pass_days(server, 2)
    assert numbers(server) == [1, 2, 3]


def test_what_the_server_would_refuse_at_sight_is_refused_before_it_is_kept(
    publisher: Publisher,
) -> None:
    with pytest.raises(InvalidId, match="povId"):
        publisher.publish(activity(1, pov="a\nb"))
    with pytest.raises(InvalidActivity, match="say who did it"):
        publisher.publish(msgspec.structs.replace(activity(1), user_id=msgspec.UNSET))
    assert publisher.counts() == Counts(0, 0)


def test_nobody_else_may_read_it_and_what_is_none_is_named(tmp_path: Path) -> None:
    publisher = Publisher(NOBODY, "x", tmp_path / "spool")
    publisher.publish(activity(1))
    publisher.close(0)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    with pytest.raises(Closed):
        publisher.publish(activity(2))
    (tmp_path / "other").write_text("no database, but words of more than a hundred bytes " * 9)
    for path in (tmp_path / "other", tmp_path / "none" / "spool"):
        with pytest.raises(SpoolError, match="spool"):
            Publisher(NOBODY, "x", path).publish(activity(1))


def test_of_those_who_publish_at_the_same_time_each_is_told_of_its_own_activity(
    spool: Path, server: RunningServer
) -> None:
    publisher = Publisher(NOBODY, "x", spool, max_rows=5)
    kept, full = list[str](), list[str]()

    def work(name: str) -> None:
        try:
            publisher.publish(activity(1, id=name))
        except SpoolFull:
            full.append(name)
        else:
            kept.append(name)

    threads = [threading.Thread(target=work, args=[f"a-{each}"]) for each in range(12)]
    other = sqlite3.connect(spool)
    publisher.counts()  # makes the tables
    other.execute("BEGIN IMMEDIATE")  # so that many wait
    for thread in threads:
        thread.start()
    other.close()
    for thread in threads:
        thread.join()
    assert (len(kept), len(full)) == (5, 7)
    assert not publisher.close(0)
    with Publisher(server.address, service(server), spool) as publisher:
        assert publisher.flush(PATIENCE_S)
    log = server.run(lambda: server.web.server.engine.log.read("pov/acme", 0, 100))
    assert sorted(json.loads(each.body)["id"] for each in log.entries) == sorted(kept)


def test_who_publishes_while_it_closes_is_told_or_kept(spool: Path) -> None:
    publisher = Publisher(NOBODY, "x", spool)
    kept = list[str]()

    def work() -> None:
        while True:
            try:
                kept.append(publisher.publish(activity(1)))
            except Closed:
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(kept) < 20:
        assert all(thread.is_alive() for thread in threads)
    publisher.close(0)
    for thread in threads:
        thread.join()
    again = Publisher(NOBODY, "x", spool)
    assert again.counts() == Counts(len(kept), 0)
    again.close(0)
