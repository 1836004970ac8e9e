"""constraints.txt pins all that a server runs with, each file by its hash, and names no index."""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "constraints.txt").read_text()
LINE = re.compile(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)((?: --hash=sha256:[0-9a-f]{64})+)")


def pinned() -> dict[str, tuple[str, int]]:
    """Return each package's version, and how many files of it are allowed."""
    lines = TEXT.replace(" \\\n   ", "").splitlines()
    found: dict[str, tuple[str, int]] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        assert match is not None, line
        assert match[1] not in found, "twice"
        found[match[1]] = match[2], match[3].count("sha256:")
    return found


def direct() -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    extras = setup["options.extras_require"]
    given = setup["options"]["install_requires"], extras["schemas"], extras["redis"]
    lines = [line for each in given for line in each.splitlines() if line]
    return [Requirement(line) for line in [*lines, *build]]


def all_needed(wanted: list[Requirement]) -> Iterator[Requirement]:
    """Yield what is needed, and what that needs, in any Python that is supported."""
    waiting, seen = list(wanted), set[str]()
    while waiting:
        each = waiting.pop()
        yield each
        key = str(each)
        if key in seen:
            continue
        seen.add(key)
        for line in requires(each.name) or ():
            inner = Requirement(line)
            extras = each.extras or {""}
            for python in ("3.11", "3.12", "3.13"):
                given = {"python_version": python, "python_full_version": f"{python}.0"}
                if inner.marker is None or any(
                    inner.marker.evaluate({**given, "extra": extra}) for extra in extras
                ):
                    waiting.append(inner)
                    break


def test_all_that_a_server_needs_is_pinned_at_a_version_that_is_allowed() -> None:
    versions = pinned()
    needed = list(all_needed(direct()))
    for each in needed:
        name = canonicalize_name(each.name)
        assert name in versions, f"{each} is missing; run scripts/lock"
        assert each.specifier.contains(versions[name][0]), f"{each}; run scripts/lock"
    assert {canonicalize_name(each.name) for each in needed} == versions.keys(), "no more than that"


@pytest.mark.parametrize("name", ["msgspec", "cffi"])
def test_what_is_compiled_for_each_python_has_a_hash_for_each(name: str) -> None:
    assert pinned()[name][1] >= 6, "three Pythons on two machines"


def test_no_index_is_named() -> None:
    assert not re.search(r"://|--(?!hash=)|index|@", TEXT)
