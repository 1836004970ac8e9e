"""The admin page in a real browser, at a real server's admin port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.testing import Http, RunningServer, make_settings
from tests.browser.tabs import Loop
from tests.browser.test_console import Reader, reader

__all__ = ["reader"]

WIDTH = 1360


@pytest.fixture
def actions() -> bool:
    """Whether the admin port does what operators may."""
    return False


@pytest.fixture
def settings(actions: bool) -> Settings:
    server = {"port": 0, "admin_port": 0, "drain_s": 0.2, "admin_actions": actions}
    return make_settings(server=server)


@pytest.fixture
def people(server: RunningServer) -> Iterator[None]:
    """Have some connected, one of whom follows something."""
    clients = [server.connect(user, device="phone") for user in ("ana", "ben", "cy")]
    clients[0].request({"type": "subscribe", "povId": "acme"})
    yield
    for client in clients:
        client.socket.close()


def url_of(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.web.admin_port}/"


def sign_in(reader: Reader, server: RunningServer, width: int = WIDTH) -> None:
    reader.open(url_of(server), width)
    give_token(reader, server)


def give_token(reader: Reader, server: RunningServer) -> None:
    reader.see("h1", "Sign in")
    reader.fill("#token", server.token("ops", Kind.SERVICE, can=["operate"]))
    reader.click(".btn-main", "Sign in")
    reader.see(".top .status", "Ready")


@pytest.fixture
def muted(server: RunningServer) -> Iterator[None]:
    """Have ana's phone not show what ben did, for she muted it; her tablet follows nothing."""
    phone, tablet = (server.connect("ana", device=device) for device in ("phone", "tablet"))
    phone.request({"type": "subscribe", "povId": "acme"})
    body = {"id": "a-1", "type": "task", "action": "done", "povId": "acme", "userId": "ben"}
    published = Http(server).post("/api/activities", body, user="board", service=True)
    assert published.status == 201, published.body
    while phone.receive()["type"] != "activity":
        pass
    said = {"offset": published.body["offset"], "shown": False, "reason": "muted"}
    assert phone.request({"type": "ack", "povId": "acme", **said})["type"] == "acked"
    yield
    for client in (phone, tablet):
        client.socket.close()


def ask_why(reader: Reader, activity: str, user: str) -> None:
    reader.fill(".explain .user", user)
    reader.fill(".explain .activity", activity)
    reader.click(".explain .btn", "Explain")


def lane(reader: Reader, selector: str) -> list[str]:
    """What a part of the line says, without times."""
    said: list[str] = reader.ask(
        f"[...document.querySelectorAll('{selector} li')]"
        ".map(each => each.querySelector('.said').innerText.trim())"
    )
    return said


def shown(reader: Reader) -> list[str]:
    found: list[str] = reader.ask(
        "[...document.querySelectorAll('tbody tr')].map(row => row.querySelector('b').innerText)"
    )
    return found


@pytest.mark.usefixtures("people")
def test_who_signs_in_sees_what_is_on_the_node_as_it_changes(
    reader: Reader, server: RunningServer
) -> None:
    sign_in(reader, server)
    reader.see(".top .only", "read only")
    assert reader.see(".tile", "Connected").startswith("Connected 3 3 people")
    assert sorted(shown(reader)) == ["ana", "ben", "cy"]
    assert reader.ask("document.querySelectorAll('td .btn').length") == 0, "nothing can be done"
    reader.see(".slow", "Nobody is behind.")
    late = server.connect("dee")
    reader.see("td .who", "dee")  # by itself
    late.socket.close()
    reader.gone("td .who", "dee")
    reader.click(".chip", "PoVs")
    assert reader.see("tbody tr", "acme").startswith("acme 1")
    reader.click(".chip", "Plugins")
    reader.see("tr:has-text('presence')", "built-in")


@pytest.mark.usefixtures("people")
def test_a_list_is_filtered_sorted_and_found_again_by_its_address(
    reader: Reader, server: RunningServer
) -> None:
    sign_in(reader, server)
    reader.fill(".find input", "AN")
    reader.gone("td .who", "ben")
    assert shown(reader) == ["ana"]
    reader.fill(".find input", "")
    reader.see("td .who", "ben")
    reader.ask("document.querySelector('select').value = 'age'")
    reader.ask("document.querySelector('select').dispatchEvent(new Event('change'))")
    reader.click("[aria-label='The other way round']")
    reader.see("tbody tr:first-child .who", "cy")
    address = reader.ask("location.href")
    assert address.endswith("#list=connections&sort=age&reverse=")
    reader.open("about:blank")
    reader.open(address)
    reader.see("tbody tr:first-child .who", "cy")
    assert shown(reader) == ["cy", "ben", "ana"]


