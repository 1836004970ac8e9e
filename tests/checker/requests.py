"""What a member has asked and has not been answered yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tests.checker.activities import Activity
from tests.checker.courses import EVERYTHING, Filter
from tests.checker.records import Place


@dataclass
class Request:
    """A message that has no answer yet."""

    kind: str
    topic: str = ""
    only: Filter = EVERYTHING
    since: Place | None = None
    cursor: bool = False
    last: int = 0
    offset: int = 0
    floor: int = 0
    """What was confirmed already when it was sent."""
    activity: Activity | None = None
    echo: bool = True
    povs: Collection[str] = ()
    refreshes: int = 0
    at: float = 0.0
    confirmed: dict[str, Place] = field(default_factory=dict)

    @property
    def is_ordered(self) -> bool:
        """Whether it is answered in its turn.

        Some are answered at once, and what is published without an echo in its place in the stream.
        """
        return self.echo and self.kind not in ("refresh", "ping")

    def __str__(self) -> str:
        """Say what it is about."""
        said = (self.kind, self.topic, self.offset, self.since, self.only)
        return " ".join(str(each) for each in said if each)
