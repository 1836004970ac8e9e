"""Alerts and board ask for what a server has in its metrics, from its start on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pov_rt.config.settings import Settings
from pov_rt.testing import RunningServer, make_settings
from tests.clients import settings_of
from tests.redis_servers import HOW, find_program, redis_running
from tests.test_deploy import DEPLOY
from tests.test_docs import DOCS, table
from tests.web.routes.test_ops import admin

ALERTS = DEPLOY / "alerts.yml"
BOARD: Mapping[str, Any] = json.loads((DEPLOY / "grafana.json").read_text())
SELECTOR = re.compile(r"\b((?:pov_rt|process)_\w+)(?:\{(.*?)\})?")
FROM_SCRAPING = {"instance", "job"}
"""Labels that Prometheus adds."""

Series = Mapping[str, list[Mapping[str, str]]]


def rules() -> list[str]:
    return re.findall(r"^ +expr: (.*)$", ALERTS.read_text(), re.M)


def panels() -> Iterator[tuple[str, str]]:
    """Yield each expression of the board, and how its lines are called."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]
    for annotation in BOARD["annotations"]["list"]:
        yield annotation["expr"], ""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of("sqlite", tmp_path)


def series_of(server: RunningServer) -> Series:
    found: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(admin(server, "/metrics").body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.fixture
def series(server: RunningServer) -> Series:
    """Return the labels of all series of a server to which nothing has happened yet, by name."""
    return series_of(server)


@pytest.fixture
def series_of_all(series: Series, tmp_path: Path) -> Series:
    """Return those of one that is on Redis, too."""
    program = "redis-server"
    if find_program(program) is None:
        pytest.skip(f"there is no {program}; {HOW[program]}")
    with (
        redis_running(program, tmp_path / "redis") as redis,
        RunningServer(make_settings(engine={"url": redis.url}), None) as other,
    ):
        return {**series, **series_of(other)}


def test_what_alerts_and_board_ask_for_is_there_before_anything_happens(
    series_of_all: Series,
) -> None:
    """A series that comes with its first event has no rise, which `rate` would see."""
    asked = [*rules(), *(expr for expr, _ in panels())]
    for expr in asked:
        selectors = SELECTOR.findall(expr)
        assert selectors or expr.startswith("up{"), expr
        for name, matchers in selectors:
            wanted = {
                label: value
                for label, value in re.findall(r'(\w+)="([^"]*)"', matchers)
                if label not in FROM_SCRAPING
            }
            known = series_of_all.get(name, ())
            fitting = [each for each in known if wanted.items() <= each.items()]
            assert fitting, f"{name} {wanted}, in: {expr}"


def test_the_docs_have_what_there_is_on_redis_alone(series: Series, series_of_all: Series) -> None:
    new = series_of_all.keys() - series.keys()
    own = {re.sub("_(bucket|count|sum|created)$", "", name) for name in new}
    rows = table(DOCS["operations"], "Metrics")
    assert own == {row[0].strip("`") for row in rows if row[2].startswith("on Redis, ")} | {
        "pov_rt_engine"
    }
    labels = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in rows}
    for name in own & series_of_all.keys():
        assert series_of_all[name][0].keys() == labels[name]


def test_the_labels_by_which_they_group_and_name_are_labels_of_what_they_ask_for(
    series_of_all: Series,
) -> None:
    for expr, legend in panels():
        found = {label for name, _ in SELECTOR.findall(expr) for label in series_of_all[name][0]}
        grouped = re.findall(r"by \(([^)]*)\)", expr)
        used = {*re.findall(r"\w+", " ".join(grouped)), *re.findall(r"\{\{(\w+)\}\}", legend)}
        assert used <= found | FROM_SCRAPING, expr


def test_the_board_shows_each_metric_that_the_docs_have() -> None:
    shown = {name for expr, _ in panels() for name, _ in SELECTOR.findall(expr)}
    shown |= set(re.findall(r"pov_rt_\w+", json.dumps(BOARD["templating"])))
    names = {re.sub("_bucket$", "", name) for name in shown}
    documented = {row[0].strip("`") for row in table(DOCS["operations"], "Metrics")}
    assert names <= documented
    assert documented - names == {
        "pov_rt_answers_expected",
        "pov_rt_answers_standing",
        "pov_rt_draining",
        "pov_rt_sockets_paused",
        "pov_rt_tokens_remembered",
        "process_virtual_memory_bytes",
    }, "what is for somebody who looks for a fault"


def test_panels_have_places_of_their_own_and_ids() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not mine & taken
        assert at["x"] + at["w"] <= 24
        taken |= mine


def test_each_alert_says_in_words_what_is_wrong() -> None:
    text = ALERTS.read_text()
    assert len(rules()) == text.count("alert:") == text.count("summary:")


def test_each_alert_has_an_answer_in_the_docs() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())
    rows = table(DOCS["operations"], "What to do at night")
    assert [row[0].strip("`") for row in rows] == alerts
    assert all(len(cell) > 10 for row in rows for cell in row)


