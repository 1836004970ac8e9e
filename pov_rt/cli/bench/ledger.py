"""What was published, and who got what of it when: nothing is believed that was not counted."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

STEP = 1.02
"""Times are kept to 2 %, so that a long run needs no more memory than a short one."""
LEAST_S = 1e-5


class Spread:
    """Times, as a histogram of fine steps."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.longest_s = 0.0

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[math.ceil(math.log(max(seconds, LEAST_S) / LEAST_S, STEP))] += 1
        self.longest_s = max(self.longest_s, seconds)

    def quantile(self, part: float) -> float | None:
        """Return the seconds that this part took at most; None without any."""
        left = math.ceil(part * len(self))
        for step, count in sorted(self._counts.items()):
            left -= count
            if left <= 0:
                return min(LEAST_S * STEP**step, self.longest_s)
        return None

    def doublings(self) -> Iterator[tuple[float, int]]:
        """Yield how many took up to each time, and more than half of it, without gaps between."""
        found: Counter[int] = Counter()
        for step, count in self._counts.items():
            found[math.ceil(math.log2(LEAST_S * STEP**step * 1000) - 1e-9)] += count
        for power in range(min(found, default=0), max(found, default=-1) + 1):
            yield 2.0**power / 1000, found[power]


class Ledger:
    """One run: message `number` is on PoV `number % povs`, client `each` follows `each % povs`.

    Times are the loop's, in seconds. A message counts from the instant at which it was due, whether
    or not its publisher was late: a server that holds its publishers up must not look better.
    """

    def __init__(self, clients: int, slow: int, povs: int, late_s: float) -> None:
        self.povs = povs
        self.late_s = late_s
        self.is_slow = [each >= clients - slow for each in range(clients)]
        self.acknowledged, self.delivered, self.delivered_slow = Spread(), Spread(), Spread()
        self.late = self.refused = self.gaps = 0
        self.repeated = 0
        """How many the server sent a client again at the offset that they had been sent at."""
        self.refusals: Counter[str] = Counter()
        """Why, of those that were refused."""
        self.changed_at = 0.0
        """When a client got something, the last time."""
        self._due = array("d")
        self._accepted = bytearray()
        self._accepted_of = [0] * povs
        self._got = [bytearray() for _ in range(clients)]
        self._got_of = [0] * clients

    @property
    def sent(self) -> int:
        """How many were sent."""
        return len(self._due)

    @property
    def accepted(self) -> int:
        """How many were acknowledged."""
        return sum(self._accepted_of)

    def send(self, due: float) -> None:
        """Note the next message."""
        self._due.append(due)
        self._accepted.append(0)

    def accept(self, number: int, now: float) -> None:
        """Note that a message was acknowledged."""
        self._accepted[number] = 1
        self._accepted_of[number % self.povs] += 1
        self.acknowledged.add(now - self._due[number])

    def refuse(self, why: str) -> None:
        """Note that a message was refused, or not answered in time."""
        self.refused += 1
        self.refusals[why] += 1

    def receive(self, client: int, number: int, now: float) -> None:
        """Note what a client got."""
        got = self._got[client]
        if len(got) <= number:
            got.extend(bytes(len(self._due) - len(got)))
        self.changed_at = now
        if got[number]:
            got[number] = min(got[number] + 1, 255)
            return
        got[number] = 1
        self._got_of[client] += 1
        took_s = now - self._due[number]
        if self.is_slow[client]:
            self.delivered_slow.add(took_s)
        else:
            self.delivered.add(took_s)
            self.late += took_s > self.late_s  # a slow client's are late by its own will

    def is_complete(self) -> bool:
        """Tell whether everybody seems to have all; `lost` says it exactly."""
        return all(
            got >= self._accepted_of[client % self.povs] for client, got in enumerate(self._got_of)
        )

    @property
    def expected(self) -> int:
        """How many deliveries there have to be."""
        return sum(self._accepted_of[client % self.povs] for client in range(len(self._got)))

    @property
    def received(self) -> int:
        """How many there were, each message once for each client."""
        return sum(self._got_of)

    @property
    def lost(self) -> int:
        """How many that were acknowledged did not come to somebody who follows their PoV."""
        lost = 0
        for client, got in enumerate(self._got):
            mine = self._of(client, self._accepted)
            has = self._of(client, got)
            lost += sum(each and not (at < len(has) and has[at]) for at, each in enumerate(mine))
        return lost

    @property
    def twice(self) -> int:
        """How many came to somebody again: at another offset, or at the same."""
        return sum(max(0, count - 1) for got in self._got for count in got) + self.repeated

    def _of(self, client: int, flags: bytearray) -> Sequence[int]:
        """Return the flags of the messages on a client's PoV."""
        return flags[client % self.povs :: self.povs]
