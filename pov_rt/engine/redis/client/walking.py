"""Walks through what is too much for one call: some of it in a step, so that others get their turn.

What is there all the while is found; what comes or goes meanwhile is found or not, or twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable

from pov_rt.engine.redis.client.connection import Reply
from pov_rt.engine.redis.client.functions import Functions

START = b"0"
"""The cursor that a walk begins with, and that its last step returns."""
WIDTH = 8
"""Partitions that are walked through at a time: Redis does their steps one after the other, and
whoever asks for something else waits for them all."""


async def walk(
    functions: Functions,
    name: str,
    prefixes: Iterable[bytes],
    *args: bytes | str | int,
    repeats: bool = True,
) -> AsyncIterator[tuple[bytes, list[Reply]]]:
    """Call a function whose first argument and first result is a cursor, until that ends.

    Yields the prefix of each step, and what it returned behind the cursor. Raises `Unavailable`.
    """
    waiting = deque((prefix, START) for prefix in prefixes)
    while waiting:
        some = [waiting.popleft() for _ in range(min(WIDTH, len(waiting)))]
        calls = [functions.pack(name, prefix, cursor, *args) for prefix, cursor in some]
        replies = await functions.call_all(calls, repeats=repeats)
        for (prefix, _), (cursor, *page) in zip(some, replies, strict=True):
            if cursor != START:
                waiting.appendleft((prefix, cursor))
            yield prefix, page
