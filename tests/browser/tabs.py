"""What a test does with a browser, whichever it is: profiles, their tabs, and what runs in these.

All of it waits for its end, bounded, and is called from the test's thread; browsers live on a loop
in another one, for Playwright lets no other loop run in a thread that it is used from.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pov_rt.client.sync import LoopThread
from tests.processes import end, launch, read_until

ValueT = TypeVar("ValueT")

WAIT_S = 50.0
"""How long anything may take: a bound for what has failed, long for busy machines."""

WAIT_FOR = """(source, argument) => new Promise(resolve => {
  const holds = new Function('argument', `return (${source})`)
  const look = () => {
    const found = holds(argument)
    if (!found) return false
    observer.disconnect()
    resolve(found)
    return true
  }
  const observer = new MutationObserver(look)
  const all = {subtree: true, childList: true, attributes: true, characterData: true}
  observer.observe(document, all)
  look()
})"""

SHOWN = """() => {
  const {dataset} = document.documentElement
  return [location.href, JSON.stringify(dataset), document.body.innerText].join('\\n')
}"""


class Loop:
    """An event loop in a thread of its own, as a context."""

    def __enter__(self) -> Loop:
        self._thread = LoopThread("browsers")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()

    def run(self, work: Coroutine[Any, Any, ValueT], timeout: float = WAIT_S) -> ValueT:
        """Run something and return its result. Raises TimeoutError, and it is cancelled."""

        async def bounded() -> ValueT:
            async with asyncio.timeout(timeout):
                return await work

        return self._thread.run(bounded())


class PageError(Exception):
    """What a function threw in a page."""


class Tab(ABC):
    """A tab of a browser. What it does not catch lies in `errors`, and fails the test."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.errors: list[str] = []
        """Exceptions and rejections that nobody caught; a test that expects some clears it."""

    def goto(self, url: str) -> None:
        """Open a page; it has loaded then."""
        self._loop.run(self._goto(url))

    def reload(self) -> None:
        self._loop.run(self._reload())

    def back(self) -> None:
        """Go back in the history; the page is shown then."""
        self._loop.run(self._traverse(-1))

    def forward(self) -> None:
        self._loop.run(self._traverse(1))

    def call(self, function: str, *arguments: Any, timeout: float = WAIT_S) -> Any:
        """Call a function in the page, with JSON values; return what its promise resolves to.

        Raises PageError with what it threw.
        """
        return self._loop.run(self._call(function, arguments), timeout)

    def evaluate(self, expression: str) -> Any:
        """Return an expression's value, or what its promise resolves to."""
        return self.call(f"() => ({expression})")

    def wait_for(self, expression: str, argument: Any = None, timeout: float = WAIT_S) -> Any:
        """Wait until an expression (of `argument`) is true, and return its value.

        It is looked at now and whenever the document changes: the page has to show what is waited
        for. Timers would do little: those of a tab in the background run once a second.
        """
        try:
            return self.call(WAIT_FOR, expression, argument, timeout=timeout)
        except TimeoutError:
            shown = self.call(SHOWN)
            raise AssertionError(
                f"never came: {expression} ({argument!r}) in\n{shown}\n{self.errors}"
            ) from None

    def show(self) -> None:
        """Bring it to the front of its window."""
        self._loop.run(self._show())

    def close(self) -> None:
        self._loop.run(self._close())

    @abstractmethod
    async def _goto(self, url: str) -> None: ...

    @abstractmethod
    async def _reload(self) -> None: ...

    @abstractmethod
    async def _traverse(self, delta: int) -> None: ...

    @abstractmethod
    async def _call(self, function: str, arguments: tuple[Any, ...]) -> Any: ...

    @abstractmethod
    async def _show(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...


class Profile(ABC):
    """Somebody's browser: tabs that share storage, locks and channels, and nothing with others."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.tabs: list[Tab] = []

    def open(self, url: str) -> Tab:
        """Open a page in a new tab."""
        tab = self._loop.run(self._open())
        self.tabs.append(tab)
        tab.goto(url)
        return tab

    def add_script(self, function: str) -> None:
        """Have a function run in each page that is opened from now on, before its own scripts."""
        self._loop.run(self._add_script(function))

    def close(self) -> None:
        """Close all of its tabs, and forget what was stored."""
        self._loop.run(self._close())

    @abstractmethod
    async def _open(self) -> Tab: ...

    @abstractmethod
    async def _add_script(self, function: str) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...


class Browser(ABC):
    """A running browser, as a context. Its files are in a folder, and its processes end with it."""

    name: ClassVar[str]

    def __init__(self, loop: Loop, command: Sequence[str], folder: Path) -> None:
        self.loop = loop
        self._process = launch(
            command,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        try:
            said = read_until(self._process.stderr, " listening on ws://")
            # What it has to say later is in nobody's way.
            self._rest = threading.Thread(target=self._process.stderr.read, name=f"{self.name}-log")
            self._rest.start()
            loop.run(self._attach(said.rpartition(" ")[2].strip()))
        except BaseException:
            end(self._process)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.loop.run(self._detach())
        finally:
            end(self._process)
            self._rest.join()

    def profile(self) -> Profile:
        """Make a new profile."""
        return self.loop.run(self._profile())

    @abstractmethod
    async def _attach(self, url: str) -> None:
        """Take control, at the WebSocket that it listens on for that."""

    @abstractmethod
    async def _detach(self) -> None: ...

    @abstractmethod
    async def _profile(self) -> Profile: ...
