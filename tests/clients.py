"""What the tests of recovery say and publish, and what they get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tornado.httpclient import HTTPClient

from pov_rt.activities.publishing import Publisher
from pov_rt.auth.grants import Kind
from pov_rt.config.settings import EngineSettings, LimitSettings, Settings
from pov_rt.protocol.messages import NewActivity
from pov_rt.testing import Client, RunningServer, make_settings

APP = Publisher("service:app", "app", "main")
ENGINES = ("memory", "sqlite")


def publish(server: RunningServer, count: int, pov: str = "acme", user: str = "bo") -> None:
    batch = [NewActivity(type="t", action="a", pov_id=pov, user_id=user) for _ in range(count)]
    server.run(lambda: server.web.server.publishing.publish(batch, APP))


def subscribe(client: Client, pov: str = "acme", **more: Any) -> dict[str, Any]:
    return client.request({"type": "subscribe", "povId": pov, **more})


def offsets(client: Client, count: int, kind: str = "activity") -> list[int]:
    received = [client.receive() for _ in range(count)]
    assert {each["type"] for each in received} <= {kind}
    return [each["offset"] for each in received]


def place(answer: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": answer["epoch"], "offset": answer["offset"]}


def span(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def notify(
    server: RunningServer, user: str = "ana", token: str | None = None, **fields: Any
) -> tuple[int, dict[str, Any]]:
    client = HTTPClient()
    try:
        answer = client.fetch(
            f"http://{server.address}/api/users/{user}/notifications",
            method="POST",
            headers={"Authorization": f"Bearer {token or server.token('app', Kind.SERVICE)}"},
            body=json.dumps({"type": "mention", **fields}),
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body)


def settings_of(engine: str, folder: Path) -> Settings:
    """Return settings with one of the engines; few entries are kept, and of a user few devices."""
    url = "memory://" if engine == "memory" else f"sqlite://{folder}/log.db"
    return make_settings(
        engine=EngineSettings(url=url, max_entries=1500),
        limits=LimitSettings(message_rate="500/s", devices_per_user=3),
    )
