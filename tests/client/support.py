"""What the tests of the client share: a server's restarts, and activities that are published."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from pov_rt.client import NewActivity, PlacedActivity, PovClient, Subscription
from pov_rt.config.settings import Settings
from pov_rt.protocol.errors import CloseCode
from pov_rt.testing import RunningServer, make_settings

ValueT = TypeVar("ValueT")


def new(pov: str = "acme", id: str | UnsetType = UNSET, **details: Any) -> NewActivity:
    return NewActivity(id=id, type="task", action="done", pov_id=pov, details=details)


def run(work: Callable[[], Awaitable[ValueT]]) -> ValueT:
    """Run something on a loop of its own, which has to end by itself."""

    async def main() -> ValueT:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(main())


async def take(following: Subscription, count: int) -> list[PlacedActivity]:
    found: list[PlacedActivity] = []
    while len(found) < count:
        found.append(await anext(following))
    return found


async def offsets(following: Subscription, count: int) -> list[int]:
    return [each.offset for each in await take(following, count)]


async def settled(rt: PovClient) -> None:
    """Wait until all that is followed is subscribed to."""
    await rt.request({"type": "ping"})


def cut(server: RunningServer, user: str = "ana", code: CloseCode = CloseCode.GAP) -> None:
    """End a user's connections, with a code after which clients come back."""
    directory = server.web.server.directory

    def disconnect() -> None:
        directory.disconnect(user_id=user, connection_id=None, code=code)

    server.call(disconnect)


def kept_settings(folder: Path, port: int = 0, **engine: Any) -> Settings:
    """Return settings of a server that remembers, also when it is started anew."""
    return make_settings(
        server={"port": port, "data": str(folder)},
        engine={"url": f"sqlite://{folder}/log.db", **engine},
        limits={"message_rate": "500/s"},
    )


def kept_server(
    folder: Path, port: int = 0, **engine: Any
) -> AbstractContextManager[RunningServer]:
    return RunningServer(kept_settings(folder, port, **engine), None)
