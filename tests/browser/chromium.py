"""Chromium by Playwright, with what only its DevTools protocol can do: crash a tab, freeze it.

https://chromedevtools.github.io/devtools-protocol/

It is started as users have it, and Playwright attached: what Playwright starts, or makes contexts
of, is always visible, runs all timers, and has no back/forward cache.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import CDPSession, Page, async_playwright

from tests.browser.tabs import Browser, Loop, PageError, Profile, Tab
from tests.pages import POPUPS

ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={POPUPS}",
    # Its first tab, if it comes while Playwright attaches, is waited for in vain: one start in 12.
    "--no-startup-window",
    "--remote-debugging-port=0",
]


class ChromiumTab(Tab):
    def __init__(self, loop: Loop, page: Page, session: CDPSession) -> None:
        super().__init__(loop)
        self.page = page
        """Playwright's; its coroutines run on `loop`."""
        self._session = session
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def devtools(self, method: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol to the tab."""
        return self._loop.run(self._session.send(method, parameters))

    @contextmanager
    def traced(self, categories: str) -> Iterator[list[dict[str, Any]]]:
        """Collect the events of a trace; the list has them after the block."""
        events: list[dict[str, Any]] = []
        self._session.on("Tracing.dataCollected", lambda told: events.extend(told["value"]))
        self.devtools("Tracing.start", categories=categories, transferMode="ReportEvents")
        yield events
        self._loop.run(self._end_trace())

    async def _end_trace(self) -> None:
        complete = asyncio.get_running_loop().create_future()
        self._session.once("Tracing.tracingComplete", lambda told: complete.set_result(told))
        await self._session.send("Tracing.end")
        await complete

    def freeze(self) -> None:
        """Have it sleep, as the browser does with tabs in the background; nothing runs in it.

        One that is to be seen does not.
        """
        self.devtools("Page.setWebLifecycleState", state="frozen")

    def thaw(self) -> None:
        self.devtools("Page.setWebLifecycleState", state="active")

    def crash(self) -> None:
        """Have its process die at once, with those of the profile's other tabs that share it."""
        self._loop.run(self._crash())

    async def _crash(self) -> None:
        async with self.page.expect_event("crash"):
            # The command has no answer: who would give it is gone.
            asked = asyncio.ensure_future(self._session.send("Page.crash"))
        asked.cancel()

    async def _goto(self, url: str) -> None:
        await self.page.goto(url)

    async def _reload(self) -> None:
        await self.page.reload()

    async def _traverse(self, delta: int) -> None:
        # Playwright waits for a load, which a page from the back/forward cache does not do again.
        history = await self._session.send("Page.getNavigationHistory")
        entry = history["entries"][history["currentIndex"] + delta]
        shown = asyncio.get_running_loop().create_future()
        self._session.once("Page.frameNavigated", lambda told: shown.set_result(told))
        await self._session.send("Page.navigateToHistoryEntry", {"entryId": entry["id"]})
        await shown

    async def _call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        # Not by Playwright: it loses a page that comes from the back/forward cache.
        answer = await self._session.send(
            "Runtime.evaluate",
            {
                "expression": f"({function})(...{json.dumps(arguments)})",
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        result = answer["result"]
        if "unserializableValue" in result:
            return float(result["unserializableValue"])
        return result.get("value")

    async def _show(self) -> None:
        await self.page.bring_to_front()

    async def _close(self) -> None:
        await self.page.close()


class ChromiumProfile(Profile):
    def __init__(self, chromium: Chromium, context: str) -> None:
        super().__init__(chromium.loop)
        self._chromium = chromium
        self._context = context
        self._scripts: list[str] = []

    async def _open(self) -> ChromiumTab:
        page, session = await self._chromium.new_page(self._context)
        await session.send("Page.enable")
        for each in self._scripts:
            await session.send("Page.addScriptToEvaluateOnNewDocument", {"source": each})
        return ChromiumTab(self._loop, page, session)

    async def _add_script(self, function: str) -> None:
        self._scripts.append(f"({function})()")

    async def _close(self) -> None:
        await self._chromium.send("Target.disposeBrowserContext", browserContextId=self._context)


class Chromium(Browser):
    """A Chromium of its own, with its files in a folder."""

    name = "chromium"

    def __init__(
        self,
        loop: Loop,
        program: str,
        folder: Path,
        preferences: Mapping[str, object] | None = None,
    ) -> None:
        (folder / "Default").mkdir()
        (folder / "Default/Preferences").write_text(json.dumps(preferences or {}))
        super().__init__(loop, [program, *ARGUMENTS, f"--user-data-dir={folder}"], folder)

    async def send(self, method: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol to the browser."""
        return await self._session.send(method, parameters)

    async def new_page(self, context: str) -> tuple[Page, CDPSession]:
        """Open an empty tab in a context; return it with a DevTools session."""
        opened: asyncio.Queue[Page] = asyncio.Queue()
        self._pages.on("page", opened.put_nowait)
        try:
            made = await self.send(
                "Target.createTarget", url="about:blank", browserContextId=context
            )
            page = await opened.get()
        finally:
            self._pages.remove_listener("page", opened.put_nowait)
        session = await self._pages.new_cdp_session(page)
        found = await session.send("Target.getTargetInfo")
        assert found["targetInfo"]["targetId"] == made["targetId"]
        return page, session

    async def _attach(self, url: str) -> None:
        self._playwright = await async_playwright().start()
        try:
            browser = await self._playwright.chromium.connect_over_cdp(url, no_defaults=True)
            self._session = await browser.new_browser_cdp_session()
            # Playwright has all contexts that it did not make for this one.
            (self._pages,) = browser.contexts
        except BaseException:
            await self._playwright.stop()
            raise

    async def _detach(self) -> None:
        await self._playwright.stop()

    async def _profile(self) -> ChromiumProfile:
        made = await self.send("Target.createBrowserContext")
        return ChromiumProfile(self, made["browserContextId"])
