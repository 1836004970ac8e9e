"""Where plugins are found, and what is not taken for one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pov_rt.registry.build import build_registry
from pov_rt.registry.discovery import PluginError, list_files

HEAD = """from pov_rt.plugin import Context, Host, Message, Plugin, Request, Part
import msgspec
plugin = Plugin("mine")
class Do(Message, tag="mine.do"):
    what: str
"""


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="the plugins folder does not exist"):
        build_registry({}, tmp_path / "none")


def test_packages_bring_plugins_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_plugin.py").write_text(HEAD)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pov_rt.plugins]\nmine = their_plugin:plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        registry = build_registry({})
    finally:
        sys.modules.pop("their_plugin", None)
    assert ("mine", "package theirs") in [(f.plugin.name, f.origin) for f in registry.found]


def test_files_of_tests_are_no_plugins(tmp_path: Path) -> None:
    for name in ("test_mine.py", "conftest.py", "_private.py"):
        (tmp_path / name).write_text("1 / 0")
    (tmp_path / "mine.py").write_text(HEAD)
    assert [path.name for path in list_files(tmp_path)] == ["mine.py"]
