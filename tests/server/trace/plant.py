"""A server on which causes are planted, and what asks it why."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from pov_rt.auth.grants import Kind
from pov_rt.cli.explain import picture
from pov_rt.protocol.bodies import Explained
from pov_rt.server.trace.events import Event
from pov_rt.testing import Client, Http, MovableClock, RunningServer, make_settings

TASK = {"type": "task", "action": "done", "povId": "acme", "userId": "ben"}


class Plant:
    """What a cause is planted with. `server` has ana as the one who misses something."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.node = server.web.server
        self.http = Http(server)
        self._seen: list[Event] = []
        self._changed = threading.Condition()
        trace = self.node.explain.trace
        assert trace is not None
        self.trace = trace
        server.call(lambda: trace.listeners.append(self._take))

    def _take(self, event: Event) -> None:
        with self._changed:
            self._seen.append(event)
            self._changed.notify_all()

    def wait(self, kind: str, is_it: Callable[[Event], bool] = lambda _: True) -> Event:
        """Wait until something has happened, and return it."""

        def found() -> list[Event]:
            return [each for each in self._seen if each.kind == kind and is_it(each)]

        with self._changed:
            assert self._changed.wait_for(found, timeout=40), f"{kind}: {self._seen}"
            return found()[0]

    def follow(self, device: str = "laptop", pov: str = "acme", **more: Any) -> Client:
        """Connect ana's device, and subscribe."""
        client = self.server.connect("ana", device=device)
        answer = client.request({"type": "subscribe", "povId": pov, **more})
        assert answer["type"] == "subscribed", answer
        return client

    def publish(self, name: str = "x", **more: Any) -> int:
        """Publish as ben; return the offset, 0 if it was refused."""
        body = {**TASK, "id": name, **more}
        answer = self.http.post("/api/activities", body, user="app", service=True)
        return int(answer.body.get("offset", 0))

    def get(self, client: Client, name: str = "x") -> Mapping[str, Any]:
        """Return an activity when a client has got it."""
        while True:
            message = client.receive()
            if message.get("type") == "activity" and message["data"]["id"] == name:
                return message

    def hang_up(self, client: Client) -> None:
        """Close a client's socket as a page does that is left."""
        client.socket.close()
        self.wait("closed", lambda each: each.connection == client.connection_id)

    def cut(self, client: Client) -> None:
        """End a client's connection without a close frame."""
        client.socket.abort()
        self.wait("closed", lambda each: each.connection == client.connection_id)

    def ask(self, name: str = "x", user: str = "ana", **more: Any) -> Explained:
        """Return why."""
        claims = {key: more.pop(key) for key in ("team_id",) if key in more}
        path = f"/api/activities/{name}/explain?{urlencode({'userId': user, **more})}"
        can = ["operate", "operate_all"]
        answer = self.http.get(path, user="ops", service=True, can=can, **claims)
        assert answer.status == 200, answer.body
        return msgspec.json.decode(json.dumps(answer.body), type=Explained)

    def says(self, cause: str, name: str = "x", **more: Any) -> None:
        """Check that the first line of the answer names the cause."""
        found = self.ask(name, **more)
        first = picture(found)[0]
        assert first.endswith(f"[{cause}]"), picture(found)
        assert found.next

    def get_late(self, path: str, user: str = "ana") -> int:
        """Ask for a path with a token that has just ended; return the status."""
        token = self.token(user, ttl_s=10)
        self.server.advance(20)
        connection = HTTPConnection(self.server.address, timeout=40)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return connection.getresponse().status
        finally:
            connection.close()

    def token(self, user: str, kind: Kind = Kind.SOCKET, **claims: Any) -> str:
        """Return a token."""
        return self.server.token(user, kind, **claims)


@contextmanager
def planted(plugins: list[Path] | None = None, **sections: Any) -> Iterator[Plant]:
    """Run a server with these settings."""
    with RunningServer(make_settings(**sections), plugins, MovableClock()) as server:
        yield Plant(server)
