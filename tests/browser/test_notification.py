"""`<pov-activity-notification>` in real browsers, under the strictest policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.flows import ACKS, HIDE, make_token, until
from tests.browser.front import Front
from tests.browser.tabs import Loop, Profile, Tab
from tests.browser.test_team_activity import Scene

ELEMENT = "document.querySelector('pov-activity-notification')"
ROOT = f"{ELEMENT}.shadowRoot"
TOASTS = f"[...{ROOT}.querySelectorAll('.toast:not(.is-leaving)')]"
SHORT_MS = 600

WATCH = """() => {
  window.refused = []
  addEventListener('securitypolicyviolation', event => refused.push(event.violatedDirective))
}"""

COUNT_TONES = """() => {
  window.tones = []
  const start = OscillatorNode.prototype.start
  OscillatorNode.prototype.start = function(at) {
    tones.push(this.frequency.value)
    return start.call(this, at)
  }
}"""

NOTIFICATION = """() => {
  window.notified = []
  window.asked = 0
  window.Notification = class {
    static permission = sessionStorage.permission ?? 'default'
    static async requestPermission() {
      asked++
      return this.permission = sessionStorage.permission = 'granted'
    }
    constructor(title, {body, tag} = {}) {
      // Not allowed yet, it only fails.
      if (sessionStorage.permission) notified.push({title, body, tag})
    }
    close() {}
  }
}"""


@pytest.fixture
def settings() -> Settings:
    # The browser names the front's origin, and the server is asked under its name.
    return make_settings(server=ServerSettings(port=0, admin_port=0, drain_s=0.2))


@pytest.fixture
def scene(loop: Loop, built: Path, server: RunningServer) -> Iterator[Scene]:
    with Cut(loop, server.web.port) as cut:
        with Front(loop, built, lambda: int(cut.url.rpartition(":")[2])) as front:
            yield Scene(front, cut, server)


def opened(profile: Profile, scene: Scene, page: str = "notification.html") -> Tab:
    """Open the page; it is live, and what shows toasts is there."""
    profile.add_script(WATCH)
    tab = profile.open(f"{scene.front.url}/{page}")
    ready(tab)
    return tab


def ready(tab: Tab) -> None:
    """Wait until all that happens from now on is news: each PoV is joined."""
    until(
        lambda: tab.evaluate(
            f"""(({{connection, povs}}) => connection.state === 'live' && povs.size > 0 &&
            [...povs.values()].every(each => each.state === 'live' && each.position))(
            {ELEMENT}.snapshot) && !!{ROOT}.querySelector('.toasts')"""
        )
    )


def toasts(tab: Tab) -> list[str]:
    """Return their words, the newest first, each on a line."""
    found: list[str] = tab.evaluate(
        f"{TOASTS}.map(each => each.querySelector('.say').innerText.replace(/\\s+/g, ' ').trim())"
    )
    return found


def shows(tab: Tab, *words: str) -> None:
    """Wait until there are as many toasts as words, the newest first, and each has its words."""

    found: list[str] = []

    def holds() -> bool:
        found[:] = toasts(tab)
        return len(found) == len(words) and all(
            each in one for each, one in zip(words, found, strict=True)
        )

    try:
        until(holds)
    except AssertionError:
        raise AssertionError(f"never came: {words} in {found}") from None


def bursts(tab: Tab) -> set[str]:
    lines: list[str] = tab.evaluate(
        f"{TOASTS}.map(each => each.querySelector('.line').innerText.trim())"
    )
    return {each for each in lines if "updates" in each}


def said(tab: Tab, role: str) -> str:
    found: str = tab.evaluate(f"{ROOT}.querySelector('[role={role}]').textContent")
    return found


def press(tab: Tab, key: str, **more: bool) -> None:
    """Press a key where the focus is."""
    init = json.dumps({"key": key, "bubbles": True, "composed": True, "cancelable": True, **more})
    tab.evaluate(
        f"({ROOT}.activeElement ?? document.activeElement)"
        f".dispatchEvent(new KeyboardEvent('keydown', {init}))"
    )


def option(tab: Tab, name: str, value: Any) -> None:
    tab.evaluate(f"void {ELEMENT}.setAttribute({json.dumps(name)}, {json.dumps(str(value))})")


def passed(tab: Tab, ms: int) -> None:
    """Let a time pass in which nothing is to happen."""
    tab.evaluate(f"new Promise(resolve => setTimeout(resolve, {ms}))")


def click(tab: Tab, name: str) -> None:
    tab.evaluate(f"{ROOT}.querySelector('[data-do={name}]').click()")


def is_reachable(tab: Tab) -> bool:
    """Whether what is at the toast's place is the toast: in front, and not inert."""
    found: bool = tab.evaluate(
        f"""(() => {{
          const {{left, top, width, height}} = {TOASTS}[0].getBoundingClientRect()
          const at = [left + width / 2, top + height / 2]
          return {ROOT}.elementFromPoint(...at)?.closest('.toast') === {TOASTS}[0]
        }})()"""
    )
    return found


