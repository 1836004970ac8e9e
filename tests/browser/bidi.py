"""Firefox by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/), which it speaks by itself.

Neither Playwright nor geckodriver is needed: Debian's Firefox is driven as its users have it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.browser.tabs import Browser, Loop, PageError, Profile, Tab

PREFERENCES: dict[str, object] = {
    "app.update.auto": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.disable_open_during_load": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    # A page that is left while its icon is still fetched is not kept for going back.
    "browser.chrome.site_icons": False,
    "browser.chrome.favicons": False,
    "network.http.speculative-parallel-limit": 0,
    "toolkit.cosmeticAnimations.enabled": False,
    # It says "stopping" until then, and takes a minute for what no test needs.
    "toolkit.shutdown.fastShutdownStage": 3,
}
"""It shall ask nobody but the test's server for anything, and end at once."""
EVENTS = ["log.entryAdded"]


class BidiError(Exception):
    """The browser's answer to a command that it could not do."""


class Wire:
    """A BiDi connection: commands with their answers, and events. Lives on one loop."""

    def __init__(self, socket: ClientConnection, on_event: Callable[[str, Any], None]) -> None:
        self._socket = socket
        self._on_event = on_event
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def command(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its answer. Raises BidiError, or ConnectionError at the end."""
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send(
                json.dumps({"id": number, "method": method, "params": parameters})
            )
            return await answer
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if message["type"] == "event":
                self._on_event(message["method"], message["params"])
                continue
            answer = self._waiting.get(message["id"])
            if answer is None or answer.done():
                continue  # who asked does not wait any more
            if message["type"] == "success":
                answer.set_result(message["result"])
            else:
                answer.set_exception(BidiError(f"{message['error']}: {message['message']}"))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("Firefox has ended"))


def decode(value: dict[str, Any]) -> Any:
    """Return what a BiDi remote value stands for; of what no JSON could say, its type's name."""
    kind, inner = value["type"], value.get("value")
    match kind:
        case "undefined" | "null":
            return None
        case "number":
            return float(inner.lower()) if isinstance(inner, str) else inner
        case "string" | "boolean" | "date":
            return inner
        case "bigint":
            return int(inner or 0)
        case "array" | "set":
            return [decode(each) for each in inner or ()]
        case "object" | "map":
            return {
                name if isinstance(name, str) else decode(name): decode(each)
                for name, each in inner or ()
            }
    return f"<{kind}>"


def encode(value: Any) -> dict[str, Any]:
    """Return a JSON value as BiDi has its arguments."""
    match value:
        case None:
            return {"type": "null"}
        case bool():
            return {"type": "boolean", "value": value}
        case int() | float():
            return {"type": "number", "value": value}
        case str():
            return {"type": "string", "value": value}
        case list() | tuple():
            return {"type": "array", "value": [encode(each) for each in value]}
        case dict():
            return {
                "type": "object",
                "value": [[name, encode(each)] for name, each in value.items()],
            }
    raise TypeError(f"{type(value).__name__} is nothing that a page can be given")


class FirefoxTab(Tab):
    def __init__(self, firefox: Firefox, context: str) -> None:
        super().__init__(firefox.loop)
        self._firefox = firefox
        self._context = context

    async def _goto(self, url: str) -> None:
        await self._firefox.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def _reload(self) -> None:
        await self._firefox.command(
            "browsingContext.reload", context=self._context, wait="complete"
        )

    async def _traverse(self, delta: int) -> None:
        await self._firefox.command(
            "browsingContext.traverseHistory", context=self._context, delta=delta
        )

    async def _call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        answer = await self._firefox.command(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[encode(each) for each in arguments],
            awaitPromise=True,
            target={"context": self._context},
        )
        if answer["type"] == "exception":
            raise PageError(answer["exceptionDetails"]["text"])
        return decode(answer["result"])

    async def _show(self) -> None:
        await self._firefox.command("browsingContext.activate", context=self._context)

    async def _close(self) -> None:
        await self._firefox.command("browsingContext.close", context=self._context)


class FirefoxProfile(Profile):
    def __init__(self, firefox: Firefox, context: str) -> None:
        super().__init__(firefox.loop)
        self._firefox = firefox
        self._context = context

    async def _open(self) -> FirefoxTab:
        created = await self._firefox.command(
            "browsingContext.create", type="tab", userContext=self._context
        )
        return self._firefox.add(created["context"])

    async def _add_script(self, function: str) -> None:
        await self._firefox.command(
            "script.addPreloadScript", functionDeclaration=function, userContexts=[self._context]
        )

    async def _close(self) -> None:
        await self._firefox.command("browser.removeUserContext", userContext=self._context)


class Firefox(Browser):
    """A Firefox of its own, with a new profile in a folder."""

    name = "firefox"

    def __init__(
        self,
        loop: Loop,
        program: str,
        folder: Path,
        preferences: Mapping[str, object] | None = None,
    ) -> None:
        self._tabs: dict[str, FirefoxTab] = {}
        folder.mkdir(exist_ok=True)
        (folder / "user.js").write_text(
            "".join(
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in (PREFERENCES | dict(preferences or {})).items()
            )
        )
        command = [program, "--headless", "--remote-debugging-port", "0", "--profile", str(folder)]
        super().__init__(loop, command, folder)

    async def command(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its answer. Raises BidiError."""
        return await self._wire.command(method, **parameters)

    def add(self, context: str) -> FirefoxTab:
        """Have a tab told of its events."""
        tab = self._tabs[context] = FirefoxTab(self, context)
        return tab

    async def _attach(self, url: str) -> None:
        socket = await connect(f"{url}/session", proxy=None, max_size=None)
        self._wire = Wire(socket, self._on_event)
        await self.command("session.new", capabilities={})
        await self.command("session.subscribe", events=EVENTS)

    async def _detach(self) -> None:
        await self._wire.close()

    async def _profile(self) -> FirefoxProfile:
        created = await self.command("browser.createUserContext")
        return FirefoxProfile(self, created["userContext"])

    def _on_event(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "log.entryAdded":
            tab = self._tabs.get(parameters["source"].get("context"))
            # It has a stack where a script threw; connections that fail are told without one.
            if tab and parameters["level"] == "error" and parameters.get("stackTrace"):
                tab.errors.append(parameters["text"])
