"""`<pov-team-activity>` in real browsers: one script and one tag, under the strictest policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.request import Request, urlopen

import pytest

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.browser.chromium import Chromium
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.flows import make_token, until
from tests.browser.front import Front
from tests.browser.tabs import Loop, Profile, Tab

FEED = "document.querySelector('pov-team-activity')"
ROOT = f"{FEED}.shadowRoot"


@pytest.fixture
def settings() -> Settings:
    # The browser names the front's origin, and the server is asked under its name.
    return make_settings(server=ServerSettings(port=0, admin_port=0, drain_s=0.2))


class Addressed(Protocol):
    """A server, wherever it runs."""

    @property
    def address(self) -> str: ...


class Scene:
    """A server, the front before it, and what happens there."""

    def __init__(self, front: Front, cut: Cut, server: Addressed) -> None:
        self.front = front
        self.cut = cut
        self.server = server
        self._numbers = count(1)
        front.token_of = lambda user: make_token(user)

    def publish(
        self, number: int = 1, pov: str = "acme", user: str = "bo", **fields: Any
    ) -> list[str]:
        """Publish past the cut; return the titles."""
        titles = [f"Task {next(self._numbers)}" for _ in range(number)]
        given = {"type": "task", "action": "completed", "povId": pov, "userId": user, **fields}
        details = {"href": "#there", **given.pop("details", {})}
        body = [{**given, "details": {"title": each, **details}} for each in titles]
        token = make_token("app", aud="pov-rt.service")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"http://{self.server.address}/api/activities"
        with urlopen(Request(url, json.dumps(body).encode(), headers)) as answer:
            assert not [each for each in json.load(answer)["results"] if "error" in each]
        return titles

    def change(self, activity_id: str, what: str, **more: Any) -> None:
        """Amend or retract an activity past the cut."""
        token = make_token("app", aud="pov-rt.service")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"http://{self.server.address}/api/activities/{activity_id}/{what}"
        body = json.dumps({"povId": "acme", **more}).encode()
        with urlopen(Request(url, body, headers)) as answer:
            assert json.load(answer)["duplicate"] is False


@pytest.fixture
def scene(loop: Loop, built: Path, server: RunningServer) -> Iterator[Scene]:
    with Cut(loop, server.web.port) as cut:
        with Front(loop, built, lambda: int(cut.url.rpartition(":")[2])) as front:
            yield Scene(front, cut, server)


def shows(tab: Tab, *words: str) -> None:
    """Wait until the element's text has each of these."""
    until(lambda: all(each in text(tab) for each in words))


def text(tab: Tab) -> str:
    found: str = tab.evaluate(f"{ROOT}?.querySelector('.feed')?.innerText ?? ''")
    return found


def rows(tab: Tab) -> list[str]:
    """Return the sentences of the rows, the newest first."""
    found: list[str] = tab.evaluate(
        f"[...{ROOT}.querySelectorAll('.row .line')].map(each => each.textContent.trim())"
    )
    return found


def has(tab: Tab, selector: str) -> None:
    """Wait until there is something in the element."""
    until(lambda: bool(tab.evaluate(f"!!{ROOT}?.querySelector({json.dumps(selector)})")))


def becomes(tab: Tab, expression: str, value: object) -> None:
    """Wait until an expression has a value."""
    until(lambda: bool(tab.evaluate(expression) == value))


def press(tab: Tab, key: str, **more: bool) -> None:
    """Press a key where the focus is."""
    init = json.dumps({"key": key, "bubbles": True, "composed": True, "cancelable": True, **more})
    tab.evaluate(f"{ROOT}.activeElement.dispatchEvent(new KeyboardEvent('keydown', {init}))")


def opened(profile: Profile, scene: Scene, page: str = "activity.html") -> Tab:
    """Open the page; it is live then."""
    tab = profile.open(f"{scene.front.url}/{page}")
    until(lambda: tab.evaluate(f"{FEED}.matches(':state(live)')"))
    return tab


def test_one_script_and_one_tag_are_enough(profile: Profile, scene: Scene) -> None:
    scene.publish(2, type="file", action="added")
    tab = opened(profile, scene)
    shows(tab, "Live", "bo added 2 files")
    scene.publish(user="cy")
    shows(tab, "cy completed Task 3")
    assert rows(tab)[0] == "cy completed Task 3"