def test_every_reason_and_code_that_a_server_counts_is_in_the_docs(series: Series) -> None:
    def counted(name: str, label: str) -> set[str]:
        return {each[label] for each in series[name]}

    ends = table(DOCS["operations"], "Why connections end")
    reasons = {reason for row in ends for reason in re.findall(r"`([^`]+)`", row[0])}
    assert counted("pov_rt_closes_total", "reason") == reasons
    codes = {row[0].strip("`") for row in table(DOCS["protocol"], "Error codes")}
    for name in ("pov_rt_errors_total", "pov_rt_http_refused_total"):
        assert counted(name, "code") <= codes
    bounds = set(re.findall(r'bound="(\w+)"', DOCS["configuration"]))
    assert counted("pov_rt_bound_used", "bound") <= bounds
    row = next(row for row in table(DOCS["operations"], "Metrics") if "plugin_failures" in row[0])
    kinds = set(re.findall(r"`(\w+)`", row[2]))
    assert counted("pov_rt_plugin_failures_total", "kind") == kinds


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool: apt-get install -y --no-install-recommends prometheus")
    return program


def check(promtool: str, *arguments: str | Path, given: str | None = None) -> None:
    done = subprocess.run(
        [promtool, *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_alerts_are_rules_of_prometheus(promtool: str) -> None:
    check(promtool, "check", "rules", ALERTS)


def test_what_the_board_asks_prometheus_takes(promtool: str, tmp_path: Path) -> None:
    found = [expr.replace("$__rate_interval", "5m") for expr, _ in panels()]
    recorded = [{"record": f"panel{at}", "expr": expr} for at, expr in enumerate(found)]
    file = tmp_path / "board.yml"
    file.write_text(json.dumps({"groups": [{"name": "board", "rules": recorded}]}))
    check(promtool, "check", "rules", file)


def test_metrics_are_as_prometheus_wants_them(promtool: str, server: RunningServer) -> None:
    check(promtool, "check", "metrics", given=admin(server, "/metrics").body.decode())


HAPPENING: Mapping[str, Mapping[str, str]] = {
    # A first error ever, and nothing more than one each minute.
    "PovRtInternalErrors": {
        'pov_rt_errors_total{code="internal"}': "0 1+1x20",
        'pov_rt_http_refused_total{code="internal"}': "0x20",
    },
    "PovRtCannotWrite": {
        'pov_rt_errors_total{code="unavailable"}': "0x20",
        'pov_rt_http_refused_total{code="unavailable"}': "0 1+1x20",
    },
    "PovRtRefusedAtBound": {'pov_rt_bound_refused_total{bound="topics"}': "0 1+1x20"},
    "PovRtSlowConsumers": {
        'pov_rt_closes_total{reason="slow consumer",transport="ws"}': "0+3x20",
        'pov_rt_closes_total{reason="slow consumer",transport="sse"}': "0+1x20",
    },
    "PovRtNotRecovered": {
        'pov_rt_recoveries_total{recovered="no"}': "0+5x20",
        'pov_rt_recoveries_total{recovered="yes"}': "0+20x20",
    },
    "PovRtSlowDisk": {
        'pov_rt_commit_seconds_bucket{le="0.5"}': "0+9x20",
        'pov_rt_commit_seconds_bucket{le="1.0"}': "0+10x20",
        'pov_rt_commit_seconds_bucket{le="+Inf"}': "0+10x20",
    },
    "PovRtEngineDegraded": {'pov_rt_engine_state{state="degraded"}': "0x5 1x15"},
    "PovRtDeaf": {'pov_rt_engine_state{state="deaf"}': "0x5 1x15"},
    "PovRtBeatsLate": {
        'pov_rt_engine_beat_seconds_bucket{le="1.0"}': "0+20x20",
        'pov_rt_engine_beat_seconds_bucket{le="2.5"}': "0+30x20",
        'pov_rt_engine_beat_seconds_bucket{le="+Inf"}': "0+30x20",
    },
    "PovRtMissedPublications": {
        'pov_rt_engine_positions_total{outcome="missed"}': "0x13 1x7",
        'pov_rt_engine_positions_total{outcome="same"}': "0+100x20",
    },
    "PovRtLogsChanged": {'pov_rt_engine{measure="epochs_changed"}': "0x13 1x7"},
    "PovRtNotOnReplicas": {
        'pov_rt_engine_appends_total{outcome="unconfirmed"}': "0x8 1+1x12",
        'pov_rt_engine_appends_total{outcome="appended"}': "0+100x20",
    },
    "PovRtRedisNearlyFull": {
        'pov_rt_engine{measure="used_bytes"}': "81x20",
        'pov_rt_engine{measure="most_bytes"}': "100x20",
    },
    "PovRtBoundNearlyUsed": {
        'pov_rt_bound_used{bound="topics"}': "81x20",
        'pov_rt_bound_limit{bound="topics"}': "100x20",
    },
}
"""Series, and what they count each minute, that an alert is for."""


@pytest.mark.parametrize("name", HAPPENING)
def test_an_alert_comes_when_what_it_is_for_happens(
    name: str, promtool: str, tmp_path: Path
) -> None:
    series = [{"series": each, "values": values} for each, values in HAPPENING[name].items()]
    count = f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}})'
    firing = [{"labels": f'{{alertname="{name}"}}', "value": 1}]
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": count, "eval_time": "15m", "exp_samples": firing}],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [test]}))
    check(promtool, "test", "rules", file)
