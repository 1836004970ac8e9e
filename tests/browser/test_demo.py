"""The demo, as whoever sees it first has it: what they break costs nothing, and the line is true.

What is pressed and read in the boards is in frames of the page's own origin. The page looks at the
logs twice a second and draws then, so that what is waited for in a frame is looked at, too.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium
from tests.browser.conftest import Profiles
from tests.browser.tabs import Profile, Tab
from tests.processes import Served, serve

IN = """(user => {
  const frame = document.querySelector(`iframe[data-user=${user}]`)
  return frame.contentDocument
})"""
"""The document of somebody's board."""

LINE = """([names, values]) => names.every((name, i) =>
  document.querySelector(`[data-count="${name}"]`)?.dataset.value === String(values[i]))"""

VIOLATIONS = """() => {
  window.violations = []
  document.addEventListener('securitypolicyviolation',
    event => violations.push(event.violatedDirective))
}"""

PLANTED = """() => {
  const Real = window.WebSocket
  window.WebSocket = class extends Real {
    set onmessage(listener) {
      super.onmessage = event => {
        const message = JSON.parse(event.data)
        const ids = window.planted ??= []
        if (message.type === 'activity' && message.data.type === 'task') {
          ids.push(message.data.id)
          message.data.id = ids[0] // each is the first one, once more
        }
        listener({data: JSON.stringify(message)})
      }
    }
  }
}"""
"""Has a page get the first task's activity again in the place of each later one."""


class Demo:
    """The demo's page in a tab."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        for user in ("ana", "jonas"):
            self.wait(user, "querySelector('.talk li')")
            self.wait_state(user, "live")
        self.line(sent=0)

    def press(self, button: str) -> None:
        """Press one of the page's own buttons."""
        self.tab.call("id => document.getElementById(id).click()", button)

    def click(self, user: str, selector: str) -> None:
        """Press something in somebody's board."""
        self.tab.call(f"(user, what) => {IN}(user).querySelector(what).click()", user, selector)

    def write(self, user: str, text: str, field: str = ".compose") -> None:
        """Type into a form of somebody's board, without sending it."""
        self.tab.call(
            f"""(user, form, text) => {{
              const field = {IN}(user).querySelector(form + ' input')
              field.value = text
              field.dispatchEvent(new Event('input', {{bubbles: true}}))
            }}""",
            user,
            field,
            text,
        )

    def say(self, user: str, text: str) -> None:
        """Send a comment."""
        self.write(user, text)
        self.click(user, ".compose button")

    def wait(self, user: str, expression: str) -> None:
        """Wait for something in somebody's board, an expression of its document."""
        self.tab.wait_for(f"{IN}(argument)?.{expression}", user)

    def wait_text(self, user: str, selector: str, text: str) -> None:
        """Wait until something in somebody's board has a text."""
        look = f"({IN}(argument[0])?.querySelector(argument[1])?.textContent ?? '')"
        self.tab.wait_for(f"{look}.includes(argument[2])", [user, selector, text])

    def wait_state(self, user: str, state: str) -> None:
        """Wait until somebody's page has a state."""
        look = f"{IN}(argument[0])?.documentElement?.dataset.state"
        self.tab.wait_for(f"{look} === argument[1]", [user, state])

    def line(self, sent: int, jonas_waits_for: int = 0, lost: int = 0, twice: int = 0) -> None:
        """Wait until the line says that this was sent, and that Ana has all of it."""
        wanted = {
            "sent": sent,
            "shown-ana": sent,
            "shown-jonas": sent - jonas_waits_for - lost,
            "to-come-jonas": jonas_waits_for,
            "lost": lost,
            "twice": twice,
        }
        self.tab.wait_for(f"({LINE})(argument)", [list(wanted), list(wanted.values())])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])  # the same one after it started anew
    with serve(tmp_path, "--port", port) as running:
        yield running


@pytest.fixture
def profile(chromium: Chromium, profiles: Profiles) -> Profile:
    return profiles(chromium)


def task(name: str) -> str:
    return f"li[data-task={name}] input"


