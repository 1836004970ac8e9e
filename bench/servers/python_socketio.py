"""A peer: python-socketio on aiohttp, with a room per PoV."""

from __future__ import annotations

import sys
from typing import Any

import socketio
from aiohttp import web

server = socketio.AsyncServer(
    async_mode="aiohttp", transports=["websocket"], ping_timeout=600, cors_allowed_origins=[]
)


@server.event
async def ping(sid: str, data: Any = None) -> None:
    """Answer."""
    await server.emit("pong", {}, to=sid)


@server.event
async def subscribe(sid: str, data: Any) -> None:
    """Enter a room."""
    await server.enter_room(sid, data["povId"])
    await server.emit("subscribed", data, to=sid)


@server.event
async def publish(sid: str, data: Any) -> None:
    """Tell a room."""
    await server.emit("activity", data, room=data["povId"])


app = web.Application()
server.attach(app)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), backlog=1024, print=None)
