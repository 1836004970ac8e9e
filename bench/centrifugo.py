"""Centrifugo, the server that comes nearest to ours: how it is built, started and spoken to.

It is measured as one would deploy it for the same promises: a token for each connection, and
channels with a history, positions and recovery, all in its memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jwt

from bench.load import Client, Step
from bench.peers import DAY_S, SECRET, HttpPublisher, Peer, encode

MODULE, VERSION = "github.com/centrifugal/centrifugo/v6", "v6.9.1"
NEEDED_GO = (1, 24)
BUILT = Path(__file__).parents[1] / "build" / f"centrifugo-{VERSION}"
KEY = "the key of the benchmark, which is no secret"
HISTORY = 1000
QUEUE = 64 * 1024 * 1024
"""Bytes."""


@cache
def find_centrifugo() -> Path | None:
    """Return the program, built if it is not there; None, with a word, where that cannot be."""
    if BUILT.exists():
        return BUILT
    why = _why_not()
    if not why:
        print(f"  building Centrifugo {VERSION}, which takes some minutes ...", file=sys.stderr)
        folder = BUILT.parent / "go-bin"
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["go", "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            (folder / "centrifugo").rename(BUILT)
            return BUILT
        why = (done.stderr.strip().splitlines() or ["go install failed"])[-1]
    print(f"  Centrifugo is left out: {why}", file=sys.stderr)
    return None


def _why_not() -> str:
    needed = f"it is built with Go {'.'.join(map(str, NEEDED_GO))} or newer"
    if shutil.which("go") is None:
        return f"{needed}, and there is no go"
    text = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", text)
    if found is None or tuple(map(int, found.groups())) < NEEDED_GO:
        return f"{needed}; this is {text.strip()}"
    return ""


def with_centrifugo(kinds: Sequence[type[Peer]], *more: type[Peer]) -> list[type[Peer]]:
    """Return the kinds of peers, and these too where Centrifugo can be had."""
    return [*kinds, *(more if find_centrifugo() else ())]


class Centrifugo(HttpPublisher):
    """Centrifugo, published to over HTTP; bursts are one request."""

    name = "centrifugo"
    # Its clients do not ping. What comes nearest is a call, which costs least when nobody takes it.
    ping = '{"id":3,"rpc":{"method":"ping"}}'
    pong = '{"id":3,'
    subscribed = '{"id":2,"subscribe"'
    acknowledgement = '{"id":4,"publish"'
    growing = '"offset":'
    recovered = '"publications":['
    publishers = 64
    parallel = False
    """Whether it does what is in a batch at once, in any order."""

    def command(self) -> list[str]:
        """Return what to run."""
        channel = {
            "allow_subscribe_for_client": True,
            "allow_publish_for_client": True,
            "history_size": HISTORY,
            "history_ttl": "1h",
            "force_positioning": True,
            "force_recovery": True,
        }
        config = self.folder / "config.json"
        config.write_text(
            json.dumps(
                {
                    "http_server": {"address": "127.0.0.1", "port": str(self.port)},
                    # It would close a subscriber that the load has no time to read for.
                    "client": {"token": {"hmac_secret_key": SECRET}, "queue_max_size": QUEUE},
                    "channel": {"without_namespace": channel},
                    "engine": self.engine(),
                    "http_api": {"key": KEY},
                    "log": {"level": "error"},
                }
            )
        )
        program = find_centrifugo()
        if program is None:
            raise SystemExit("Centrifugo cannot be had here, as the line above says")
        return [str(program), "-c", str(config)]

    def engine(self) -> dict[str, Any]:
        """Return where it keeps what it keeps."""
        return {"type": "memory"}

    def client(self, user: str, topic: str, **more: object) -> Client:
        """Return a client with its own token; `more` is what it subscribes with."""
        claims = {"sub": user, "exp": int(time.time()) + DAY_S}
        connect = {"id": 1, "connect": {"token": jwt.encode(claims, SECRET, "HS256")}}
        subscribe = {"id": 2, "subscribe": {"channel": topic, **more}}
        steps = [
            Step(0, encode(connect)),
            Step(1, encode(subscribe), '{"id":1,"connect"'),
            Step(1, "", self.subscribed),
        ]
        return Client("/connection/websocket", steps)

    def place(self, answers: Sequence[bytes]) -> dict[str, Any]:
        """Return the position of the last publication of a batch."""
        last = json.loads(answers[-1])["replies"][-1]["publish"]
        return {"epoch": last["epoch"], "offset": last["offset"]}

    def recovering(self, user: str, topic: str, place: dict[str, Any], seen: int) -> Client:
        """Return a client that recovers from a position on: all comes in its answer."""
        return self.client(user, topic, recover=True, **place)._replace(seen=seen)

    def publication(self, each: dict[str, Any]) -> str:
        """Return the command that publishes."""
        return encode({"id": 4, "publish": {"channel": each["povId"], "data": each}})

    def request(self, activities: Sequence[dict[str, Any]]) -> bytes:
        """Return a request of one activity, or of a batch."""
        found = [{"channel": each["povId"], "data": each} for each in activities]
        path, body = "/api/publish", encode(found[0])
        if len(found) > 1:
            commands = [{"publish": each} for each in found]
            path, body = "/api/batch", encode({"commands": commands, "parallel": self.parallel})
        return (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"X-API-Key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


class CentrifugoBySocket(Centrifugo):
    """Centrifugo, published to by its clients."""

    name = "centrifugo, socket"
    open_publisher = Peer.open_publisher
    publish = Peer.publish