def test_what_one_does_the_other_sees_and_nothing_breaks_the_policy(
    served: Served, profile: Profile
) -> None:
    profile.add_script(VIOLATIONS)
    demo = Demo(profile.open(f"{served.url}/demo"))
    demo.click("ana", task("success-criteria"))
    demo.wait("jonas", f"querySelector('{task('success-criteria')}').checked")
    demo.click("jonas", "#move")
    demo.wait_text("ana", "[aria-current]", "Decide")
    demo.write("jonas", "Prepare the talk", ".add")
    demo.tab.call(f"() => {IN}('jonas').querySelector('.add').requestSubmit()")
    demo.wait_text("ana", ".tasks", "Prepare the talk")
    demo.write("jonas", "I'll")
    demo.wait_text("ana", ".writes", "Jonas is writing")
    demo.say("jonas", "I'll ask them.")
    demo.wait_text("ana", ".talk li:last-child", "I'll ask them.")
    demo.line(sent=4)
    looks = "[window, frames[0], frames[1]].flatMap(each => each.violations)"
    assert demo.tab.evaluate(looks) == []


def test_a_board_is_a_page_of_its_own_and_keeps_what_is_looked_at(
    served: Served, profile: Profile
) -> None:
    tab = profile.open(f"{served.url}/demo/board?user=mei&pov=quillon-air")
    tab.wait_for("document.querySelector('select')?.value === 'quillon-air'")
    tab.call("() => document.querySelector('[data-task=delay-alerts] .name').click()")
    tab.reload()
    tab.wait_for("document.querySelector('#talk')?.textContent === 'Delay alerts within a minute'")


def test_what_is_done_while_unplugged_waits_and_comes_once(
    served: Served, profile: Profile
) -> None:
    demo = Demo(profile.open(f"{served.url}/demo"))
    demo.press("plug")
    demo.wait_state("jonas", "offline")
    demo.click("jonas", task("success-criteria"))
    demo.wait_text("jonas", "[data-task=success-criteria]", "waits")
    demo.say("jonas", "Numbers hold at three times the load.")
    demo.wait_text("jonas", ".talk .pending", "not sent yet")
    demo.click("ana", task("audit-log-export"))
    demo.say("ana", "So do ours.")
    demo.line(sent=2, jonas_waits_for=2)
    assert not demo.tab.evaluate(f"{IN}('ana').querySelector('{task('success-criteria')}').checked")
    demo.press("plug")
    demo.line(sent=4)
    demo.wait("ana", f"querySelector('{task('success-criteria')}').checked")
    demo.wait_text("ana", ".talk li:last-child", "Numbers hold")
    demo.wait("jonas", "querySelectorAll('.wait, .pending').length === 0")


def test_an_ended_token_a_restart_and_bursts_cost_nothing(served: Served, profile: Profile) -> None:
    demo = Demo(profile.open(f"{served.url}/demo"))
    demo.press("burst")
    demo.line(sent=1000)
    demo.press("expire")
    demo.wait_state("ana", "offline")
    demo.click("jonas", task("rotterdam"))
    demo.wait_state("ana", "live")
    demo.line(sent=1001)
    demo.press("plug")
    demo.wait_state("jonas", "offline")
    demo.press("burst")
    demo.line(sent=2001, jonas_waits_for=1000)
    demo.press("restart")
    demo.wait_state("ana", "offline")
    demo.press("plug")
    demo.wait_state("ana", "live")
    demo.wait_state("jonas", "live")
    demo.click("ana", task("success-criteria"))
    demo.line(sent=2002)
    # What was shown before a reload is shown after it, a page at a time.
    demo.tab.call(
        "() => document.querySelector('iframe[data-user=jonas]').contentWindow.location.reload()"
    )
    demo.wait_state("jonas", "live")
    demo.line(sent=2002)


def test_one_that_a_page_lost_and_one_that_it_has_twice_are_seen(
    served: Served, profile: Profile
) -> None:
    profile.add_script(f"() => {{ if (location.search === '?user=jonas') ({PLANTED})() }}")
    demo = Demo(profile.open(f"{served.url}/demo"))
    demo.click("ana", task("rotterdam"))
    demo.line(sent=1)
    demo.click("ana", task("success-criteria"))
    demo.line(sent=2, lost=1, twice=1)


def test_a_reset_board_is_as_it_was_at_first(served: Served, profile: Profile) -> None:
    demo = Demo(profile.open(f"{served.url}/demo"))
    demo.click("ana", task("rotterdam"))
    demo.say("ana", "It does.")
    demo.wait_text("jonas", ".talk li:last-child", "It does.")
    demo.press("reset")
    for user in ("ana", "jonas"):
        demo.wait(user, f"querySelector('{task('rotterdam')}').checked === false")
        demo.wait(user, "querySelectorAll('.talk li').length === 2")
