"""A peer: the `websockets` library, with its `broadcast`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve

subscribers: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def handle(socket: ServerConnection) -> None:
    """Serve one client."""
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "ping":
            await socket.send('{"type":"pong"}')
        elif message["type"] == "subscribe":
            subscribers[message["povId"]].add(socket)
            await socket.send(json.dumps({"type": "subscribed", "povId": message["povId"]}))
        elif message["type"] == "publish":
            data = message["data"]
            broadcast(subscribers[data["povId"]], json.dumps({"type": "activity", "data": data}))
    for members in subscribers.values():
        members.discard(socket)


async def main() -> None:
    """Serve until killed."""
    port = int(sys.argv[1])
    # No pings: the publisher, which answers none, would be dropped between two rounds.
    async with serve(handle, "127.0.0.1", port, compression=None, ping_interval=None, backlog=1024):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
