"""Whatever happens to servers, networks, tabs and tokens: each activity once, in order, everywhere.

The server's log is the one truth; a MutationObserver in each tab keeps the ledger of its list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.conftest import Profiles
from tests.browser.cut import Cut
from tests.browser.flows import (
    Flow,
    build_next,
    make_token,
    states,
    tabs_of,
    until,
    wait_state,
)
from tests.browser.site import Site
from tests.browser.tabs import Browser, Loop, Profile
from tests.processes import end, serve

STORED = "indexedDB.databases().then(each => each.length)"
KEPT = """indexedDB.databases().then(([{name}]) => new Promise(resolve => {
  const opening = indexedDB.open(name)
  opening.onsuccess = () => {
    const counting = opening.result.transaction('rows').objectStore('rows').count()
    counting.onsuccess = () => {
      opening.result.close()
      resolve(counting.result)
    }
  }
}))"""
"""How many rows are stored."""


@pytest.fixture(scope="session")
def following(built: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where the page finds a version of the SDK that cannot share a socket with this one."""
    build_next(built / "next", tmp_path_factory.mktemp("next"))
    return "next"


@pytest.fixture
def pages(built: Path) -> Path:
    return built


@pytest.fixture
def settings(site: Site) -> Settings:
    origins = ServerSettings(port=0, admin_port=0, drain_s=0.2, allowed_origins=[site.url])
    return make_settings(server=origins)


@pytest.fixture
def flow(loop: Loop, site: Site, server: RunningServer) -> Iterator[Flow]:
    with Cut(loop, server.web.port) as cut:
        yield Flow(site, cut, lambda: server.address)


# ---- server and network ----


def test_a_killed_server_costs_nothing_when_it_is_back(
    loop: Loop, site: Site, profile: Profile, tmp_path: Path
) -> None:
    given = {
        "POV_RT_AUTH__SECRETS": SECRET,
        "POV_RT_SERVER__ALLOWED_ORIGINS": site.url,
        "POV_RT_ENGINE__URL": "sqlite://",
    }
    with serve(tmp_path, **given) as first, Cut(loop, port_of(first.url)) as cut:
        address = first.url.removeprefix("http://")
        flow = Flow(site, cut, lambda: address)
        flow.publish(3)
        tabs = tabs_of(profile, flow.url(), 2)
        flow.settle(*tabs)
        end(first.process)
        for tab in tabs:
            wait_state(tab, "offline", "network")
        with serve(tmp_path, **given) as second:
            cut.port, address = port_of(second.url), second.url.removeprefix("http://")
            missed = flow.publish(3)
            for tab in tabs:
                tab.call("() => client.retry()")
                wait_state(tab, "live")
            flow.compare(*tabs, last=missed[-1])
            flow.settle(*tabs)
            assert flow.sockets() == 1


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_network_that_is_cut_costs_nothing_when_it_is_back(flow: Flow, profile: Profile) -> None:
    flow.publish(3)
    tabs = tabs_of(profile, flow.url(), 2)
    flow.settle(*tabs)
    flow.cut.refuse()
    for tab in tabs:
        wait_state(tab, "offline", "network")
    missed = flow.publish(3)
    flow.cut.resume()
    for tab in tabs:
        tab.call("() => client.retry()")
        wait_state(tab, "live")
    flow.compare(*tabs, last=missed[-1])
    for _ in range(3):
        flow.cut.drop()
        flow.settle(*tabs)
    assert flow.sockets() == 1


def test_a_network_that_swallows_everything_is_noticed(
    flow: Flow, chromium: Chromium, profiles: Profiles
) -> None:
    tabs = tabs_of(profiles(chromium), flow.url(), 2)
    flow.settle(*tabs)
    flow.cut.swallow()
    missed = flow.publish(3)
    # Else it takes the ping's interval and 10 s. The tab that leads is hidden, and does not care.
    tabs[1].evaluate("void dispatchEvent(new Event('online'))")
    for tab in tabs:
        wait_state(tab, "offline", "silent")
    flow.cut.drop()
    flow.cut.resume()
    for tab in tabs:
        tab.call("() => client.retry()")
    flow.compare(*tabs, last=missed[-1])
    flow.settle(*tabs)
    until(lambda: flow.sockets() == 1)


