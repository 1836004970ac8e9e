"""The programs of docs/python.md do what the page says."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.client import Refused, SessionEnded
from pov_rt.client import errors as errors_module
from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import RunningServer
from tests.client.publishing.reading import service
from tests.client.support import cut
from tests.clients import notify, publish

PAGE = (Path(__file__).parent.parent / "docs/python.md").read_text()
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.S))


DJANGO = """
import sys, django
from django.conf import settings
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}
settings.configure(DATABASES={"default": database}, USE_TZ=True)
django.setup()
import models
class Task:
    def save(self):
        models.connection.cursor().execute("INSERT INTO tasks VALUES (1)")
models.complete(Task())
"""


class Lines:
    """What a program prints; the test waits for lines of it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def print(self, *words: object) -> None:
        with self._changed:
            self.lines.append(" ".join(map(str, words)))
            self._changed.notify_all()

    def wait(self, count: int) -> list[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.lines) >= count, 20), self.lines
        return self.lines


def program(name: str, server: RunningServer, printed: Lines) -> Any:
    """Return the `main` of a program."""
    given: dict[str, Any] = {"print": printed.print}
    exec(PROGRAMS[name].replace("127.0.0.1:8765", server.address), given)
    return given["main"]


async def until(work: Any, printed: Lines, count: int) -> list[str]:
    """Run a program until it has printed so many lines."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(asyncio.to_thread(printed.wait, count))
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    task.cancel()
    await asyncio.wait([task])
    return await waiting


def test_it_follows(server: RunningServer) -> None:
    publish(server, 2)
    printed = Lines()
    main = program("follow.py", server, printed)
    lines = asyncio.run(until(main(server.token("ana")), printed, 2))
    assert [line.split()[:4] for line in lines] == [["1", "bo", "t", "a"], ["2", "bo", "t", "a"]]


def test_it_gets_notifications(server: RunningServer) -> None:
    notify(server)
    printed = Lines()
    main = program("notifications.py", server, printed)
    (line,) = asyncio.run(until(main(server.token("ana", Kind.ACCESS)), printed, 1))
    assert line.startswith("mention")


def test_it_asks_and_publishes(server: RunningServer) -> None:
    printed = Lines()
    asyncio.run(program("ask.py", server, printed)(server.token("ana")))
    assert printed.lines == ["unknown_type None None"]


def test_a_script_follows(server: RunningServer) -> None:
    publish(server, 1)
    printed = Lines()
    main = program("script.py", server, printed)
    with pytest.raises(Refused):
        main(server.token("ana", povs=["other"]))
    token = server.token("ana")

    def send_away() -> None:
        assert printed.wait(1) == ["t a"]
        cut(server, code=CloseCode.DISCONNECTED)

    thread = threading.Thread(target=send_away)
    thread.start()
    with pytest.raises(SessionEnded):
        main(token)
    thread.join()


def test_a_spool_publishes(server: RunningServer, tmp_path: Path) -> None:
    main = program("spool.py", server, Lines())
    main(service(server), tmp_path / "spool")
    assert server.run(lambda: server.web.server.engine.log.top("pov/acme")).offset == 1


def test_an_outbox_and_its_relay_publish(server: RunningServer, tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE tasks (done INTEGER)")
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    program("orders.py", server, Lines())(f"sqlite:///{database}")
    (tmp_path / "models.py").write_text(PROGRAMS["models.py"])
    subprocess.run(
        [sys.executable, "-W", "error", "-c", DJANGO, database], cwd=tmp_path, check=True
    )
    stop = threading.Event()
    relay = program("relay.py", server, Lines())
    thread = threading.Thread(target=relay, args=[service(server), database, stop])
    thread.start()
    assert [ana.receive()["offset"] for _ in range(2)] == [1, 2]
    stop.set()
    thread.join()


def test_every_error_has_its_line() -> None:
    kinds = {name for name in vars(errors_module) if name[0].isupper() and name != "PovError"}
    raised = {
        name
        for name in kinds
        if isinstance(getattr(errors_module, name), type)
        and issubclass(getattr(errors_module, name), errors_module.PovError)
    }
    assert raised <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
