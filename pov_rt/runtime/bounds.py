"""Bounds that users share, and the part of each that one of them may hold.

Whoever hands something out that there is a bounded amount of tells of it here: how much is used and
how much there is (metrics), when little is left (a warning at 80 %), and who was refused (a line in
the log, the reason in words). docs/configuration.md has the table of all bounds. Where there is a
queue, its owners take turns: whoever has much to be done waits for it, and nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextvars import ContextVar
from typing import Generic, TypeVar

from pov_rt.runtime.process.logs import Throttle

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

NEARLY = 0.8
"""From this part of a bound on the log warns of it."""
AGAIN = 0.7
"""Below this part the next rise is warned of again."""


payer: ContextVar[str] = ContextVar("payer", default="")
"""The owner (`Identity.owner`) for whom the current task works; empty: the node itself.

Set where a message or request begins, in the task that handles it; whatever that calls, and the
tasks that it starts, work for the same owner."""


class Bound:
    """One bound: its `name` in metrics, the `setting` that moves it (or none), `used` of `limit`.

    `used` is asked for when somebody looks. Owner: whoever hands out what is bounded.
    """

    def __init__(self, name: str, setting: str, limit: float, used: Callable[[], float]) -> None:
        self.name = name
        self.setting = setting
        self.limit = limit
        self.used = used
        self.refused = 0
        """How often somebody was refused: at the bound itself, or at the share of one."""
        self._is_high = False
        self._complaint = Throttle(log, per_s=0.1, burst=5)

    def refuse(self, owner: str, why: str) -> None:
        """Count and log that an owner was refused, and why; the caller answers them."""
        self.refused += 1
        self._complaint.log(
            logging.WARNING, "refused: %s", why, bound=self.name, setting=self.setting, owner=owner
        )

    def look(self) -> None:
        """Warn if it has been nearly used up since the last look."""
        part = self.used() / self.limit
        if part >= NEARLY and not self._is_high:
            self._is_high = True
            log.warning(
                "%s: %d of %d are used, %d %% (%s); see Bounds in docs/configuration.md",
                self.name, self.used(), self.limit, round(100 * part), self.setting or "fixed",
            )  # fmt: skip
        elif part < AGAIN:
            self._is_high = False


class Shares:
    """Hands out amounts of something: `limit` in all, at most `each` to one owner."""

    def __init__(self, name: str, setting: str, limit: float, each: float) -> None:
        self.bound = Bound(name, setting, limit, lambda: self.used)
        self.each = each
        self.used = 0.0
        self._held: dict[str, float] = {}

    def held(self, owner: str) -> float:
        """Return what an owner holds."""
        return self._held.get(owner, 0.0)

    def take(self, owner: str, amount: float = 1) -> bool:
        """Take some for an owner; return False, and take nothing, if there is not enough.

        An owner who holds nothing may take more than a share, and from nothing used anybody may
        take more than there is: what is bounded in sum must not make one large thing impossible.
        """
        if not self.has_share(owner, amount):
            return False
        if self.used and self.used + amount > self.bound.limit:
            self.bound.refuse(owner, f"all {self.bound.limit:g} of {self.bound.name} are in use")
            return False
        self._held[owner] = self.held(owner) + amount
        self.used += amount
        return True

    def has_share(self, owner: str, amount: float) -> bool:
        """Tell whether an owner may hold so much more, as far as the share goes; say if not."""
        held = self.held(owner)
        if held and held + amount > self.each:
            self.bound.refuse(owner, f"one owner may hold {self.each:g} of {self.bound.name}")
            return False
        return True

    def give(self, owner: str, amount: float = 1) -> None:
        """Give back what was taken."""
        left = self._held[owner] - amount
        if left > 0:
            self._held[owner] = left
        else:
            del self._held[owner]
        self.used -= amount


class Bounds:
    """All shared bounds of a node. Owner: the server."""

    def __init__(self) -> None:
        self._bounds: list[Bound] = []

    def __iter__(self) -> Iterator[Bound]:
        return iter(self._bounds)

    def add(self, *bounds: Bound) -> None:
        """Take bounds over, for metrics and warnings."""
        self._bounds += bounds

    def sweep(self) -> None:
        """Warn of those that are nearly used up; called about once a second."""
        for bound in self._bounds:
            bound.look()


class FairQueue(Generic[ItemT]):
    """Items by owner; the owners take turns, and each one's items keep their order.

    It may be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[ItemT]] = {}  # the owner whose turn it is first
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, owner: str) -> int:
        """Return how many of an owner's items wait."""
        return len(self._lines.get(owner, ()))

    def longest(self) -> int:
        """Return how many items wait of the owner of whom most do."""
        with self._lock:
            return max(map(len, self._lines.values()), default=0)

    def put(self, owner: str, item: ItemT) -> None:
        """Put an item behind the owner's others."""
        with self._lock:
            self._size += 1
            line = self._lines.get(owner)
            if line is None:
                line = self._lines[owner] = deque()
            line.append(item)

    def take(self, but_of: Container[str] = ()) -> ItemT | None:
        """Take the next item that is of none of these owners, who should be few; None: no such."""
        with self._lock:
            owner = next((each for each in self._lines if each not in but_of), None)
            if owner is None:
                return None
            line = self._lines.pop(owner)
            item = line.popleft()
            if line:
                self._lines[owner] = line
            self._size -= 1
            return item


class FairSlots:
    """A semaphore with `count` slots, `each` of them for one owner at most (all, if left out).

    Whose a slot is says `payer`, which stays the same within. Those who wait are let in by their
    owners' turns, and each owner's in order.
    """

    def __init__(self, count: int, each: int | None = None) -> None:
        self._free = count
        self._each = count if each is None else each
        self._held: dict[str, int] = {}
        self._served: set[str] = set()
        """Who has all that one may."""
        self._waiting: FairQueue[tuple[str, asyncio.Future[None]]] = FairQueue()

    def has_queue(self) -> bool:
        """Tell whether anybody waits to be let in."""
        return len(self._waiting) > 0

    async def __aenter__(self) -> None:
        owner = payer.get()
        if self._free and owner not in self._served:
            self._enter(owner)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(owner, (owner, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(owner)  # it had been let in just before
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave(payer.get())

    def _enter(self, owner: str) -> None:
        self._free -= 1
        held = self._held[owner] = self._held.get(owner, 0) + 1
        if held >= self._each:
            self._served.add(owner)

    def _leave(self, owner: str) -> None:
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._served.discard(owner)
        # Most leave without anybody waiting, for whom the queue is not even locked.
        while self._free and len(self._waiting):
            next_one = self._waiting.take(self._served)
            if next_one is None:
                return
            waiter, turn = next_one
            if not turn.done():
                self._enter(waiter)
                turn.set_result(None)
