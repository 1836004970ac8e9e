"""The gallery's page in a tab: which state it shows, what a check finds there, and its picture."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser.chromium import ChromiumTab
from tests.browser.site import Site
from tests.browser.tabs import Tab

HERE = Path(__file__).parent
MARGIN = 12
"""px around a picture's subject, for its shadow."""
WINDOW = (800, 1600)
"""px: every state has room in it."""


def build(folder: Path) -> None:
    """Build the page and all that it is served with, the components among it, into a folder."""
    subprocess.run(["node", HERE / "build.mjs", folder], check=True, timeout=60)


class Gallery:
    """The page in a tab, which stays; states follow one another in it."""

    def __init__(self, tab: Tab, pictures: Path | None) -> None:
        self.tab = tab
        self._pictures = pictures

    @classmethod
    def open(cls, tab: Tab, site: Site, pictures: Path | None = None) -> Gallery:
        """Open the page. Pictures are kept in a folder, if there is one."""
        tab.goto(f"{site.url}/index.html")
        tab.call("async () => { await import('./gallery.js') }")
        return cls(tab, pictures)

    @property
    def states(self) -> list[str]:
        names: list[str] = self.tab.evaluate("gallery.names")
        return names

    @property
    def forbidden(self) -> list[str]:
        """Return what the policy forbade since the page was opened."""
        found: list[str] = self.tab.evaluate("gallery.forbidden")
        return found

    def show(self, state: str, **how: str | int) -> None:
        """Show a state until it says what it has to. Raises PageError where it never does."""
        self.tab.call("how => gallery.show(how)", {"state": state, **how})

    def find(self, check: str, *arguments: Any) -> list[str]:
        """Return what one of the page's checks finds."""
        found: list[str] = self.tab.call(
            "(check, ...rest) => gallery[check](...rest)", check, *arguments
        )
        return found

    def forget(self) -> None:
        """Forget what the policy forbade: it was asked for."""
        self.tab.call("() => { gallery.forbidden.length = 0 }")

    def picture(self, kind: str) -> None:
        """Keep a picture of what is shown at twice its size, where pictures are wanted."""
        if self._pictures is None:
            return
        assert isinstance(self.tab, ChromiumTab)
        shown = self.tab.evaluate("document.documentElement.dataset.shown")
        path = self._pictures / kind / f"{re.sub('[^a-z0-9]+', '-', shown)}.png"
        box = self.tab.evaluate("gallery.box()")
        left, top = max(0, box["x"] - MARGIN), max(0, box["y"] - MARGIN)
        clip = {
            "x": left,
            "y": top,
            "width": box["x"] + box["width"] + MARGIN - left,
            "height": box["y"] + box["height"] + MARGIN - top,
            "scale": 1,
        }
        taken = self.tab.devtools("Page.captureScreenshot", clip=clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(taken["data"]))


def fit(tab: ChromiumTab, width: int = WINDOW[0], height: int = WINDOW[1], scale: int = 2) -> None:
    """Give the tab a window of that size, in CSS pixels."""
    tab.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=scale,
        mobile=False,
    )


@contextmanager
def media(tab: ChromiumTab, **features: str) -> Iterator[None]:
    """Have media features be so in the block: `prefers_reduced_motion="reduce"`."""
    given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    tab.devtools("Emulation.setEmulatedMedia", features=given)
    try:
        yield
    finally:
        tab.devtools("Emulation.setEmulatedMedia", features=[])


@contextmanager
def touch(tab: ChromiumTab) -> Iterator[None]:
    """Have the tab be touched with fingers in the block, and not pointed at with a mouse."""
    tab.devtools("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        yield
    finally:
        tab.devtools("Emulation.setTouchEmulationEnabled", enabled=False)
