"""Takes the README's picture: `scripts/picture`. All in it was done by people's clicks and keys.

Six people have the board open; after a burst of 1,000 Jonas is cut off, and goes on nevertheless.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import zlib
from base64 import b64decode
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from playwright.async_api import Locator

from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.tabs import Loop, Profile
from tests.processes import serve

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, SCALE = 1640, 850, 2
MAX_BYTES = 400_000
"""So that a README loads at once."""
READY = "document.documentElement.dataset.state === 'live' && document.querySelector('.tasks li')"
PREFERENCES = {"profile": {"default_content_setting_values": {"notifications": 2}}}
"""Pages may not notify: the toasts would ask whether they may."""
TOAST = "pov-activity-notification [part~=toast]"
OTHERS = {"mei": "", "ife": "", "sam": "", "priya": "quillon-air"}
"""Who has the board open beside the two in the picture, and of which proof of value."""


PALETTED = """async encoded => {
  const bytes = Uint8Array.from(atob(encoded), each => each.charCodeAt(0))
  const image = await createImageBitmap(new Blob([bytes]))
  const {width, height} = image
  const context = new OffscreenCanvas(width, height).getContext('2d')
  context.drawImage(image, 0, 0)
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer)
  const counts = new Map()
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1)
  const found = [...counts].sort((a, b) => b[1] - a[1]).map(([pixel]) => pixel)
  const parts = pixel => [pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255]
  const palette = found.slice(0, 256).map(parts)
  const far = (a, b) => a.reduce((sum, part, i) => sum + (part - b[i]) ** 2, 0)
  const indexes = new Map(found.map((pixel, i) => {
    if (i < 256) return [pixel, i]
    const own = parts(pixel)
    let nearest = 0
    palette.forEach((each, at) => {
      if (far(own, each) < far(own, palette[nearest])) nearest = at
    })
    return [pixel, nearest]
  }))
  const rows = Array.from({length: height}, (_, y) => {
    const row = pixels.subarray(y * width, (y + 1) * width)
    return btoa(String.fromCharCode(...Uint8Array.from(row, pixel => indexes.get(pixel))))
  })
  return {width, height, palette: palette.flat(), rows}
}"""
"""Brings an image to the 256 colours that it has most of: others are edges of letters."""


def shrink(tab: ChromiumTab, image: str) -> bytes:
    """Return an image in base64 as a PNG file with a palette: https://www.w3.org/TR/png-3/."""
    found = tab.call(PALETTED, image)
    rows = b"".join(b"\0" + b64decode(row) for row in found["rows"])
    head = struct.pack(">IIBBBBB", found["width"], found["height"], 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", head),
        (b"PLTE", bytes(found["palette"])),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


class Stage:
    """The demo in a browser: the page with two boards, and the boards of others in other tabs."""

    def __init__(self, loop: Loop, chromium: Chromium, url: str) -> None:
        self._loop = loop
        self._others: dict[str, ChromiumTab] = {}
        for user, pov in OTHERS.items():
            # Each has a browser of their own: of one browser's tabs only one is seen and painted.
            tab = self._others[user] = open_tab(chromium.profile())
            tab.goto(f"{url}/demo/board?user={user}&pov={pov}")
            tab.wait_for(READY)
        profile = chromium.profile()
        tab = self.tab = open_tab(profile)
        tab.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH,
            height=HEIGHT,
            deviceScaleFactor=SCALE,
            mobile=False,
        )
        tab.devtools("Emulation.setScrollbarsHidden", hidden=True)
        light = [{"name": "prefers-color-scheme", "value": "light"}]
        tab.devtools("Emulation.setEmulatedMedia", features=light)
        tab.goto(f"{url}/demo")
        for frame in (0, 1):
            tab.wait_for(f"(document => {READY})(frames[{frame}].document)")
        self.line(sent=0)

    def at(self, user: str, selector: str) -> Locator:
        """Return what is in somebody's board."""
        if user in self._others:
            return self._others[user].page.locator(selector).first
        return self.tab.page.frame_locator(f"[data-user={user}]").locator(selector).first

    def click(self, user: str, selector: str) -> None:
        """Click something in somebody's board."""
        self._loop.run(self.at(user, selector).click())

    def key(self, user: str, selector: str, key: str) -> None:
        """Press a key where the focus is on something in somebody's board."""
        self._loop.run(self.at(user, selector).press(key))

    def write(self, user: str, text: str) -> None:
        """Write a comment, without sending it."""
        self._loop.run(self.at(user, ".compose input").fill(text))

    def say(self, user: str, text: str) -> None:
        """Send a comment."""
        self.write(user, text)
        self.click(user, ".compose button")

    def press(self, button: str) -> None:
        """Click one of the page's own buttons."""
        self._loop.run(self.tab.page.locator(f"#{button}").click())

    def point_at_nothing(self) -> None:
        """Take the pointer out of what is seen."""
        self._loop.run(self.tab.page.mouse.move(0, 0))

    def wait(self, user: str, selector: str, text: str) -> None:
        """Wait until something with a text is to be seen in somebody's board."""
        self._loop.run(self.at(user, f"{selector}:has-text({json.dumps(text)})").wait_for())

    def wait_gone(self, user: str, selector: str) -> None:
        """Wait until something is not to be seen in somebody's board any more."""
        self._loop.run(self.at(user, selector).wait_for(state="hidden"))

    def line(self, **wanted: int) -> None:
        """Wait until the page's line says so."""
        for name, value in wanted.items():
            figure = f"document.querySelector('[data-count={name.replace('_', '-')}]')"
            self.tab.wait_for(f"{figure}?.dataset.value === String(argument)", value)


