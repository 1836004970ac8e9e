"""A follower is called with all that is published, in order, at least once, over restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, Settings
from pov_rt.dispatch import followers
from pov_rt.runtime.clock import ManualClock
from pov_rt.server import server as server_module
from pov_rt.testing import RunningServer, make_settings
from tests.engine.losing import LosingEngine

PLUGIN = """
from pov_rt.plugin import Plugin
plugin = Plugin("mine")
heard = []
broken = set()

@plugin.follows({})
async def follow(activity, published, host):
    if activity.action in broken:
        raise RuntimeError(activity.action)
    heard.append((activity.pov_id, activity.action, published.offset))
"""


class Stage:
    """Servers one after the other on one database, and what their plugin heard."""

    def __init__(self, tmp_path: Path, **auth: Any) -> None:
        self.folder = tmp_path / "plugins"
        self.folder.mkdir()
        self.url = f"sqlite://{tmp_path}/log.db"
        self.write("")
        self.clock = ManualClock()

    def write(self, arguments: str) -> None:
        (self.folder / "mine.py").write_text(PLUGIN.format(arguments))

    def settings(self, **engine: Any) -> Settings:
        return make_settings(engine=EngineSettings(url=self.url, **engine))

    def run(self, **engine: Any) -> RunningServer:
        return RunningServer(self.settings(**engine), self.folder, self.clock)


def module(server: RunningServer) -> Any:
    (found,) = [each for each in server.web.server.registry.found if each.plugin.name == "mine"]
    return found.module


def heard(server: RunningServer, count: int) -> list[tuple[str, str, int]]:
    """Return what was heard once it is so much; the test's time limit ends the wait."""
    while len(module(server).heard) < count:
        server.call(lambda: None)
    found: list[tuple[str, str, int]] = list(module(server).heard)
    return found


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(followers, "RETRY_S", 0.01)
    monkeypatch.setattr(followers, "MAX_RETRY_S", 0.02)
    return Stage(tmp_path)


def say(server: RunningServer, *actions: str, pov: str = "a", **claims: Any) -> None:
    client = server.connect("ana", **claims)
    for action in actions:
        answer = client.request(
            {"type": "publish", "data": {"type": "t", "action": action, "povId": pov}}
        )
        assert answer["type"] == "published", answer


def test_it_hears_all_of_every_team_from_its_first_start_on(stage: Stage) -> None:
    stage.write("")
    (stage.folder / "mine.py").rename(stage.folder / "_later.py")
    with stage.run() as server:
        say(server, "before")
    (stage.folder / "_later.py").rename(stage.folder / "mine.py")
    with stage.run() as server:
        say(server, "1", "2")
        say(server, "3", pov="b")
        say(server, "4", team_id="another")  # whose feed is new
        assert sorted(heard(server, 4), key=lambda each: each[1]) == [
            ("a", "1", 2),
            ("a", "2", 3),
            ("b", "3", 4),
            ("a", "4", 1),
        ]


def test_it_goes_on_where_it_was_after_a_restart_and_an_absence(stage: Stage) -> None:
    with stage.run() as server:
        say(server, "1")
        heard(server, 1)
    (stage.folder / "mine.py").rename(stage.folder / "_away.py")
    with stage.run() as server:
        say(server, "2", "3")
        say(server, "4", team_id="another")
    (stage.folder / "_away.py").rename(stage.folder / "mine.py")
    with stage.run() as server:
        assert sorted(each[1] for each in heard(server, 3)) == ["2", "3", "4"]
    with stage.run() as server:
        say(server, "5")
        assert [each[1] for each in heard(server, 1)] == ["5"]


def test_what_was_not_kept_when_the_process_died_is_repeated_and_nothing_is_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(self: followers.Follower, followed: object) -> None:
        pass

    with stage.run() as server:
        say(server, "1")
        heard(server, 1)
    with monkeypatch.context() as patched:
        patched.setattr(followers.Follower, "_keep", die)
        with stage.run() as server:
            say(server, "2", "3")
            heard(server, 2)
    with stage.run() as server:
        assert [each[1] for each in heard(server, 2)] == ["2", "3"]


def test_what_comes_where_the_end_of_a_log_was_lost_is_heard(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LosingEngine(EngineSettings(), stage.clock, "node")
    monkeypatch.setattr(server_module, "open_engine", lambda *_: engine)
    with stage.run() as server:
        say(server, "1", "2", "3")
        heard(server, 3)
        server.call(lambda: engine.lose(2))
        say(server, "4")
        assert [each[1:] for each in heard(server, 4)[3:]] == [("4", 2)]
        # Of what was not lost nothing comes again.
        server.call(lambda: engine.lose(0))
        say(server, "5", "6")
        assert [each[1:] for each in heard(server, 6)[4:]] == [("5", 3), ("6", 4)]


def test_one_that_fails_is_tried_again_and_the_next_wait_for_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with stage.run() as server:
        module(server).broken.add("2")
        say(server, "1", "2", "3")
        conduct = server.web.server.hooks.conduct
        while conduct.counts.get(("mine", "follower"), 0) < 30:
            server.call(lambda: None)
        assert [each[1] for each in module(server).heard] == ["1"]
        assert conduct.off == {}
        server.call(module(server).broken.clear)
        assert [each[1] for each in heard(server, 3)] == ["1", "2", "3"]
    lines = [record for record in caplog.records if "follower failed" in record.getMessage()]
    assert 1 <= len(lines) <= 5


def test_it_may_begin_with_the_oldest_and_follow_one_pov(stage: Stage) -> None:
    (stage.folder / "mine.py").rename(stage.folder / "_later.py")
    with stage.run() as server:
        say(server, "1", "2", pov="b")
        say(server, "3")
    stage.write("'b', since='beginning'")
    with stage.run() as server:
        heard(server, 2)
        say(server, "4")
        say(server, "5", pov="b")
        assert heard(server, 3) == [("b", "1", 1), ("b", "2", 2), ("b", "5", 3)]


def test_what_retention_took_is_said(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    with stage.run() as server:
        say(server, "1")
        heard(server, 1)
    (stage.folder / "mine.py").rename(stage.folder / "_away.py")
    with stage.run(max_entries=2) as server:
        say(server, "2", "3", "4", "5")
    (stage.folder / "_away.py").rename(stage.folder / "mine.py")
    with stage.run(max_entries=2) as server:
        assert [each[1] for each in heard(server, 2)] == ["4", "5"]
    (line,) = [each for each in caplog.messages if "retention removed" in each]
    assert line == "retention removed 2 entries before follow followed them"


def test_while_its_plugin_is_off_it_waits(stage: Stage) -> None:
    with stage.run() as server:
        hooks = server.web.server.hooks

        def take_off() -> None:
            hooks.conduct.off["mine"] = "test"
            hooks.conduct.take_off("mine")

        server.call(take_off)
        say(server, "1")
        assert module(server).heard == []
        assert server.call(hooks.release) == ["mine"]
        assert [each[1] for each in heard(server, 1)] == ["1"]


def test_with_tenants_the_ids_are_the_teams(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN.format(""))
    with RunningServer(make_settings(auth={"tenants": True}), folder) as server:
        say(server, "1", team_id="red")
        ((pov_id, _, _),) = heard(server, 1)
        assert (type(pov_id).__name__, pov_id) == ("TenantId", "red\x1fa")
