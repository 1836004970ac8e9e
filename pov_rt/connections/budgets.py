"""What users may cost: one budget for each, over all connections and HTTP, and what has a price.

The unit is about a tenth of a millisecond of the server's time. A message type and a route have a
price of their own (`plugin.on`, `plugin.http`), which is paid before they are handled. What they
really cost is charged where it happens, by the prices below: the budget may go into debt, and the
owner's next message is `rate_limited`. docs/configuration.md has the table of all prices.

What services publish over HTTP costs nothing here: it is bounded by what waits for the disk
(`engine.backlog_bytes`).
"""

from __future__ import annotations

from pov_rt.protocol.errors import RateLimited, Unavailable
from pov_rt.runtime.bounds import Bound, FairSlots, Shares, payer
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.limits import Budget, Terms, parse_rate

CONNECTION = 10.0
"""A handshake, with the connection's end."""
ACTIVITY = 0.1
"""Of a page of history that is decoded and encoded again."""
ROW = 0.02
"""That is read: an activity that is sent as it is stored, left out, or counted; a member."""
READ_BYTE = 0.005 / 1024
"""Of activities that are counted, and not sent."""
BYTE = 0.1 / 1024
"""Of an answer, of a body over HTTP or for another node, or of what is sent again."""
RECEIVED_BYTE = 0.3 / 1024
"""Of a message: to decode and check it, and to store what it publishes."""
DELIVERY = 0.05
"""Of what a user publishes, to one subscriber."""

BURST_S = 3.0
"""A budget holds what it gets in this time."""
DEBT_S = 10.0
"""The longest that an owner can be told to wait."""
MAX_OWNERS = 100_000
"""Budgets that are not full; past that the fullest half of them is forgotten."""


LARGE_BYTES = 64 * 1024
"""An answer of more counts among the pages that are under way."""
AT_WORK = 4
"""Pages that are read and encoded at a time: each may hold as much as its entries have."""
SHARE = 8
"""One user may have this part of the pages that are under way."""


class Pages(Shares):
    """Bytes of large answers that their clients have not read yet. Owner: the server."""

    def __init__(self, total: int) -> None:
        super().__init__("pages", "limits.pages_bytes", total, total / SHARE)
        self.at_work = FairSlots(AT_WORK)
        """Entered to read a page, by users in turn."""

    def begin(self, owner: str, size: int) -> None:
        """Count an answer; `give` ends it. Raises `RateLimited` or `Unavailable`."""
        is_own = self.held(owner) > 0
        if not self.take(owner, size):
            if is_own:
                raise RateLimited("Read first what you asked for before", retry_after_s=1.0)
            raise Unavailable("Too much is on its way to others", retry_after_s=1.0)


class Budgets:
    """The budgets of all owners (`Identity.owner`). Owner: the server."""

    def __init__(self, rate: str, clock: Clock) -> None:
        self._terms = Terms.of(parse_rate(rate, BURST_S), DEBT_S)
        self._clock = clock
        # One for each owner as long as anybody holds it, such as a connection. Of those that nobody
        # does, those are kept that are not full: they would be full again as new ones. Counted, for
        # weak references would take more than what they lead to (docs/measurements.md, idle parts).
        self._by_owner: dict[str, Budget] = {}
        self._kept: dict[str, Budget] = {}
        self.bound = Bound("budgets", "limits.cost_rate", MAX_OWNERS, lambda: len(self._kept))

    def of(self, owner: str) -> Budget:
        """Return an owner's budget, for this very moment."""
        budget = self._by_owner.get(owner)
        if budget is None:
            now = self._clock.monotonic()
            budget = self._by_owner[owner] = Budget(owner, self._terms, now)
        self._kept[owner] = budget
        return budget

    def hold(self, owner: str) -> Budget:
        """Return an owner's budget, which is the only one until `release`."""
        budget = self.of(owner)
        budget.users += 1
        return budget

    def release(self, budget: Budget) -> None:
        """Keep a budget that was held until it is full."""
        budget.users -= 1
        self._kept[budget.owner] = budget

    def pay(self, owner: str, price: float) -> None:
        """Charge a price before what it is for. Raises `RateLimited` while there is a debt."""
        if price and (wait := self.of(owner).pay(price, self._clock.monotonic())):
            raise self.refusal(owner, wait)

    def check(self) -> None:
        """Raise `RateLimited` if the owner for whom the task works is in debt by now.

        For what had to wait for its turn: many may have paid a small price at the door at once,
        before the first of them was charged what it really cost.
        """
        if (owner := payer.get()) and (wait := self.debt_s(owner)) > 0:
            raise self.refusal(owner, wait)

    def charge(self, cost: float) -> None:
        """Charge what was done to the owner for whom the task works; the node itself is free."""
        if owner := payer.get():
            self.charge_owner(owner, cost)

    def charge_owner(self, owner: str, cost: float) -> None:
        """Charge what was done to an owner."""
        self.of(owner).charge(cost, self._clock.monotonic())

    async def spare(self) -> None:
        """Wait until the owner for whom the task works has enough for what can wait."""
        if owner := payer.get():
            await self.of(owner).spare(self._clock.monotonic)

    def debt_s(self, owner: str) -> float:
        """Return for how long an owner is in debt; 0 or less: it is in none."""
        budget = self._by_owner.get(owner)
        return 0.0 if budget is None else budget.paid_at - self._clock.monotonic()

    def refusal(self, owner: str, wait: float) -> RateLimited:
        """Return the error for an owner who is in debt for so long."""
        self.bound.refuse(owner, "the owner has used up the budget of limits.cost_rate")
        return RateLimited("You asked for more than your budget allows", retry_after_s=wait)

    def sweep(self, now: float) -> None:
        """Forget full ones; called about once a second."""
        before = self._kept
        kept = {owner: budget for owner, budget in before.items() if not budget.is_full(now)}
        if len(kept) > MAX_OWNERS:
            owing = sorted(kept.values(), key=lambda budget: -budget.paid_at)
            kept = {budget.owner: budget for budget in owing[: MAX_OWNERS // 2]}
        for owner, budget in before.items():
            if owner not in kept and not budget.users:
                del self._by_owner[owner]
        self._kept = kept
