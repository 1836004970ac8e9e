"""A peer: `picows`, a WebSocket library in Cython."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

subscribers: defaultdict[str, set[WSTransport]] = defaultdict(set)


class Listener(WSListener):
    """One client."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Serve one message."""
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            return
        if frame.msg_type != WSMsgType.TEXT:
            return
        message = json.loads(frame.get_payload_as_bytes())
        if message["type"] == "ping":
            transport.send(WSMsgType.TEXT, b'{"type":"pong"}')
        elif message["type"] == "subscribe":
            subscribers[message["povId"]].add(transport)
            reply = {"type": "subscribed", "povId": message["povId"]}
            transport.send(WSMsgType.TEXT, json.dumps(reply).encode())
        elif message["type"] == "publish":
            data = message["data"]
            body = json.dumps({"type": "activity", "data": data}).encode()
            for each in subscribers[data["povId"]]:
                each.send(WSMsgType.TEXT, body)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget the client."""
        for members in subscribers.values():
            members.discard(transport)


async def main() -> None:
    """Serve until killed."""

    def listener(_: Any) -> WSListener:
        return Listener()

    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


asyncio.run(main())
