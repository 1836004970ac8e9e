"""Activities in the app's own transaction, by each way to a database, whoever dies when."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pov_rt.client import Outbox, Relay
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.testing import RunningServer
from tests.client.publishing.databases import Place
from tests.client.publishing.reading import PATIENCE_S, activity, numbers, pass_days, service
from tests.clients import span
from tests.processes import read_until, running

pytestmark = pytest.mark.timeout(3 * PATIENCE_S)
ROOT = Path(__file__).parents[3]
INSERT = "INSERT INTO tasks VALUES ('x')"


def drain(place: Place, server: RunningServer) -> None:
    relay = Relay(place.connect, server.address, service(server), poll_s=0.01)
    assert relay.drain(PATIENCE_S)
    relay.close()


def add(place: Place, *added: int, pov: str = "acme") -> None:
    connection = place.connect()
    for number in added:
        Outbox.add(connection, activity(number, pov))
    connection.commit()
    connection.close()


DJANGO = """
import sys, django
from ast import literal_eval
from django.conf import settings
settings.configure(DATABASES={"default": literal_eval(sys.argv[1])}, USE_TZ=True)
django.setup()
from django.db import connection, transaction
from pov_rt.client import Outbox, Relay
from tests.client.publishing.reading import PATIENCE_S, activity
with transaction.atomic():
    connection.cursor().execute("INSERT INTO tasks VALUES ('x')")
    Outbox.add(connection, activity(1))
try:
    with transaction.atomic():
        Outbox.add(connection, activity(2))
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
connection.close()
connect = lambda: connection.get_new_connection(connection.get_connection_params())
relay = Relay(connect, sys.argv[2], sys.argv[3], poll_s=0.01)
assert relay.drain(PATIENCE_S)
relay.close()
"""


class TestTransactions:
    def test_of_db_api(self, place: Place, server: RunningServer) -> None:
        connection = place.connect()
        for number, end in ((1, connection.commit), (2, connection.rollback)):
            connection.execute(INSERT)
            Outbox.add(connection, activity(number))
            end()
        connection.close()
        drain(place, server)
        assert (numbers(server), place.rows()) == ([1], 0)

    def test_of_sqlalchemy(self, place: Place, server: RunningServer) -> None:
        if place.dialect == "sqlite":
            engine = create_engine(f"sqlite:///{place.name}")
        else:
            engine = create_engine("postgresql+psycopg://", creator=place.connect)
        with Session(engine) as session, session.begin():
            session.execute(text(INSERT))
            Outbox.add(session, activity(1))
        with engine.connect() as connection:
            Outbox.add(connection, activity(2))
            connection.rollback()
        with engine.begin() as connection:
            Outbox.add(connection, activity(3))
        relay = Relay(engine.raw_connection, server.address, service(server), poll_s=0.01)
        assert relay.drain(PATIENCE_S)
        relay.close()
        engine.dispose()
        assert (numbers(server), place.rows()) == ([1, 3], 0)

    def test_of_django(self, place: Place, server: RunningServer) -> None:
        database: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": place.name}
        if place.dialect == "postgresql":
            parts = dict(each.split("=") for each in place.name.split())
            database = {"ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"]}
            database |= {"HOST": parts["host"], "USER": parts["user"]}
        given = [repr(database), server.address, service(server)]
        command = [sys.executable, "-W", "error", "-c", DJANGO, *given]
        subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE_S)
        assert (numbers(server), place.rows()) == ([1], 0)

    def test_what_is_no_connection_is_named(self) -> None:
        with pytest.raises(TypeError, match="int is no connection: give a DB-API connection"):
            Outbox.add(7, activity(1))

    def test_what_the_server_would_refuse_at_sight_is_refused(self, place: Place) -> None:
        connection = place.connect()
        with pytest.raises(InvalidActivity, match="action has 1 to 64 characters"):
            Outbox.add(connection, activity(1, action=""))
        connection.close()
        assert place.rows() == 0


def test_two_transactions_that_commit_in_reverse_order_are_both_published(
    postgres: Place, server: RunningServer
) -> None:
    late, early = postgres.connect(), postgres.connect()
    Outbox.add(late, activity(1))
    Outbox.add(early, activity(2))
    early.commit()
    drain(postgres, server)
    late.commit()
    drain(postgres, server)
    assert numbers(server) == [2, 1]
    late.close()
    early.close()


def test_after_a_backup_came_back_the_numbers_are_still_higher_than_all_that_were_given(
    place: Place, server: RunningServer
) -> None:
    add(place, *span(1, 40))
    drain(place, server)
    connection = place.connect()
    connection.execute("UPDATE pov_rt_outbox_producer SET last = 0")
    connection.commit()
    connection.close()
    add(place, 41)
    drain(place, server)
    assert numbers(server) == span(1, 41)


def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing_however_long_it_takes(
    place: Place, server: RunningServer
) -> None:
    command = [sys.executable, "-m", "tests.client.publishing.dying"]
    given = [place.dialect, place.name, server.address]
    with running(
        [*command, *given], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as dying:
        assert dying.stdin is not None
        for step in range(1, 200):
            povs = [f"a{step}", f"b{step}"]
            for pov in povs:
                add(place, *span(1, 3), pov=pov)
            dying.stdin.write(f"{step} {service(server)}\n")
            dying.stdin.flush()
            status = int(read_until(dying.stdout, ""))
            assert status in (0, -signal.SIGKILL)
            for pov in povs:
                add(place, 4, pov=pov)
            pass_days(server, 2)  # and the server no longer knows the ids
            drain(place, server)
            for pov in povs:
                assert numbers(server, pov) == span(1, 4), f"killed at step {step}"
            assert place.rows() == 0
            if status == 0:
                break
    assert step > 20


def test_several_relays_share_the_povs_and_keep_their_order(
    place: Place, server: RunningServer
) -> None:
    stop = threading.Event()
    relays = [Relay(place.connect, server.address, service(server), poll_s=0.01) for _ in range(3)]
    threads = [threading.Thread(target=each.run, args=[stop]) for each in relays]
    for thread in threads:
        thread.start()
    povs = [f"p{number}" for number in range(6)]
    for number in span(1, 60):
        for pov in povs:
            add(place, number, pov=pov)
    drain(place, server)
    stop.set()
    for thread in threads:
        thread.join()
    for pov in povs:
        assert numbers(server, pov) == span(1, 60)
    assert place.rows() == 0
