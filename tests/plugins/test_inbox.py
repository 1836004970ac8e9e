"""Who may notify whom, what may be in it, and which clients know of inboxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.testing import Connect, RunningServer
from tests.clients import ENGINES, notify, settings_of


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


def test_a_retry_is_no_second_one(server: RunningServer, connect: Connect) -> None:
    first, again = notify(server, id="n1")[1], notify(server, id="n1")[1]
    assert (first["offset"], again["offset"], again["duplicate"]) == (1, 1, True)
    assert notify(server, id="n1", details={})[1]["error"]["code"] == "id_conflict"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"type": "no spaces"}, 400, "type"),
        ({"unknown": 1}, 400, "unknown"),
        ({"details": {"x": "y" * 17_000}}, 413, "details"),
        ({"povId": "a\u0000"}, 400, "povId"),
    ],
)
def test_a_bad_one_is_refused_by_the_name_of_its_field(
    server: RunningServer, fields: dict[str, Any], code: int, field: str
) -> None:
    status, answer = notify(server, **fields)
    assert (status, answer["error"]["field"]) == (code, field)


def test_only_services_notify_and_only_about_what_they_see(server: RunningServer) -> None:
    assert notify(server, token=server.token("ana"))[0] == 401
    narrow = server.token("app", Kind.SERVICE, povs=["acme"])
    assert notify(server, token=narrow)[0] == 403
    assert notify(server, token=narrow, povId="other")[0] == 403
    assert notify(server, token=narrow, povId="acme")[0] == 200


def test_a_client_of_the_first_block_gets_none(server: RunningServer, connect: Connect) -> None:
    plain = connect("ana", v1=False)
    notify(server)
    assert plain.request({"type": "ping"})["type"] == "pong"
    assert not server.call(lambda: server.web.server.directory.all()[0].topics)