def test_a_page_reloaded_in_mid_recovery_shows_each_once(flow: Flow, profile: Profile) -> None:
    tabs = tabs_of(profile, flow.url(), 2)
    flow.settle(*tabs)
    flow.cut.refuse()
    for tab in tabs:
        wait_state(tab, "offline")
    missed = flow.publish(10)
    for tab in tabs:
        tab.reload()
    flow.cut.resume()
    for tab in tabs:
        # As soon as it is connected, while what it missed is on its way.
        tab.call("() => client.retry()")
        tab.wait_for("document.documentElement.dataset.connection")
        tab.reload()
    flow.compare(*tabs, last=missed[-1])
    flow.settle(*tabs)
    until(lambda: flow.sockets() == 1)


def test_trying_again_while_it_is_being_tried_makes_no_second_connection(
    flow: Flow, chromium: Chromium, profiles: Profiles
) -> None:
    tab = profiles(chromium).open(flow.url())
    wait_state(tab, "live")
    asked = tab.call(
        """async url => {
          const {connect} = await import('./client/pov-rt.mjs')
          let asked = 0
          const client = connect({url, async getToken() {
            asked++
            return (await (await fetch('/token?user=eve')).json()).token
          }})
          const isLive = new Promise(resolve => {
            client.on('status', ({state}) => { if (state === 'live') resolve() })
          })
          client.retry()
          client.retry()
          await isLive
          return asked
        }""",
        flow.cut.url,
    )
    assert (asked, flow.sockets("eve")) == (1, 1)


# ---- tokens and people ----


def test_an_expired_token_is_replaced_and_a_refused_one_is_the_end(
    flow: Flow, profile: Profile
) -> None:
    tokens = [make_token("ana", ttl_s=-60)]
    flow.site.token_of = lambda user: tokens.pop() if tokens else make_token(user)
    tab = profile.open(flow.url())
    wait_state(tab, "live")
    flow.settle(tab)
    asked = len(flow.site.asked)
    stranger = "a secret that this server does not have"
    flow.site.token_of = lambda user: make_token(user, key=stranger)
    flow.cut.drop()
    tab.reload()
    wait_state(tab, "closed", "session_ended")
    assert flow.site.asked[asked:] == ["ana"] * 2
    assert flow.sockets() == 0


def test_a_token_is_renewed_before_its_end_and_the_connection_stays(
    flow: Flow, profile: Profile
) -> None:
    flow.site.token_of = lambda user: make_token(user, ttl_s=61)
    (tab,) = tabs_of(profile, flow.url(), 1)
    connection = tab.evaluate("document.documentElement.dataset.connection")
    tab.wait_for("document.documentElement.dataset.renewed")
    flow.settle(tab)
    assert tab.evaluate("document.documentElement.dataset.connection") == connection


def test_signing_out_closes_all_tabs_and_leaves_nothing(flow: Flow, profile: Profile) -> None:
    tabs = tabs_of(profile, flow.url(), 2)
    flow.settle(*tabs)
    tabs[1].call("() => client.signOut()")
    for tab in tabs:
        wait_state(tab, "closed", "signed_out")
    until(lambda: tabs[0].evaluate(STORED) == 0)
    until(lambda: flow.sockets() == 0)
    for tab in tabs:
        assert tab.evaluate("document.querySelectorAll('li').length") == 0


@pytest.mark.parametrize("outbox", ["off", "on"])
def test_signing_out_reaches_a_tab_that_sleeps_when_it_wakes(
    flow: Flow, chromium: Chromium, profiles: Profiles, outbox: str
) -> None:
    sleeper, other = tabs_of(profiles(chromium), flow.url(outbox=outbox), 2)
    flow.settle(sleeper, other)
    assert isinstance(sleeper, ChromiumTab)
    sleeper.freeze()
    for _ in range(3):  # nobody waits for the sleeper
        other.call("""() => client.publish({
          type: 'task', action: 'made', povId: 'acme', userId: 'ana'
        })""")
    flow.site.token_of = lambda user: None
    other.call("() => client.signOut()")  # though the sleeper has the database open
    assert flow.sockets() == 0
    sleeper.thaw()
    wait_state(sleeper, "closed", "session_ended")
    assert flow.sockets() == 0
    until(lambda: other.evaluate(STORED) == 0)


def test_two_accounts_in_one_browser_share_nothing(flow: Flow, profile: Profile) -> None:
    ana = tabs_of(profile, flow.url("ana"), 2)
    ben = tabs_of(profile, flow.url("ben"), 2)
    flow.settle(*ana, *ben)
    assert (flow.sockets("ana"), flow.sockets("ben")) == (1, 1)
    assert ana[0].evaluate(STORED) == 2
    ben[0].call("() => client.signOut()")
    wait_state(ben[1], "closed", "signed_out")
    flow.settle(*ana)
    until(lambda: ana[0].evaluate(STORED) == 1)
    assert set(states(ana[0])) <= {"connecting", "catching-up", "live"}


