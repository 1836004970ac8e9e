"""Two servers behind one name notice, and what only looks like that is no reason to say so."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from pov_rt.delivery.others import ENOUGH
from pov_rt.testing import RunningServer, make_settings
from tests.web.routes.test_ops import admin, metrics

COUNTER = "pov_rt_other_log_positions_total"


@pytest.fixture
def later(server: RunningServer) -> Iterator[RunningServer]:
    """Run another server, whose log begins after the first one's."""
    assert server.address
    with RunningServer(make_settings(), None) as other:
        yield other


def bring(server: RunningServer, user: str, since: dict[str, object]) -> dict[str, object]:
    """Subscribe with a position, as a client does that comes back; return the answer."""
    client = server.connect(user=user)
    return client.request({"type": "subscribe", "povId": "acme", "since": since})


def position(server: RunningServer, user: str = "ana") -> dict[str, object]:
    answer = server.connect(user=user).request({"type": "subscribe", "povId": "acme"})
    return {"epoch": answer["epoch"], "offset": answer["offset"]}


def test_the_one_whose_log_began_earlier_says_so_once(
    server: RunningServer, later: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    since = position(later)
    for number in range(ENOUGH + 2):
        assert "warning" not in ready(server) or number >= ENOUGH
        assert bring(server, f"user-{number}", since)["recovered"] is False
    said = [line for line in caplog.messages if "another log" in line]
    assert len(said) == 1
    assert ready(server)["warning"] == said[0]
    assert metrics(server)[COUNTER] == ENOUGH + 2
    # What the later one is brought may be of a log that it had itself before.
    for number in range(ENOUGH):
        bring(later, f"user-{number}", position(server))
    assert metrics(later)[COUNTER] == 0
    assert "warning" not in ready(later)


def test_one_user_who_makes_them_up_is_not_believed(
    server: RunningServer, later: RunningServer
) -> None:
    since = position(later)
    for _ in range(2 * ENOUGH):
        bring(server, "eve", since)
    for epoch in ("", "x" * 20, "-", "f" * 12):
        bring(server, "eve", {"epoch": epoch, "offset": 1})
    assert "warning" not in ready(server)
    assert metrics(server)[COUNTER] == 2 * ENOUGH


def ready(server: RunningServer) -> dict[str, object]:
    found: dict[str, object] = json.loads(admin(server, "/readyz").body)
    return found
