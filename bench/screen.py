"""Each activity once on every screen, in order, whatever dies: server, network, leading tab, page.

Real browsers of one user with a bare list in each tab; see bench/page/screen.js.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from bench.ledger import Ledger, Place, now_ms
from bench.load import LoadError
from bench.ours import Ours
from bench.peers import DAY_S, SECRET, token
from bench.report import Check, Result
from bench.run import Run
from tests.browser.bidi import Firefox
from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.cut import Cut
from tests.browser.flows import SERVED
from tests.browser.listener import HOST
from tests.browser.site import Site
from tests.browser.tabs import Browser, Loop, Profile, Tab

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "page"
USER = "ana"
POVS = ("acme", "globex", "initech", "umbrella")
TABS = 3
PER_KILL = 500
"""Activities between two kills."""
BATCH, EVERY_S = 8, 0.1
"""How many are published at once, and how often."""
CHECKPOINT = 10
"""After so many kills all is compared."""
PATIENCE_S = 60.0
SETTLE_S = 10.0
"""How long tabs may take to say the same of what nobody changes any more."""
RETRY_S = 0.05
PING_S = 5.0
"""The server's `ping.interval_s`: so long, and ten seconds, until a black hole is noticed."""
HANG_MS = 4000
LONG_HOLE_S = PING_S + 12.0
SERVER = ("server killed", "server restarted")
NETWORK = ("network refused", "network reset", "network black hole")
LEADER = ("leader closed", "leader hung")
CHROMIUM_LEADER = ("leader crashed", "leader frozen")
BARS_MS = {
    "leader closed": (1000, 500),
    "leader crashed": (1000, 500),
    "leader frozen": (3000, 1000),
    "leader hung": (3000, 2500),
}
"""Until another tab shows what was published after the event: bar and aim."""


