"""The console in a real browser, on real development servers: what its reader does with it.

Playwright's own waiting is used: the harness's makes functions in the page, which the page's policy
forbids.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator

from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.conftest import Profiles
from tests.browser.tabs import Loop
from tests.js import CLIENT
from tests.processes import COMMAND, Served, environment, read_until, run, running, serve

AXE = CLIENT / "node_modules/axe-core/axe.min.js"

POLL = '''"""Polls."""
from typing import Annotated, Literal

from pov_rt.plugin import Context, Length, Message, Plugin, PovId, UserId

plugin = Plugin("poll")


class Vote(Message, tag="poll.vote"):
    """Vote in a poll of a PoV. Only the last vote counts."""

    pov_id: PovId
    choice: Literal["yes", "no", "abstain", "later", "never"]
    is_final: bool
    weight: int
    reasons: list[Annotated[str, Length(1, 20)]]
    options: dict[str, str]
    who: UserId
    comment: str | None = None


class Voted(Message, tag="poll.voted"):
    """Somebody voted."""

    pov_id: PovId
    choice: str


@plugin.on(Vote, grant="collaborate")
def vote(message: Vote, context: Context) -> Voted:
    """Count it."""
    return Voted(pov_id=message.pov_id, choice=message.choice)
'''

WATCH = """() => addEventListener('securitypolicyviolation', event => reportError(
  new Error(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`)))"""


class Reader:
    """Who has the console open."""

    def __init__(self, loop: Loop, tab: ChromiumTab) -> None:
        self._loop = loop
        self.tab = tab

    def open(self, url: str, width: int = 1360, height: int = 860) -> None:
        """Open the console; it is live, and its first messages are there."""
        self._loop.run(self.tab.page.set_viewport_size({"width": width, "height": height}))
        self.tab.goto(url)

    def at(self, selector: str, text: str | None = None) -> Locator:
        return self.tab.page.locator(selector, has_text=text).first

    def see(self, selector: str, text: str | None = None) -> str:
        """Wait until it is on the page; return what it says."""
        found = self.at(selector, text)
        self._loop.run(found.wait_for(state="visible", timeout=20_000))
        return " ".join(self._loop.run(found.inner_text()).split())

    def gone(self, selector: str, text: str | None = None) -> None:
        self._loop.run(self.at(selector, text).wait_for(state="hidden", timeout=20_000))

    def click(self, selector: str, text: str | None = None) -> None:
        self._loop.run(self.at(selector, text).click())

    def fill(self, selector: str, text: str) -> None:
        self._loop.run(self.at(selector).fill(text))

    def press(self, keys: str) -> None:
        self._loop.run(self.tab.page.keyboard.press(keys))

    def ask(self, expression: str) -> Any:
        return self._loop.run(self.tab.page.evaluate(expression))

    def choose(self, type: str) -> None:
        self.click(f'.groups a[href="#{type}"]')
        self.see("h1", type)

    def filter(self, name: str) -> None:
        """Have only some messages shown; they are, then."""
        self.click(".chip", name)
        self.see(".chip[aria-pressed=true]", name)

    def messages(self) -> list[str]:
        """What the log says, the newest first, without times."""
        found: list[str] = self.ask(
            "[...document.querySelectorAll('#log .m-line')].map(each => ['b', '.txt', '.took']"
            ".map(part => each.querySelector(part)?.innerText.trim() ?? '').join(' | '))"
        )
        return found

    def judge(self) -> list[str]:
        """What axe-core finds on the page as it is."""
        self.ask(AXE.read_text() + "; 0")
        found = self.ask(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
            " 'best-practice']}).then(({violations}) => violations.flatMap(({id, nodes}) =>"
            " nodes.map(({target, failureSummary}) => `${id} ${target} ${failureSummary}`)))"
        )
        assert isinstance(found, list)
        return found


@pytest.fixture
def reader(loop: Loop, chromium: Chromium, profiles: Profiles) -> Reader:
    profile = profiles(chromium)
    profile.add_script(WATCH)
    tab = profile.open("about:blank")
    assert isinstance(tab, ChromiumTab)
    return Reader(loop, tab)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a plugin in it."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "poll.py").write_text(POLL)
    return folder


@pytest.fixture
def flags(folder: Path) -> Sequence[str]:
    """A port that stays the same over restarts, and the plugins."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return "--port", port, "--plugins-dir", str(folder)


@pytest.fixture
def served(tmp_path: Path, flags: Sequence[str]) -> Iterator[Served]:
    with serve(tmp_path, *flags) as served:
        yield served


def publish(tmp_path: Path, served: Served, number: int) -> None:
    one = {"type": "t", "action": "done", "povId": "demo", "userId": "bo", "id": str(number)}
    given = json.dumps(one)
    assert run(tmp_path, "publish", "--url", served.url, given=given).stderr == "1 published\n"


def test_it_opens_on_the_live_feed_and_a_button_puts_something_into_it(
    reader: Reader, served: Served
) -> None:
    reader.open(served.url)
    reader.see(".top .status", "Live")
    reader.see("#log .m", "demo from 0, nothing has happened there yet")
    assert "Publish from a terminal" in reader.see(".first")
    assert reader.ask("document.querySelectorAll('.first .done').length") == 1
    reader.click(".send")
    reader.see("#log .m", "task completed by dev on demo, offset 1")
    reader.see(".bar", "demo at 1, complete")
    reader.see(".bar", "with")
    assert reader.ask("document.querySelectorAll('.first .done').length") == 3
    shown = [each.split(" | ") for each in reader.messages()]
    at = [kind for kind, *_ in shown].index("published")
    assert shown[at][1] == "demo, offset 1"
    assert shown[at][2].endswith("ms")
    assert shown[at + 1] == ["publish", "task completed on demo", "#3"]
    assert [kind for kind, *_ in shown[-5:]] == [
        "present",
        "presence",
        "subscribed",
        "subscribe",
        "welcome",
    ]
    reader.click("button", "Close these steps")
    reader.gone(".first")


def test_every_form_works_with_what_it_offers(
    reader: Reader, tmp_path: Path, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    types = reader.ask(
        "fetch('/dev/console.json').then(answer => answer.json()).then(({types, schema}) =>"
        " Object.keys(types).map(type => [type, !!schema.operations[`receive.${type}`].reply]))"
    )
    assert len(types) >= 17
    # Nobody can be offered an activity of their own that is there.
    types = [each for each in types if each[0] not in ("amend", "retract")]
    assert ["poll.vote", True] in types
    # Once on a log in which nothing has happened, once on one with entries.
    for turn in range(2):
        # Whoever unsubscribes has to subscribe before the others work: it is asked for last.
        for type, is_answered in sorted(types, key=lambda each: each[0] == "unsubscribe"):
            reader.choose(type)
            number = reader.ask("document.querySelector('pov-console').session.nextId")
            sent = reader.see(".sends .code")
            assert f'"type": "{type}"' in sent
            if type == "refresh":
                reader.see(".sends .code", "eyJ")
            reader.press("Control+Enter")
            if is_answered:
                reader.see(f"#log .m.pair-end:has(+ .m.out .took:text-is('#{number}'))", None)
            else:
                reader.see(f"#log .m.out:has(.took:text-is('#{number}'))")
        assert not [each for each in reader.messages() if each.startswith("error")], turn
        reader.choose("subscribe")
        reader.press("Control+Enter")
        reader.see(".bar", "demo at")
    # What has no answer was not refused either: the ping behind it has its own.
    reader.choose("ping")
    reader.click(".send")
    reader.see("#log .m:first-child", "pong")
    reader.filter("Refused")
    assert reader.messages() == []


def test_a_refused_message_leads_back_to_its_field(reader: Reader, served: Served) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    reader.choose("typing")
    reader.fill("#f-povId", "")
    reader.click(".send")
    reader.see("#log .m.bad", "povId is missing: a text, 1 to 128 characters")
    reader.choose("publish")
    reader.click("#log .fix")
    reader.see("h1", "typing")
    assert "is missing" in reader.see("[data-path=povId] .help.is-wrong")
    reader.see("#f-povId:focus")
    reader.fill("#f-povId", "demo")
    reader.gone(".help.is-wrong")
    reader.press("Control+Enter")
    reader.see("#log .m", "dev in demo")
    # What is no message at all is said at once, and nothing is sent.
    reader.choose("publish")
    before = len(reader.messages())
    reader.fill("#f-data-details", "{")
    reader.press("Control+Enter")
    reader.see("[data-path='data.details'] .help.is-wrong", "This is no JSON")
    assert len(reader.messages()) == before


def test_sent_messages_come_back_and_types_are_found_by_keyboard(
    reader: Reader, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    reader.fill("#f-data-action", "reopened")
    reader.press("Control+Enter")
    reader.see("#log .m", "task reopened by dev")
    reader.press("Escape")
    reader.ask("document.activeElement.blur()")
    reader.press("/")
    assert reader.ask("document.activeElement.type") == "search"
    reader.fill(".find input", "sign of life")
    reader.gone(".groups a", "publish")
    reader.press("Enter")
    reader.see("h1", "ping")
    reader.press("Control+Enter")
    reader.see("#log .m", "alive")
    reader.press("Alt+ArrowUp")
    reader.see("h1", "ping")
    reader.press("Alt+ArrowUp")
    reader.see("h1", "publish")
    assert reader.ask("document.querySelector('#f-data-action').value") == "reopened"


def test_messages_open_as_json_and_can_be_filtered_paused_and_cleared(
    reader: Reader, tmp_path: Path, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    publish(tmp_path, served, 1)
    reader.see("#log .m.news", "on demo, offset 1")
    reader.click("#log .m.news .m-line")
    assert json.loads(reader.see("#log .m.news .code"))["data"]["povId"] == "demo"
    assert reader.ask("document.querySelector('.m.news .m-line').ariaExpanded") == "true"
    reader.click("#log .m.news .m-line")
    reader.gone("#log .m.news .code")
    reader.filter("Sent")
    assert {each.split(" | ")[0] for each in reader.messages()} == {"subscribe", "presence"}
    reader.filter("Received")
    assert {each.split(" | ")[0] for each in reader.messages()} == {
        "activity",
        "present",
        "subscribed",
        "welcome",
    }
    reader.filter("All")
    reader.click("button[aria-label=Pause]")
    publish(tmp_path, served, 2)
    reader.see(".log-head", "1 new, 0 pings hidden")
    assert "offset 2" not in " ".join(reader.messages())
    reader.click("button[aria-label='Go on']")
    reader.see("#log .m.news", "offset 2")
    reader.click("button", "Clear")
    reader.gone("#log .m")


def test_lists_become_chips_and_folded_fields_are_sent_when_filled_in(
    reader: Reader, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    reader.choose("history")
    reader.click("summary", "optional fields")
    for user in ("ana", "ben"):
        reader.fill("#f-users", user)
        reader.press("Enter")
    reader.fill("#f-users", "eve")  # what is not yet a chip is one when it is sent
    reader.press("Control+Enter")
    reader.see("#log .m", "0 activities of demo")
    reader.click("#log .m.out .m-line", "history")
    assert json.loads(reader.see("#log .m.out .code"))["users"] == ["ana", "ben", "eve"]
    reader.click("button[aria-label='Take ben away']")
    reader.see(".sends .code", '"users": ["ana", "eve"]')


def test_the_feed_that_people_see_is_there_beside_the_messages(
    reader: Reader, tmp_path: Path, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    reader.click(".view", "Feed")
    reader.see("pov-team-activity", "Nothing has happened here yet")
    publish(tmp_path, served, 1)
    reader.see("pov-team-activity", "t done")
    reader.click(".view", "Messages")
    reader.see("#log .m.news", "offset 1")


def test_a_restarted_server_is_found_again_and_it_goes_on_where_it_was(
    reader: Reader, tmp_path: Path, folder: Path, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    publish(tmp_path, served, 1)
    reader.see(".bar", "demo at 1, complete")
    (folder / "second.py").write_text(POLL.replace("poll", "second"))
    reader.see("#log .m", "4000 restarting")
    reader.see(".groups a", "second.vote")
    reader.see(".groups h3", "plugins/second.py")
    publish(tmp_path, served, 2)
    reader.see("#log .m.news", "offset 2")
    reader.see(".bar", "demo at 2, complete")
    assert "subscribe | demo, from 1 | #3" in reader.messages()
    reader.see(".top .status", "Live")


def test_a_broken_plugin_says_where_and_that_it_was_mended(
    reader: Reader, folder: Path, served: Served
) -> None:
    plugin = folder / "poll.py"
    reader.open(served.url)
    reader.see("#log .m", "present")
    plugin.write_text(POLL.replace("def vote(", "def vote"))
    said = reader.see(".strip.bad")
    line = POLL.splitlines().index('@plugin.on(Vote, grant="collaborate")') + 2
    assert f"plugins/poll.py:{line} syntax error: " in said
    assert "the server goes on as it was" in said
    reader.see(".top .status", "Live")
    plugin.write_text(POLL + "\nnothing\n")
    said = reader.see(".strip.bad", "NameError: name 'nothing' is not defined")
    assert said.startswith("A file is wrong; the server goes on as it was")
    assert f"plugins/poll.py:{len(POLL.splitlines()) + 2}" in said
    reader.click("summary", "Show the traceback")
    assert "line " in reader.see(".strip .code")
    plugin.write_text(POLL)
    reader.see(".strip.good", "Mended")
    reader.see(".top .status", "Live")
    reader.click(".strip button[aria-label=Close]")
    reader.gone(".strip")


def test_a_plugin_that_is_broken_from_the_start_is_told_in_the_console(
    reader: Reader, tmp_path: Path, folder: Path, flags: Sequence[str]
) -> None:
    (folder / "poll.py").write_text("import nothing_of_that_name\n")
    with running(
        [*COMMAND, "serve", "--dev", "--admin-port", "0", *flags],
        env=environment(tmp_path),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    ) as process:
        read_until(process.stderr, "Waiting for a change")
        url = f"http://127.0.0.1:{flags[1]}"
        while True:  # it listens in a moment
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(flags[1]))) == 0:
                    break
        reader.open(url)
        said = reader.see(".strip.bad", "plugins/poll.py:1")
        assert "No module named 'nothing_of_that_name'" in said
        reader.see(".form", "The forms are there when the server runs.")
        (folder / "poll.py").write_text(POLL)
        reader.see(".strip.good", "Mended")
        reader.see(".groups a", "poll.vote")
        reader.see("#log .m", "subscribed")
        process.terminate()
        assert process.wait(20) == 0


def test_a_token_is_copied_whole_shown_in_part_and_explained(
    reader: Reader, tmp_path: Path, served: Served
) -> None:
    reader.open(served.url)
    reader.see("#log .m", "present")
    assert not reader.ask(r"/eyJ[\w-]{20,}/.test(document.body.innerText)")
    reader.click(".top .btn", "Copy token")
    reader.see(".told", "The token is copied")
    reader.click(".groups a", "Check a token")
    reader.click("#try-token")
    reader.press("Control+V")
    reader.see(".verdict", "Good for 23 h 59 min.")
    said = reader.see("dl.said")
    assert "dev, team main" in said
    assert "collaborate, publish, subscribe" in said
    assert "every PoV: its claim povs is *" in said
    assert "HS256, key 1 of 1" in said
    copied = reader.ask("document.querySelector('#try-token').value")
    reader.fill("#try-token", copied[:-6] + "AAAAAA")
    reader.see(".verdict", "Refused. No key has signed this")
    short = run(tmp_path, "token", "--user", "ana", "--dev", "--ttl", "60s")
    assert short.returncode == 0, short.stderr
    reader.fill("#try-token", f"Bearer {short.stdout.strip()}")
    reader.see(".verdict", "Good for less than a minute.")
    reader.fill("#try-token", "")
    reader.gone(".verdict")


@pytest.mark.parametrize("width", [280, 400, 959])
def test_on_a_narrow_page_the_answer_to_a_send_is_in_view(
    reader: Reader, served: Served, width: int
) -> None:
    reader.open(served.url, width, 640)
    reader.see(".top .status", "Live")
    reader.see("h1", "publish")
    assert not reader.ask("document.querySelector('#log').checkVisibility()")
    reader.click(".send")
    reader.see(".last .m", "demo, offset 1")
    box = reader.ask("document.querySelector('.last .m').getBoundingClientRect().toJSON()")
    assert 0 <= box["top"] < box["bottom"] <= 640
    assert reader.ask("document.documentElement.scrollWidth") <= width
    reader.ask("document.querySelector('.pick').scrollIntoView()")
    reader.click(".tabs button", "Messages")
    reader.see("#log .m", "task completed by dev on demo, offset 1")
    assert not reader.ask("document.querySelector('.send').checkVisibility()")
    assert reader.ask("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_for_those_who_do_not_see_it(
    loop: Loop, reader: Reader, folder: Path, served: Served, scheme: Any
) -> None:
    loop.run(reader.tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce"))
    reader.open(served.url)
    reader.see("#log .m", "present")
    assert reader.judge() == []
    reader.fill("#f-data-povId", "")
    reader.click(".send")
    reader.click("#log .fix")
    reader.see(".help.is-wrong")
    reader.click("#log .m.bad .m-line")
    assert reader.judge() == []
    for type in ("subscribe", "history", "refresh", "poll.vote"):
        reader.choose(type)
        reader.ask("document.querySelectorAll('.form details').forEach(each => each.open = true)")
        assert reader.judge() == [], type
    reader.click(".groups a", "Check a token")
    reader.fill("#try-token", "a.b.c")
    reader.see(".verdict", "Refused")
    assert reader.judge() == []
    (folder / "poll.py").write_text("(\n")
    reader.see(".strip.bad")
    assert reader.judge() == []
    loop.run(reader.tab.page.set_viewport_size({"width": 400, "height": 800}))
    assert reader.judge() == []
