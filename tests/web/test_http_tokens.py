"""The table of hostile tokens over HTTP: each is 401, and no log shows a byte of it."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote_from_bytes

import pytest

from pov_rt.config.settings import AuthSettings, LimitSettings, Settings
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import RunningServer, make_settings
from tests.auth.test_tokens_hostile import HOSTILE, NESTED, NOW, SECRET, forge
from tests.web.test_handshake import UPGRADE

MOST_BYTES = 12_000
"""A longer token does not fit a request's head, which HTTP's own limit refuses."""
TOKENS = [token for name, token in HOSTILE if len(token) <= MOST_BYTES and name not in NESTED]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A server whose clock stands where the table's tokens would be good."""
    settings: Settings = make_settings(
        auth=AuthSettings(secrets=[SECRET]),
        limits=LimitSettings(token_rate="100000/s", failed_rate="100000/s"),
    )
    with RunningServer(settings, None, ManualClock(NOW)) as server:
        yield server


def upgrade(server: RunningServer, query: str) -> int:
    with closing(http.client.HTTPConnection(server.address, timeout=10)) as client:
        client.putrequest("GET", f"/ws/?token={query}", skip_host=True)
        for name, value in UPGRADE.items():
            client.putheader(name, value)
        client.endheaders()
        return client.getresponse().status


def encoded(token: str) -> str:
    return quote_from_bytes(token.encode("utf-8", "surrogatepass"), safe="")


def clean(token: str) -> bool:
    """Tell whether a header can hold the token."""
    return token.isascii() and token.isprintable() and token == token.strip() and token != ""


def test_each_is_401_and_leaves_no_trace_of_itself(
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    assert len(TOKENS) >= 250
    with closing(http.client.HTTPConnection(server.address, timeout=10)) as client:

        def ask(path: str, headers: dict[str, str]) -> int:
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
            answer.read()
            return answer.status

        bearer = {"Authorization": f"Bearer {forge()}"}
        assert upgrade(server, forge()) == 101
        assert ask("/ws/", bearer) == 426
        assert ask("/api/auth/ws-token", bearer) == 200
        for token in TOKENS:
            assert upgrade(server, encoded(token)) == 401, token
            if clean(token):
                for path in ("/ws/", "/api/auth/ws-token"):
                    got = ask(path, {"Authorization": f"Bearer {token}"})
                    assert got == 401, (path, token)
            if clean(token) and '"' not in token:  # a cookie's quotes are none of its value
                got = ask("/api/auth/ws-token", {"Cookie": f"accessToken={token}"})
                assert got == 401, token
    records = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    seen = "\n".join([*capfd.readouterr(), caplog.text, *records])
    assert "no key has signed this" in seen
    assert "Traceback" not in seen
    for token in TOKENS:
        for piece in token.split("."):
            assert len(piece) < 16 or piece[-16:] not in seen, token
