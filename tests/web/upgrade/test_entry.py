"""An upgrade is asked the same and answered the same, whichever way it comes."""

from __future__ import annotations

import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from types import FrameType
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.connections.borders import Observer, Refused
from pov_rt.connections.connection import Connection
from pov_rt.testing import RunningServer
from tests.transport.test_wire import wait_until

HTTP = ("http1connection.py", "httpserver.py", "iostream.py", "httputil.py", "web.py")
"""Tornado's, in which a request is read and handled."""
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


def upgrade(target: str, *more: str, **changed: str | None) -> bytes:
    """Return a request for a WebSocket; `None` leaves a header out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    fields |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, *more, "", ""]).encode()


def answer(server: RunningServer, sent: bytes, *, first: int = 0) -> str:
    """Return what is answered, without what differs each time.

    With `first` so many bytes are sent before the rest: then it is no whole upgrade that is read.
    """
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=30)) as sock:
        if first:
            sock.sendall(sent[:first])
            wait_until(server, lambda: server.web.http_connections == 1)
            for _ in range(2):
                server.call(lambda: None)
        sock.sendall(sent[first:])
        found = b""
        while b"\r\n\r\n" not in found or not found.startswith(b"HTTP/1.1 101"):
            data = sock.recv(65536)
            if not data:
                break
            found += data
    wait_until(server, lambda: server.web.http_connections == 0)
    if found.startswith(b"HTTP/1.1 101"):
        found = found.partition(b"\r\n\r\n")[0]
    return re.sub(r"\r\nDate: [^\r]*", "", found.decode())


def cases(server: RunningServer) -> Iterator[bytes]:
    good, service = server.token(), server.token(kind=Kind.SERVICE)
    other = server.token("ben")
    yield upgrade(f"/ws/?token={good}")
    yield upgrade(f"/ws/?token={other}&device=phone")
    yield upgrade("/ws/", Sec_WebSocket_Protocol=f"pov-rt.v1, bearer.{good}")
    yield upgrade(f"/ws/deep/er?token={good}", Connection="keep-alive, Upgrade")
    yield upgrade(f"/ws/?token={good}", Origin="http://localhost")
    yield upgrade(f"/ws/?token={good}", Origin="http://evil.example")
    yield upgrade(f"/ws/?token={good}", Sec_Fetch_Site="cross-site")
    yield upgrade(f"/ws/?token={good}", Host="evil.example")
    yield upgrade(f"/ws/?token={good}", Host="a b")
    yield upgrade(f"/ws/?token={good}", Host=None)
    yield upgrade(f"/ws/?token={good}", "Host: localhost")
    yield upgrade(f"/ws/?token={good}", "Content-Length: 3")
    yield upgrade(f"/ws/?token={good}", Sec_WebSocket_Version="12")
    yield upgrade(f"/ws/?token={good}", Sec_WebSocket_Version=None)
    yield upgrade(f"/ws/?token={good}", Sec_WebSocket_Key="x")
    yield upgrade(f"/ws/?token={good}", Sec_WebSocket_Key=None)
    yield upgrade(f"/ws/?token={good}", Sec_WebSocket_Protocol=f"bearer.{good}")
    yield upgrade(f"/ws/?token={good}", Sec_WebSocket_Protocol=f"pov-rt.v1, bearer.{good}")
    yield upgrade(f"/ws/?token={good}&token={good}")
    yield upgrade(f"/ws/?token={good}&device=")
    yield upgrade(f"/ws/?token={good}&device=a&device=b")
    yield upgrade(f"/ws/?token={good}&device={65 * 'd'}")
    yield upgrade(f"/ws/?token={service}")
    yield upgrade(f"/ws/?token={good[:-2]}")
    yield upgrade("/ws/?token=")
    yield upgrade("/ws/?token=%ff")
    yield upgrade("/ws/")
    yield upgrade(f"/ws/_echo?token={good}")
    yield upgrade(f"/wx/?token={good}")
    yield upgrade(f"/ws/?token={good}", Upgrade="h2c")
    yield upgrade(f"/ws/?token={good}", Connection="close")


def test_what_is_read_at_once_is_answered_as_what_comes_in_pieces(server: RunningServer) -> None:
    statuses = Counter[str]()
    for sent in cases(server):
        at_once = answer(server, sent)
        assert answer(server, sent, first=10) == at_once, sent
        statuses[at_once.split(" ", 2)[1]] += 1
    assert statuses.keys() == {"101", "400", "401", "403", "421", "426"}
    assert statuses["101"] >= 4


def functions(server: RunningServer, act: Callable[[], object]) -> Counter[str]:
    """Return how often functions of each file are called in the server's loop meanwhile."""
    found = Counter[str]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            found[frame.f_code.co_filename.rpartition("/")[2]] += 1

    server.call(lambda: sys.setprofile(note))
    act()
    server.call(lambda: sys.setprofile(None))
    return found


def test_for_a_well_formed_upgrade_no_http_is_spoken(server: RunningServer) -> None:
    sent = upgrade(f"/ws/?token={server.token()}")
    short = functions(server, lambda: answer(server, sent))
    assert short["entry.py"] > 0
    assert not short.keys() & set(HTTP) - {"web.py"}
    long = functions(server, lambda: answer(server, sent, first=10))
    assert long.keys() >= set(HTTP)


class Refusals(Observer):
    """Remembers who was refused."""

    def __init__(self) -> None:
        self.users: list[str] = []

    def refused(self, done: Refused) -> None:
        self.users.append(done.user_id)


def test_who_is_refused_behind_a_good_token_is_told_of_once_and_by_name(
    server: RunningServer,
) -> None:
    told = Refusals()
    server.call(lambda: server.web.server.borders.add(told))
    answer(server, upgrade(f"/ws/?token={server.token('ana')}&device="))
    answer(server, upgrade(f"/ws/?token={server.token('ana')[:-2]}"))
    assert told.users == ["ana", ""]


def test_who_is_in_debt_is_refused_once(server: RunningServer) -> None:
    budgets = server.web.server.budgets
    (bound,) = (each for each in server.web.server.bounds if each.name == "budgets")
    server.call(lambda: budgets.charge_owner("ana", 1e9))
    assert answer(server, upgrade(f"/ws/?token={server.token('ana')}")).split(" ", 2)[1] == "429"
    assert bound.refused == 1


def test_whom_a_bug_keeps_out_leaves_nothing_behind(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = server.web.server

    def fail(connection: Connection) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(node.arrivals, "_greet", fail)
        for first in (0, 10):
            assert "101" not in answer(server, upgrade(f"/ws/?token={server.token()}"), first=first)
            wait_until(server, lambda: server.web.sockets == 0)
            assert server.call(lambda: len(node.directory)) == 0
    server.incidents.clear()
    assert "101" in answer(server, upgrade(f"/ws/?token={server.token()}"))