def test_whom_an_operator_disconnects_stays_away_in_all_tabs(
    flow: Flow, chromium: Chromium, profiles: Profiles
) -> None:
    tabs = tabs_of(profiles(chromium), flow.url(), 2)
    flow.settle(*tabs)
    flow.disconnect("ana")
    for tab in tabs:
        wait_state(tab, "closed", "ended")
    assert flow.sockets() == 0


# ---- tabs ----


def test_what_is_read_in_one_tab_is_read_in_all(flow: Flow, profile: Profile) -> None:
    flow.publish(3)
    tabs = tabs_of(profile, flow.url(), 3)
    last = flow.publish(3)[-1]
    flow.compare(*tabs, last=last)
    unread = "document.documentElement.dataset.unread === argument"
    for tab in tabs:
        tab.wait_for(unread, "6")
    tabs[2].call("() => feed.read(feed.getSnapshot().rows[2])")
    for tab in tabs:
        tab.wait_for(unread, "2")
    assert flow.sockets() == 1


def test_another_tab_leads_when_the_leader_is_closed(
    flow: Flow, profile: Profile, record_property: Callable[[str, object], None]
) -> None:
    leader, *others = tabs_of(profile, flow.url(), 3)
    flow.settle(leader, *others)
    began = time.monotonic()
    leader.close()
    (missed,) = flow.publish()
    flow.compare(*others, last=missed)
    record_property("over_s", round(time.monotonic() - began, 3))
    flow.settle(*others)
    until(lambda: flow.sockets() == 1)


def test_another_tab_leads_when_the_leader_crashes(
    flow: Flow,
    chromium: Chromium,
    profiles: Profiles,
    record_property: Callable[[str, object], None],
) -> None:
    leader, *others = tabs_of(profiles(chromium), flow.url(), 3)
    flow.settle(leader, *others)
    assert isinstance(leader, ChromiumTab)
    began = time.monotonic()
    leader.crash()
    (missed,) = flow.publish()
    flow.compare(*others, last=missed)
    record_property("over_s", round(time.monotonic() - began, 3))
    flow.settle(*others)
    until(lambda: flow.sockets() == 1)


def test_another_tab_leads_while_the_leader_is_frozen(
    flow: Flow,
    chromium: Chromium,
    profiles: Profiles,
    record_property: Callable[[str, object], None],
) -> None:
    leader, *others = tabs_of(profiles(chromium), flow.url(), 3)
    flow.settle(leader, *others)
    assert isinstance(leader, ChromiumTab)
    began = time.monotonic()
    leader.freeze()
    (missed,) = flow.publish()
    flow.compare(*others, last=missed)
    record_property("over_s", round(time.monotonic() - began, 3))
    leader.thaw()
    flow.settle(leader, *others)
    until(lambda: flow.sockets() == 1)
    assert "suspended" in states(leader)


def test_a_leader_that_hangs_is_robbed_and_joins_again(
    flow: Flow, profile: Profile, record_property: Callable[[str, object], None]
) -> None:
    leader, *others = tabs_of(profile, flow.url(), 3)
    flow.settle(leader, *others)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        leader.call(
            "() => { const end = Date.now() + 6000; while (Date.now() < end); }", timeout=0.5
        )
    (missed,) = flow.publish()
    flow.compare(*others, last=missed)
    record_property("over_s", round(time.monotonic() - began, 3))
    flow.settle(leader, *others)
    until(lambda: flow.sockets() == 1)


def test_a_page_from_the_back_forward_cache_goes_on(flow: Flow, profile: Profile) -> None:
    (tab,) = tabs_of(profile, flow.url(), 1)
    flow.settle(tab)
    tab.evaluate("window.kept = 'kept'")
    tab.goto(f"{flow.site.url}/other.html")
    until(lambda: flow.sockets() == 0)
    (missed,) = flow.publish()
    tab.back()
    if isinstance(tab, ChromiumTab):
        reasons = "performance.getEntriesByType('navigation')[0].notRestoredReasons?.toJSON()"
        assert tab.evaluate(f"[window.kept, {reasons}]") == ["kept", None]
        assert "suspended" in states(tab)
    # Firefox keeps no page that has a WebSocket or a lock when it is left: it is loaded again.
    flow.compare(tab, last=missed)
    flow.settle(tab)
    assert flow.sockets() == 1


