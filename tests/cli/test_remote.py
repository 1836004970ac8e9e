"""The commands' way to a server: addresses, ids, and batches that are sent again."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from pov_rt.cli.remote import (
    BATCH,
    RemoteError,
    Tally,
    find_address,
    parse_url,
    publish,
    with_id,
)
from pov_rt.config.settings import ServerSettings


@pytest.mark.parametrize(
    ("url", "http", "socket"),
    [
        ("h:1", "http://h:1", "ws://h:1/ws/"),
        ("http://h:1/", "http://h:1", "ws://h:1/ws/"),
        ("ws://h:1", "http://h:1", "ws://h:1/ws/"),
        ("ws://h:1/ws", "http://h:1", "ws://h:1/ws/"),
        ("ws://h:1/ws/", "http://h:1", "ws://h:1/ws/"),
        ("https://h", "https://h", "wss://h/ws/"),
        ("wss://h/rt/ws/x?device=a", "https://h/rt", "wss://h/rt/ws/x?device=a"),
        ("https://h/rt/", "https://h/rt", "wss://h/rt/ws/"),
        ("[::1]:80", "http://[::1]:80", "ws://[::1]:80/ws/"),
    ],
)
def test_any_address_of_a_server_will_do(url: str, http: str, socket: str) -> None:
    assert parse_url(url)[:2] == (http, socket)


@pytest.mark.parametrize(
    ("server", "http", "shown"),
    [
        ({}, "http://127.0.0.1:8765", ""),
        ({"port": 47877}, "http://127.0.0.1:47877", ""),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8765", ""),
        ({"host": "::"}, "http://[::1]:8765", ""),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:8765", ""),
        ({"unix": "/run/x.sock"}, "http://localhost", "unix:/run/x.sock"),
        ({"allowed_hosts": ["rt.example"]}, "http://rt.example:8765", "http://127.0.0.1:8765"),
    ],
)
def test_the_settings_say_where_the_server_is(
    server: dict[str, Any], http: str, shown: str
) -> None:
    found = find_address(ServerSettings(**server))
    leads_elsewhere = bool(found.unix or found.place)
    assert (found.http, found.shown, leads_elsewhere) == (http, shown, bool(shown))


def test_settings_that_do_not_say_it_lead_to_no_other_server() -> None:
    with pytest.raises(RemoteError, match=r"server\.port is 0"):
        find_address(ServerSettings(port=0))


@pytest.mark.parametrize("url", ["", "ftp://h", "h:x", "h:0", "h:99999", "::1", "http://", "[h"])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(RemoteError, match="is no address"):
        parse_url(url)


@pytest.mark.parametrize(
    "line", [b"{}", b"{ }", b'{"id":1}', b"[1]", b"1", b'{"a":}', b"\xff", b""]
)
def test_what_has_an_id_or_cannot_have_one_stays_as_it_is(line: bytes) -> None:
    assert with_id(b" %b \r" % line) == line


def test_a_line_without_an_id_gets_one_of_its_own() -> None:
    line = '{"povId": "\u2028é", "details": {"n": 1e3, "n": 12345678901234567890} }'.encode()
    first, second = with_id(line), with_id(line)
    assert first.startswith(line[:-1])
    assert json.loads(first)["id"] != json.loads(second)["id"]


class Receiver(RequestHandler):
    """Does what a test says, then answers as a server does."""

    def initialize(
        self, faults: list[Any], bodies: list[list[dict[str, Any]]], came: asyncio.Event
    ) -> None:
        self.faults = faults
        self.bodies = bodies
        self.came = came

    async def post(self) -> None:
        items = [json.loads(line) for line in self.request.body.split(b"\n")]
        self.bodies.append(items)
        self.came.set()
        fault = self.faults.pop(0) if self.faults else None
        if fault == "hang up":
            self.detach().close()
        elif isinstance(fault, bytes):
            self.finish(fault)
        elif fault is not None:
            self.set_header("Retry-After", "0")
            self.set_status(fault)
        else:
            self.finish({"results": [{"id": each["id"]} for each in items]})


def published(faults: list[Any], *given: bytes) -> tuple[Tally, list[list[dict[str, Any]]]]:
    """Publish what comes through a pipe, each part once something of the one before arrived."""
    bodies: list[list[dict[str, Any]]] = []

    async def run() -> Tally:
        came = asyncio.Event()
        node = {"faults": faults, "bodies": bodies, "came": came}
        server = HTTPServer(Application([(".*", Receiver, node)]))
        sock, port = bind_unused_port()
        server.add_socket(sock)
        reading, writing = os.pipe()
        try:
            task = asyncio.create_task(publish(f"127.0.0.1:{port}", "token", reading))
            for part in given:
                came.clear()
                os.write(writing, part)
                await came.wait()
            os.close(writing)
            return await task
        finally:
            os.close(reading)
            server.stop()
            await server.close_all_connections()

    return asyncio.run(run()), bodies


def test_a_batch_that_failed_is_sent_again_with_the_same_ids() -> None:
    tally, bodies = published([503, "hang up", 429], b'{"n":1}\n{"n":2}\n')
    assert tally == Tally(2)
    assert len(bodies) == 4
    assert bodies[0] == bodies[1] == bodies[2] == bodies[3]
    assert len({each["id"] for each in bodies[0]}) == 2


def test_a_line_goes_at_once_and_many_go_together() -> None:
    many = b"".join(b'{"n":%d}\n' % number for number in range(1, BATCH + 2))
    tally, bodies = published([], b'{"n":0}\n', many.rstrip())
    assert tally == Tally(BATCH + 2)
    assert [each["n"] for body in bodies for each in body] == list(range(BATCH + 2))
    assert [len(body) for body in bodies] == [1, BATCH, 1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (b"<html>", "is no pov-rt server"),
        (b"[]", "is no pov-rt server"),
        (401, "refuses the token"),
        (403, "answers 403"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(fault: Any, words: str) -> None:
    with pytest.raises(RemoteError, match=words):
        published([fault], b'{"n":1}\n')