def open_tab(profile: Profile) -> ChromiumTab:
    """Open an empty tab."""
    tab = profile.open("about:blank")
    assert isinstance(tab, ChromiumTab)
    return tab


def play(stage: Stage) -> None:
    """Bring the demo to where the picture is taken."""
    stage.press("burst")
    stage.line(sent=1000, shown_ana=1000, shown_jonas=1000)
    stage.click("mei", "[data-task=rotterdam] input")
    for user in ("mei", "ife", "sam"):
        stage.wait(user, "article", "Answers under 200 ms")
        stage.key(user, "article", "e")
    for user in ("ana", "jonas"):
        stage.wait(user, "article", "Answers under 200 ms")
        stage.key(user, "article", "e")
    stage.say("jonas", "A year of it takes twelve minutes.")
    stage.wait("ana", ".talk li", "twelve minutes")
    stage.press("plug")
    stage.click("jonas", "[data-task=success-criteria] input")
    stage.say("jonas", "Numbers hold at three times the load.")
    stage.wait("jonas", ".pending", "not sent yet")
    stage.say("ife", "Fine with their auditors. I have asked.")
    stage.wait("ana", "article", "Ife Okafor commented")
    stage.point_at_nothing()
    stage.wait_gone("ana", TOAST)  # of the burst on others
    stage.click("priya", "[data-task=nightly-sync] input")
    stage.write("mei", "Shall")
    stage.wait("ana", ".writes", "Mei is writing")
    stage.line(sent=1004, shown_ana=1004, to_come_jonas=2, lost=0, twice=0)
    stage.wait("ana", TOAST, "Nightly sync")


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(prog="scripts/picture", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "docs/demo.png")
    file = parser.parse_args().file
    program = which("chromium")
    if program is None:
        sys.exit("needs a browser; as root:  apt-get install chromium")
    with (
        TemporaryDirectory() as folder,
        TemporaryDirectory() as data,
        serve(Path(data)) as served,
        Loop() as loop,
        Chromium(loop, program, Path(folder), PREFERENCES) as chromium,
    ):
        stage = Stage(loop, chromium, served.url)
        play(stage)
        image = stage.tab.devtools("Page.captureScreenshot")["data"]
        file.write_bytes(shrink(open_tab(chromium.profile()), image))
    size = file.stat().st_size
    print(f"{file}: {size:,} bytes")
    if size > MAX_BYTES:
        sys.exit(f"that is more than {MAX_BYTES:,}")


if __name__ == "__main__":
    main()
