"""pov-rt as a server to measure, as it is deployed: tokens, grants, validation, offsets."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jwt

from bench.load import Client, Step
from bench.peers import DAY_S, SECRET, HttpPublisher, Peer, encode, token


class Ours(HttpPublisher):
    """pov-rt, published to over HTTP."""

    name = "pov-rt"
    growing = '"offset":'
    publishers = 64
    acknowledgement = '{"type":"published"'
    engine = "memory://"
    limits = 'message_rate = "1000000/s"\nconnections_per_user = 20000\n'
    settings = ""
    admin_port = 0
    python = sys.executable

    def command(self) -> list[str]:
        """Return what to run."""
        config = self.folder / "pov-rt.toml"
        config.write_text(
            f"[server]\nport = {self.port}\nadmin_port = {self.admin_port}\n"
            f'data = "{self.folder}"\n'
            # As older versions call `default_povs = "*"`: other checkouts are measured, too.
            f'[auth]\nsecrets = ["{SECRET}"]\nrequire_grants = false\n'
            f"[limits]\n{self.limits}{self.unbound()}"
            f'[engine]\nurl = "{self.engine}"\n{self.settings}'
        )
        return [self.python, "-m", "pov_rt.cli", "serve", "--config", str(config)]

    def unbound(self) -> str:
        """Return the limits by which a user may cost what there is, and one address be everybody.

        An older checkout does not know all of them.
        """
        settings = Path(self.python).parents[2] / "pov_rt/config/settings.py"
        known = settings.read_text() if settings.exists() else None
        wanted = {"cost_rate": '"99999999/s"', "connections_per_address": "0"}
        return "".join(
            f"{name} = {value}\n"
            for name, value in wanted.items()
            if known is None or name in known
        )

    def client(self, user: str, topic: str) -> Client:
        """Return a client with its own token."""
        return super().client(user, topic)._replace(target=f"/ws/?token={token(user, [topic])}")

    def request(self, activities: Sequence[dict[str, Any]]) -> bytes:
        """Return a POST of one activity, or of a batch."""
        lines = "\n".join(map(encode, activities)).encode()
        kind = "application/x-ndjson" if len(activities) > 1 else "application/json"
        return (
            f"POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
            f"Authorization: Bearer {self.service_token}\r\n"
            f"Content-Length: {len(lines)}\r\n\r\n"
        ).encode() + lines

    def place(self, answers: Sequence[bytes]) -> dict[str, Any]:
        """Return the position of the last activity of a batch."""
        last = json.loads(answers[-1])["results"][-1]
        return {"epoch": last["epoch"], "offset": last["offset"]}

    def recovering(self, user: str, topic: str, place: dict[str, Any], seen: int) -> Client:
        """Return a client that subscribes from a position on."""
        subscribe = encode({"type": "subscribe", "povId": topic, "since": place})
        steps = [Step(0, subscribe), Step(1, "", self.subscribed)]
        return self.client(user, topic)._replace(steps=steps, seen=seen)

    def __enter__(self) -> Self:
        claims = {"aud": "pov-rt.service", "userId": "bench", "exp": int(time.time()) + DAY_S}
        self.service_token = jwt.encode(claims, SECRET, "HS256")
        return super().__enter__()


class OursBySocket(Ours):
    """pov-rt, published to over a WebSocket as the peers are, with the grant that this needs."""

    name = "pov-rt, socket"

    def client(self, user: str, topic: str) -> Client:
        """Return a client whose token grants publishing."""
        given = token(user, "*", can=["subscribe", "publish"])
        return super().client(user, topic)._replace(target=f"/ws/?token={given}")

    open_publisher = Peer.open_publisher
    publish = Peer.publish


class OursOnDisk(OursBySocket):
    """pov-rt with its default engine."""

    name = "pov-rt, sqlite"
    engine = "sqlite://"
