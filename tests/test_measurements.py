"""A comment gives the reason, docs/measurements.md the figures: neither is without the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/measurements.md").read_text()
CODE = [path for folder in ("pov_rt", "plugins", "bench") for path in (ROOT / folder).rglob("*.py")]
GENERAL, ROOMS = PAGE.split("\n## In general\n")[1].split("\n## ", 1)


def headings(text: str) -> list[str]:
    return re.findall(r"^### (.+)$", text, re.M)


def pointers(path: Path) -> list[str]:
    """Return what a file points to on the page; a sentence may go on in the next line."""
    text = re.sub(r"\s*\n\s*(?:# )?", " ", path.read_text())
    found = re.findall(r"docs/measurements\.md(?:, ([a-z][A-Za-z -]*)\))?", text)
    assert "" not in found, f"{path} points to the page, and to no heading of it"
    return found


POINTERS = {path: found for path in CODE if (found := pointers(path))}


@pytest.mark.parametrize("path", POINTERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_comment_points_to_a_heading_that_exists(path: Path) -> None:
    assert set(POINTERS[path]) <= set(headings(PAGE))


def test_every_heading_below_a_room_is_pointed_to() -> None:
    pointed_to = {heading for found in POINTERS.values() for heading in found}
    assert set(headings(ROOMS)) <= pointed_to


def test_a_heading_names_one_thing() -> None:
    found = headings(PAGE)
    assert sorted(found) == sorted(set(found))


@pytest.mark.parametrize("heading", headings(ROOMS))
def test_every_figure_says_how_and_when_it_was_found(heading: str) -> None:
    part = ROOMS.split(f"### {heading}\n", 1)[1]
    part = re.split(r"^#", part, maxsplit=1, flags=re.M)[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    assert rows[0] == ["what", "figure", "command", "date"]
    assert rows[2:]
    for row in rows[2:]:
        what, figure, command, date = row
        assert what
        assert figure
        assert command
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", date), row
