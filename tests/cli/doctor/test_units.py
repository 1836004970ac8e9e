"""Units are judged by what systemd prints of them, nginx by its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.cli.doctor.units import check_nginx, judge_nginx, judge_units, read_span, read_units
from pov_rt.testing import make_settings

PRINTED = """\
LimitNOFILE=1048576
TimeoutStopUSec=30s
NRestarts=0
Id=pov-rt.service
LoadState=loaded
ActiveState=active
SubState=running
NeedDaemonReload=no
StartLimitIntervalUSec=0
StartLimitBurst=5

Id=pov-rt.socket
LoadState=loaded
ActiveState=active
SubState=running
NeedDaemonReload=no
StartLimitIntervalUSec=2s
StartLimitBurst=20
"""
"""As systemd 252 prints it, of units without a limit of starts."""
SETTINGS = make_settings(server={"drain_s": 10.0})


def test_units_as_they_should_be_are_good() -> None:
    (found,) = judge_units(read_units(PRINTED), SETTINGS)
    assert found.level == "ok"


@pytest.mark.parametrize(
    ("before", "after", "level", "mend"),
    [
        ("IntervalUSec=0", "IntervalUSec=10s", "doubt", "StartLimitIntervalSec=0"),
        ("StopUSec=30s", "StopUSec=12s", "bad", "TimeoutStopSec=25"),
        ("NOFILE=1048576", "NOFILE=1024", "bad", "LimitNOFILE=1048576"),
        ("NRestarts=0", "NRestarts=7", "doubt", "journalctl -u pov-rt"),
        ("Reload=no\nStart", "Reload=yes\nStart", "doubt", "systemctl daemon-reload"),
        (
            "ActiveState=active\nSubState=running",
            "ActiveState=failed\nSubState=failed",
            "bad",
            "systemctl reset-failed pov-rt.service pov-rt.socket",
        ),
        (
            "Id=pov-rt.socket\nLoadState=loaded\nActiveState=active",
            "Id=pov-rt.socket\nLoadState=loaded\nActiveState=inactive",
            "bad",
            "systemctl start pov-rt.socket pov-rt.service",
        ),
    ],
)
def test_each_fault_has_the_line_that_mends_it(
    before: str, after: str, level: str, mend: str
) -> None:
    assert before in PRINTED
    (found,) = judge_units(read_units(PRINTED.replace(before, after, 1)), SETTINGS)
    assert (found.level, mend in found.mend) == (level, True), found


def test_where_there_are_no_units_nothing_is_said_of_them() -> None:
    for printed in ("", PRINTED.replace("LoadState=loaded", "LoadState=not-found")):
        (found,) = judge_units(read_units(printed), SETTINGS)
        assert found.level == "skipped"


def test_times_are_read_as_systemd_writes_them() -> None:
    spans = ("1min 30s", "2h 5min", "500ms", "0", "", "infinity")
    assert [read_span(each) for each in spans] == [90.0, 7500.0, 0.5, 0.0, 0.0, float("inf")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("events { worker_connections 768; }\nerror_log /x crit;", ["doubt"]),
        ("# worker_connections 99999;\nerror_log /x crit;", ["doubt"]),
        ("events { worker_connections 16384; }\nerror_log /x;", ["ok", "doubt"]),
        ("events { worker_connections 16384; }\nerror_log /x error;", ["ok", "doubt"]),
        ("events { worker_connections 16384; }", ["ok", "doubt"]),
        ("events { worker_connections 16384; }\nerror_log /x crit;", ["ok"]),
    ],
)
def test_an_nginx_that_takes_few_or_logs_tokens_is_found(text: str, expected: list[str]) -> None:
    assert [each.level for each in judge_nginx(text, "/etc/nginx/nginx.conf")] == expected


def test_where_there_is_no_nginx_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert not list(check_nginx(tmp_path / "nginx.conf"))
