"""How much of a turn of the event loop each kind of work gets.

What would keep the loop for long, and so everybody waiting, is cut into turns. docs/architecture.md
has this table in words, and a test compares them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

SENDS = 128
"""Connections that are sent to: each of those of topics with few subscribers, of those of topics
with many, and of those that catch up."""
SENT_BYTES = 256 * 1024
"""What is published for one connection, on all its topics. More is replayed to it, at its pace: no
client could read a publisher's 4 MiB before it counted as slow."""
HANDLERS = 4
"""Handlers of a connection that begin, of those that have others wait; then it is read no more.
Others have their turn, and what is published is sent before more is taken."""
DISCONNECTS = 32
"""Connections that have ended and are released."""
LEASES = 256
"""Leases whose end is told."""
MEMBERS = 256
"""Members of rosters that are looked at."""
ACCEPTS = 256
"""Connections that a listener accepts: a small part of what a handshake takes, and who publishes
stands in the same line."""
REQUESTS = 32
"""Requests over HTTP that are begun: each is answered in its turn, if it can."""
HANDSHAKES = 32
"""Requests that would become sockets, and are begun. They have a queue of their own: who publishes
does not wait for thousands who come back at once (docs/measurements.md, restarts). With fewer one
takes more CPU, for the processor does the same thing over and over; with more everybody else waits
longer for the next turn (docs/measurements.md, accepts)."""
FEW_HANDSHAKES = 4
"""The same while open sockets wait to be subscribed. Let in at full pace, thousands who are back
would wait in that line for longer than a handler may take (docs/measurements.md, everybody back).
"""
LISTED = 500
"""Things that are looked at for an operator's list."""

ItemT = TypeVar("ItemT")


class Backlog(Generic[ItemT]):
    """Work on items, up to `budget` of them in each turn. Owner: who adds to it.

    What `work` raises in a turn is told to the loop's exception handler, and the others go on.
    """

    def __init__(self, budget: int, work: Callable[[ItemT], None]) -> None:
        self._budget = budget
        self._work = work
        self._items: deque[ItemT] = deque()
        self._is_scheduled = False

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: ItemT) -> None:
        """Work on an item in the next turn, or when those before it are done."""
        self._items.append(item)
        self._schedule()

    def finish(self) -> None:
        """Work on all that is left, now. Raises what `work` does."""
        while self._items:
            self._work(self._items.popleft())

    def _schedule(self) -> None:
        if self._items and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        try:
            for _ in range(min(self._budget, len(self._items))):
                self._work(self._items.popleft())
        finally:
            self._schedule()


class Slots:
    """Lets up to `budget` go on in each turn; the others wait, in order. Owner: its user.

    Only `few`, while `is_behind` tells that those who went on before are still waiting elsewhere.
    """

    def __init__(
        self, budget: int, few: int = 0, is_behind: Callable[[], bool] = lambda: False
    ) -> None:
        self._budget = budget
        self._few = few
        self._is_behind = is_behind
        self._used = 0
        self._is_scheduled = False
        self._waiting: deque[Callable[[], bool]] = deque()

    def take_now(self) -> bool:
        """Take a slot of this turn; return False if there is none, or others wait for one."""
        if self._waiting or self._used >= self._most():
            return False
        self._use()
        return True

    def wait(self, go_on: Callable[[], bool]) -> None:
        """Call something in a later turn, behind those who wait already.

        It returns whether it has used its slot: who has gone meanwhile needs none.
        """
        self._waiting.append(go_on)

    async def take(self) -> None:
        """Wait for a slot of this turn or a later one."""
        if self.take_now():
            return
        turn = asyncio.get_running_loop().create_future()

        def go_on() -> bool:
            if turn.done():
                return False
            turn.set_result(None)
            return True

        self.wait(go_on)
        await turn

    def _most(self) -> int:
        return self._few if self._is_behind() else self._budget

    def _use(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._used += 1

    def _end_turn(self) -> None:
        self._is_scheduled = False
        self._used, most = 0, self._most()
        while self._waiting and self._used < most:
            go_on = self._waiting.popleft()
            self._use()  # first: should it fail, the others have their turn all the same
            if not go_on():
                self._used -= 1


async def spread(items: Iterable[ItemT], budget: int) -> AsyncIterator[ItemT]:
    """Yield items, up to `budget` of them in each turn. What leads to them is taken at once."""
    for done, item in enumerate(list(items), 1):
        yield item
        if not done % budget:
            await asyncio.sleep(0)
