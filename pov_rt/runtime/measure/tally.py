"""How often things happened, by the value of a label: a counter of Prometheus.

A series that is born with its first event has no rise from nothing, so that `rate()` and
`increase()` miss that event, and an alert on the first one never comes. So the rule is: who counts
declares what there is to count, and all of that is there from the start, at 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

from pov_rt.protocol.errors import ERRORS

ValueT = TypeVar("ValueT", bound=Hashable)

OTHER = "other"
MOST_UNDECLARED = 100
"""Values that nobody declared, such as a plugin's own error codes: each is a series for ever."""


class Tally(dict[ValueT, int]):
    """The counts by value. Those declared are there from the start.

    Where only declared values come, `tally[value] += 1` counts as fast as a dict does. Others are
    for `add`: they are entered as they come, `most` of them, and then all count as `other`.
    """

    def __init__(
        self, declared: Iterable[ValueT], other: ValueT, *, most: int = MOST_UNDECLARED
    ) -> None:
        super().__init__(dict.fromkeys(declared, 0))
        self._other = other
        self._room = most

    def add(self, value: ValueT, number: int = 1) -> None:
        """Count a value, declared or not."""
        if value not in self:
            if self._room <= 0:
                value = self._other
            self._room -= 1
        self[value] = self.get(value, 0) + number


def tally_of_errors() -> Tally[str]:
    """Return a tally of error codes; plugins have some of their own."""
    return Tally((error.code for error in ERRORS), OTHER)
