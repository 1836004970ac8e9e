"""A node has one name over all of its restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.config.settings import EngineSettings, ServerSettings, Settings
from pov_rt.server.identity import FILE, node_name

OLD, NEW = "0123456789ab", "ba9876543210"


def settings_of(url: str, data: Path | None) -> Settings:
    server = ServerSettings(data=None if data is None else str(data))
    return Settings(engine=EngineSettings(url=url), server=server)


@pytest.mark.parametrize("url", ["sqlite://", "memory://"])
def test_a_name_stays_in_the_data_folder(url: str, tmp_path: Path) -> None:
    settings = settings_of(url, tmp_path)
    assert node_name(settings, OLD) == OLD
    assert node_name(settings, NEW) == OLD
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_without_a_data_folder_it_is_beside_the_database(tmp_path: Path) -> None:
    settings = settings_of(f"sqlite://{tmp_path}/log.db", None)
    assert [node_name(settings, each) for each in (OLD, NEW)] == [OLD, OLD]


def test_a_node_that_keeps_nothing_is_another_one_each_time(tmp_path: Path) -> None:
    for settings in (settings_of("memory://", None), settings_of("memory://", tmp_path / "none")):
        assert [node_name(settings, each) for each in (OLD, NEW)] == [OLD, NEW]


@pytest.mark.parametrize("content", [b"", b"0123", b"not a name\n", b"\xff\xfe"])
def test_a_file_that_says_no_name_is_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    settings = settings_of("sqlite://", tmp_path)
    assert [node_name(settings, each) for each in (OLD, NEW)] == [OLD, OLD]


def test_a_name_that_cannot_be_kept_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).mkdir()
    assert node_name(settings_of("sqlite://", tmp_path), NEW) == NEW
    assert f"{tmp_path / FILE}: Is a directory; this node has another name" in caplog.text
