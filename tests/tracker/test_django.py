"""Django's own users; tests/tracker/test_neutral.py has the rest, under both kinds of servers."""

from __future__ import annotations

import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from pov_rt.testing import SECRET, RunningServer
from tests.tracker.servers import ROOT, serve

# Programs that begin take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)


class Browser:
    """Sends requests with the session's cookie; an answer is its status and number of queries."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""

    def ask(self, method: str, path: str) -> tuple[int, int]:
        http = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            http.request(method, path, headers={"Cookie": self.cookie, "Connection": "close"})
            answer = http.getresponse()
            answer.read()
            self.cookie = (answer.getheader("Set-Cookie") or self.cookie).partition(";")[0]
            return answer.status, int(answer.getheader("X-Queries") or 0)
        finally:
            http.close()


@pytest.mark.parametrize("name", ["django users", "django users async"])
def test_the_user_is_looked_up_for_a_request_that_becomes_an_activity_and_no_other(
    name: str, server: RunningServer, tmp_path: Path
) -> None:
    ana = server.connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    with serve(name, f"http://{server.address}", SECRET, DB=str(tmp_path / "db.sqlite3")) as app:
        browser = Browser(app.port)
        assert browser.ask("POST", "/login")[0] == 200
        assert browser.ask("GET", "/povs/acme") == (200, 0)
        assert browser.ask("PUT", "/povs/acme") == (200, 0)
        assert browser.ask("DELETE", "/povs/acme?fail=1") == (409, 0)
        assert browser.ask("DELETE", "/povs/acme") == (200, 2), "the session, and the user"
        assert Browser(app.port).ask("DELETE", "/povs/acme") == (200, 0), "without a session"
        app.said("nobody is signed in")
        assert ana.receive()["data"]["userId"] == "7"
        assert ana.early == []


@pytest.mark.parametrize("value", ["None", "{}", "{'url': 'http://x'}"])
def test_what_its_setting_lacks_is_said_when_django_starts(value: str) -> None:
    code = (
        "from django.conf import settings\n"
        f"settings.configure(POV_RT_TRACKER={value})\n"
        "from pov_rt.tracker.django import ActivityTracker\n"
        "ActivityTracker(print)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "ImproperlyConfigured: POV_RT_TRACKER is a dict with url, token" in done.stderr