def test_a_cut_is_said_and_costs_nothing(profile: Profile, scene: Scene) -> None:
    scene.publish()
    tab = opened(profile, scene)
    scene.cut.refuse()
    shows(tab, "Offline since", "You have everything up to", "next try in", "Try now")
    scene.publish(user="cy")
    scene.cut.resume()
    tab.evaluate(f"{ROOT}.querySelector('[data-do=retry]').click()")
    shows(tab, "Live", "cy completed Task 2")


def test_new_rows_wait_while_somebody_reads(profile: Profile, scene: Scene) -> None:
    scene.publish(user="cy")
    tab = opened(profile, scene)
    focus_row(tab)
    scene.publish(2)
    shows(tab, "2 new")
    assert rows(tab) == ["cy completed Task 1"]
    press(tab, "Home")
    until(lambda: rows(tab)[0] == "bo completed 2 tasks")
    assert "2 new" not in text(tab)
    # The focus is in the newest row now.
    until(lambda: "2 tasks" in tab.evaluate(f"{ROOT}.activeElement.textContent"))


def focus_row(tab: Tab, at: int = 0) -> None:
    """Focus a row; keys and buttons work then."""
    until(lambda: bool(tab.evaluate(f"!!{ROOT}?.querySelectorAll('.row')[{at}]")))
    tab.evaluate(f"{ROOT}.querySelectorAll('.row')[{at}].focus()")
    has(tab, ".acts")


def test_rows_change_in_their_place_in_all_tabs_and_after_a_reload(
    profile: Profile, scene: Scene
) -> None:
    scene.publish(id="c1", type="comment", action="added", details={"text": "teh"})
    scene.publish(id="c2", user="cy", type="comment", action="added", details={"text": "secret"})
    tabs = [opened(profile, scene) for _ in range(2)]
    for tab in tabs:
        shows(tab, "“teh”", "“secret”", "2 unread")
    scene.change("c1", "amend", details={"title": "the plan", "text": "the"})
    scene.change("c2", "retract")
    changed = ["cy: comment added, withdrawn", "bo commented on the plan"]
    for tab in tabs:
        tab.show()
        shows(tab, "“the”", "edited", "2 unread", *changed)
        assert rows(tab) == changed
    for tab in [*tabs, opened(profile, scene)]:
        tab.show()
        tab.reload()
        shows(tab, "Live", "“the”", "edited", "2 unread", *changed)
        assert rows(tab) == changed
        assert "secret" not in text(tab)


def test_keys_go_through_rows_and_groups(profile: Profile, scene: Scene) -> None:
    scene.publish(3, user="cy")
    scene.publish(1, user="di")
    tab = opened(profile, scene)
    focus_row(tab)
    press(tab, "j")
    assert "cy completed 3 tasks" in tab.evaluate(f"{ROOT}.activeElement.textContent")
    press(tab, "ArrowRight")
    has(tab, ".sub")
    press(tab, "PageDown")
    assert "Task 3" in tab.evaluate(f"{ROOT}.activeElement.textContent")
    press(tab, "ArrowLeft")
    until(lambda: not tab.evaluate(f"!!{ROOT}.querySelector('.sub')"))
    assert "cy completed 3 tasks" in tab.evaluate(f"{ROOT}.activeElement.textContent")
    press(tab, "k")
    assert "di completed" in tab.evaluate(f"{ROOT}.activeElement.textContent")
    press(tab, "End", ctrlKey=True)
    assert tab.evaluate(f"{ROOT}.activeElement.matches('.foot, .foot *')")


