"""What may change between the look at a handshake and the opening of its socket."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from pov_rt.auth.tokens import Identity
from pov_rt.protocol.errors import ClientError, LimitExceeded, Unavailable
from pov_rt.runtime.clock import SystemClock
from pov_rt.testing import RunningServer, make_settings
from tests.transport.test_wire import wait_until

ENDED = "connection closed: "


def open_socket(server: RunningServer, token: str, *, v1: bool) -> ClientConnection:
    url = f"ws://{server.address}/ws/"
    if not v1:
        return connect(f"{url}?token={token}", proxy=None)
    protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{token}")]
    return connect(url, subprotocols=protocols, proxy=None)


class Changing:
    """Lets the first look at a handshake pass, and the second one not."""

    def __init__(self, server: RunningServer, *, error: ClientError | None = None) -> None:
        self._looks = 0
        self._error = error
        node: Any = server.web.server
        if error is None:
            node.revocations.covers = self.is_revoked
        else:
            node.admit = self.admit

    def is_revoked(self, identity: Identity) -> bool:
        """Tell that it was revoked after the first look."""
        self._looks += 1
        return self._looks > 1

    def admit(self, identity: Identity, device: str) -> None:
        """Find no room at the second look."""
        self._looks += 1
        if self._looks > 1 and self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        pytest.param(None, 4001, "token expired or revoked", id="revoked"),
        pytest.param(LimitExceeded(), 4005, "overloaded", id="no room any more"),
        pytest.param(Unavailable(), 4005, "overloaded", id="draining"),
    ],
)
@pytest.mark.parametrize("v1", [True, False])
def test_a_client_is_told_and_its_end_is_one_line_of_the_log(
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    error: ClientError | None,
    code: int,
    reason: str,
    v1: bool,
) -> None:
    caplog.set_level(logging.INFO)
    token = server.token("ana")
    Changing(server, error=error)
    with open_socket(server, token, v1=v1) as client:
        if v1:
            closing = json.loads(client.recv(timeout=5))
            assert closing.pop("retryAfter") > 0
            assert closing == {"type": "closing", "code": code, "reason": reason}
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(timeout=5)
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (code, reason)
    wait_until(server, lambda: server.web.sockets == 0)
    (line,) = (record for record in caplog.records if record.name == "pov_rt.server.arrivals")
    fields = vars(line)
    assert line.getMessage() == f"{ENDED}{reason}"
    assert (fields["user"], fields["device"], fields["ip"]) == ("ana", "default", "127.0.0.1")
    assert fields["sent"] > 0
    node = server.web.server
    assert (len(node.directory), node.arrivals.closes) == (0, {reason: 1})


class Passing(SystemClock):
    """A clock on which 2,000 seconds pass between two looks at a token."""

    def __init__(self) -> None:
        self._later_s = 0.0

    def time(self) -> float:
        """Return the time."""
        return super().time() + self._later_s

    def is_revoked(self, identity: Identity) -> bool:
        """Let the time pass."""
        self._later_s = 2000.0
        return False


@pytest.mark.parametrize("v1", [True, False])
def test_a_token_that_expires_between_the_two_closes_the_socket(v1: bool) -> None:
    clock = Passing()
    with RunningServer(make_settings(), None, clock) as server:
        revocations: Any = server.web.server.revocations
        revocations.covers = clock.is_revoked
        with open_socket(server, server.token("ana", ttl_s=1000), v1=v1) as client:
            if v1:
                assert json.loads(client.recv(timeout=5))["type"] == "closing"
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(timeout=5)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4001