def test_a_token_that_is_no_operators_is_refused_and_not_kept(
    reader: Reader, server: RunningServer
) -> None:
    reader.open(url_of(server))
    reader.fill("#token", server.token("app", Kind.SERVICE, can=["publish"]))
    reader.click(".btn-main", "Sign in")
    assert "operate" in reader.see("[role=alert]")
    assert reader.ask("sessionStorage.length") == 0
    assert reader.ask("document.querySelector('#token').value") == ""


def test_old_numbers_say_from_when_they_are_and_signing_out_forgets_all(
    reader: Reader, settings: Settings
) -> None:
    with RunningServer(settings, None) as server:
        sign_in(reader, server)
    reader.see(".top .status", "These numbers are from ")
    reader.see(".strip", "The server does not answer")
    reader.click(".btn", "Sign out")
    reader.see("h1", "Sign in")
    assert reader.ask("sessionStorage.length") == 0


@pytest.mark.usefixtures("muted")
def test_why_somebody_did_not_see_something_is_answered_with_its_way_to_each_device(
    reader: Reader, server: RunningServer
) -> None:
    sign_in(reader, server)
    ask_why(reader, "a-1", "ana")
    said = reader.see(".verdict", "phone has it")
    assert said.startswith("phone has it and did not show it: ana muted acme Since ")
    assert said.endswith(
        "Nothing more happens by itself. task done by ben, #1 of PoV acme, published by "
        "service:board Copy as text ana\u2019s connections"
    )
    trunk = lane(reader, '[aria-label="To this server"]')
    assert trunk[:2] == ["Published by service:board", "Kept #1"]
    reached = ["Passed", "Sent", "Acknowledged", "Not shown"]
    assert lane(reader, "[aria-labelledby=lane-0]") == reached
    reader.see("#lane-1", "tablet not subscribed")
    reader.see(".of", "tablet is connected and has not subscribed to acme")
    reached = ["Nobody knows", "Not sent", "Not reached", "Not reached"]
    assert lane(reader, "[aria-labelledby=lane-1]") == reached
    reader.click("summary", "Last of ana")
    reader.see(".events li", "joined device=phone povId=acme")
    reader.fill(".explain .device", "tablet")
    reader.click(".explain .btn", "Explain")
    reader.see(".verdict", "tablet is connected and has not subscribed to acme")
    reader.gone("#lane-1")
    reader.fill(".explain .pov", "beta")
    reader.click(".explain .btn", "Explain")
    reader.see(".verdict", "a-1 was published on another PoV: it is on acme")
    reader.fill(".explain .pov", "")
    ask_why(reader, "a-1", "*")
    assert "userId" in reader.see(".verdict .s-refused")
    reader.gone(".lane")
    reader.click(".btn", "Sign out")
    give_token(reader, server)
    assert reader.ask("document.querySelector('.verdict').innerText") == "", "it is forgotten"


@pytest.mark.usefixtures("people")
def test_a_user_is_chosen_from_those_who_are_here(reader: Reader, server: RunningServer) -> None:
    sign_in(reader, server)
    reader.fill(".explain .user", "an")
    assert reader.see("[role=option]") == "ana"
    reader.press("ArrowDown")
    reader.press("Enter")
    reader.gone("[role=option]")
    assert reader.ask("document.querySelector('.explain .user').value") == "ana"
    assert reader.ask("document.querySelector('.pick .av').dataset.is") == "AN"
    reader.click(".pick .open")
    reader.click("[role=option]", "cy")
    reader.gone("[role=option]")
    assert reader.ask("document.querySelector('.explain .user').value") == "cy"
    reader.click(".pick .open")
    reader.see("[role=option]", "ben")
    reader.press("Escape")
    reader.gone("[role=option]")
    assert reader.ask("document.querySelector('.explain .user').value") == "cy"


