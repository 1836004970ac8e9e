"""`<pov-team-activity>` keeps what it has: over breaks, bursts and whatever a page does with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from pov_rt.config.settings import EngineSettings, ServerSettings, Settings
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.browser.chromium import Chromium
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.flows import ACKS, HIDE, until
from tests.browser.front import Front
from tests.browser.tabs import Loop, Tab
from tests.browser.test_team_activity import FEED, ROOT, Scene, becomes, has, opened, rows, shows
from tests.processes import serve

MISSED = 1_500
BREAK_S = 10
"""How long the server is away."""
BURST, BATCH, BURST_S = 1_000, 50, 2.0
MOST_ARTICLES = 30
"""What may be in the page while rows come faster than anybody reads: 24 groups, and some."""
STORED = f"{FEED}.snapshot.rows"
OTHER = "document.getElementById('two')"
SPOKEN = f"""void new MutationObserver(() => spoken.push([performance.now(),
  {ROOT}.querySelector('[role=status]').textContent])).observe(
  {ROOT}.querySelector('[role=status]'), {{childList: true, characterData: true, subtree: true}},
  window.spoken = [])"""
COUNT_SOCKETS = """() => {
  window.sockets = 0
  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given)
      window.sockets++
    }
  }
}"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    engine = EngineSettings(url=f"sqlite://{tmp_path}/log.db")
    return make_settings(server=ServerSettings(port=0, admin_port=0, drain_s=0.2), engine=engine)


@contextmanager
def staged(loop: Loop, built: Path, address: str) -> Iterator[Scene]:
    """Have a front and a cut before the server at an address; the scene's may change."""
    with Cut(loop, int(address.rpartition(":")[2])) as cut:
        with Front(loop, built, lambda: int(cut.url.rpartition(":")[2])) as front:
            yield Scene(front, cut, SimpleNamespace(address=address))


@pytest.fixture
def scene(loop: Loop, built: Path, server: RunningServer) -> Iterator[Scene]:
    with staged(loop, built, server.address) as scene:
        yield scene


@pytest.fixture
def chrome(profiles: Profiles, chromium: Chromium, scene: Scene) -> Callable[[str], Tab]:
    """Open a page of the scene in Chromium."""

    def open_(page: str = "activity.html") -> Tab:
        profile = profiles(chromium)
        profile.add_script(COUNT_SOCKETS)
        return opened(profile, scene, page)

    return open_


def titles(tab: Tab) -> list[str]:
    """Return what is in the store, the newest first."""
    found: list[str] = tab.evaluate(f"{STORED}.map(each => each.activity.details.title)")
    return found