class OursOnScreen(Ours):
    """pov-rt with its default engine and limits, for pages of an app's site."""

    engine = "sqlite://"
    limits = ""
    settings = f"[ping]\ninterval_s = {PING_S}\n"
    origin = ""

    def command(self) -> list[str]:
        """Return what to run."""
        return ["env", f"POV_RT_SERVER__ALLOWED_ORIGINS={self.origin}", *super().command()]

    def budget(self) -> str:
        """Return nothing: the default budget has to do."""
        return ""

    def ask(self, path: str, body: Sequence[Mapping[str, object]] | None = None) -> Any:
        """Return the answer to a service. Raises OSError or HTTPException without a server."""
        claims = {
            "aud": "pov-rt.service",
            "userId": "app",
            "can": ["subscribe", "publish", "operate"],
            "povs": "*",
            "exp": int(time.time()) + DAY_S,
        }
        headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)
        try:
            if body is None:
                connection.request("GET", path, headers=headers)
            else:
                headers["Content-Type"] = "application/json"
                connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status in (429, 503):
            raise ConnectionRefusedError(text.decode())  # not yet, or not any more
        if answer.status >= 300:
            raise LoadError(f"{path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def places(self) -> dict[str, Place]:
        """Return where the log has what."""
        found = {}
        for pov in POVS:
            after: int | None = 0
            while after is not None:
                page = self.ask(f"/api/povs/{pov}/activities?after={after}&limit=1000")
                for each in page["activities"]:
                    found[each["data"]["id"]] = Place(pov, each["offset"])
                after = page.get("next")
        return found

    def sockets(self) -> dict[str, int]:
        """Return how many connections the user has, by device."""
        found: dict[str, int] = {}
        for each in self.ask(f"/api/connections?userId={USER}")["connections"]:
            found[each["device"]] = found.get(each["device"], 0) + 1
        return found

    def unread(self) -> dict[str, int]:
        """Return what a device that subscribes now is told."""
        bearer = token(USER, "*", can=["subscribe", "collaborate"])
        # Without the protocol's name it is an older client, which is told of no marks.
        spoken = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{bearer}")]
        with connect(f"ws://{HOST}:{self.port}/ws/", subprotocols=spoken, proxy=None) as socket:
            socket.send(json.dumps({"type": "subscribe", "povIds": POVS, "id": "fresh"}))
            while (told := json.loads(socket.recv(PATIENCE_S))).get("id") != "fresh":
                pass
            return {each["povId"]: each["unread"] for each in told["results"]}


class Publisher:
    """Publishes at a steady rate, in a thread, whether or not the server is there; a context.

    What was not acknowledged is sent again, with the same ids.
    """

    def __init__(self, ours: OursOnScreen, seed: int) -> None:
        self._ours = ours
        self._dice = random.Random(f"publisher {seed}")  # noqa: S311
        self._changed = threading.Condition()
        self._made = 0
        self._goal = 0
        self._begun: deque[tuple[int, int]] = deque(maxlen=1000)
        """When (ms since 1970) a batch was begun, and the number of its first."""
        self._is_busy = False
        self._error: BaseException | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="publisher")

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def next(self) -> int:
        """Return the number of the next activity that nothing was begun of yet."""
        with self._changed:
            return self._made + 1

    def after(self, at: int) -> int:
        """Return the number of the first activity that was begun after an instant."""
        with self._changed:
            later = (number for begun, number in reversed(self._begun) if begun <= at)
            return next(later, 0) + BATCH

    def run(self) -> None:
        """Go on without an end."""
        with self._changed:
            self._goal = sys.maxsize
            self._changed.notify_all()

    def finish(self, number: int) -> int:
        """Publish up to so many, or end at once; return how many there are then."""
        with self._changed:
            self._goal = max(number, self._made)
            self._changed.notify_all()
        self.wait(self._goal)
        return self._goal

    def wait(self, number: int) -> None:
        """Wait until so many are acknowledged."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or (self._made >= number and not self._is_busy)
            )
            if self._error:
                raise self._error

    def _work(self) -> None:
        due = time.monotonic()
        try:
            while batch := self._next():
                while not self._publish(batch) and not self._is_over:
                    time.sleep(RETRY_S)
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()
                due = max(time.monotonic(), due + EVERY_S)  # what was held up is not caught up
                time.sleep(max(0.0, due - time.monotonic()))
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> list[dict[str, object]]:
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._made < self._goal)
            if self._is_over:
                return []
            self._begun.append((now_ms(), self._made + 1))
            number = min(BATCH, self._goal - self._made)
            names = [f"a-{self._made + index + 1}" for index in range(number)]
            self._made += number
            self._is_busy = True
        fields = {"type": "task", "action": "completed", "userId": "bo"}
        return [{"id": name, "povId": self._dice.choice(POVS), **fields} for name in names]

    def _publish(self, batch: list[dict[str, object]]) -> bool:
        try:
            answer = self._ours.ask("/api/activities", batch)
        except (OSError, http.client.HTTPException):
            return False
        return not any("error" in each for each in answer["results"])


@dataclass
class Window:
    """A browser of the user's, and its way to the server."""

    name: str
    browser: Browser
    profile: Profile
    cut: Cut
    tabs: dict[str, Tab] = field(default_factory=dict)
    """By name."""
    asleep: str = ""
    """The tab that cannot answer."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be done to it."""
        more = CHROMIUM_LEADER if isinstance(self.browser, Chromium) else ()
        return SERVER + NETWORK + LEADER + more

    def awake(self) -> dict[str, Tab]:
        """Return the tabs that answer."""
        return {name: tab for name, tab in self.tabs.items() if name != self.asleep}


@dataclass
class Found:
    """What a run found."""

    back_ms: dict[str, list[float]] = field(default_factory=dict)
    """By what was killed, until all other tabs of the browser showed what was published then."""
    first_ms: dict[str, list[float]] = field(default_factory=dict)
    """Until the first one did."""
    heaps: list[list[float]] = field(default_factory=list)
    """At each checkpoint, bytes of the pages whose lists were full."""
    reloads: int = 0
    samples: int = 0
    """How often sockets were counted."""
    wrong_sockets: int = 0
    wrong_unread: int = 0
    comparisons: int = 0
    activities: int = 0
    seconds: float = 0.0


