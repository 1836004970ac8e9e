"""An attacker for the benchmark: a process that does to a server what it is told, until its end.

`python -m bench.attack PORT < attack.json`. The attack is a list of `Crowd`s as objects; bytes are
hex. It prints `ready` once all connections of all crowds were tried, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

RETRY_S = 2.0
"""Who is hung up on, or not let in, comes again after this."""
WINDOW = 200
"""Connections that are being opened at a time."""


@dataclass
class Crowd:
    """Connections that do the same: each sends `opening`, then one of `messages` at each turn.

    `rate` is in messages a second and connection; 0: nothing after the opening. `reads`: what comes
    is read away. `stays_s`: it leaves after so long, and comes again at once; 0: it stays. They
    come from so many `addresses` of this machine; 0: from 127.0.0.1.
    """

    connections: int
    opening: str = ""
    messages: list[str] = field(default_factory=list)
    rate: float = 0.0
    reads: bool = True
    stays_s: float = 0.0
    addresses: int = 0

    def address(self, index: int) -> tuple[str, int] | None:
        """Return from where a connection comes."""
        return (f"127.0.1.{1 + index % self.addresses}", 0) if self.addresses else None


class Attacker:
    """All crowds of a process."""

    def __init__(self, port: int, crowds: list[Crowd]) -> None:
        self._port = port
        self._crowds = crowds
        self._opening = asyncio.Semaphore(WINDOW)
        self._messages: dict[int, list[bytes]] = {}
        self._tried = 0
        self._all = sum(crowd.connections for crowd in crowds)

    async def run(self) -> None:
        """Attack until the input ends."""
        tasks = [
            asyncio.create_task(self._go_on(crowd, index))
            for crowd in self._crowds
            for index in range(crowd.connections)
        ]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _go_on(self, crowd: Crowd, index: int) -> None:
        """Be one connection of a crowd, and another one whenever it has ended."""
        chosen = random.Random(index)  # noqa: S311  (a seed, no secret)
        opening = bytes.fromhex(crowd.opening)
        is_first = True
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                async with self._opening:
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", self._port, limit=2**16, local_addr=crowd.address(index)
                    )
                    writer.write(opening)
                if is_first:
                    self._count()
                    is_first = False
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._talk(crowd, chosen, writer))
                        if crowd.reads:
                            group.create_task(self._read(reader))
                except* OSError:
                    pass
                except* Ended:
                    pass
                finally:
                    writer.transport.abort()
            if is_first:
                self._count()
                is_first = False
            if not crowd.stays_s:
                await asyncio.sleep(RETRY_S)

    def _count(self) -> None:
        self._tried += 1
        if self._tried == self._all:
            print("ready", flush=True)

    async def _talk(self, crowd: Crowd, chosen: random.Random, writer: Any) -> None:
        loop = asyncio.get_running_loop()
        messages = self._decoded(crowd)
        began, sent = loop.time(), 0
        while not crowd.stays_s or loop.time() < began + crowd.stays_s:
            if not crowd.rate:
                await asyncio.sleep(crowd.stays_s or 3600)
                continue
            await asyncio.sleep(max(0.0, began + sent / crowd.rate - loop.time()))
            writer.write(chosen.choice(messages))
            sent += 1
            if crowd.reads:
                await writer.drain()
        raise Ended

    def _decoded(self, crowd: Crowd) -> list[bytes]:
        if id(crowd) not in self._messages:
            self._messages[id(crowd)] = [*map(bytes.fromhex, crowd.messages)]
        return self._messages[id(crowd)]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(2**16):
            pass
        raise Ended


class Ended(Exception):
    """A connection is over."""


def main() -> None:
    """Attack."""
    crowds = [Crowd(**each) for each in json.loads(sys.stdin.readline())]
    asyncio.run(Attacker(int(sys.argv[1]), crowds).run())


if __name__ == "__main__":
    main()
