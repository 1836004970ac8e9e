"""Both tags on a page of a real browser: how soon, how smooth, how small, and whether it stays so.

See bench/page/widgets.js for what is observed in the page.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.ours import Ours
from bench.peers import token
from bench.report import Check, Result
from bench.run import Run
from bench.screen import ROOT
from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.site import Site
from tests.browser.tabs import Loop

PAGE = Path(__file__).parent / "page"
USER = "ana"
POVS = ("acme", "globex")
PEOPLE = ("bo", "cy", "di", "ed", "flo", "gus", "hal", "ida")
KINDS = (("task", "completed"), ("comment", "added"), ("file", "added"), ("phase", "changed"))
BURST, BATCH, EVERY_S = 1000, 50, 0.1
"""1,000 in 2 s."""
LONG = 100_000
LONG_BATCH = 500
SAMPLES = 20
"""How often the heap is measured meanwhile."""
PRESS_S = 0.25
WAIT_S = 120.0
TRACED = "devtools.timeline,disabled-by-default-devtools.timeline"
FRAME = "Commit"
"""What the main thread ends each frame with that it draws; no trace tells of their beginnings."""


class OursForPages(Ours):
    """pov-rt for pages of an app's site."""

    origin = ""

    def command(self) -> list[str]:
        """Return what to run."""
        return ["env", f"POV_RT_SERVER__ALLOWED_ORIGINS={self.origin}", *super().command()]


