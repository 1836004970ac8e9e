"""Clients of a crowd who watch, over every restart, that nobody is said to have left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from bench.storm import POV, Client
from pov_rt.transport.frames import Opcode
from tests.frames import masked_frame

ASK = json.dumps({"type": "presence", "povId": POV, "id": "who"}).encode()


class Watcher(Client):
    """Asks who is there whenever it has joined, and is told of changes from then on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.left: list[str] = []
        """Who was said to have left."""
        self.present: list[int] = []
        """How many were there, each time it had joined."""

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await super()._join(reader, writer)
        writer.write(masked_frame(Opcode.TEXT, ASK))

    def heard(self, message: dict[str, Any]) -> None:
        """Keep what is said of who is there."""
        if message["type"] == "present":
            self.present.append(len(message["users"]) + message["more"])
        elif message["type"] == "presence_diff":
            self.left += message["left"]
