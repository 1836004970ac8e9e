"""For plugin authors: `connect`, a pytest fixture that opens clients of a real server.

The server runs in a thread of its own, in memory, with the plugins of the test file's folder
(override the fixture `pov_rt_plugins`) and the settings of the fixture `pov_rt_settings`; it is the
fixture `pov_rt_server`. A handler that fails fails the test. All this needs pytest and websockets:
pip install 'pov-rt[testing]'.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import AuthSettings, EngineSettings, ServerSettings, Settings
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import Message
from pov_rt.registry.build import build_registry
from pov_rt.registry.discovery import list_files
from pov_rt.runtime.clock import Clock, SystemClock
from pov_rt.transport.loop import DirectLoop
from pov_rt.web.app import WebServer

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

ValueT = TypeVar("ValueT")
Plugins = Path | Sequence[Path] | None

SECRET = "a secret for tests alone, 32 bytes and more"  # noqa: S105  (protects nothing)
WAIT_S = 5.0
DECLARATION = re.compile(rb"\bPlugin\s*[\[(]")
EVERYTHING = ("subscribe", "publish", "collaborate")


class Client:
    """A connected client."""

    connection_id: str
    """What the server calls it; a client without the subprotocol is not told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.early: list[dict[str, Any]] = []
        """What came before the answer to a request, and has not been received yet."""
        self._requests = 0

    def send(self, message: Message | Mapping[str, Any] | str | bytes) -> None:
        """Send a message; text is sent as it stands."""
        if isinstance(message, str | bytes):
            self.socket.send(message)
        else:
            self.socket.send(encode(message).decode())

    def receive(self) -> dict[str, Any]:
        """Return the next message. Raises TimeoutError after 5 s."""
        if self.early:
            return self.early.pop(0)
        found: dict[str, Any] = json.loads(self.socket.recv(timeout=WAIT_S))
        return found

    def request(self, message: Message | Mapping[str, Any]) -> dict[str, Any]:
        """Send a message and return its answer; what comes before it is for `receive`."""
        self._requests += 1
        request_id = f"test-{self._requests}"
        fields = json.loads(encode(message))
        self.send({**fields, "id": request_id})
        while True:
            answer: dict[str, Any] = json.loads(self.socket.recv(timeout=WAIT_S))
            if answer.get("id") == request_id:
                return answer
            self.early.append(answer)


class RunningServer:
    """A real server in a thread of its own."""

    def __init__(
        self, settings: Settings, plugins_dir: Plugins, clock: Clock | None = None
    ) -> None:
        self.web: WebServer
        self._settings = settings
        self._plugins_dir = plugins_dir
        self._clock = clock
        self._loop = DirectLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pov-rt-server")
        self._sockets = ExitStack()
        self.incidents: list[logging.LogRecord] = []
        """Failures of handlers; a test that expects some clears it."""

    def __enter__(self) -> RunningServer:
        self._thread.start()
        try:
            self.run(self._start)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sockets.close()
            self.run(lambda: self.web.stop())
        finally:
            self._end()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.web.port}"

    def run(self, function: Callable[[], Awaitable[ValueT]]) -> ValueT:
        """Run something on the server's loop and return its result."""

        async def work() -> ValueT:
            return await function()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(30)

    def call(self, function: Callable[[], ValueT]) -> ValueT:
        """Call something on the server's loop and return its result."""

        async def work() -> ValueT:
            return function()

        return self.run(work)

    def token(
        self, user: str = "ana", kind: Kind = Kind.SOCKET, *, ttl_s: float = 3600, **claims: Any
    ) -> str:
        """Return a token of this server; it may see and do everything, unless that is said."""
        claims = {"povs": "*", "can": EVERYTHING, **claims}
        return self.call(lambda: self.web.server.tokens.issue(kind, user, ttl_s=ttl_s, **claims))

    def connect(
        self, user: str = "ana", *, v1: bool = True, device: str | None = None, **claims: Any
    ) -> Client:
        """Open a client: with the subprotocol, its `welcome` already taken, or a plain one."""
        try:
            from websockets.sync.client import connect
            from websockets.typing import Subprotocol
        except ImportError as error:
            raise ImportError(
                "clients need the package websockets: pip install 'pov-rt[testing]'"
            ) from error
        token = self.token(user, **claims)
        url = f"ws://{self.address}/ws/?" + (f"device={device}&" if device else "")
        # Without a bound, or a client that does not read everything takes 10 s to close.
        if v1:
            protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{token}")]
            opening = connect(url, subprotocols=protocols, proxy=None, max_queue=None)
        else:
            opening = connect(f"{url}token={token}", proxy=None, max_queue=None)
        client = Client(self._sockets.enter_context(opening))
        if v1:
            client.connection_id = client.receive()["connectionId"]
        return client

    async def _start(self) -> None:
        registry = build_registry(self._settings.plugins, self._plugins_dir)
        self.web = WebServer(self._settings, registry, clock=self._clock or SystemClock())
        await self.web.start()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


Connect = Callable[..., Client]
"""`connect(user="ana", *, v1=True, device=None, povs="*", can=[...])` -> `Client`."""


class Incidents(logging.Handler):
    """Collects what was logged with an incident id."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a handler's failure left in the log."""
        if hasattr(record, "incident"):
            self.records.append(record)


@pytest.fixture
def pov_rt_plugins(request: pytest.FixtureRequest) -> Plugins:
    """Return the plugins that the server loads beside the built-in ones: a folder, files, or None.

    What else lies in the test's folder is no plugin, and is not run.
    """
    return [
        path
        for path in list_files(request.path.parent)
        if path != request.path and DECLARATION.search(path.read_bytes())
    ]


@pytest.fixture
def pov_rt_settings() -> Settings:
    """Return the server's settings."""
    return make_settings()


def make_settings(**sections: msgspec.Struct) -> Settings:
    """Return settings for a test, on free ports; `sections` replace whole sections."""
    given: dict[str, Any] = {
        "server": ServerSettings(port=0, admin_port=0, drain_s=0.2),
        "auth": AuthSettings(secrets=[SECRET], default_povs="*"),
        "engine": EngineSettings(url="memory://"),
    }
    return Settings(**given | sections)


@pytest.fixture
def pov_rt_server(pov_rt_settings: Settings, pov_rt_plugins: Plugins) -> Iterator[RunningServer]:
    """Run a real server for one test."""
    incidents = Incidents()
    logger = logging.getLogger("pov_rt")
    logger.addHandler(incidents)
    try:
        with RunningServer(pov_rt_settings, pov_rt_plugins) as running:
            running.incidents = incidents.records
            yield running
    finally:
        logger.removeHandler(incidents)
    for record in incidents.records:
        if record.exc_info and isinstance(record.exc_info[1], BaseException):
            raise record.exc_info[1]


@pytest.fixture
def connect(pov_rt_server: RunningServer) -> Connect:
    """Return what opens clients of the test's server."""
    return pov_rt_server.connect
