"""`pov-rt spool` and `relay` as processes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from pathlib import Path

import msgspec
import pytest

from pov_rt.client import Outbox, Publisher
from pov_rt.testing import RunningServer
from tests.client.publishing.reading import activity, numbers, service
from tests.clients import span
from tests.processes import COMMAND, SECRET, environment, run, running, serve


def fill(spool: Path, *added: int) -> None:
    """Keep activities that nobody sends."""
    publisher = Publisher("127.0.0.1:1", "x", spool)
    for number in added:
        publisher.publish(activity(number))
    publisher.close(0)


def test_a_spool_is_looked_at_drained_and_tried_again(
    server: RunningServer, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    fill(spool, *span(1, 3))
    large = {"n": 4, "text": "x" * 20_000}
    publisher = Publisher("127.0.0.1:1", "x", spool)
    publisher.publish(msgspec.structs.replace(activity(4, id="a-4"), details=large))
    publisher.close(0)
    assert run(tmp_path, "spool", "status", str(spool)).stdout == "4 waiting, 0 refused\n"
    given = ["--url", server.address, "--token", service(server)]
    done = run(tmp_path, "spool", "drain", str(spool), *given)
    assert (done.returncode, "0 waiting, 1 refused" in done.stderr) == (0, True), done.stderr
    assert numbers(server) == span(1, 3)
    said = run(tmp_path, "spool", "status", str(spool)).stdout
    assert said.startswith("0 waiting, 1 refused\n  acme t.a a-4: too_large: details has ")
    assert run(tmp_path, "spool", "retry", str(spool)).stdout == "1 wait once more\n"
    away = run(
        tmp_path, "spool", "drain", str(spool), *["--url", "127.0.0.1:1", "--token", "x"],
        "--timeout", "0.1s",
    )  # fmt: skip
    assert (away.returncode, "1 waiting" in away.stderr) == (1, True)
    assert "nobody listens at http://127.0.0.1:1" in away.stderr


def test_what_is_no_spool_and_nobodys_name_are_words(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("words " * 100)
    said = run(tmp_path, "spool", "status", str(other))
    assert (said.returncode, "cannot be used as a spool" in said.stderr) == (1, True)
    fill(tmp_path / "spool", 1)
    said = run(tmp_path, "spool", "drain", str(tmp_path / "spool"))
    assert "say as which service: --user my-app" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_relay_serves_an_outbox_until_it_is_ended(tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    connection = sqlite3.connect(database)
    Outbox.create(connection, "sqlite")
    Outbox.add(connection, activity(1, "demo"))
    connection.commit()
    with serve(tmp_path) as served:
        command = [*COMMAND, "relay", "--database", f"sqlite:///{database}", "--user", "my-app"]
        given = ["--url", served.url, "--data", str(tmp_path / "data")]
        follow = [*COMMAND, "tail", "demo", "--count", "2", "--last", "5"]
        with (
            running([*command, *given], env=environment(tmp_path), cwd=tmp_path) as relay,
            running(
                [*follow, *given],
                env=environment(tmp_path),
                cwd=tmp_path,
                stdout=subprocess.PIPE,
            ) as tail,
        ):
            assert tail.stdout is not None
            assert '"n": 1' in tail.stdout.readline()
            Outbox.add(connection, activity(2, "demo"))
            connection.commit()
            assert '"n": 2' in tail.stdout.readline()
            relay.send_signal(signal.SIGTERM)
            assert relay.wait(20) == 0
    connection.close()


@pytest.mark.parametrize("database", ["mysql://x", "sqlite:/x", "x"])
def test_another_database_is_refused(tmp_path: Path, database: str) -> None:
    given = ["--database", database, "--user", "x", "--url", "h"]
    said = run(tmp_path, "relay", *given, POV_RT_AUTH__SECRETS=f'["{SECRET}"]')
    assert (said.returncode, "is written like postgresql://" in said.stderr) == (2, True)