def test_one_comes_is_said_and_goes_without_the_focus(profile: Profile, scene: Scene) -> None:
    scene.publish()
    tab = opened(profile, scene)
    tab.evaluate("document.querySelector('#work').focus()")
    option(tab, "duration", SHORT_MS)
    scene.publish(user="cy")
    # What was there before the page was is no news.
    until(lambda: said(tab, "status") == "cy completed Task 2, acme")
    shows(tab)
    assert tab.evaluate("document.activeElement.id") == "work"
    popover = f"{ROOT}.querySelector('[popover]')"
    until(lambda: not tab.evaluate(f"{popover}.matches(':popover-open')"))
    assert tab.evaluate("refused") == []


def test_own_ones_and_what_a_feed_shows_have_none(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene, "both.html")
    scene.publish()
    until(lambda: tab.evaluate("document.querySelector('pov-team-activity').snapshot.unread") == 1)
    feed = "document.querySelector('pov-team-activity')"
    tab.evaluate(f"void {feed}.style.setProperty('display', 'none')")
    scene.publish(user="ana")
    passed(tab, 300)
    scene.publish(user="di", pov="globex")
    shows(tab, "di completed Task 3")


def test_many_are_one_toast_a_pov_and_one_phrase(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    scene.publish(100)
    scene.publish(50, pov="globex", user="cy")
    until(lambda: {"50 updates on globex", "100 updates on acme"} == bursts(tab))
    until(lambda: said(tab, "status") != "")


def test_the_pointer_and_a_hidden_tab_hold_it(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    option(tab, "duration", SHORT_MS)
    tab.call(HIDE, True)
    scene.publish()
    shows(tab, "Task 1")
    passed(tab, 2 * SHORT_MS)
    shows(tab, "Task 1")
    over = f"{ROOT}.querySelector('.toasts').dispatchEvent(new PointerEvent"
    tab.evaluate(f"{over}('pointerenter', {{pointerType: 'mouse'}}))")
    tab.call(HIDE, False)
    passed(tab, 2 * SHORT_MS)
    shows(tab, "Task 1")
    tab.evaluate(f"{over}('pointerleave', {{pointerType: 'mouse'}}))")
    shows(tab)


def test_keys_go_to_toasts_through_them_and_back(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate("document.querySelector('#work').focus()")
    scene.publish(user="cy")
    shows(tab, "Task 1")
    scene.publish(pov="globex")
    shows(tab, "Task 2", "Task 1")
    press(tab, "F6")
    focused = f"{ROOT}.activeElement?.querySelector('.line').textContent.trim()"
    assert "Task 2" in tab.evaluate(focused)
    press(tab, "ArrowUp")  # the newest is at the edge, the one before it above
    assert "Task 1" in tab.evaluate(focused)
    press(tab, "ArrowDown")
    assert "Task 2" in tab.evaluate(focused)
    press(tab, "Escape")
    shows(tab, "Task 1")
    assert "Task 1" in tab.evaluate(focused)
    press(tab, "F6", shiftKey=True)
    assert tab.evaluate("document.activeElement.id") == "work"
    press(tab, "F6")
    press(tab, "Escape")
    shows(tab)
    assert tab.evaluate("document.activeElement.id") == "work"


def test_opening_is_told_and_can_be_taken_over(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate(
        f"void {ELEMENT}.addEventListener('pov-open', event => "
        "{ window.told = event.detail.href; event.preventDefault() })"
    )
    scene.publish()
    shows(tab, "Task 1")
    press(tab, "F6")
    press(tab, "Enter")
    assert tab.evaluate("told") == "#there"
    assert tab.evaluate("location.hash") == ""
    shows(tab)


def test_it_is_in_front_of_dialogs_and_goes_home(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    scene.publish()
    shows(tab, "Task 1")
    tab.evaluate("outer.showModal()")  # opened while there is one
    until(lambda: is_reachable(tab))
    tab.evaluate("inner.showModal()")
    until(lambda: is_reachable(tab))
    scene.publish(pov="globex")  # comes while one is open
    shows(tab, "Task 2", "Task 1")
    assert is_reachable(tab)
    tab.evaluate("inner.close()")
    until(lambda: tab.evaluate(f"{ELEMENT}.parentElement.id") == "outer")
    until(lambda: is_reachable(tab))
    tab.evaluate("outer.close()")
    until(lambda: tab.evaluate(f"{ELEMENT}.parentElement === document.body"))
    until(lambda: is_reachable(tab))
    scene.publish(user="cy")
    until(lambda: any("Task 3" in each for each in toasts(tab)))


def test_a_dialog_that_is_taken_away_gives_it_back(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate("outer.showModal()")
    scene.publish()
    shows(tab, "Task 1")
    tab.evaluate("outer.remove()")
    until(lambda: tab.evaluate(f"{ELEMENT}?.parentElement === document.body"))
    until(lambda: is_reachable(tab))
    scene.publish(pov="globex")
    shows(tab, "Task 2", "Task 1")


def test_a_break_is_said_after_five_seconds(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    scene.cut.refuse()
    shows(tab, "Offline since")
    scene.publish()
    scene.cut.resume()
    click(tab, "retry")
    shows(tab, "Live again, nothing missed 1 update came in while you were offline")


def test_a_session_that_ended_is_an_alert(profile: Profile, scene: Scene) -> None:
    scene.front.token_of = lambda user: make_token(user, ttl_s=6)
    tab = opened(profile, scene)
    tab.evaluate(f"void {ELEMENT}.addEventListener('pov-sign-in', () => {{ window.asked = true }})")
    scene.front.token_of = lambda user: None
    shows(tab, "Your session ended")
    assert said(tab, "alert") == "Your session ended"
    click(tab, "sign-in")
    assert tab.evaluate("asked")
    scene.front.token_of = lambda user: make_token(user)
    tab.evaluate(f"{ELEMENT}.reconnect()")
    shows(tab)


def test_each_row_without_a_toast_is_told_of_with_its_reason(
    chromium: Chromium, profiles: Profiles, scene: Scene
) -> None:
    tab = opened(profiles(chromium), scene)
    option(tab, "filter", "task")
    option(tab, "pov", "acme globex initech")
    until(lambda: tab.evaluate(f"{ELEMENT}.snapshot.povs.size") == 3)
    ready(tab)
    tab.evaluate(f"void ({ACKS})({ELEMENT}.source.client)")
    tab.evaluate(f"{ELEMENT}.source.feed.mute('globex', 'off')")
    until(lambda: tab.evaluate(f"{ELEMENT}.snapshot.povs.get('globex').level") == "off")
    tab.call(HIDE, True)
    for pov, kind in (("acme", "task"), ("globex", "task"), ("initech", "file")):
        scene.publish(pov=pov, type=kind)
    told = [["acme", False, "hidden"], ["globex", False, "muted"], ["initech", False, "filtered"]]
    until(lambda: sorted(tab.evaluate("acks")) == told)
    tab.call(HIDE, False)
    until(lambda: tab.evaluate("acks").count(["acme", True, None]) == 1)


def test_the_browsers_notifications_are_asked_for_once(profile: Profile, scene: Scene) -> None:
    profile.add_script(NOTIFICATION)
    tab = opened(profile, scene)
    for pov, user in [("acme", "bo"), ("globex", "bo"), ("acme", "cy")]:
        assert not tab.evaluate(f"{ROOT}.querySelector('[data-do=allow]')")
        scene.publish(pov=pov, user=user)
    until(lambda: tab.evaluate(f"!!{ROOT}.querySelector('[data-do=allow]')"))
    assert tab.evaluate("asked") == 0
    click(tab, "allow")
    until(lambda: tab.evaluate("asked") == 1)
    tab.call(HIDE, True)
    scene.publish(pov="globex", user="di")
    until(
        lambda: (
            tab.evaluate("notified")
            == [{"title": "di completed Task 4", "body": "globex", "tag": "globex"}]
        )
    )


def test_not_now_is_kept(profile: Profile, scene: Scene) -> None:
    profile.add_script(NOTIFICATION)
    tab = opened(profile, scene)
    for pov, user in [("acme", "bo"), ("globex", "bo"), ("acme", "cy")]:
        scene.publish(pov=pov, user=user)
    until(lambda: tab.evaluate(f"!!{ROOT}.querySelector('[data-do=not-now]')"))
    click(tab, "not-now")
    tab.reload()
    ready(tab)
    for pov, user in [("acme", "bo"), ("globex", "bo"), ("acme", "cy")]:
        scene.publish(pov=pov, user=user)
    until(lambda: any("Task 6" in each for each in toasts(tab)))
    assert not tab.evaluate(f"!!{ROOT}.querySelector('[data-do=allow]')")
    assert tab.evaluate("asked") == 0


def chromium_tab(tab: Tab) -> ChromiumTab:
    assert isinstance(tab, ChromiumTab)
    return tab


def test_three_tabs_make_one_sound(profiles: Profiles, chromium: Chromium, scene: Scene) -> None:
    profile = profiles(chromium)
    profile.add_script(COUNT_TONES)
    tabs = [chromium_tab(opened(profile, scene)) for _ in range(3)]
    tabs[0].evaluate("""localStorage.setItem('pov-rt:preferences', '{"sound": true}')""")
    for tab in tabs:
        tab.show()
        # Sounds that were turned on wait for a press on the page.
        for kind in ("mousePressed", "mouseReleased"):
            tab.devtools(
                "Input.dispatchMouseEvent", type=kind, x=5, y=300, button="left", clickCount=1
            )
    for number in range(1, 4):
        scene.publish(user=f"user-{number}")
        for tab in tabs:
            has_rows(tab, number)
    until(lambda: sum(len(tab.evaluate("tones")) for tab in tabs) > 0)
    heard = [tone for tab in tabs for tone in tab.evaluate("tones")]
    assert [round(each, 1) for each in heard] == [659.3, 987.8]


def has_rows(tab: Tab, number: int) -> None:
    until(lambda: tab.evaluate(f"{ELEMENT}.snapshot.rows.length") == number)


def test_without_a_press_there_is_no_sound(profile: Profile, scene: Scene) -> None:
    profile.add_script(COUNT_TONES)
    tab = opened(profile, scene)
    tab.evaluate("""localStorage.setItem('pov-rt:preferences', '{"sound": true}')""")
    scene.publish()
    shows(tab, "Task 1")
    assert tab.evaluate("tones") == []


@pytest.mark.parametrize("by", [-140, 140])
def test_a_finger_swipes_it_away(
    profiles: Profiles, chromium: Chromium, scene: Scene, by: int
) -> None:
    tab = chromium_tab(opened(profiles(chromium), scene))
    tab.devtools("Emulation.setTouchEmulationEnabled", enabled=True)
    tab.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=400,
        height=700,
        deviceScaleFactor=1,
        mobile=True,
    )
    scene.publish()
    shows(tab, "Task 1")
    # Until it has come in.
    tab.evaluate(
        f"Promise.all({TOASTS}[0].getAnimations().map(each => each.finished)).then(() => 0)"
    )
    box = tab.evaluate(f"{TOASTS}[0].getBoundingClientRect().toJSON()")
    assert box["left"] == 8  # from edge to edge
    assert box["width"] == tab.evaluate("document.documentElement.clientWidth") - 16
    x, y = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
    touch(tab, "touchStart", x, y)
    for step in range(1, 6):
        touch(tab, "touchMove", x + by * step / 5, y)
    tab.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    shows(tab)


def touch(tab: ChromiumTab, kind: str, x: float, y: float) -> None:
    tab.devtools("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])


# ---- what goes while it has the focus, or is swiped ----


def test_a_focused_one_that_was_read_elsewhere_gives_the_focus_back(
    profile: Profile, scene: Scene
) -> None:
    tab = opened(profile, scene)
    tab.evaluate("document.querySelector('#work').focus()")
    scene.publish()
    shows(tab, "Task 1")
    press(tab, "F6")
    tab.evaluate(f"{ELEMENT}.source.feed.read()")
    shows(tab)
    until(lambda: tab.evaluate("document.activeElement.id") == "work")
    scene.publish()
    shows(tab, "Task 2")
    assert not tab.evaluate(f"!!{ROOT}.querySelector('.is-held')")


def test_under_the_focus_it_stands_still(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate("document.querySelector('#work').focus()")
    option(tab, "duration", SHORT_MS)
    scene.publish()
    shows(tab, "Task 1")
    press(tab, "F6")
    passed(tab, 2 * SHORT_MS)
    shows(tab, "Task 1")
    press(tab, "F6")
    shows(tab)


def test_a_press_with_the_mouse_takes_no_focus(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    tab = chromium_tab(opened(profiles(chromium), scene))
    tab.show()
    tab.evaluate("document.querySelector('#work').focus()")
    option(tab, "duration", SHORT_MS)
    scene.publish(details={"actions": [{"label": "Later"}]})
    shows(tab, "Task 1")
    tab.evaluate(
        f"void {ELEMENT}.addEventListener('pov-action', ({{detail}}) => "
        "{ window.pressed = [detail.label, detail.href] })"
    )
    passed(tab, 2 * SHORT_MS)  # what asks for something stays
    box = tab.evaluate(f"{ROOT}.querySelector('[data-do=action]').getBoundingClientRect().toJSON()")
    for kind in ("mousePressed", "mouseReleased"):
        tab.devtools(
            "Input.dispatchMouseEvent",
            type=kind, x=box["x"] + 5, y=box["y"] + 5, button="left", clickCount=1,
        )  # fmt: skip
    shows(tab)
    assert tab.evaluate("pressed") == ["Later", None]
    assert tab.evaluate("document.activeElement.id") == "work"


def test_actions_lead_nowhere_but_to_pages(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate(
        f"void {ELEMENT}.addEventListener('pov-action', event => "
        "{ window.pressed = [event.detail.label, event.detail.href ?? null] })"
    )
    scene.publish(details={"actions": [{"label": "Go", "href": "javascript:window.bad = 1"}]})
    shows(tab, "Task 1")
    click(tab, "action")
    assert tab.evaluate("pressed") == ["Go", None]
    shows(tab)


def test_a_short_swipe_puts_it_back_and_a_tap_opens_it(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    tab = chromium_tab(opened(profiles(chromium), scene))
    tab.devtools("Emulation.setTouchEmulationEnabled", enabled=True)
    option(tab, "duration", 60_000)
    scene.publish()
    shows(tab, "Task 1")
    settle(tab)
    box = tab.evaluate(f"{TOASTS}[0].getBoundingClientRect().toJSON()")
    x, y = box["left"] + box["width"] / 2, box["top"] + 20
    touch(tab, "touchStart", x, y)
    for by in (20, 40):
        touch(tab, "touchMove", x + by, y)
    until(lambda: tab.evaluate(f"{ROOT}.querySelector('.toasts').matches('.is-held')"))
    # It comes to rest: a tap while the browser lets go on what was thrown only stops that.
    for _ in range(3):
        passed(tab, 50)
        touch(tab, "touchMove", x + 40, y)
    tab.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    until(lambda: tab.evaluate(f"{TOASTS}[0].style.length") == 0)
    until(lambda: not tab.evaluate(f"{ROOT}.querySelector('.toasts').matches('.is-held')"))
    tab.evaluate("addEventListener('pov-open', () => { window.isOpened = true })")
    passed(tab, 400)  # until then it would be of the swipe
    touch(tab, "touchStart", x, y)
    tab.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    until(lambda: bool(tab.evaluate("window.isOpened === true")))


def settle(tab: Tab) -> None:
    """Have all that moves in arrived."""
    tab.evaluate(
        f"{ROOT}.getAnimations().filter(each => each.transitionProperty)"
        ".forEach(each => each.finish())"
    )


# ---- dialogs ----


def test_a_dialog_may_be_in_a_shadow_root(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate(
        f"""(() => {{
          const root = document.body.appendChild(document.createElement('div'))
            .attachShadow({{mode: 'open'}})
          window.deep = root.appendChild(document.createElement('dialog'))
          deep.append(document.createElement('button'))
          window.element = {ELEMENT}
          deep.showModal()
        }})()"""
    )
    until(lambda: tab.evaluate("element.parentNode === deep"))
    tab.evaluate("deep.close()")
    until(lambda: tab.evaluate("element.parentNode === document.body"))


@pytest.mark.parametrize("gone", ["element", "home"])
def test_a_page_can_take_it_away_while_it_is_in_a_dialog(
    profile: Profile, scene: Scene, gone: str
) -> None:
    tab = opened(profile, scene)
    tab.evaluate(
        f"""(() => {{
          window.element = {ELEMENT}
          window.home = document.body.appendChild(document.createElement('div'))
          home.append(element)
          outer.showModal()
        }})()"""
    )
    until(lambda: tab.evaluate("element.parentNode === outer"))
    tab.evaluate(f"{gone}.remove()")
    until(lambda: not tab.evaluate("element.isConnected"))
    tab.evaluate("(outer.close(), inner.showModal(), inner.close())")
    passed(tab, 100)
    assert not tab.evaluate("element.isConnected")
    tab.evaluate("document.body.append(element)")
    ready(tab)
    scene.publish()
    shows(tab, "Task 1")


# ---- browsers, hours, mutes ----


def test_of_tabs_that_nobody_sees_one_tells(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    profile = profiles(chromium)
    profile.add_script("() => { sessionStorage.permission = 'granted' }")
    profile.add_script(NOTIFICATION)
    tabs = [opened(profile, scene) for _ in range(3)]
    tabs[2].show()
    scene.publish()
    for tab in tabs:
        has_rows(tab, 1)
    passed(tabs[2], 200)
    assert [each for tab in tabs for each in tab.evaluate("notified")] == []  # one is seen
    profile.open(f"{scene.front.url}/other.html").show()
    until(lambda: all(tab.evaluate("document.hidden") for tab in tabs))
    for _ in range(2):
        scene.publish(pov="globex")
    until(lambda: sum(tab.evaluate("notified.length") for tab in tabs) >= 2)
    passed(tabs[2], 200)
    told = sorted(each["title"] for tab in tabs for each in tab.evaluate("notified"))
    assert told == ["bo completed Task 2", "bo completed Task 3"]


def test_where_pages_cannot_make_notifications_nobody_is_asked(
    profile: Profile, scene: Scene
) -> None:
    profile.add_script(
        """() => {
          window.Notification = class {
            static permission = 'default'
            constructor() { throw new TypeError('Illegal constructor') }
          }
        }"""
    )
    tab = opened(profile, scene)
    for pov, user in [("acme", "bo"), ("globex", "bo"), ("acme", "cy"), ("globex", "cy")]:
        scene.publish(pov=pov, user=user)
    until(lambda: any("Task 4" in each for each in toasts(tab)))
    assert not tab.evaluate(f"!!{ROOT}.querySelector('[data-do=allow]')")


def test_quiet_hours_are_quiet(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    option(tab, "quiet", "00:00-23:59")
    scene.publish()
    has_rows(tab, 1)
    tab.evaluate(f"{ELEMENT}.removeAttribute('quiet')")
    scene.publish(pov="globex")
    shows(tab, "Task 2")


def test_a_mute_is_taken_back_to_what_was(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    level = f"{ELEMENT}.snapshot.povs.get('acme').level"
    tab.evaluate(f"{ELEMENT}.source.feed.mute('acme', 'toast')")
    until(lambda: tab.evaluate(level) == "toast")
    scene.publish()
    shows(tab, "Task 1")
    tab.call(
        f"""async () => {{
          const until = new Date(Date.now() + 3600000)
          await {ELEMENT}.source.feed.mute('acme', 'off', until)
          window.isTaken = !document.body.dispatchEvent(new CustomEvent('pov-muted', {{
            bubbles: true, composed: true, cancelable: true, detail: {{povId: 'acme', until}}}}))
        }}"""
    )
    assert tab.evaluate("isTaken")
    shows(tab, "acme is muted until")
    assert tab.evaluate(level) == "off"
    click(tab, "undo")
    shows(tab)
    until(lambda: tab.evaluate(level) == "toast")


# ---- where they are ----


def test_it_has_what_a_feed_has_that_comes_later(profile: Profile, scene: Scene) -> None:
    tab = opened(profile, scene)
    tab.evaluate(
        f"""(() => {{
          {ELEMENT}.remove()
          document.body.append(document.createElement('pov-activity-notification'))
          const feed = document.createElement('pov-team-activity')
          feed.setAttribute('pov', 'acme')
          feed.setAttribute('token-url', '/token?user=ana')
          feed.style.setProperty('display', 'none')
          setTimeout(() => document.body.append(feed), 200)
        }})()"""
    )
    ready(tab)
    scene.publish()
    shows(tab, "Task 1")


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_there_are_six_places(
    profiles: Profiles, chromium: Chromium, scene: Scene, direction: str
) -> None:
    tab = opened(profiles(chromium), scene)
    tab.evaluate(f"void (document.documentElement.dir = '{direction}')")
    option(tab, "duration", 60_000)
    scene.publish()
    shows(tab, "Task 1")
    scene.publish(pov="globex")
    shows(tab, "Task 2", "Task 1")
    width, height = tab.evaluate("[document.documentElement.clientWidth, innerHeight]")
    for position in ("top-start", "top", "top-end", "bottom-start", "bottom", "bottom-end"):
        option(tab, "position", position)
        settle(tab)
        new, old = tab.evaluate(f"{TOASTS}.map(each => each.getBoundingClientRect().toJSON())")
        is_top = position.startswith("top")
        assert new["top"] == 24 if is_top else new["bottom"] == height - 24, position
        assert (old["top"] - new["bottom"] if is_top else new["top"] - old["bottom"]) == 8
        if position in {"top", "bottom"}:
            assert abs(new["left"] + new["right"] - width) <= 1
        elif position.endswith("start") == (direction == "ltr"):
            assert new["left"] == 24
        else:
            assert new["right"] == width - 24


@pytest.mark.parametrize("width", [280, 479])
def test_on_a_phone_the_newest_is_at_the_bottom(
    profiles: Profiles, chromium: Chromium, scene: Scene, width: int
) -> None:
    tab = chromium_tab(opened(profiles(chromium), scene))
    option(tab, "position", "top-start")
    tab.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=600, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    scene.publish()
    shows(tab, "Task 1")
    scene.publish(pov="globex")
    shows(tab, "Task 2", "Task 1")
    settle(tab)
    new, old = tab.evaluate(f"{TOASTS}.map(each => each.getBoundingClientRect().toJSON())")
    assert [new["left"], new["right"], new["bottom"]] == [8, width - 8, 592]
    assert old["bottom"] == new["top"] - 8


def test_with_reduced_motion_nothing_moves(
    profiles: Profiles, chromium: Chromium, scene: Scene
) -> None:
    tab = chromium_tab(opened(profiles(chromium), scene))
    reduce: Any = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    tab.devtools("Emulation.setEmulatedMedia", features=reduce)
    scene.publish()
    shows(tab, "Task 1")
    moving = tab.evaluate(
        f"{ROOT}.getAnimations().map(each => each.transitionProperty ?? each.animationName)"
    )
    assert set(moving) <= {"opacity"}