class Screen:
    """One run."""

    def __init__(
        self,
        ours: OursOnScreen,
        windows: Sequence[Window],
        ledger: Ledger,
        site: Site,
        publisher: Publisher,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._ours = ours
        self._windows = windows
        self._ledger = ledger
        self._site = site
        self._publisher = publisher
        self._dice = random.Random(seed)  # noqa: S311
        self._say = say
        self.found = Found()

    def run(self, kills: int, per_kill: int = PER_KILL, only: Sequence[str] | None = None) -> Found:
        """Kill so often, of all kinds or only of some; compare meanwhile, and at the end."""
        began = time.monotonic()
        self._publisher.finish(20)
        for window in self._windows:
            for index in range(TABS):
                self._open(window, f"{window.name}{index + 1}")
        kinds = self._kinds(only)
        for kill in range(1, kills + 1):
            self._publisher.run()
            window = self._dice.choice(self._windows)
            kind = next(kinds[window.name])
            self._ledger.note(f"kill {kill}: {kind}, {window.name}")
            self._kill(kind, window)
            if self._dice.random() < 0.5:
                self._reload()
            if self._dice.random() < 0.3:
                self._read()
            self._publisher.wait(min(kill * per_kill, self._publisher.next + per_kill))
            if kill % CHECKPOINT == 0 or kill == kills:
                self._checkpoint(kill * per_kill if kill == kills else 0)
                self._say(
                    f"{kill} of {kills} kills, {self.found.activities:,} activities, "
                    f"{len(self._ledger.violations)} violations"
                )
        self.found.seconds = time.monotonic() - began
        return self.found

    def _kinds(self, only: Sequence[str] | None) -> dict[str, Iterator[str]]:
        """Return for each window what is killed, each as often as the others, in any order."""

        def endless(kinds: Sequence[str]) -> Iterator[str]:
            while True:
                yield from self._dice.sample(kinds, len(kinds))

        return {each.name: endless(only or each.kinds) for each in self._windows}

    # ---- pages ----

    def _open(self, window: Window, name: str) -> None:
        query = {
            "server": window.cut.url,
            "device": window.name,
            "povs": ",".join(POVS),
            "ledger": self._ledger.url,
            "tab": name,
        }
        lives = len(self._ledger.lives.get(name, ()))
        url = f"{self._site.url}/screen.html?{urlencode(query)}"
        window.tabs[name] = window.profile.open(url)
        self._begun(name, lives)

    def _begun(self, name: str, lives: int) -> None:
        """Wait for a new life of a tab."""
        if not self._ledger.wait(lambda: len(self._ledger.lives.get(name, ())) > lives, PATIENCE_S):
            raise LoadError(f"tab {name} did not load")

    def _reload(self) -> None:
        window = self._dice.choice(self._windows)
        name = self._dice.choice(sorted(window.awake()))
        self._ledger.note(f"tab {name} is reloaded")
        lives = len(self._ledger.lives[name])
        window.tabs[name].reload()
        self._begun(name, lives)
        self.found.reloads += 1

    def _read(self) -> None:
        window = self._dice.choice(self._windows)
        name = self._dice.choice(sorted(window.awake()))
        self._ledger.note(f"tab {name} reads all")
        window.tabs[name].call("() => read()")

    def _leader(self, window: Window) -> str:
        tab = next(iter(window.awake().values()))
        deadline = time.monotonic() + PATIENCE_S
        while not (name := tab.evaluate("leader()")):
            if time.monotonic() > deadline:
                locks = tab.evaluate("locks()")
                raise LoadError(f"nobody leads in {window.name}: {locks}")
        return str(name)

    # ---- kills ----

    def _kill(self, kind: str, window: Window) -> None:
        if kind in SERVER:
            self._kill_server(kind)
        elif kind in NETWORK:
            self._kill_network(kind, window)
        else:
            self._kill_leader(kind, window)

    def _kill_server(self, kind: str) -> None:
        self._ours.stop(signal.SIGKILL if kind == "server killed" else signal.SIGTERM)
        time.sleep(self._dice.uniform(0, 2))
        self._ours.start()
        for window in self._windows:
            window.cut.port = self._ours.port
        self._ledger.note("the server is back")
        tabs = [name for window in self._windows for name in window.tabs]
        self._recover(kind, tabs)

    def _kill_network(self, kind: str, window: Window) -> None:
        if kind == "network reset":
            window.cut.drop()
        elif kind == "network refused":
            window.cut.refuse()
            time.sleep(self._dice.uniform(0.1, 3))
        else:
            window.cut.swallow()
            time.sleep(LONG_HOLE_S if self._dice.random() < 0.3 else self._dice.uniform(0.5, 5))
        window.cut.resume()
        self._ledger.note(f"the network of {window.name} is back")
        self._recover(kind, list(window.tabs))

    def _recover(self, kind: str, tabs: Sequence[str]) -> None:
        """Wait until tabs show what is published from now on; a page may be reloaded meanwhile."""
        at, number = now_ms(), self._publisher.next
        if self._dice.random() < 0.5:
            time.sleep(self._dice.uniform(0, 0.5))
            self._reload()
        self._shown(kind, tabs, at, number)

    def _shown(self, kind: str, tabs: Sequence[str], at: int, number: int) -> None:
        lives = self._ledger.life

        def have() -> bool:
            return all(lives(name).newest >= number for name in tabs)

        if not self._ledger.wait(have, PATIENCE_S):
            behind = [lives(name).name for name in tabs if lives(name).newest < number]
            what = f"shows nothing new {PATIENCE_S} s after {kind}"
            self._ledger.violate(", ".join(behind), what)
            return
        shown = [lives(name).showed(number) or 0 for name in tabs]
        self.found.back_ms.setdefault(kind, []).append(max(shown) - at)
        self.found.first_ms.setdefault(kind, []).append(min(shown) - at)

    def _kill_leader(self, kind: str, window: Window) -> None:
        name = self._leader(window)
        names = sorted(window.tabs)
        others = [each for each in names if each != name]
        tab = window.tabs[name]
        self._ledger.note(f"tab {name} led")
        if kind in ("leader frozen", "leader hung"):
            # Who is seen does not freeze, and only who is seen robs a leader that hangs.
            window.tabs[self._dice.choice(others)].show()
        at = now_ms()
        if kind == "leader closed":
            del window.tabs[name]
            tab.close()
        elif kind == "leader hung":
            window.asleep = name
            at = tab.call("ms => hang(ms)", HANG_MS)
        elif kind == "leader crashed":
            assert isinstance(tab, ChromiumTab)
            tab.crash()
        else:
            assert isinstance(tab, ChromiumTab)
            window.asleep = name
            tab.freeze()
        # What was published before it was over may have come by it.
        number = self._publisher.after(at if kind == "leader hung" else now_ms())
        if kind == "leader crashed":
            others = self._survivors(window, name)
        if others:
            self._shown(kind, others, at, number)
        if kind == "leader frozen":
            assert isinstance(tab, ChromiumTab)
            tab.thaw()
        window.asleep = ""
        for each in names:
            if each not in window.tabs:
                self._open(window, each)

    def _survivors(self, window: Window, crashed: str) -> list[str]:
        """Forget the tabs that died with one, which shared its process; return the others."""
        if not self._ledger.wait(lambda: not self._ledger.life(crashed).lines, PATIENCE_S):
            raise LoadError(f"tab {crashed} did not crash")
        for name, tab in [*window.tabs.items()]:
            if not self._ledger.life(name).lines:
                tab.close()
                del window.tabs[name]
        return [*window.tabs]

    # ---- comparing ----

    def _checkpoint(self, goal: int) -> None:
        """Have everybody settle; compare what tabs have shown and know with the server."""
        number = self._publisher.finish(goal)
        log = self._ours.places()
        self.found.activities = len(log)
        if len(log) != number:
            self._ledger.violate("the log", f"has {len(log)} of {number} activities")
        tips: dict[str, tuple[int, str]] = {}
        for name, (pov, offset) in log.items():
            tips[pov] = max(tips.get(pov, (0, "")), (offset, name))
        lives = [self._ledger.life(name) for each in self._windows for name in each.tabs]
        # PoVs have no order among each other: the newest of all is not the last to come.
        last = {name for _, name in tips.values()}

        def have() -> bool:
            return all(each.state == "live" and last <= each.names for each in lives)

        self._ledger.wait(have, PATIENCE_S)
        self._ledger.check(log)
        for life in lives:
            if life.state != "live":
                self._ledger.violate(life.name, f"is {life.state} after {PATIENCE_S} s")
            for pov, (offset, name) in tips.items():
                high = life.shown[pov].high if pov in life.shown else 0
                if high != offset:
                    self._ledger.violate(
                        life.name, f"shows {pov} up to {high}, not to {offset} ({name})"
                    )
        self._count_sockets()
        self._compare_unread()
        self._measure_heaps()

    def _count_sockets(self) -> None:
        wanted = {each.name: 1 for each in self._windows}
        for _ in range(5):
            self.found.samples += 1
            if (found := self._ours.sockets()) != wanted:
                self.found.wrong_sockets += 1
                self._ledger.violate("the server", f"has sockets {found}")
            time.sleep(EVERY_S)

    def _compare_unread(self) -> None:
        """Compare all tabs with what a fresh subscription says."""
        self.found.comparisons += 1
        wanted = self._ours.unread()
        deadline = time.monotonic() + SETTLE_S
        while True:
            found = {
                name: tab.evaluate("unread()")
                for each in self._windows
                for name, tab in each.tabs.items()
            }
            wrong = {name: each for name, each in found.items() if each != wanted}
            if not wrong:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(EVERY_S)
        self.found.wrong_unread += 1
        for name, each in wrong.items():
            self._ledger.violate(self._ledger.life(name).name, f"unread {each}, not {wanted}")

    def _measure_heaps(self) -> None:
        bytes_of = []
        for window in self._windows:
            for tab in window.tabs.values():
                rows = tab.evaluate("document.querySelectorAll('li').length")
                if isinstance(tab, ChromiumTab) and rows == 1000:
                    tab.devtools("HeapProfiler.collectGarbage")
                    bytes_of.append(float(tab.devtools("Runtime.getHeapUsage")["usedSize"]))
        if bytes_of:
            self.found.heaps.append(bytes_of)


def build(folder: Path) -> None:
    """Have the page and the SDK in a folder."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    shutil.copytree(SERVED, folder / "client")


@contextmanager
def staged(
    loop: Loop,
    browsers: Sequence[Browser],
    folder: Path,
    ledger: Ledger,
    seed: int,
    say: Callable[[str], None],
) -> Iterator[Screen]:
    """Have a server, the app's site, and a profile of each browser with its way to the server."""
    pages = folder / "site"
    build(pages)
    with ExitStack() as stack:
        site = stack.enter_context(Site(loop, pages))
        site.token_of = lambda user: token(user, "*", can=["subscribe", "collaborate"])
        ours = OursOnScreen(folder)
        ours.origin = site.url
        stack.enter_context(ours)
        windows = []
        for index, browser in enumerate(browsers):
            profile = browser.profile()
            stack.callback(profile.close)
            cut = stack.enter_context(Cut(loop, ours.port))
            windows.append(Window("AB"[index], browser, profile, cut))
        publisher = stack.enter_context(Publisher(ours, seed))
        yield Screen(ours, windows, ledger, site, publisher, seed, say)


def screen(run: Run) -> Result:
    """Two browsers with three tabs, while server, network, leading tab and pages are killed."""
    kills = run.scaled(run.kills)
    path = run.folder.parent / f"screen-{run.seed}.jsonl"
    run.progress(f"seed {run.seed}, {kills} kills; ledger: {path}")
    cores = os.sched_getaffinity(0)
    # Browsers are what is measured here, not what measures: they may have all cores.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        with ExitStack() as stack:
            loop = stack.enter_context(Loop())
            ledger = stack.enter_context(Ledger(loop, path))
            # Two profiles of one Chromium have as little in common as two of them.
            kinds = (Chromium, Firefox) if "firefox" in run.cases else (Chromium,)
            browsers = [
                stack.enter_context(kind(loop, _program(kind), _made(run.folder / kind.name)))
                for kind in kinds
            ]
            browsers = [browsers[0], browsers[-1]]
            staging = staged(loop, browsers, run.folder, ledger, run.seed, run.progress)
            found = stack.enter_context(staging).run(kills)
    finally:
        os.sched_setaffinity(0, cores)
    for each in ledger.violations:
        run.progress(each)
    if not ledger.violations:
        path.unlink()
    return report_of(found, ledger, " and ".join(kind.name for kind in kinds))


def _program(kind: type[Browser]) -> str:
    name = {"chromium": "chromium", "firefox": "firefox-esr"}[kind.name]
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"a browser is missing; as root:  apt-get install {name}")
    return found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def report_of(found: Found, ledger: Ledger, browsers: str) -> Result:
    """Return the table and the bars of a run."""
    result = Result("screen", "ms until shown again", plots=("worst_ms", "median_ms"))
    server = f"pov-rt, {browsers}"
    for kind, times in sorted(found.back_ms.items()):
        first = found.first_ms[kind]
        result.add(
            kind,
            server,
            times=len(times),
            median_ms=statistics.median(times),
            worst_ms=max(times),
            first_median_ms=statistics.median(first),
            first_worst_ms=max(first),
        )
    lives = [life for each in ledger.lives.values() for life in each]
    result.add(
        "all of it",
        server,
        kills=sum(map(len, found.back_ms.values())),
        activities=found.activities,
        reloads=found.reloads,
        page_lives=len(lives),
        rows_shown=sum(len(life.names) for life in lives),
        seconds=found.seconds,
    )
    checks = result.checks
    checks += [
        Check("violations", len(ledger.violations), 0, 0, unit="times"),
        Check("other than one socket a browser", found.wrong_sockets, 0, 0, unit="samples"),
        Check("unread that differs", found.wrong_unread, 0, 0, unit="comparisons"),
    ]
    for kind, (bar, aim) in BARS_MS.items():
        if kind in found.first_ms:
            checks.append(Check(kind, max(found.first_ms[kind]), bar, aim, unit="ms"))
    if len(found.heaps) >= 4:
        quarter = len(found.heaps) // 4
        before, after = (
            statistics.median(each for sample in part for each in sample)
            for part in (found.heaps[:quarter], found.heaps[-quarter:])
        )
        checks.append(Check("heap, last quarter against first", after / before, 1.25, 1.1))
    return result
