"""The panels of `<pov-team-activity>` in Chromium: what they do, for everybody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from playwright.async_api import Locator, expect

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.flows import CLIENT, make_token
from tests.browser.front import Front
from tests.browser.tabs import WAIT_S, Loop, Profile

AXE = CLIENT / "node_modules/axe-core/axe.min.js"
AXE_RUN = """async source => {
  if (!window.axe) new Function('exports', 'module', 'define', `${source}; window.axe = axe`)()
  // A color that is on its way is nobody's choice.
  await Promise.all(feed.shadowRoot.getAnimations()
    .filter(each => each.effect.getComputedTiming().endTime < Infinity)
    .map(each => each.finished.catch(() => {})))
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']
  const all = ['.panel', '.sheet', '.popover', '.active-f', '.empty', '.digest']
  const include = all.filter(each => feed.shadowRoot.querySelector(each))
    .map(each => ({fromShadowDom: ['pov-team-activity', each]}))
  const {violations} = await axe.run({include}, {runOnly: {type: 'tag', values: tags}})
  return violations.flatMap(({id, nodes}) =>
    nodes.map(each => [id, each.html, each.failureSummary]))
}"""
OVERFLOW = """() => {
  const root = feed.shadowRoot
  const sheet = root.querySelector('.panel, .sheet, .popover')
  const [from, to] = [0, document.documentElement.clientWidth]
  return [...sheet.querySelectorAll('*')].filter(each => {
    const {left, right, width} = each.getBoundingClientRect()
    return width > 1 && (left < from - .5 || right > to + .5)
  }).map(each => each.outerHTML.slice(0, 120))
}"""
SMALL = """() => [...feed.shadowRoot.querySelectorAll(
  ':is(.panel, .sheet, .popover) :is(button, select, .seg label, .input)')]
  .filter(each => each.offsetHeight < 24 || each.offsetWidth < 24).map(each => each.outerHTML)"""


@pytest.fixture
def settings() -> Settings:
    return make_settings(server=ServerSettings(port=0, admin_port=0, drain_s=0.2))


class View:
    """A tab with a feed, and what people do with it."""

    def __init__(self, loop: Loop, tab: ChromiumTab) -> None:
        self.loop = loop
        self.tab = tab

    def find(self, selector: str, **options: Any) -> Locator:
        return self.tab.page.locator(selector, **options)

    def click(self, selector: str, **options: Any) -> None:
        self.loop.run(self.find(selector, **options).first.click())

    def enter(self, selector: str) -> None:
        """Focus something."""
        self.loop.run(self.find(selector).first.focus())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.loop.run(self.tab.page.keyboard.press(key))

    def fill(self, selector: str, text: str) -> None:
        self.loop.run(self.find(selector).fill(text))

    def size(self, width: int, height: int = 800) -> None:
        self.loop.run(self.tab.page.set_viewport_size({"width": width, "height": height}))

    def shows(self, selector: str, *texts: str) -> None:
        """Wait until what a selector finds has these texts, each one its own."""
        found = expect(self.find(selector))
        self.loop.run(found.to_have_text([*texts], timeout=WAIT_S * 900))

    def says(self, text: str, selector: str = ".feed") -> None:
        """Wait until a text is there."""
        self.loop.run(expect(self.find(selector)).to_contain_text(text, timeout=WAIT_S * 900))

    def focused(self, text: str) -> None:
        """Wait until what has the focus says that."""
        held = self.find("pov-team-activity :focus")
        self.loop.run(expect(held).to_contain_text(text, timeout=WAIT_S * 900))

    def gone(self, selector: str) -> None:
        self.loop.run(expect(self.find(selector)).to_have_count(0, timeout=WAIT_S * 900))

    def check(self) -> None:
        """Nothing is wrong for people who use assistive technology, or small."""
        assert self.tab.call(AXE_RUN, AXE.read_text()) == []
        assert self.tab.call(SMALL) == []


class Scene:
    """A server, the front before it, and what happens there."""

    def __init__(
        self, front: Front, cut: Cut, server: RunningServer, open_: Callable[..., View]
    ) -> None:
        self.front = front
        self.cut = cut
        self._server = server
        self._open = open_
        front.token_of = lambda user: make_token(user)

    def publish(self, *sentences: str, pov: str = "bank") -> None:
        """Publish `who type action title`, the title of more than one word if it likes."""
        body = []
        for sentence in sentences:
            user, kind, action, *title = sentence.split()
            details = {"title": " ".join(title), "href": "#there"}
            body.append(
                {"type": kind, "action": action, "povId": pov, "userId": user, "details": details}
            )
        token = make_token("app", aud="pov-rt.service")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"http://{self._server.address}/api/activities"
        with urlopen(Request(url, json.dumps(body).encode(), headers)) as answer:
            assert not [each for each in json.load(answer)["results"] if "error" in each]

    def open(self, user: str = "ana", profile: Profile | None = None, **query: str) -> View:
        """Open the page; it is live then."""
        given = {"user": user, "povs": "bank,freight", **query}
        return self._open(f"{self.front.url}/panels.html?{urlencode(given)}", profile)


@pytest.fixture
def scene(
    loop: Loop, built: Path, server: RunningServer, chromium: Chromium, profiles: Profiles
) -> Iterator[Scene]:
    def open_(url: str, profile: Profile | None) -> View:
        tab = (profile or profiles(chromium)).open(url)
        assert isinstance(tab, ChromiumTab)
        view = View(loop, tab)
        view.says("Live")
        return view

    with (
        Cut(loop, server.web.port) as cut,
        Front(loop, built, lambda: int(cut.url.rpartition(":")[2])) as front,
    ):
        yield Scene(front, cut, server, open_)


FOUR = (
    "jonas comment added Audit log export",
    "mei task completed Single sign-on",
    "jonas file added load-test.xlsx",
    "ife comment added Zürich pilot",
)
LINES = "article.row .line"


def test_a_filter_narrows_the_list_and_counts_what_it_hides(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open()
    view.shows(
        LINES,
        *[
            "Ife Okafor commented on Zürich pilot",
            "Jonas Weber added load-test.xlsx",
            "Mei Tanaka completed Single sign-on",
            "Jonas Weber commented on Audit log export",
        ],
    )
    view.click("[data-do=filter]")
    view.says("4 fit", ".panel .end")
    view.click(".chip", has_text="Comments")
    view.says("2 fit, 2 unread ones don\u2019t", ".panel .end")
    view.fill("[type=search]", "ZURICH")
    view.shows(LINES, "Ife Okafor commented on Zürich pilot")
    view.says("1 fits, 3 unread ones don\u2019t", ".panel [aria-live]")
    scene.publish("mei comment added Zurich again", "mei task completed Zurich")
    view.says("4 unread ones don\u2019t", ".panel .end")
    view.click(".btn-text", has_text="Clear all")
    view.says("6 fit", ".panel .end")
    view.check()


def test_esc_closes_the_panel_then_clears_the_filter(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open()
    view.says("Zürich pilot")
    view.enter("article.row")
    view.press("f")
    view.loop.run(view.find("[type=search]:focus").wait_for())
    view.press(*"mei")
    view.shows(LINES, "Mei Tanaka completed Single sign-on")
    view.press("Escape")
    view.gone(".panel")
    view.shows(".active-f .chip", "“mei”")
    view.press("Escape")
    view.gone(".active-f")
    assert view.tab.evaluate("location.hash") == ""


def test_a_filter_is_kept_in_the_address_beside_what_is_there(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open()
    view.tab.evaluate("location.hash = 'board/7'")
    view.click("[data-do=filter]")
    view.click(".chip", has_text="Jonas")
    view.click(".chip", has_text="Files")
    view.shows(LINES, "Jonas Weber added load-test.xlsx")
    assert view.tab.evaluate("location.hash") == "#board/7&pov-filter=type:file;by:jonas"
    view.tab.reload()
    view.shows(LINES, "Jonas Weber added load-test.xlsx")
    view.shows(".active-f .chip", "Files", "Jonas Weber")
    view.click(".active-f .chip", has_text="Jonas")
    view.click(".active-f .chip", has_text="Files")
    view.gone(".active-f")
    assert view.tab.evaluate("location.hash") == "#board/7"


def test_nothing_that_fits_is_said_and_can_be_undone(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open()
    view.click("[data-do=filter]")
    view.click(".chip", has_text="Files")
    view.click(".chip", has_text="Mei")
    view.says("No file by Mei Tanaka so far", ".empty h3")
    view.says("4 unread activities don\u2019t fit this filter.", ".empty")
    view.says("No file by Mei Tanaka so far", ".panel [aria-live]")
    view.check()
    view.click(".empty button")
    view.says("Zürich pilot")


def test_how_loud_a_pov_is_reaches_the_users_other_browsers(scene: Scene) -> None:
    one, other = scene.open(), scene.open()
    for view in one, other:
        view.click("[data-do=notifications]")
        view.says("Mossgate Bank", ".subs")
    bank = ".seg[aria-label='Mossgate Bank']"
    one.click(f"{bank} label", has_text="Feed")
    other.shows(f"{bank} label:has(:checked)", "Feed")
    one.loop.run(one.find(f"{bank} input").nth(1).focus())
    one.press("ArrowRight")
    other.shows(f"{bank} label:has(:checked)", "Toast")
    one.press("ArrowLeft", "ArrowLeft")
    other.shows(f"{bank} label:has(:checked)", "Off")
    one.check()


def test_a_level_that_could_not_be_set_is_taken_back_and_said(scene: Scene) -> None:
    scene.front.token_of = lambda user: make_token(user, povs=["freight"])
    view = scene.open()
    view.click("[data-do=notifications]")
    view.says("Not shared with you", ".subs")
    view.tab.evaluate("feed.source.feed.mute = () => Promise.reject(new Error('no'))")
    freight = ".seg[aria-label='Brindle Freight'] label:has(:checked)"
    view.click(".seg[aria-label='Brindle Freight'] label", has_text="Off")
    view.says("How you are told of it could not be changed", ".foot")
    view.shows(freight, "Sound")


def test_quiet_hours_hold_in_all_tabs_of_the_browser(
    scene: Scene, chromium: Chromium, profiles: Profiles
) -> None:
    profile = profiles(chromium)
    one, other = scene.open(profile=profile), scene.open(profile=profile)
    # A page that is hidden draws nothing.
    for view in one, other:
        view.tab.show()
        view.click("[data-do=notifications]")
        view.says("Off: toasts and sounds at any hour", ".sheet-foot")
    other.click("[role=switch]")
    one.tab.show()
    one.says("19:00 to 08:00: no toast, no sound", ".sheet-foot")
    one.loop.run(one.find("[type=time]").first.fill("21:30"))
    one.says("21:30 to 08:00: no toast, no sound", ".sheet-foot")
    one.check()
    other.tab.show()
    other.says("21:30 to 08:00: no toast, no sound", ".sheet-foot")
    other.click("[role=switch]")
    other.says("Off: toasts and sounds at any hour", ".sheet-foot")
    one.tab.show()
    one.says("Off: toasts and sounds at any hour", ".sheet-foot")
    other.tab.show()
    other.click("[role=switch]")
    other.says("21:30 to 08:00", ".sheet-foot")
    other.tab.reload()
    other.click("[data-do=notifications]")
    other.says("21:30 to 08:00", ".sheet-foot")


def test_the_menu_of_a_row_at_the_keyboard(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open()
    view.says("Zürich pilot")
    view.enter("article.row")

    def menu(first: str = "Mark unread from here") -> None:
        view.focused("Zürich pilot")
        view.press(".")
        view.focused(first)

    menu()
    view.check()
    view.press("ArrowUp")
    view.focused("Only Ife Okafor")
    view.press("ArrowDown", "ArrowDown")
    view.focused("Mark read up to here")
    view.press("End")
    view.focused("Only Ife Okafor")
    view.press("Home", "c")
    view.focused("Copy link")
    view.press("Escape")
    view.gone("[role=menu]")
    menu()
    view.press("e")
    view.gone(".badge")
    menu()
    view.press("u")
    view.shows(".badge [aria-hidden]", "1")
    menu()
    view.press("m")
    view.says("Mossgate Bank is muted for an hour", ".foot")
    menu()
    view.says("Unmute Mossgate Bank · muted until", ".menu")
    view.press("m")
    menu()
    view.says("Mute Mossgate Bank for 1 hour", ".menu")
    view.press("End", "Enter")
    view.shows(".active-f .chip", "Ife Okafor")


def test_a_click_elsewhere_closes_what_floats_and_takes_no_focus(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open()
    view.click(".who-btn")
    view.says("1 here now", ".popover")
    view.check()
    view.click("#elsewhere")
    view.gone(".popover")
    view.press("x")
    assert view.tab.evaluate("document.querySelector('#elsewhere').value") == "x"
    view.click(".who-btn")
    view.says("1 here now", ".popover")
    view.click(".who-btn")
    view.gone(".popover")
    view.click(".who-btn")
    view.says("1 here now", ".popover")
    # The first rows are under it.
    view.loop.run(view.find("article.row").last.hover())
    view.loop.run(view.find("article.row [data-do=menu]").last.click())
    view.focused("Mark unread from here")
    view.gone("[part=presence-panel]")


def test_who_is_here_and_what_they_write_on(scene: Scene) -> None:
    view = scene.open()
    other = scene.open("jonas")
    view.click(".who-btn")
    view.shows(".popover li", "Jonas Weber", "You")
    other.tab.evaluate("feed.source.feed.typing('freight', true, 'Audit log export')")
    view.shows(".popover li small", "on Audit log export", "")
    other.tab.close()


def test_a_digest_is_read_from_the_start(scene: Scene) -> None:
    scene.publish(*FOUR)
    view = scene.open(povs="bank")
    view.says("Zürich pilot")
    scene.cut.refuse()
    view.says("Offline")
    for _ in range(11):
        scene.publish(*["mei task completed Of many"] * 60, *["jonas comment added Of many"] * 40)
    scene.cut.resume()
    view.says("updates by 2 people", ".digest")
    view.says("Most by Mei and Jonas", ".digest")
    view.shows(".digest dt", "Tasks completed", "Comments")
    view.check()
    view.click(".digest .btn-main")
    view.gone(".digest")
    view.focused("Mei Tanaka completed 60 tasks")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("dir", ["ltr", "rtl"])
def test_panels_fit_280_px_either_way(scene: Scene, theme: str, dir: str) -> None:
    scene.publish(*FOUR, "priya report exported A-name-that-is-longer-than-any-row-of-it-may-be")
    view = scene.open(dir=dir, theme=theme)
    view.says("Zürich pilot")
    view.size(280)
    for name, selector in [
        ("filter", ".panel"),
        ("notifications", ".sheet"),
        ("presence", ".popover"),
    ]:
        view.tab.evaluate(f"feed.shadowRoot.querySelector('[data-do={name}]').click()")
        view.loop.run(view.find(selector).wait_for())
        assert view.tab.call(OVERFLOW) == []
        view.check()
        view.press("Escape")
        view.gone(selector)
    view.enter("article.row")
    view.press(".")
    view.focused("Mark unread")
    assert view.tab.call(OVERFLOW) == []
    view.check()