def test_two_versions_of_the_sdk_stay_apart(flow: Flow, profile: Profile, following: str) -> None:
    old = tabs_of(profile, flow.url(), 2)
    new = tabs_of(profile, flow.url(sdk=following), 2)
    flow.settle(*old, *new)
    assert flow.sockets() == 2
    old[0].close()
    new[0].close()
    flow.settle(old[1], new[1])
    until(lambda: flow.sockets() == 2)


def test_what_is_published_offline_is_sent_once_and_in_order(flow: Flow, profile: Profile) -> None:
    tabs = tabs_of(profile, flow.url(outbox="on"), 2)
    flow.settle(*tabs)
    flow.cut.refuse()
    publish = """id => {
      const activity = {id, type: 'task', action: 'made', povId: 'acme', userId: 'ana'}
      client.publish(activity).catch(() => {}) // the page may be gone before it is sent
    }"""
    waiting = "document.documentElement.dataset.pending === argument"
    for number, tab in enumerate([*tabs, *tabs], 1):
        tab.call(publish, f"offline-{number}")
        for each in tabs:
            each.wait_for(waiting, str(number))
    for tab in tabs:
        tab.reload()
        tab.wait_for(waiting, "4")
    flow.cut.resume()
    for tab in tabs:
        tab.call("() => client.retry()")
    for tab in tabs:
        tab.wait_for(waiting, "0")
    flow.settle(*tabs)
    assert [each for each in flow.log() if "offline" in each] == [
        f"offline-{number}" for number in range(1, 5)
    ]


# ---- storage ----


def test_a_reload_shows_what_was_stored_before_the_network_is_there(
    flow: Flow, profile: Profile
) -> None:
    flow.publish(3)
    (tab,) = tabs_of(profile, flow.url(), 1)
    flow.settle(tab)
    shown = "[...document.querySelectorAll('li')].map(row => row.dataset.id)"
    before = tab.evaluate(shown)
    assert len(before) == 4
    # What was painted is written then.
    until(lambda: tab.evaluate(KEPT) == 4)
    flow.cut.refuse()
    tab.reload()
    tab.wait_for("document.querySelectorAll('li').length === 4")
    assert tab.evaluate(shown) == before
    flow.cut.resume()
    tab.call("() => client.retry()")
    flow.settle(tab)


def test_without_storage_everything_but_that_works(
    flow: Flow, without_storage: Browser, profiles: Profiles
) -> None:
    profile = profiles(without_storage)
    flow.publish(3)
    (tab,) = tabs_of(profile, flow.url(), 1)
    flow.settle(tab)
    assert tab.evaluate("document.documentElement.dataset.storage") == "denied"
    tab.reload()
    flow.settle(tab)
    tab.call("() => client.signOut()")
    wait_state(tab, "closed", "signed_out")


FILL = """async () => {
  for (const bytes of [65536, 4096, 256]) {
    const opening = indexedDB.open('other', 1) // anew: a connection ends with a full disk
    opening.onupgradeneeded = () => opening.result.createObjectStore('all', {autoIncrement: true})
    await new Promise(resolve => { opening.onsuccess = resolve })
    for (let isFull = false; !isFull;) {
      const filling = opening.result.transaction('all', 'readwrite')
      filling.objectStore('all').put(crypto.getRandomValues(new Uint8Array(bytes)))
      isFull = await new Promise(resolve => {
        filling.oncomplete = () => resolve(false)
        filling.onabort = () => resolve(true)
      })
    }
    opening.result.close()
  }
}"""
"""Uses a site's storage up, with what cannot be compressed."""


def test_a_full_disk_is_said_and_costs_nothing(
    flow: Flow, small_disk: Browser, profiles: Profiles
) -> None:
    (tab,) = tabs_of(profiles(small_disk), flow.url(), 1)
    flow.settle(tab)
    tab.wait_for("document.documentElement.dataset.storage === 'stored'")
    tab.call(FILL)
    while tab.evaluate("document.documentElement.dataset.storage") == "stored":
        flow.settle(tab)  # pages have some room left
    # Firefox does not always say why it took a transaction back.
    assert tab.evaluate("document.documentElement.dataset.storage") in ("full", "denied")
    flow.settle(tab)
    tab.reload()
    wait_state(tab, "live")
    flow.settle(tab)