def test_new_seen_and_read_are_the_same_in_all_browsers(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    tabs = [opened(profiles(chromium), scene) for _ in range(2)]
    for tab in tabs:
        count_events(tab)
    scene.publish(2)
    for tab in tabs:
        becomes(tab, "counts.at(-1)?.unread", 2)
        # On a screen for a second: seen, and unread still.
        becomes(tab, "counts.at(-1)", {"unread": 2, "new": 0})
        has(tab, ".row.is-seen")
    focus_row(tabs[0])
    press(tabs[0], "e")
    for tab in tabs:
        becomes(tab, "counts.at(-1).unread", 0)
    press(tabs[0], "u")
    for tab in tabs:
        becomes(tab, "counts.at(-1).unread", 2)
        has(tab, ".is-unread")


def count_events(tab: Tab) -> None:
    tab.evaluate(
        f"void {FEED}.addEventListener('pov-count', ({{detail}}) => counts.push(detail),"
        "window.counts = [])"
    )


def test_opening_a_row_is_told_and_can_be_taken_over(profile: Profile, scene: Scene) -> None:
    scene.publish(user="cy")
    tab = opened(profile, scene)
    tab.evaluate(
        f"void {FEED}.addEventListener('pov-open', event =>"
        " { window.told = event.detail.href; event.preventDefault() })"
    )
    focus_row(tab)
    press(tab, "Enter")
    assert tab.evaluate("told") == "#there"
    assert tab.evaluate("location.hash") == ""
    until(lambda: not tab.evaluate(f"!!{ROOT}.querySelector('.is-unread')"))


def test_earlier_rows_come_until_the_pov_begins(profile: Profile, scene: Scene) -> None:
    for number in range(60):
        scene.publish(user=f"user-{number}")
    tab = opened(profile, scene, "activity.html")
    shows(tab, "Load earlier")
    tab.evaluate(f"{ROOT}.querySelector('[data-do=earlier]').click()")
    until(lambda: "user-0 completed Task 1" in rows(tab))
    assert len(rows(tab)) == 60


def test_a_session_that_ended_asks_to_sign_in(profile: Profile, scene: Scene) -> None:
    scene.publish()
    scene.front.token_of = lambda user: make_token(user, ttl_s=5.0)
    tab = opened(profile, scene)
    until(lambda: len(rows(tab)) == 1)
    tab.evaluate(f"void {FEED}.addEventListener('pov-sign-in', () => {{ window.asked = true }})")
    scene.front.token_of = lambda user: None
    shows(tab, "Session ended", "Sign in")
    tab.evaluate(f"{ROOT}.querySelector('[data-do=sign-in]').click()")
    assert tab.evaluate("asked")
    scene.front.token_of = lambda user: make_token(user)
    tab.evaluate(f"{FEED}.reconnect()")
    shows(tab, "Live")


def test_signing_out_wipes_the_rows(profile: Profile, scene: Scene) -> None:
    scene.publish()
    tab = opened(profile, scene)
    until(lambda: len(rows(tab)) == 1)
    tab.evaluate(f"void {FEED}.source.client.signOut()")
    shows(tab, "Signed out", "Sign in to see what happens", "Nothing is kept here")
    assert rows(tab) == []


def test_a_pov_is_muted_for_an_hour_and_heard_again(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    scene.publish()
    tab = opened(profiles(chromium), scene)
    focus_row(tab)
    press(tab, "m")
    shows(tab, "acme is muted for an hour", "Undo")
    level = f"{FEED}.snapshot.povs.get('acme').level"
    until(lambda: bool(tab.evaluate(level) == "off"))
    tab.evaluate(f"{ROOT}.querySelector('[data-do=undo]').click()")
    until(lambda: bool(tab.evaluate(level) == "sound"))


def test_a_filter_is_kept_in_the_address(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    scene.publish(user="cy")
    scene.publish(user="di", type="file", action="added")
    tab = opened(profiles(chromium), scene)
    focus_row(tab)
    tab.evaluate(f"{FEED}.later.openPanel('filter')")
    has(tab, ".panel")
    tab.evaluate(f"{FEED}.later.setFilter({{types: ['file']}})")
    until(lambda: rows(tab) == ["di added Task 2"])
    assert "file" in tab.evaluate("location.hash")
    tab.reload()
    until(lambda: bool(tab.evaluate(f"!!{FEED}?.matches(':state(live)')")))
    until(lambda: rows(tab) == ["di added Task 2"])


def test_the_tab_says_how_many_are_new(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    tab = opened(profiles(chromium), scene)
    tab.evaluate(
        "void new MutationObserver(() => titles.push(document.title)).observe("
        "document.querySelector('title'), {childList: true}, window.titles = [])"
    )
    scene.publish()
    # New until it was on the screen for a second.
    until(lambda: bool(tab.evaluate("titles") == ["(1) Board", "Board"]))
