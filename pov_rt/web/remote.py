"""The commands' way to a running server: publish over HTTP, follow a PoV over a socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

BATCH = 500


class RemoteError(Exception):
    """The server cannot be reached or refuses; the text says what to do."""


async def publish(url: str, token: str, lines: Iterable[bytes]) -> int:
    """Publish JSON lines in batches; name what was refused and return how many that were."""
    refused = number = 0
    numbered = ((index, line) for index, line in enumerate(lines, 1) if line.strip())
    for batch in _batches(numbered):
        results = await _post(url, token, b"\n".join(line.strip() for _, line in batch))
        for (number, _), result in zip(batch, results, strict=True):
            if error := result.get("error"):
                refused += 1
                print(f"line {number}: {error['message']} ({error['code']})", file=sys.stderr)
    return refused


async def tail(url: str, token: str, pov: str, *, count: int | None, colours: bool) -> None:
    """Print the activities of a PoV, the first `count` of them or until the socket ends."""
    try:
        socket = await websocket_connect(url, subprotocols=["pov-rt.v1", f"bearer.{token}"])
    except (OSError, HTTPClientError, ValueError) as error:
        raise RemoteError(_explain(url, error)) from error
    await socket.write_message(json.dumps({"type": "subscribe", "povId": pov}))
    left = count
    while left is None or left > 0:
        text = await socket.read_message()
        if text is None:
            why = f"{socket.close_code} {socket.close_reason}" if socket.close_code else "no reason"
            raise RemoteError(f"the server closed the connection: {why}")
        message = json.loads(text)
        kind = message["type"]
        if kind == "error":
            raise RemoteError(f"the server refuses: {message['message']} ({message['code']})")
        if kind == "subscribed":
            print(f"following {pov}, {message['offset']} activities so far", file=sys.stderr)
        elif kind == "activity":
            print(format_activity(message, colours=colours), flush=True)
            left = None if left is None else left - 1
    socket.close(1000)


def format_activity(message: dict[str, Any], *, colours: bool) -> str:
    """Return a line for people on a terminal, else the activity as JSON."""
    data = message["data"]
    if not colours:
        return json.dumps({**data, "offset": message["offset"]}, ensure_ascii=False)
    # Others' words on a terminal: no character may move the cursor or change colours.
    what = json.dumps(data.get("details", {}), ensure_ascii=False)
    parts = [data.get("at", "")[11:19], data["povId"], data["userId"]]
    time, pov, user = ("".join(filter(str.isprintable, part)) for part in parts)
    happened = f"{data['type']}.{data['action']}"
    return (
        f"\x1b[2m{time}\x1b[0m \x1b[36m{pov}\x1b[0m {user} \x1b[1m{happened}\x1b[0m "
        f"{''.join(filter(str.isprintable, what)) if data.get('details') else ''}".rstrip()
    )


async def _post(url: str, token: str, body: bytes) -> list[dict[str, Any]]:
    request = HTTPRequest(
        f"{url.rstrip('/')}/api/activities",
        method="POST",
        body=body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"},
    )
    try:
        answer = await AsyncHTTPClient().fetch(request, raise_error=False)
    except (OSError, HTTPClientError, ValueError) as error:
        raise RemoteError(_explain(url, error)) from error
    if answer.code != 200:
        try:
            message = json.loads(answer.body)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = str(answer.error)
        raise RemoteError(f"{url} answers {answer.code}: {message}")
    results: list[dict[str, Any]] = json.loads(answer.body)["results"]
    return results


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _explain(url: str, error: Exception) -> str:
    address = url.partition("?")[0]
    if isinstance(error, HTTPClientError) and error.code == 401:
        return f"{address} refuses the token (401); make one with: pov-rt token --user NAME"
    if isinstance(error, ConnectionError):
        return f"nobody listens at {address}; start the server with: pov-rt serve --dev"
    return f"cannot connect to {address}: {error}"
