"""A peer: Tornado as its documentation shows it, checking the token and subscribing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

import jwt
from tornado.web import Application
from tornado.websocket import WebSocketHandler

SECRET = sys.argv[2]
subscribers: defaultdict[str, set[WebSocketHandler]] = defaultdict(set)


class Socket(WebSocketHandler):
    """One client."""

    def prepare(self) -> None:
        """Check the token before the upgrade."""
        try:
            self.claims = jwt.decode(self.get_argument("token"), SECRET, ["HS256"])
        except jwt.InvalidTokenError:
            self.set_status(401)
            self.finish()

    def open(self) -> None:
        """Disable Nagle's algorithm, as one has to."""
        self.set_nodelay(True)

    async def on_message(self, text: str | bytes) -> None:
        """Serve one message."""
        message = json.loads(text)
        if message["type"] == "ping":
            await self.write_message({"type": "pong"})
        elif message["type"] == "subscribe":
            subscribers[message["povId"]].add(self)
            await self.write_message({"type": "subscribed", "povId": message["povId"]})
        elif message["type"] == "publish":
            data = message["data"]
            body = json.dumps({"type": "activity", "data": data})
            for each in subscribers[data["povId"]]:
                each.write_message(body)

    def on_close(self) -> None:
        """Forget the client."""
        for members in subscribers.values():
            members.discard(self)


async def main() -> None:
    """Serve until killed."""
    app = Application([(r"/ws/", Socket)], websocket_ping_interval=25)
    app.listen(int(sys.argv[1]), "127.0.0.1", backlog=1024)
    await asyncio.Event().wait()


asyncio.run(main())
