"""What flow tests stand on: both browsers do what a test says, and a cut is one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.listener import HOST
from tests.browser.site import Site
from tests.browser.tabs import Loop, PageError, Profile

PAGE = """<!doctype html><title>page</title><body><ol></ol><script>
window.shown = []
addEventListener('pageshow', event => shown.push(event.persisted))
document.addEventListener('freeze', () => { window.slept = 'yes' })
document.addEventListener('resume', () => { window.slept = 'woken' })
const mark = new URLSearchParams(location.search).get('mark')
if (mark) localStorage.mark = mark
</script>"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "page.html").write_text(PAGE)
    return folder


def test_a_page_answers_what_json_can_say_and_tells_what_it_throws(
    profile: Profile, site: Site
) -> None:
    tab = profile.open(f"{site.url}/page.html")
    value = {"a": [1, 2.5, "ü", None, True, {}], "": []}
    assert tab.call("each => each", value) == value
    assert tab.evaluate("Promise.resolve(location.pathname)") == "/page.html"
    assert tab.evaluate("[undefined, 1e21]") == [None, 1e21]
    assert tab.evaluate("undefined") is None
    assert str(tab.evaluate("NaN")) == "nan"
    with pytest.raises(PageError, match="no such thing"):
        tab.evaluate("Promise.reject(new Error('no such thing'))")


def test_what_a_page_does_not_catch_is_an_error_of_its_tab(profile: Profile, site: Site) -> None:
    tab, other = (profile.open(f"{site.url}/page.html") for _ in range(2))
    tab.evaluate("void Promise.reject(new Error('nobody catches this'))")
    tab.evaluate("setTimeout(() => { document.title = 'thrown'; throw new Error('nor this') })")
    tab.wait_for("document.title === 'thrown'")
    other.evaluate("Promise.reject(new Error('caught')).catch(() => {})")
    tab.reload()  # events come in order
    found = sorted(tab.errors)
    tab.errors.clear()
    assert ["nobody catches this" in found[0], "nor this" in found[1], len(found)] == [
        True,
        True,
        2,
    ]
    assert not other.errors


def test_what_is_waited_for_comes_with_a_change_of_the_page(profile: Profile, site: Site) -> None:
    tab = profile.open(f"{site.url}/page.html")
    tab.evaluate(
        "setTimeout(() => document.querySelector('ol').append(document.createElement('li')))"
    )
    assert tab.wait_for("document.querySelectorAll('li').length === argument", 1) is True
    with pytest.raises(AssertionError, match=r"never came: document\.title"):
        tab.wait_for("document.title === argument", "another", timeout=0.1)


def test_tabs_of_a_profile_share_what_profiles_do_not(
    profile: Profile, profiles: Profiles, browser: Chromium, site: Site
) -> None:
    first, second = (profile.open(f"{site.url}/page.html?mark=1") for _ in range(2))
    stranger = profiles(browser).open(f"{site.url}/page.html")
    listen = "void (new BroadcastChannel('c').onmessage = ({data}) => { document.title = data })"
    for tab in (second, stranger):
        tab.evaluate(listen)
    first.evaluate("void new BroadcastChannel('c').postMessage('heard')")
    assert second.wait_for("document.title === 'heard' && localStorage.mark") == "1"
    assert stranger.evaluate("[document.title, localStorage.mark]") == ["page", None]
    hold = "granted(); return new Promise(() => {})"
    first.evaluate(f"new Promise(granted => navigator.locks.request('l', () => {{ {hold} }}))")
    held = "navigator.locks.query().then(({held}) => held.length)"
    assert (second.evaluate(held), stranger.evaluate(held)) == (1, 0)
    first.close()
    second.evaluate("navigator.locks.request('l', () => {})")


def test_one_tab_of_a_window_is_seen(profile: Profile, site: Site) -> None:
    first, second = (profile.open(f"{site.url}/page.html") for _ in range(2))
    seen = "document.visibilityState"
    assert (first.evaluate(seen), second.evaluate(seen)) == ("hidden", "visible")
    first.show()
    assert (first.evaluate(seen), second.evaluate(seen)) == ("visible", "hidden")


