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
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
import pytest

from pov_rt.auth.grants import Kind
from pov_rt.client.lines.socket import connect as connect_socket
from pov_rt.client.lines.socket import spoken
from pov_rt.client.sync import LoopThread
from pov_rt.config.settings import AuthSettings, EngineSettings, ServerSettings, Settings
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import Message
from pov_rt.registry.build import build_registry
from pov_rt.registry.discovery import list_files
from pov_rt.remote.addresses import parse_url
from pov_rt.runtime.clock import Clock, SystemClock
from pov_rt.transport.loop import DirectLoop
from pov_rt.web.app import WebServer

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

ValueT = TypeVar("ValueT")
Plugins = Path | Sequence[Path] | None

SECRET = "a secret for tests alone, 32 bytes and more"  # noqa: S105  (protects nothing)
WAIT_S = 30.0
"""How long anything may take: a bound for what has failed, long for busy machines."""
DECLARATION = re.compile(rb"\bPlugin\s*[\[(]")
EVERYTHING = ("subscribe", "publish", "collaborate")


class Socket:
    """A client's WebSocket, for code that blocks; what it raises is the package websockets'."""

    def __init__(self, connection: ClientConnection, thread: LoopThread) -> None:
        self._connection = connection
        self._thread = thread

    def send(self, message: str | bytes) -> None:
        """Send a text, or bytes."""
        self._thread.run(self._connection.send(message))

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Return the next message. Raises TimeoutError after so many seconds."""

        async def receive() -> str | bytes:
            async with asyncio.timeout(timeout):
                return await self._connection.recv()

        return self._thread.run(receive())

    def close(self) -> None:
        """Close it, as a client does that leaves."""
        self._thread.run(self._connection.close())

    def abort(self) -> None:
        """End it without a word, as a machine that dies."""

        async def reset() -> None:
            transport = self._connection.transport
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            await self._connection.wait_closed()

        self._thread.run(reset())


class Client:
    """A connected client."""

    connection_id: str
    """What the server calls it; a client without the subprotocol is not told."""
    welcome: Mapping[str, Any]
    """What the server said first to one with the subprotocol."""

    def __init__(self, socket: Socket) -> None:
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
        """Return the next message. Raises TimeoutError after 30 s."""
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
    """What a request was answered: `body` is the JSON, other text, or None where there is none."""

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
            name = answer.headers.get_content_type()
            is_json = name.endswith("json") and not name.endswith("ndjson")
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
        self._thread: LoopThread
        self._sockets = ExitStack()
        """The clients' sockets, and the thread that they are in."""
        self._clients: LoopThread | None = None
        self.incidents: list[logging.LogRecord] = []
        """Failures of handlers; a test that expects some clears it."""

    def __enter__(self) -> RunningServer:
        self._thread = LoopThread("pov-rt-server", DirectLoop)
        try:
            self.run(self._start)
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sockets.close()
            self.run(lambda: self.web.stop())
        finally:
            self._thread.stop()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.web.port}"

    def run(self, function: Callable[[], Awaitable[ValueT]]) -> ValueT:
        """Run something on the server's loop and return its result."""

        async def work() -> ValueT:
            return await function()

        return self._thread.run(work(), WAIT_S)

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
        self,
        user: str = "ana",
        *,
        v1: bool = True,
        device: str | None = None,
        token: str | None = None,
        **claims: Any,
    ) -> Client:
        """Open a client: with the subprotocol, its `welcome` already taken, or a plain one.

        With a `token` that is there already, such as an app's, it is that one's user.
        """
        if token is None:
            token = self.token(user, **claims)
        address = parse_url(self.address)
        url = f"{address.socket}?" + (f"device={device}&" if device else "")
        # Without a bound, or a client that does not read everything takes 10 s to close.
        if v1:
            opening = connect_socket(address, url, spoken(token), max_queue=None)
        else:
            opening = connect_socket(address, f"{url}token={token}", max_queue=None)
        if self._clients is None:
            self._clients = LoopThread("pov-rt clients")
            self._sockets.callback(self._clients.stop)
        client = Client(Socket(self._clients.run(opening), self._clients))
        self._sockets.callback(client.socket.close)
        if v1:
            client.welcome = client.receive()
            client.connection_id = client.welcome["connectionId"]
        return client

    async def _start(self) -> None:
        if not isinstance(self._settings, Settings):
            raise TypeError(
                f"pov_rt_settings must return Settings, not {type(self._settings).__name__}: "
                'make_settings(limits={"message_rate": "9/s"}), or override pov_rt_options'
            )
        registry = build_registry(
            self._settings.plugins, self._plugins_dir, self._settings.activities
        )
        self.web = WebServer(self._settings, registry, clock=self._clock or SystemClock())
        await self.web.start()


Connect = Callable[..., Client]
"""`connect(user="ana", *, v1=True, device=None, token=None, povs="*", can=[...])` -> `Client`."""


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
