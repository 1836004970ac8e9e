"""Both elements where WebSockets do not get through: they work all the same, and know it then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.browser import test_notification, test_team_activity
from tests.browser.chromium import Chromium
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.flows import until
from tests.browser.front import Front
from tests.browser.holding import holding
from tests.browser.tabs import Loop, Profile
from tests.browser.test_team_activity import Scene


@pytest.fixture
def settings() -> Settings:
    # The browser names the front's origin, and the server is asked under its name.
    return make_settings(server=ServerSettings(port=0, admin_port=0, drain_s=0.2))


@pytest.fixture
def scene(loop: Loop, built: Path, server: RunningServer) -> Iterator[Scene]:
    with Cut(loop, server.web.port) as cut:
        with Front(loop, built, lambda: int(cut.url.rpartition(":")[2])) as front:
            yield Scene(front, cut, server)


def transports(server: RunningServer) -> dict[str, int]:
    """Return how many connections there are, by transport."""
    found: dict[str, int] = dict(server.call(server.web.server.directory.by_transport))
    return {name: count for name, count in found.items() if count}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("sockets", ["stopped", "mute"])
def test_the_feed_works_without_websockets_and_remembers(
    server: RunningServer, profile: Profile, scene: Scene, sockets: Any
) -> None:
    scene.front.sockets = sockets
    scene.publish(2, type="file", action="added")
    tab = test_team_activity.opened(profile, scene)
    test_team_activity.shows(tab, "Live", "bo added 2 files")
    assert transports(server) == {"sse": 1}
    scene.publish(user="cy")
    test_team_activity.shows(tab, "cy completed Task 3")
    # What was missed while nothing got through is there as soon as anything does.
    scene.cut.refuse()
    test_team_activity.shows(tab, "Offline since")
    scene.publish(user="di")
    scene.cut.resume()
    tab.evaluate(f"{test_team_activity.ROOT}.querySelector('[data-do=retry]').click()")
    test_team_activity.shows(tab, "Live", "di completed Task 4")
    # The next page of this tab does not try a WebSocket first.
    del scene.front.seen[:]
    tab.reload()
    test_team_activity.shows(tab, "Live", "di completed Task 4")
    assert json.dumps(scene.front.seen).count("/ws/") == 0


@pytest.mark.timeout(150)
def test_where_nothing_of_an_answer_is_shown_before_its_end_events_are_fetched(
    loop: Loop,
    built: Path,
    server: RunningServer,
    chromium: Chromium,
    profiles: Profiles,
    tmp_path: Path,
) -> None:
    with (
        holding(tmp_path, server.web.port) as port,
        Cut(loop, port) as cut,
        Front(loop, built, lambda: int(cut.url.rpartition(":")[2])) as front,
    ):
        scene = Scene(front, cut, server)
        scene.publish(2, type="file", action="added")
        tab = test_team_activity.opened(profiles(chromium), scene)
        test_team_activity.shows(tab, "Live", "bo added 2 files")
        until(lambda: transports(server) == {"poll": 1})
        scene.publish(user="cy")
        test_team_activity.shows(tab, "cy completed Task 3")
        # What was missed while nothing got through is there as soon as anything does.
        cut.refuse()
        test_team_activity.shows(tab, "Offline since")
        scene.publish(user="di")
        cut.resume()
        tab.evaluate(f"{test_team_activity.ROOT}.querySelector('[data-do=retry]')?.click()")
        test_team_activity.shows(tab, "Live", "di completed Task 4")
        # The next page of this tab tries nothing else first.
        del front.seen[:]
        opened = server.call(lambda: dict(server.web.server.arrivals.opened))
        tab.reload()
        test_team_activity.shows(tab, "Live", "di completed Task 4")
        assert "/ws/" not in front.seen
        now = server.call(lambda: dict(server.web.server.arrivals.opened))
        assert (now["sse"], now["poll"]) == (opened["sse"], opened["poll"] + 1)


def test_toasts_come_without_websockets(
    server: RunningServer, profile: Profile, scene: Scene
) -> None:
    scene.front.sockets = "stopped"
    tab = test_notification.opened(profile, scene)
    assert transports(server) == {"sse": 1}
    scene.publish()
    test_notification.shows(tab, "bo completed Task 1")


def test_where_they_get_through_nothing_else_is_asked_for(
    server: RunningServer, profile: Profile, scene: Scene
) -> None:
    tab = test_team_activity.opened(profile, scene)
    assert transports(server) == {"ws": 1}
    assert set(scene.front.seen) == {"/ws/"}
    assert tab.evaluate("sessionStorage['pov-rt'] === undefined")
    until(lambda: transports(server) == {"ws": 1})