def test_going_back_finds_the_page_as_it_was_left(profile: Profile, site: Site) -> None:
    tab = profile.open(f"{site.url}/page.html")
    tab.evaluate("window.kept = 'kept'")
    tab.goto(f"{site.url}/page.html?other")
    tab.back()
    assert tab.evaluate("[location.search, window.kept, shown]") == ["", "kept", [False, True]]
    tab.forward()
    assert tab.evaluate("location.search") == "?other"
    tab.back()
    tab.reload()
    assert tab.evaluate("[window.kept, shown]") == [None, [False]]


def test_a_script_runs_before_those_of_the_page(profile: Profile, site: Site) -> None:
    profile.add_script("() => { delete window.Storage; window.early = !document.title }")
    tab = profile.open(f"{site.url}/page.html")
    assert tab.evaluate("[window.early, typeof Storage]") == [True, "undefined"]
    tab.reload()
    assert tab.evaluate("window.early") is True


def test_a_frozen_tab_sleeps_and_a_crashed_one_lets_go(
    chromium: Chromium, profiles: Profiles, site: Site
) -> None:
    profile = profiles(chromium)
    sleeper, other = (profile.open(f"{site.url}/page.html") for _ in range(2))
    assert isinstance(sleeper, ChromiumTab)
    sleeper.evaluate("void navigator.locks.request('l', () => new Promise(() => {}))")
    sleeper.freeze()
    assert sleeper.evaluate("window.slept") == "yes"
    sleeper.thaw()
    assert sleeper.evaluate("window.slept") == "woken"
    sleeper.crash()
    other.evaluate("navigator.locks.request('l', () => {})")


@pytest.fixture
def behind() -> Iterator[socket.socket]:
    """A server of one connection at a time, which the test accepts itself."""
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(5)
        yield listening


def dial(cut: Cut) -> socket.socket:
    return socket.create_connection((HOST, int(cut.url.rpartition(":")[2])), timeout=5)


@contextmanager
def carried(cut: Cut, behind: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that is through: its client's and its server's end."""
    with dial(cut) as client, behind.accept()[0] as server:
        server.settimeout(5)
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(b"there")
            assert receiver.recv(9) == b"there"
        yield client, server


def test_a_cut_carries_the_end_of_a_connection(loop: Loop, behind: socket.socket) -> None:
    with (
        Cut(loop, behind.getsockname()[1]) as cut,
        carried(cut, behind) as (client, server),
    ):
        server.sendall(b"last words")
        server.close()
        assert (client.recv(99), client.recv(9)) == (b"last words", b"")


def test_a_cut_refuses_resets_and_comes_back_on_its_port(loop: Loop, behind: socket.socket) -> None:
    with Cut(loop, behind.getsockname()[1]) as cut:
        with carried(cut, behind) as ends:
            cut.refuse()
            for each in ends:
                with pytest.raises(ConnectionResetError):
                    each.recv(9)
        with pytest.raises(ConnectionRefusedError):
            dial(cut)
        cut.resume()
        with carried(cut, behind) as ends:
            cut.drop()
            for each in ends:
                with pytest.raises(ConnectionResetError):
                    each.recv(9)
        with carried(cut, behind):
            pass


def test_a_black_hole_takes_everything_and_gives_it_back_later(
    loop: Loop, behind: socket.socket
) -> None:
    with (
        Cut(loop, behind.getsockname()[1]) as cut,
        carried(cut, behind) as (client, server),
    ):
        cut.swallow()
        server.sendall(b"one")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(9)
        with dial(cut) as late:
            late.sendall(b"two")
            cut.resume()
            client.settimeout(5)
            assert client.recv(9) == b"one"
            with behind.accept()[0] as second:
                assert second.recv(9) == b"two"


def test_the_site_gives_files_of_its_folder_and_tokens(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.html").write_text("secret")
    for path in ("/../secret.html", "/nothing.js", "/"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(site.url + path)
    site.token_of = {"ana": "a.b.c"}.get
    for user, token in (("ana", "a.b.c"), ("ben", None)):
        with urlopen(f"{site.url}/token?user={user}") as answer:
            assert json.load(answer) == {"token": token}
    assert site.asked == ["ana", "ben"]
