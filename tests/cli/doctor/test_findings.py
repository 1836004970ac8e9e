"""Findings are told in lines, and a check that cannot be made is none that is passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pov_rt.cli.doctor.findings import Check, Finding, bad, describe, ok, run


def test_what_mends_it_stands_below_what_is_wrong() -> None:
    found = bad("disk", "it is full\x1b[2J", "make room\nor keep less")
    assert describe(found).splitlines() == [
        "BAD   disk        it is full\\x1b[2J",
        "                  make room",
        "                  or keep less",
    ]
    assert describe(ok("disk", "12 GB free")) == "ok    disk        12 GB free"


def test_a_check_that_cannot_be_made_is_skipped_and_the_others_go_on(tmp_path: Path) -> None:
    def look() -> Iterator[Finding]:
        yield ok("one", (tmp_path / "none").read_text())

    checks = [Check("one", look), Check("two", lambda: iter([ok("two", "well")]))]
    first, second = run(checks)
    assert (first.check, first.level) == ("one", "skipped")
    assert "No such file" in first.what
    assert second == ok("two", "well")