@pytest.mark.usefixtures("muted")
def test_an_answer_is_taken_along_as_text(reader: Reader, server: RunningServer) -> None:
    sign_in(reader, server)
    ask_why(reader, "a-1", "ana")
    reader.click(".verdict .btn", "Copy as text")
    assert reader.see("p[role=status]", "copied") == "The answer is copied"
    reader.ask("document.body.append(document.createElement('textarea'))")
    reader.click("body > textarea")
    reader.press("Control+v")
    copied = reader.ask("document.activeElement.value")
    assert copied.startswith("Why did ana not see a-1?\n\nphone has it and did not show it")
    assert "tablet: tablet is connected and has not subscribed to acme [not_subscribed]" in copied
    # As where the page is not served in a secure way:
    reader.ask("Object.defineProperty(navigator, 'clipboard', {value: undefined}) && 0")
    reader.click(".verdict .btn", "Copy as text")
    reader.see(".to-copy", "copy it yourself")
    reader.see("textarea:focus")
    picked = "(at => at.value.slice(at.selectionStart, at.selectionEnd))(document.activeElement)"
    assert reader.ask(picked) == copied


@pytest.mark.usefixtures("people", "muted")
def test_from_an_answer_one_comes_to_the_connections_of_the_user(
    reader: Reader, server: RunningServer
) -> None:
    sign_in(reader, server)
    ask_why(reader, "a-1", "ana")
    reader.click(".verdict .btn", "connections")
    reader.gone("td .who", "ben")
    assert shown(reader) == ["ana", "ana", "ana"]
    assert reader.ask("location.hash") == "#list=connections&sort=unsent&user=ana"
    reader.click(".chip", "Users")
    reader.see("td .who", "ana")  # nothing of another list is shown meanwhile
    assert shown(reader) == ["ana"]
    reader.click("[aria-label='Only ana: show everybody']")
    reader.see("td .who", "ben")
    reader.click("a[aria-label='1 connection of ben']")
    reader.see("th", "Token")
    reader.see("td .who", "ben")
    assert shown(reader) == ["ben"]


def test_what_is_published_is_seen_as_it_happens_and_can_be_held(
    reader: Reader, server: RunningServer
) -> None:
    def publish(name: str) -> None:
        body = {"type": "task", "action": name, "povId": "acme", "userId": "ben"}
        assert Http(server).post("/api/activities", body, service=True).status == 201

    sign_in(reader, server)
    reader.see(".now", "Nothing was published here since you look.")
    publish("begun")
    assert reader.see(".now li").split(" ", 1)[1] == "acme task begun by ben, to 0"
    reader.click("[aria-label=Hold]")
    reader.see(".now .dim", "held")
    publish("done")
    reader.see(".tile", "2 since the start")
    assert reader.ask("document.querySelectorAll('.now li').length") == 1
    reader.click("[aria-label='Go on']")
    assert reader.see(".now li", "task done")
    assert reader.ask("document.querySelectorAll('.now li').length") == 2


class TestWithActions:
    @pytest.fixture
    def actions(self) -> bool:
        return True

    @pytest.mark.usefixtures("people")
    def test_who_cuts_somebody_off_is_asked_first_and_can_take_it_back(
        self, reader: Reader, server: RunningServer
    ) -> None:
        sign_in(reader, server)
        reader.click("tr:has-text('ben') .btn", "Block")
        assert "no token is good until then" in reader.see("dialog")
        reader.click("dialog .btn", "Cancel")
        reader.gone("dialog")
        assert server.call(lambda: len(server.web.server.directory.of("ben"))) == 1
        reader.click("tr:has-text('ben') .btn", "Block")
        reader.click("dialog .btn-bad", "Block")
        reader.see(".slow .num", "for 60 min")
        reader.gone("td .who", "ben")
        reader.click(".chip", "Users")
        reader.see("tr", "blocked for 60 min")
        reader.click("tr:has-text('ben') .btn", "Unblock")
        reader.click("dialog .btn-main", "Unblock")
        reader.see(".slow", "Nobody is blocked.")
        reader.click("tr:has-text('cy') .btn", "Disconnect")
        reader.click("dialog .btn-bad", "Disconnect")
        reader.see("tr:has-text('cy')", "away for")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDTH, 390])
@pytest.mark.usefixtures("people", "muted")
def test_it_can_be_read_by_everybody(
    reader: Reader, server: RunningServer, loop: Loop, scheme: str, width: int, tmp_path: Path
) -> None:
    page = reader.tab.page
    loop.run(page.emulate_media(color_scheme=scheme, reduced_motion="reduce"))  # type: ignore[arg-type]
    sign_in(reader, server, width)
    ask_why(reader, "a-1", "ana")
    reader.see("#lane-1", "tablet")
    assert reader.judge() == []
    assert reader.ask("document.documentElement.scrollWidth") <= width
    loop.run(page.screenshot(path=tmp_path / "admin.png", full_page=True))
