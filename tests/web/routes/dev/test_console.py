"""What the console asks for is there under --dev, for browsers on this machine alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.httpclient import HTTPResponse

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.registry.build import build_registry
from pov_rt.registry.problem import Problem
from pov_rt.registry.scaffold import PLUGIN
from pov_rt.testing import SECRET, RunningServer, make_settings
from pov_rt.web.routes.dev.console import describe_types, first_sentence
from pov_rt.web.routes.dev.pages import OF_PROXIES
from tests.web.routes.test_activities import call

DOORS = ("/", "/dev/console.json", "/dev/problem.json", "/dev/token")


def test_without_dev_there_is_no_console(server: RunningServer) -> None:
    assert {call(server, path).code for path in DOORS} == {404}


def test_each_type_says_whose_it_is_and_what_its_author_says(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "poll.py").write_text(PLUGIN.format(name="poll"))
    types = describe_types(build_registry({}, folder))
    assert types["publish"]["from"] == "built-in"
    assert types["publish"]["grant"] == "publish"
    assert types["ping"]["grant"] is None
    assert types["poll.say"] == {
        "from": "plugins/poll.py",
        "grant": "collaborate",
        "summary": "Say something to everybody who is subscribed to a PoV.",
    }


def test_of_a_docstring_the_first_sentence_is_taken() -> None:
    def documented(text: str | None) -> Any:
        return type("Documented", (), {"__doc__": text})

    assert first_sentence(documented("One\n    line. Another.\n\n    More.")) == "One line."
    assert first_sentence(documented("No stop")) == "No stop."
    assert first_sentence(documented("")) == ""


class TestUnderDev:
    @pytest.fixture
    def settings(self) -> Settings:
        return replace(make_settings(), dev=True)

    def test_the_page_is_at_the_root(self, server: RunningServer) -> None:
        page = call(server, "/")
        assert (page.code, b"<pov-console>" in page.body) == (200, True)
        assert page.headers["Content-Security-Policy"].startswith("default-src 'self'; require")
        assert b"http" not in page.body, "nothing comes from elsewhere"

    def test_its_data_has_tokens_and_no_secret(self, server: RunningServer) -> None:
        data = json.loads(call(server, "/dev/console.json").body)
        assert SECRET not in json.dumps(data)
        verify = server.web.server.hooks.hosts["ping"].verify
        assert server.call(lambda: verify(data["token"])).user_id == "dev"
        assert "receive.subscribe" in data["schema"]["operations"]
        assert set(data["types"]) == server.web.server.registry.tags
        assert data["token"] != json.loads(call(server, "/dev/console.json").body)["token"]

    def test_a_name_that_points_here_gets_nothing(self, server: RunningServer) -> None:
        for host, status in (
            ("evil.example", 421),
            ("localhost.evil.example:8765", 421),
            ("10.0.0.1", 403),
        ):
            for path in DOORS[1:]:
                method = "POST" if path == "/dev/token" else "GET"
                body = {"token": "x"} if path == "/dev/token" else None
                answer = call(server, path, method=method, body=body, Host=host)
                assert answer.code == status
                assert set(json.loads(answer.body)) == {"error"}

    @pytest.mark.parametrize("name", OF_PROXIES)
    def test_whom_a_proxy_speaks_for_gets_nothing(self, server: RunningServer, name: str) -> None:
        # By default nginx has it ask for 127.0.0.1, and this machine is where it asks from.
        for path in DOORS[1:]:
            method = "POST" if path == "/dev/token" else "GET"
            body = {"token": "x"} if path == "/dev/token" else None
            answer = call(server, path, method=method, body=body, **{name: "203.0.113.9"})
            assert answer.code == 403
            assert "without a proxy" in json.loads(answer.body)["error"]["message"]

    def test_pages_of_any_localhost_may_connect(self, server: RunningServer) -> None:
        answer = call(server, "/api/auth/ws-token", Origin="http://localhost:3000")
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"

    def test_a_problem_is_told_until_there_is_none(self, server: RunningServer) -> None:
        def problem() -> Any:
            return json.loads(call(server, "/dev/problem.json").body)["problem"]

        assert problem() is None
        server.web.trouble.problem = Problem("syntax error", "poll.py", 3, is_running=True)
        told = problem()
        assert (told["file"], told["line"], told["isRunning"]) == ("poll.py", 3, True)
        server.web.trouble.problem = None
        assert problem() is None

    def try_it(self, server: RunningServer, body: Any, token: str | None) -> HTTPResponse:
        return call(server, "/dev/token", method="POST", body=body, token=token)

    def test_a_token_is_explained_and_written_nowhere(
        self, server: RunningServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        tried = server.token("eve", Kind.SERVICE, povs=["acme"], can=["publish"])
        found = json.loads(self.try_it(server, {"token": tried}, server.token()).body)
        assert (found["verdict"], found["userId"], found["kinds"]) == ("good", "eve", ["service"])
        assert (found["povs"], found["can"]) == (["acme"], ["publish"])
        forged = tried[:-4] + "AAAA"
        found = json.loads(self.try_it(server, {"token": forged}, server.token()).body)
        assert (found["verdict"], found["isSigned"]) == ("refused", False)
        assert tried[:-4] not in caplog.text

    def test_reasons_are_for_those_who_have_a_good_token(self, server: RunningServer) -> None:
        assert self.try_it(server, {"token": "x"}, None).code == 401
        assert self.try_it(server, {"token": "x"}, "x.y.z").code == 401

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"[]", b'{"token": 7}', b'{"token":"\\ud800"}', b"{", b"\xff"),
            b'{"token": "x", "more": %b%b}' % (b"[" * 5000, b"]" * 5000),
        ],
        ids=lambda body: body[:20],
    )
    def test_what_is_no_question_is_refused(self, server: RunningServer, body: bytes) -> None:
        answer = self.try_it(server, body, server.token())
        assert (answer.code, json.loads(answer.body)["error"]["code"]) == (400, "invalid_request")
