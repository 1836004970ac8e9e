"""Waiting for what nobody tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

POLL_S = 0.05


async def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, as looked at now and then."""
    while not is_so():  # noqa: ASYNC110  (an event for each would be set at every delivery)
        await asyncio.sleep(POLL_S)