class Stage:
    """A server, an app's site and a browser."""

    def __init__(self, ours: OursForPages, site: Site, browser: Chromium) -> None:
        self._ours = ours
        self._site = site
        self.browser = browser
        self._numbers = itertools.count()
        self.published = dict.fromkeys(POVS, 0)

    @property
    def url(self) -> str:
        """The page with both tags."""
        query = {"server": f"http://127.0.0.1:{self._ours.port}", "user": USER}
        return f"{self._site.url}/widgets.html?{urlencode({**query, 'povs': ' '.join(POVS)})}"

    def publish(self, number: int) -> None:
        """Publish so many at once, by several people, of several kinds, on all PoVs."""
        self._ours.publish([self._activity(next(self._numbers)) for _ in range(number)])

    def _activity(self, number: int) -> dict[str, Any]:
        kind, action = KINDS[number // 3 % len(KINDS)]
        pov = POVS[number % len(POVS)]
        self.published[pov] += 1
        details = {"title": f"Item {number}", "text": "Their DBA wants it on before Thursday."}
        return {
            "type": kind,
            "action": action,
            "povId": pov,
            "userId": PEOPLE[number % len(PEOPLE)],
            "details": details,
        }

    def has_all(self, tab: ChromiumTab) -> int:
        """Wait until a page has all that was published; return how many elements it has."""
        for pov, offset in self.published.items():
            elements: int = tab.call("(...given) => has(...given)", pov, offset, timeout=WAIT_S)
        return elements


def page(run: Run) -> Result:
    """Both tags: first row, a burst of 1,000 with presses in it, 100,000, and the size."""
    cores = os.sched_getaffinity(0)
    # The browser is what is measured here, not what measures: it may have all cores.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("a browser is missing; as root:  apt-get install chromium")
    result = Result("page", "both tags in Chromium", plots=("median", "worst"))
    try:
        with ExitStack() as stack:
            loop = stack.enter_context(Loop())
            folder = run.folder / "chromium"
            folder.mkdir()
            browser = stack.enter_context(Chromium(loop, program, folder))
            site = stack.enter_context(Site(loop, PAGE))
            site.token_of = lambda user: token(user, "*", can=["subscribe", "collaborate"])
            ours = OursForPages(run.folder)
            ours.origin = site.url
            stage = Stage(stack.enter_context(ours), site, browser)
            stage.publish(200)
            _first_rows(run, stage, result)
            _bursts(run, stage, result)
            _long(run, stage, result)
    finally:
        os.sched_setaffinity(0, cores)
    size = _size()
    result.add("size, gzipped", "pov-rt", bytes=size)
    result.checks.append(Check("size of both tags", size, 25_600, 24_000, unit="bytes"))
    return result


def _size() -> int:
    """Return the bytes, gzipped, of what a page loads until it shows rows."""
    command = ["node", "size.mjs"]
    told = subprocess.run(command, cwd=ROOT / "clients/js", stdout=subprocess.PIPE, text=True)
    (line,) = (each for each in told.stdout.splitlines() if each.startswith("widgets "))
    return int(line.split()[1])


def _first_rows(run: Run, stage: Stage, result: Result) -> None:
    found: dict[str, list[float]] = {"first row": [], "first row, stored": []}
    for index in range(run.rounds):
        run.progress(f"first row, round {index + 1}")
        profile = stage.browser.profile()
        try:
            tab = profile.open(stage.url)
            found["first row"].append(tab.evaluate("first()"))
            tab.reload()
            found["first row, stored"].append(tab.evaluate("first()"))
        finally:
            profile.close()
    for case, times in found.items():
        _add(result, case, times, unit="ms")
        result.checks.append(Check(case, statistics.median(times), 150, 100, unit="ms"))


def _bursts(run: Run, stage: Stage, result: Result) -> None:
    frames, presses, layouts = [], [], []
    for index in range(run.rounds):
        run.progress(f"1,000 in 2 s, round {index + 1}")
        profile = stage.browser.profile()
        try:
            tab = profile.open(stage.url)
            assert isinstance(tab, ChromiumTab)
            tab.evaluate("first()")
            tab.evaluate("begin()")
            with tab.traced(TRACED) as events:
                _burst(stage, tab)
                stage.has_all(tab)
            found = tab.evaluate("found()")
        finally:
            profile.close()
        frames.append(max(found["frames"], default=0.0))
        presses.append(max((ms for ms, _ in found["presses"]), default=0.0))
        layouts.append(float(max(layouts_of(events), default=0)))
    _add(result, "longest frame over 50 ms", frames, unit="ms")
    _add(result, "slowest press", presses, unit="ms")
    _add(result, "layouts in one frame", layouts, unit="")
    result.checks += [
        Check("longest frame in a burst", max(frames), 50, 50, unit="ms"),
        Check("interaction to next paint", max(presses), 100, 50, unit="ms"),
        Check("layouts in one frame", max(layouts), 1, 1, unit=""),
    ]


def _burst(stage: Stage, tab: ChromiumTab) -> None:
    """Publish 1,000 in 2 s, and press keys and rows meanwhile."""
    began = time.monotonic()
    presses = _presses(tab)
    due = began + PRESS_S
    for index in range(BURST // BATCH):
        stage.publish(BATCH)
        if time.monotonic() >= due:
            next(presses)
            due += PRESS_S
        time.sleep(max(0.0, began + (index + 1) * EVERY_S - time.monotonic()))


def _presses(tab: ChromiumTab) -> Iterator[None]:
    """Press a row, then a key, and so on."""
    where = {"x": 200, "y": 300, "button": "left", "clickCount": 1}
    while True:
        for kind in ("mousePressed", "mouseReleased"):
            tab.devtools("Input.dispatchMouseEvent", type=kind, **where)
        yield
        for letter in "jjk":
            for kind in ("keyDown", "keyUp"):
                tab.devtools(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=letter,
                    code=f"Key{letter.upper()}",
                    text=letter if kind == "keyDown" else "",
                    windowsVirtualKeyCode=ord(letter.upper()),
                )
            yield


def layouts_of(events: Sequence[dict[str, Any]]) -> list[int]:
    """Return how many layouts each frame of a page had, by a trace."""
    ours = sorted(
        (each for each in events if each["name"] in (FRAME, "Layout")), key=lambda each: each["ts"]
    )
    threads = {(each["pid"], each["tid"]) for each in ours if each["name"] == "Layout"}
    counts = []
    for thread in threads:
        count = 0
        for each in ours:
            if (each["pid"], each["tid"]) != thread:
                continue
            if each["name"] == FRAME:
                counts.append(count)
                count = 0
            else:
                count += 1
        counts.append(count)
    return counts


def _long(run: Run, stage: Stage, result: Result) -> None:
    number = run.scaled(LONG)
    run.progress(f"{number:,} activities")
    profile = stage.browser.profile()
    heaps, elements = [], []
    try:
        tab = profile.open(stage.url)
        assert isinstance(tab, ChromiumTab)
        tab.evaluate("first()")
        for index in range(1, number // LONG_BATCH + 1):
            stage.publish(LONG_BATCH)
            if index * LONG_BATCH % (number // SAMPLES) == 0:
                elements.append(float(stage.has_all(tab)))
                tab.devtools("HeapProfiler.collectGarbage")
                heaps.append(float(tab.devtools("Runtime.getHeapUsage")["usedSize"]))
    finally:
        profile.close()
    _add(result, "heap", [each / 2**20 for each in heaps], unit="MiB")
    _add(result, "elements", elements, unit="")
    quarter = SAMPLES // 4
    grown = statistics.median(heaps[-quarter:]) / statistics.median(heaps[:quarter])
    result.checks.append(Check("heap, last quarter against first", grown, 1.1, 1.05))


def _add(result: Result, case: str, values: Sequence[float], *, unit: str) -> None:
    label = f"{case}, {unit}" if unit else case
    result.add(
        label, "pov-rt", median=statistics.median(values), worst=max(values), best=min(values)
    )
