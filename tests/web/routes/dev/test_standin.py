"""While a mistake keeps the server away, its author is told, in the console, and nobody else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

import pytest

from pov_rt.config.settings import ServerSettings
from pov_rt.registry.problem import Problem
from pov_rt.web.routes.dev.pages import FOLDER, POLICY
from pov_rt.web.routes.dev.standin import stand_in

PROBLEM = Problem("syntax error: expected ':'", "plugins/poll.py", 14, "Traceback", False)


def ask(
    *paths: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> list[tuple[int, Mapping[str, str], bytes]]:
    """Ask a stand-in; return status, headers and body of each answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def each(path: str) -> tuple[int, Mapping[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        found = answer.status, dict(answer.headers), answer.read()
        connection.close()
        return found

    async def run() -> list[tuple[int, Mapping[str, str], bytes]]:
        async with stand_in(ServerSettings(port=port), PROBLEM):
            return [await asyncio.to_thread(each, path) for path in paths]

    return asyncio.run(run())


def test_the_console_and_the_problem_are_there() -> None:
    page, sheet, problem = ask("/", "/dev/console.css", "/dev/problem.json")
    assert (page[0], page[2]) == (200, (FOLDER / "console.html").read_bytes())
    assert page[1]["Content-Security-Policy"] == POLICY
    assert (sheet[0], sheet[1]["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert problem[1]["Cache-Control"] == "no-store"
    assert json.loads(problem[2])["problem"] == {
        "message": "syntax error: expected ':'",
        "file": "plugins/poll.py",
        "line": 14,
        "traceback": "Traceback",
        "isRunning": False,
    }


@pytest.mark.parametrize("path", ["/", "/dev/console.css", "/dev/problem.json", "/ws/"])
def test_a_head_has_the_fields_of_a_get_and_no_body(path: str) -> None:
    ((status, fields, body),) = ask(path)
    ((asked, named, nothing),) = ask(path, method="HEAD")
    assert (asked, nothing) == (status, b"")
    assert {**named, "Date": ""} == {**fields, "Date": ""}
    assert fields["Content-Length"] == str(len(body)) != "0"


def test_all_else_is_told_to_come_back() -> None:
    paths = ("/dev/console.json", "/ws/", "/dev/../dev/problem", "/client/pov-rt.mjs", "/dev/")
    for status, headers, body in ask(*paths):
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["error"]["code"] == "unavailable"
    ((status, _, body),) = ask("/api/activities", method="POST")
    assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "10.0.0.1"])
def test_a_name_that_points_here_reads_nothing(host: str) -> None:
    for status, _, body in ask("/", "/dev/problem.json", headers={"Host": host}):
        assert status == 403
        assert b"poll.py" not in body


def test_where_nobody_could_listen_it_waits_all_the_same(tmp_path: Path) -> None:
    async def run(settings: ServerSettings) -> bool:
        async with stand_in(settings, PROBLEM):
            return True

    assert asyncio.run(run(ServerSettings(unix=str(tmp_path / "socket"))))
    assert not (tmp_path / "socket").exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert asyncio.run(run(ServerSettings(port=taken.getsockname()[1])))
