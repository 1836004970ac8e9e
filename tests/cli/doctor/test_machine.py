"""What is wrong with a machine is found by looking at it, and mended by the line that is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pov_rt.cli.doctor.findings import Finding
from pov_rt.cli.doctor.machine import (
    check_backlog,
    check_clock,
    check_disk,
    check_modes,
    check_settings,
    check_sqlite,
    find_kind,
    judge_node,
    judge_space,
    kernel_clock,
    read_metrics,
)
from pov_rt.config import load as config
from pov_rt.config.settings import AuthSettings, EngineSettings, LimitSettings, ServerSettings
from pov_rt.testing import make_settings

GB = 10**9


def levels(found: Iterator[Finding]) -> list[str]:
    return [each.level for each in found]


def test_files_that_others_may_read_are_found_and_the_line_mends_them(tmp_path: Path) -> None:
    folder, secret = tmp_path / "data", tmp_path / "jwt-secret"
    folder.mkdir(mode=0o755)
    secret.write_text("x" * 40)
    secret.chmod(0o644)
    database = folder / "pov-rt.db"
    database.touch(0o600)
    settings = make_settings(
        server=ServerSettings(data=str(folder)),
        auth=AuthSettings(secret_files=[str(secret)]),
        engine=EngineSettings(url="sqlite://"),
    )
    found = list(check_modes(settings))
    assert [each.level for each in found] == ["bad", "bad", "ok"]
    assert [each.mend for each in found[:2]] == [f"chmod 600 {secret}", f"chmod 700 {folder}"]
    for each in found[:2]:
        subprocess.run(each.mend.split(), check=True)
    (well,) = check_modes(settings)
    assert (well.level, well.what) == ("ok", "3 files and folders are their owner's alone")


@pytest.mark.parametrize(
    ("free", "total", "inodes", "level"),
    [
        (500 * GB, 1000 * GB, 10**6, "ok"),
        (2 * GB, 1000 * GB, 10**6, "ok"),
        (GB // 2, 1000 * GB, 10**6, "doubt"),
        (GB // 2, 2 * GB, 10**6, "ok"),  # a small disk
        (GB // 20, 2 * GB, 10**6, "bad"),
        (500 * GB, 1000 * GB, 10, "bad"),
        (500 * GB, 1000 * GB, 0, "ok"),  # of a file system without inodes
    ],
)
def test_a_disk_that_is_nearly_full_is_found(
    free: int, total: int, inodes: int, level: str
) -> None:
    files = 10**6 if inodes else 0
    disk = SimpleNamespace(
        f_frsize=1, f_bavail=free, f_blocks=total, f_files=files, f_favail=inodes
    )
    assert levels(judge_space(Path("/data"), cast("os.statvfs_result", disk))) == [level]


def test_a_disk_of_another_machine_is_found(tmp_path: Path) -> None:
    settings = make_settings(engine={"url": f"sqlite://{tmp_path}/new/log.db"})
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\n")
    first, _ = check_disk(settings, mounts)
    assert (first.level, "nfs4" in first.what) == ("bad", True)
    mounts.write_text("/dev/a / ext4 rw 0 0\n")
    assert "nfs" not in "".join(each.what for each in check_disk(settings, mounts))
    assert levels(check_disk(make_settings(engine={"url": "memory://"}))) == ["skipped"]


def test_a_folder_is_on_the_innermost_mount() -> None:
    mounts = "/dev/a / ext4 rw 0 0\n/dev/b /var xfs rw 0 0\nhost:/x /var/lib nfs rw 0 0\n"
    for folder, kind in (("/etc", "ext4"), ("/var/log", "xfs"), ("/var/lib/x", "nfs")):
        assert find_kind(Path(folder), mounts) == kind


def test_the_clock_is_what_the_kernel_says() -> None:
    assert kernel_clock() in range(6)
    for state, level in ((0, "ok"), (5, "doubt"), (None, "skipped"), (-1, "skipped")):
        assert levels(check_clock(lambda state=state: state)) == [level]  # type: ignore[misc]


def test_an_old_sqlite_has_to_be_alone() -> None:
    (old,), (new,) = check_sqlite((3, 40, 1)), check_sqlite((3, 51, 3))
    assert ("nothing but pov-rt" in old.what, new.what) == (True, "3.51.3")
    assert levels(check_sqlite()) == ["ok"]


def test_a_kernel_that_lets_few_wait_is_found(tmp_path: Path) -> None:
    path = tmp_path / "somaxconn"
    for count, level in (("128\n", "doubt"), ("4096\n", "ok")):
        path.write_text(count)
        assert levels(check_backlog(path)) == [level]


def test_what_config_check_says_is_found(tmp_path: Path) -> None:
    def look(**auth: Any) -> list[Finding]:
        settings = make_settings(auth={"default_povs": "*", **auth})
        return list(check_settings(config.Loaded(settings, {}, ("something is doubtful",))))

    assert [each.level for each in look(secrets=["x" * 40])] == ["doubt", "ok"]
    found = look(secret_files=[str(tmp_path / "none")], secrets=[])
    assert (found[0].level, str(tmp_path) in found[0].what) == ("bad", True)
    assert "ok" not in [each.level for each in found]


READY = {"status": "ready"}


@pytest.mark.parametrize(
    ("readiness", "metrics", "expected"),
    [
        (READY, {"process_max_fds": 1000.0, "process_open_fds": 20.0}, ["ok", "ok"]),
        ({"status": "not ready", "reason": "no key"}, {}, ["bad"]),
        ({**READY, "publish": False, "reason": "no room"}, {}, ["bad"]),
        ({**READY, "warning": "clients bring positions of another log"}, {}, ["bad", "ok"]),
        ({**READY, "plugins": {"poll": "off: it fails"}}, {}, ["bad", "ok"]),
        (READY, {"process_max_fds": 150.0}, ["bad", "ok"]),
        (READY, {"process_max_fds": 1000.0, "process_open_fds": 900.0}, ["doubt", "ok"]),
        (READY, {"pov_rt_loop_lag_seconds": 1.5}, ["doubt"]),
    ],
)
def test_a_node_is_judged_by_what_it_says(
    readiness: dict[str, Any], metrics: dict[str, float], expected: list[str]
) -> None:
    settings = make_settings(limits=LimitSettings(connections=100))
    found = list(judge_node(readiness, metrics, settings))
    assert [each.level for each in found] == expected
    assert all(each.mend for each in found if each.level in ("bad", "doubt"))


def test_metrics_are_read_by_their_names() -> None:
    found = read_metrics(
        "# HELP pov_rt_connections Open\n"
        'pov_rt_connections{transport="ws"} 3.0\npov_rt_connections{transport="sse"} 1.0\n'
        "pov_rt_activities_published_total 1.5e+01\npython_info 1\nprocess_open_fds 9\n"
    )
    assert found == {
        "pov_rt_connections": 4.0,
        "pov_rt_activities_published_total": 15.0,
        "process_open_fds": 9.0,
    }
