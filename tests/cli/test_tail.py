"""What `pov-rt tail` prints and says; how it outlives a server: test_client."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from pov_rt.cli.remote import RemoteError, parse_url
from pov_rt.cli.tail import Since, Style, Tail, format_activity
from pov_rt.protocol.characters import find_unsafe
from pov_rt.testing import RunningServer
from tests.clients import publish, span


def test_what_is_more_than_is_sent_again_is_read_from_the_history(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        publish(server, 500, pov="demo")
    token = server.token("ben")
    following = Tail(
        parse_url(server.address), lambda: token, "demo", count=1400, since=Since(offset=100)
    )
    asyncio.run(following.run())
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["offset"] for line in lines] == span(101, 1500)


def test_what_is_no_websocket_is_words() -> None:
    class Page(RequestHandler):
        def get(self) -> None:
            self.finish("hello")

    async def run() -> None:
        server = HTTPServer(Application([(".*", Page)]))
        sock, port = bind_unused_port()
        server.add_socket(sock)
        try:
            await Tail(parse_url(f"127.0.0.1:{port}"), lambda: "token", "demo").run()
        finally:
            server.stop()
            await server.close_all_connections()

    began = time.monotonic()
    with pytest.raises(RemoteError, match="is no pov-rt server"):
        asyncio.run(run())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("style", ["json", "plain", "coloured"])
def test_others_words_act_on_no_terminal(style: Style) -> None:
    odd = "a\x9b31mb\x1b[2J\u202ec\u2028d\ufeff\n\x07"
    fields = ("id", "type", "action", "povId", "userId", "at", "by", "reason")
    data: dict[str, Any] = {name: odd for name in fields} | {"details": {odd: [odd]}}
    data |= {"amended": True, "original": {"id": odd, "offset": 1}}
    message = {"data": data, "offset": 1}
    line = format_activity(message, style)
    if style == "coloured":
        line = re.sub(r"\x1b\[(0|1|2|36)m", "", line)
    assert find_unsafe(line) is None
    if style == "json":
        assert json.loads(line) == {**data, "offset": 1}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"details": {"n": 1}}, '{"n": 1}'),
        ({"amended": True, "details": {"n": 1}}, 'was amended {"n": 1}'),
        (
            {"amended": True, "original": {"id": "a1", "offset": 1}, "details": {"n": 1}},
            'amends a1 {"n": 1}',
        ),
        (
            {"retracted": True, "original": {"id": "a1", "offset": 1}, "by": "bo", "reason": "no"},
            "retracts a1 by bo: no",
        ),
        ({"retracted": True}, "was retracted"),
    ],
)
def test_a_change_is_told_in_words(more: dict[str, Any], expected: str) -> None:
    data = {"id": "c1", "type": "t", "action": "a", "povId": "acme", "userId": "ana", **more}
    line = format_activity({"data": data, "offset": 2}, "plain")
    assert line == f"- acme ana t.a {expected}"
