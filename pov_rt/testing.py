"""For plugin authors: pytest fixtures around a real server.

`connect` opens clients, `http` makes requests, `clock.advance(seconds)` lets time pass, timers
included. The server (`pov_rt_server`) runs in a thread of its own, in memory, with the plugins of
the test file's folder. Override `pov_rt_options` for the plugins' options, `pov_rt_settings` for
other settings, `pov_rt_plugins` for other plugins. A handler that fails fails the test. All this
needs pytest and websockets: pip install 'pov-rt[testing]'.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

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


class Answer(NamedTuple):
    """What a request was answered: `body` is the JSON, or None where there is none."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Http:
    """Makes requests to a server, as whom it is told: `http.get("/api/povs/acme/tally")`.

    The token may see and do everything, unless the claims say less; `service=True` has it be a
    service's. Without a `user` there is none.
    """

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        user: str | None = "ana",
        service: bool = False,
        **claims: Any,
    ) -> Answer:
        """Make a request; any status is an answer. `body` is sent as JSON."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        if user is not None:
            kind = Kind.SERVICE if service else Kind.SOCKET
            headers["Authorization"] = f"Bearer {self._server.token(user, kind, **claims)}"
        connection = HTTPConnection(self._server.address, timeout=WAIT_S)
        try:
            connection.request(method, path, None if body is None else encode(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.headers.get_content_type().endswith("json")
            found = json.loads(content) if is_json and content else content.decode() or None
            return Answer(answer.status, found, dict(answer.headers))
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        """Make a GET request; the options are those of `request`."""
        return self.request("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> Answer:
        """Make a POST request."""
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: object = None, **options: Any) -> Answer:
        """Make a PUT request."""
        return self.request("PUT", path, body, **options)

    def patch(self, path: str, body: object = None, **options: Any) -> Answer:
        """Make a PATCH request."""
        return self.request("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        """Make a DELETE request."""
        return self.request("DELETE", path, **options)


class MovableClock(SystemClock):
    """The machine's clocks, put forward by as much as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start."""
        return time.monotonic() + self.ahead

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time() + self.ahead


class TestClock:
    """The time of a server, for its test."""

    __test__ = False

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def advance(self, seconds: float) -> None:
        """Let time pass: `host.clock` goes forward, and what is due is done when this returns.

        Timers (`@plugin.every`) run in their order, each to its end, as often as they are due.
        Raises TimeoutError naming one that takes more than 5 s.
        """
        self._server.advance(seconds)


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

    def advance(self, seconds: float) -> None:
        """Let time pass for a server that was made with a `MovableClock`; see `TestClock`."""
        clock = self._clock
        if not isinstance(clock, MovableClock):
            raise TypeError("this server's clock is not a MovableClock")

        def move(more: float) -> None:
            clock.ahead += more

        self.run(lambda: self.web.server.hooks.timers.advance(seconds, move))

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
        if not isinstance(self._settings, Settings):
            raise TypeError(
                f"pov_rt_settings must return Settings, not {type(self._settings).__name__}: "
                'make_settings(limits={"message_rate": "9/s"}), or override pov_rt_options'
            )
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
def pov_rt_options() -> Mapping[str, Mapping[str, Any]]:
    """Return the options of plugins, by their names: what `[plugins.NAME]` would have."""
    return {}


@pytest.fixture
def pov_rt_settings(
    pov_rt_options: Mapping[str, Mapping[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """Return the server's settings: `make_settings`, with the options and a folder for data."""
    data = str(tmp_path_factory.mktemp("pov-rt"))
    return make_settings(server={"data": data}, plugins=pov_rt_options)


def make_settings(**sections: msgspec.Struct | Mapping[str, Any]) -> Settings:
    """Return settings for a test, on free ports, in memory.

    A section may be a struct, which replaces it, or a mapping of what is different in it.
    """
    given: dict[str, Any] = {
        "server": ServerSettings(port=0, admin_port=0, drain_s=0.2),
        "auth": AuthSettings(secrets=[SECRET], default_povs="*"),
        "engine": EngineSettings(url="memory://"),
    }
    for name, section in sections.items():
        if isinstance(section, Mapping):
            base = given.get(name, getattr(Settings(), name))
            before = {} if isinstance(base, dict) else msgspec.structs.asdict(base)
            kind = next(each.type for each in msgspec.structs.fields(Settings) if each.name == name)
            given[name] = msgspec.convert({**before, **section}, kind)
        else:
            given[name] = section
    return Settings(**given)


@pytest.fixture
def pov_rt_server(pov_rt_settings: Settings, pov_rt_plugins: Plugins) -> Iterator[RunningServer]:
    """Run a real server for one test."""
    incidents = Incidents()
    logger = logging.getLogger("pov_rt")
    logger.addHandler(incidents)
    try:
        with RunningServer(pov_rt_settings, pov_rt_plugins, MovableClock()) as running:
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


@pytest.fixture
def http(pov_rt_server: RunningServer) -> Http:
    """Return what makes HTTP requests to the test's server."""
    return Http(pov_rt_server)


@pytest.fixture
def clock(pov_rt_server: RunningServer) -> TestClock:
    """Return the test server's time."""
    return TestClock(pov_rt_server)
