"""What flows are made of: a page with a bare list, the server's log, and how they compare."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import jwt

import pov_rt
from pov_rt.testing import SECRET
from tests.browser.cut import Cut
from tests.browser.site import Site
from tests.browser.tabs import WAIT_S, Profile, Tab

CLIENT = Path(__file__).parents[2] / "clients/js"
SERVED = Path(pov_rt.__file__).parent / "web/static/client"
"""What `clients/js` is built to; that it is what the sources make is tested beside it."""
PAGE = Path(__file__).parent / "page"
EVERYTHING = ["subscribe", "publish", "collaborate", "operate"]
POLL_S = 0.02
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden})
  document.dispatchEvent(new Event('visibilitychange'))
}"""
"""Has a page take itself for hidden, or not."""
ACKS = """client => {
  window.acks = []
  const {request} = client
  client.request = (type, fields) => {
    if (type === 'ack') acks.push([fields.povId, fields.shown, fields.reason ?? null])
    return request.call(client, type, fields)
  }
}"""
"""Has a page keep what a client tells of what was shown, and why not."""


def build_next(folder: Path, copy: Path) -> None:
    """Build the SDK of a version with which tabs of this one cannot talk."""
    copytree(CLIENT, copy, ignore=ignore_patterns("node_modules"), dirs_exist_ok=True)
    (copy / "node_modules").symlink_to(CLIENT / "node_modules")
    scope = copy / "src/scope.ts"
    old = scope.read_text()
    new = old.replace("FORMAT = 1\n", "FORMAT = 2\n")
    assert new != old
    scope.write_text(new)
    subprocess.run(["node", "build.mjs", "--served", folder], cwd=copy, check=True, timeout=60)


def make_token(user: str, *, ttl_s: float = 3600.0, key: str = SECRET, **claims: Any) -> str:
    """Return a token for everything, unless the claims say otherwise."""
    now = time.time()
    claims = {
        "userId": user,
        "povs": "*",
        "can": EVERYTHING,
        "iat": now,
        "exp": now + ttl_s,
        **claims,
    }
    return jwt.encode(claims, key, "HS256")


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds of which the server tells nobody."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(POLL_S)


class Flow:
    """The app's site, and the server behind a cut."""

    def __init__(self, site: Site, cut: Cut, address: Callable[[], str]) -> None:
        self.site = site
        self.cut = cut
        self._address = address
        self._numbers = count(1)
        site.token_of = lambda user: make_token(user)

    def url(self, user: str = "ana", povs: Sequence[str] = ("acme",), **more: str) -> str:
        """Return the address of the page."""
        query = {"server": self.cut.url, "user": user, "povs": ",".join(povs), **more}
        return f"{self.site.url}/flow.html?{urlencode(query)}"

    def publish(self, number: int = 1, pov: str = "acme", user: str = "bo") -> list[str]:
        """Publish activities past the cut; return their ids."""
        ids = [f"{pov}-{next(self._numbers)}" for _ in range(number)]
        fields = {"type": "task", "action": "completed", "povId": pov, "userId": user}
        answer = self._ask("/api/activities", [{"id": each, **fields} for each in ids])
        assert not [each for each in answer["results"] if "error" in each]
        return ids

    def log(self, pov: str = "acme") -> list[str]:
        """Return the ids of what is in the PoV's log, in order."""
        ids: list[str] = []
        after: int | None = 0
        while after is not None:
            page = self._ask(f"/api/povs/{pov}/activities?after={after}&limit=1000")
            ids += [each["data"]["id"] for each in page["activities"]]
            after = page.get("next")
        return ids

    def sockets(self, user: str | None = None) -> int:
        """Return how many connections the server has, of a user or of all."""
        query = f"?userId={user}" if user else ""
        return len(self._ask(f"/api/connections{query}")["connections"])

    def disconnect(self, user: str) -> None:
        """Close a user's connections for good."""
        self._ask(f"/api/users/{user}/disconnect", {})

    def settle(self, *tabs: Tab, pov: str = "acme") -> None:
        """Publish one more; wait until the tabs show it, all of the log, and nothing twice."""
        (last,) = self.publish(pov=pov)
        self.compare(*tabs, last=last, pov=pov)

    def compare(self, *tabs: Tab, last: str, pov: str = "acme") -> None:
        """Wait until tabs show an activity; what they show must be the log, each once."""
        for tab in tabs:
            tab.wait_for("document.querySelector('li')?.dataset.id === argument", last)
            shown = tab.evaluate("[...document.querySelectorAll('li')].map(row => row.dataset.id)")
            assert shown[::-1] == self.log(pov)
            ledger = tab.evaluate("ledger")
            assert sorted(ledger["added"]) == sorted(shown)
            assert ledger["removed"] == []

    def _ask(self, path: str, body: Any = None) -> Any:
        token = make_token("app", aud="pov-rt.service")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"http://{self._address()}{path}", data, headers)) as answer:
            return json.loads(answer.read() or "null")


def wait_state(tab: Tab, state: str, reason: str | None = None) -> None:
    """Wait until the page's client has a state, for a reason."""
    holds = "data.state === argument[0] && (argument[1] === null || data.reason === argument[1])"
    tab.wait_for(f"(data => {holds})(document.documentElement.dataset)", [state, reason])


def states(tab: Tab) -> list[str]:
    """Return the states that the page's client has had, in order."""
    found: list[str] = tab.evaluate("statuses.map(({state}) => state)")
    return found


def tabs_of(profile: Profile, url: str, number: int) -> list[Tab]:
    """Open a page in several tabs, each live before the next one: the first one leads."""
    tabs = []
    for _ in range(number):
        tab = profile.open(url)
        wait_state(tab, "live")
        tabs.append(tab)
    return tabs
