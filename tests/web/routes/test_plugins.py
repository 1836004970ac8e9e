"""Routes of plugins: who may call them, and what is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import RunningServer, make_settings

PLUGIN = '''
"""A plugin with routes."""
from pov_rt.plugin import Part, Plugin, Request

plugin = Plugin("tally")

class Tally(Part):
    pov_id: str
    count: int

class Given(Part):
    count: int

@plugin.http("GET", "/povs/{pov_id}/tally", grant="subscribe")
def tally(request: Request) -> Tally:
    return Tally(pov_id=request.path["pov_id"], count=len(request.query))

@plugin.http("POST", "/tally", grant="publish", body=Given)
async def add(request: Request) -> None:
    request.body(Given)

@plugin.http("GET", "/broken", grant="subscribe")
async def broken(request: Request) -> None:
    raise RuntimeError("broken")
'''


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Path:
    (tmp_path / "tally.py").write_text(PLUGIN)
    return tmp_path


def test_routes_are_checked_and_answered(server: RunningServer) -> None:
    def call(path: str, token: str | None, **options: Any) -> tuple[int, Any]:
        client = HTTPClient()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            url = f"http://{server.address}/api{path}"
            answer = client.fetch(url, headers=headers, raise_error=False, **options)
        finally:
            client.close()
        return answer.code, json.loads(answer.body) if answer.body else None

    token = server.token("ana", povs=["acme"], can=["subscribe", "publish"])
    assert call("/povs/acme/tally?a=1&b=", token) == (200, {"povId": "acme", "count": 2})
    assert call("/povs/other/tally", token)[0] == 403
    assert call("/povs/acme/tally", None)[0] == 401
    assert call("/povs/acme/tally", server.token(can=["publish"]))[0] == 403
    assert call("/povs/acme/tally", token, method="POST", body="")[0] == 405
    assert call("/tally", token, method="POST", body='{"count":3}') == (204, None)
    code, answer = call("/tally", token, method="POST", body='{"count":"x"}')
    assert (code, answer["error"]["field"]) == (400, "count")
    assert call("/tally", token, method="POST", body="{")[0] == 400
    code, answer = call("/broken", token)
    assert (code, answer["error"]["code"]) == (500, "internal")
    assert answer["error"]["incident"]
    server.incidents.clear()


class TestWithASmallBudget:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(cost_rate="40/s"))

    @pytest.mark.parametrize(("kind", "after"), [(Kind.SOCKET, 429), (Kind.SERVICE, 204)])
    def test_who_sends_a_body_pays_for_its_bytes_and_services_do_not(
        self, server: RunningServer, kind: Kind, after: int
    ) -> None:
        headers = {
            "Authorization": f"Bearer {server.token('ana', kind, can=['publish'])}",
        }
        large = '{"count":3' + " " * 3_000_000 + "}"  # 293 of the 120 that a full budget has
        client = HTTPClient()
        try:
            got = [
                client.fetch(
                    f"http://{server.address}/api/tally",
                    headers=headers,
                    raise_error=False,
                    method="POST",
                    body=body,
                ).code
                for body in (large, '{"count":3}')
            ]
        finally:
            client.close()
        assert got == [204, after]