def test_much_that_was_missed_over_a_restart_is_loaded_on_demand(
    loop: Loop, built: Path, settings: Settings, profiles: Profiles, chromium: Chromium
) -> None:
    # More than the server sends by itself is said, and where it would be.
    button = f"{ROOT}.querySelector(':is([data-do=load], .digest .btn-main):not(:disabled)')"
    with staged(loop, built, "127.0.0.1:9") as scene:
        with RunningServer(settings, None) as first:
            scene.server, scene.cut.port = first, first.web.port
            before = scene.publish(3)
            tab = opened(profiles(chromium), scene)
            until(lambda: len(titles(tab)) == len(before))
            scene.cut.refuse()
            shows(tab, "Offline since")
        with RunningServer(settings, None) as second:
            scene.server, scene.cut.port = second, second.web.port
            missed = [each for _ in range(3) for each in scene.publish(MISSED // 3)]
            scene.cut.resume()
            tab.evaluate(f"{ROOT}.querySelector('[data-do=retry]')?.click()")
            until(lambda: bool(tab.evaluate(f"{FEED}.matches(':state(live)') && !!{button}")))
            assert tab.evaluate(f"{STORED}.length") < MISSED
            tab.evaluate(f"{button}.click()")
            becomes(tab, f"{FEED}.snapshot.gaps.length", 0)
            assert titles(tab) == [*reversed([*before, *missed])]
            until(lambda: not tab.evaluate(f"!!{ROOT}.querySelector('.gap')"))


def test_a_killed_server_costs_nothing_once_it_is_back(
    loop: Loop, built: Path, tmp_path: Path, profiles: Profiles, chromium: Chromium
) -> None:
    given = {"POV_RT_AUTH__SECRETS": SECRET}
    with serve(tmp_path, **given) as first, staged(loop, built, first.url.rstrip("/")) as scene:
        scene.server = SimpleNamespace(address=first.url.removeprefix("http://").rstrip("/"))
        before = scene.publish(3)
        tab = opened(profiles(chromium), scene)
        until(lambda: len(titles(tab)) == len(before))
        first.process.kill()
        first.process.wait()
        killed = time.monotonic()
        shows(tab, "Offline since", "You have everything up to")
        time.sleep(max(0.0, killed + BREAK_S - time.monotonic()))
        assert titles(tab) == [*reversed(before)]
        with serve(tmp_path, **given) as second:
            scene.server = SimpleNamespace(address=second.url.removeprefix("http://").rstrip("/"))
            scene.cut.port = int(second.url.rstrip("/").rpartition(":")[2])
            missed = scene.publish(20, user="cy")
            shows(tab, "Live", "cy completed 20 tasks")
            assert titles(tab) == [*reversed([*before, *missed])]


def test_a_burst_is_kept_whole_and_drawn_in_part(scene: Scene, chrome: Callable[..., Tab]) -> None:
    scene.publish()
    tab = chrome()
    until(lambda: bool(tab.evaluate(f"!!{FEED}.later")))
    tab.evaluate(SPOKEN)
    tab.evaluate(
        f"""void new MutationObserver(() => {{
          window.most = Math.max(most, {ROOT}.querySelectorAll('article').length)
        }}).observe({ROOT}.querySelector('.rows'), {{childList: true}}, window.most = 0)"""
    )
    begun = time.monotonic()
    published = []
    for number in range(BURST // BATCH):
        time.sleep(max(0.0, begun + BURST_S * number * BATCH / BURST - time.monotonic()))
        pov = "acme" if number % 2 else "globex"
        published += scene.publish(BATCH, pov, user=f"user-{number}")
    # The store keeps the last thousand of what it shows: all that came, and the one before.
    until(lambda: set(published) <= set(titles(tab)))
    found = titles(tab)
    assert len(found) == len(set(found))
    assert tab.evaluate("most") <= MOST_ARTICLES
    until(lambda: f"user-{BURST // BATCH - 1}" in " ".join(rows(tab)))
    told = [at for at, _ in tab.evaluate("spoken")]
    assert all(after - before >= 4_900 for before, after in pairwise(told))


def test_reading_by_scrolling_marks_what_was_on_the_screen(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    tab = chrome("two.html")
    tab.evaluate(
        f"void {OTHER}.addEventListener('pov-read', () => {{ window.reads++ }}, window.reads = 0)"
    )
    scene.publish(2)
    becomes(tab, f"{OTHER}.snapshot.rows.map(each => each.state)", ["read", "read"])
    # What somebody marks as unread after that stays so.
    tab.evaluate(f"{OTHER}.source.feed.markUnread({OTHER}.snapshot.rows[1])")
    becomes(tab, f"{OTHER}.snapshot.unread", 2)
    reads = tab.evaluate("reads")
    scene.publish(1, user="cy")
    becomes(tab, f"{OTHER}.snapshot.unread", 0)
    assert tab.evaluate("reads") == reads + 1


def test_two_elements_of_one_pov_share_all_and_look_as_each_is_told(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    tab = chrome("two.html")
    becomes(tab, f"{OTHER}.matches(':state(live)')", True)
    shown = "document.querySelector('#one > [slot=empty]').checkVisibility()"
    becomes(tab, shown, True)
    assert tab.evaluate(f"{FEED}.source.feed === {OTHER}.source.feed")
    assert tab.evaluate("sockets") == 1
    assert tab.evaluate("document.querySelector('[slot=tools]').checkVisibility()")
    assert tab.evaluate("document.querySelector('[slot=footer]').checkVisibility()")
    tab.evaluate(
        f"void ({OTHER}.renderItem = row => {{"
        " const item = document.createElement('em');"
        " item.textContent = `Ours: ${row.activity.details.title}`; return item })"
    )
    scene.publish()
    until(lambda: rows(tab) == ["bo completed Task 1"])
    becomes(tab, f"{OTHER}.shadowRoot.querySelector('.row em')?.textContent", "Ours: Task 1")
    becomes(tab, shown, False)


def test_an_element_that_moves_or_comes_back_goes_on(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    scene.publish()
    tab = chrome()
    until(lambda: len(rows(tab)) == 1)
    tab.evaluate(f"void (window.kept = {FEED}.source.feed)")
    # Moved, it keeps what it holds.
    tab.evaluate(f"void document.body.append(document.createElement('main'), window.el = {FEED})")
    tab.evaluate("void document.querySelector('main').append(el)")
    scene.publish(user="cy")
    until(lambda: rows(tab)[:1] == ["cy completed Task 2"])
    assert tab.evaluate("el.source.feed === kept && sockets === 1")
    # And what was chosen in it.
    until(lambda: bool(tab.evaluate("!!el.later")))
    tab.evaluate("el.later.openPanel('filter')")
    has(tab, ".panel")
    tab.evaluate("el.later.setFilter({users: ['cy']})")
    until(lambda: rows(tab) == ["cy completed Task 2"])
    tab.evaluate("void document.body.append(el)")
    scene.publish(user="cy")
    until(lambda: rows(tab) == ["cy completed 2 tasks"])
    has(tab, ".panel")
    tab.evaluate("el.later.setFilter({})")
    tab.evaluate("void document.querySelector('main').append(el)")
    until(lambda: len(rows(tab)) == 2)
    # Removed, it lets go of it; back, it has all that came.
    tab.evaluate("void el.remove()")
    scene.publish(user="di")
    tab.evaluate("new Promise(done => setTimeout(done, 50))")
    tab.evaluate("void document.querySelector('main').append(el)")
    until(lambda: rows(tab)[:1] == ["di completed Task 4"])
    assert len(rows(tab)) == 3
    scene.publish(user="ed")
    until(lambda: rows(tab)[:1] == ["ed completed Task 5"])


def test_another_pov_is_shown_when_the_attribute_says_so(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    scene.publish(pov="acme", user="cy")
    scene.publish(pov="initech", user="di")
    tab = chrome()
    until(lambda: rows(tab) == ["cy completed Task 1"])
    tab.evaluate(f"void {FEED}.setAttribute('pov', 'initech')")
    until(lambda: rows(tab) == ["di completed Task 2"])
    scene.publish(pov="acme")
    scene.publish(pov="initech", user="ed")
    until(lambda: rows(tab) == ["ed completed Task 4", "di completed Task 2"])
    assert tab.evaluate("sockets") == 1


def test_a_filtered_row_is_told_of_as_filtered(scene: Scene, chrome: Callable[..., Tab]) -> None:
    tab = chrome()
    until(lambda: bool(tab.evaluate(f"!!{FEED}.later")))
    tab.evaluate(f"void ({ACKS})({FEED}.source.client)")
    tab.evaluate(f"{FEED}.later.openPanel('filter')")
    has(tab, ".panel")
    tab.evaluate(f"{FEED}.later.setFilter({{types: ['file']}})")
    scene.publish()
    becomes(tab, "acks", [["acme", False, "filtered"]])


def test_a_row_that_nobody_could_see_is_told_of_as_hidden_and_as_shown_when_one_is_back(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    tab = chrome()
    until(lambda: bool(tab.evaluate(f"!!{FEED}.later")))
    tab.evaluate(f"void ({ACKS})({FEED}.source.client)")
    tab.call(HIDE, True)
    scene.publish()
    becomes(tab, "acks", [["acme", False, "hidden"]])
    tab.call(HIDE, False)
    becomes(tab, "acks", [["acme", False, "hidden"], ["acme", True, None]])


def test_what_a_page_gives_wrongly_or_shares_does_not_stop_it(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    tab = chrome("two.html")
    becomes(tab, f"{OTHER}.matches(':state(live)')", True)
    # A page's own client, given to both: there is no other to connect anew with.
    tab.evaluate(f"void ({FEED}.client = {OTHER}.client = {FEED}.source.client)")
    becomes(tab, f"{FEED}.source.client === {OTHER}.source.client", True)
    tab.evaluate(f"void {FEED}.reconnect()")
    # No language of `Intl`, as some frameworks write it.
    tab.evaluate(f"void ({FEED}.locale = 'en_US')")
    # Functions that throw: the page is told, and the rows are there.
    tab.evaluate(
        f"(() => {{ window.told = 0; addEventListener('error', event => {{"
        " if (event.error?.message === 'theirs') { told++; event.preventDefault() } });"
        f" {FEED}.href = {FEED}.renderItem = () => {{ throw new Error('theirs') }} }})()"
    )
    scene.publish()
    until(lambda: rows(tab) == ["bo completed Task 1"])
    assert tab.evaluate(f"{FEED}.locale") == "en-US"
    assert tab.evaluate("told") >= 2


def test_two_feeds_of_a_page_count_in_its_title_together(
    scene: Scene, chrome: Callable[..., Tab]
) -> None:
    tab = chrome("two.html")
    becomes(tab, f"{OTHER}.matches(':state(live)')", True)
    tab.evaluate(f"void ({OTHER}.pov = 'initech', {FEED}.tabBadge = {OTHER}.tabBadge = true)")
    until(lambda: bool(tab.evaluate(f"!!{FEED}.later && !!{OTHER}.later")))
    becomes(tab, f"{OTHER}.snapshot.povs.get('initech')?.state", "live")
    tab.call(HIDE, True)
    scene.publish()
    scene.publish(2, pov="initech")
    becomes(tab, "document.title.slice(0, 3)", "(3)")
    becomes(tab, "document.querySelector('link[rel~=icon]')?.href.slice(0, 5)", "blob:")
    tab.evaluate(f"void {OTHER}.remove()")
    becomes(tab, "document.title.slice(0, 3)", "(1)")
