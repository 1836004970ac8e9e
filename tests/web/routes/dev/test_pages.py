"""Development pages are there under --dev alone, under the strictest policy, and always fresh."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from pov_rt.config.settings import Settings
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.routes.dev import pages
from tests.web.routes.test_activities import call


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dev"
    folder.mkdir()
    (folder / "board.html").write_text("<!doctype html><title>é</title>")
    (folder / "board.mjs").write_text("one()")
    (folder / "board.css").write_text("a { }")
    (folder / "notes.txt").write_text("private")
    (tmp_path / "outside.css").write_text("b { }")
    monkeypatch.setattr(pages, "FOLDER", folder)
    return folder


def test_without_dev_there_are_none(server: RunningServer) -> None:
    assert call(server, "/dev/board.html").code == 404


class TestUnderDev:
    @pytest.fixture
    def settings(self) -> Settings:
        return replace(make_settings(), dev=True)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("board.html", "text/html; charset=utf-8"),
            ("board.mjs", "text/javascript; charset=utf-8"),
            ("board.css", "text/css; charset=utf-8"),
        ],
    )
    def test_a_file_is_sent_with_its_kind_under_the_strictest_policy(
        self, server: RunningServer, folder: Path, name: str, kind: str
    ) -> None:
        answer = call(server, f"/dev/{name}")
        assert (answer.code, answer.body) == (200, (folder / name).read_bytes())
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Content-Security-Policy"].split("; ") == [
            "default-src 'self'",
            "require-trusted-types-for 'script'",
            "base-uri 'none'",
            "frame-ancestors 'self'",
        ]
        head = call(server, f"/dev/{name}", method="HEAD")
        assert (head.code, head.body, head.headers["Etag"]) == (200, b"", answer.headers["Etag"])

    def test_what_changed_is_sent_anew_and_what_did_not_is_not(
        self, server: RunningServer, folder: Path
    ) -> None:
        first = call(server, "/dev/board.mjs")
        assert first.headers["Cache-Control"] == "no-cache"
        tag = first.headers["Etag"]
        assert call(server, "/dev/board.mjs", If_None_Match=tag).code == 304
        (folder / "board.mjs").write_text("two()")
        again = call(server, "/dev/board.mjs", If_None_Match=tag)
        assert (again.code, again.body) == (200, b"two()")

    @pytest.mark.parametrize(
        "name",
        [
            "absent.css",
            "notes.txt",
            "..%2foutside.css",
            "%2e%2e/outside.css",
            "%00.css",
            "x" * 300 + ".css",
            "..",
            "",
        ],
    )
    def test_nothing_else_is_sent(self, server: RunningServer, name: str) -> None:
        assert call(server, f"/dev/{name}").code == 404
