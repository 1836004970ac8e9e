"""What the engine counts and times while it works, for operators (docs/operations.md, Metrics)."""

from __future__ import annotations

from typing import Final

from pov_rt.runtime.measure.histogram import FAST_S, Histogram
from pov_rt.runtime.measure.tally import OTHER, Tally

WIDTHS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 512.0)
"""Bounds for entries that go out together."""
APPENDS: Final = ("appended", "duplicate", "conflict", "refused", "unconfirmed", "late")
"""What becomes of an entry. `unconfirmed`: not on the replicas that have to have it; `late`: of
which nothing is known."""
POSITIONS: Final = ("same", "coming", "missed", "rotated")
"""What comparing a topic with its log finds. `coming`: it is behind, as of what is just being told;
`missed`: something was told and not heard; `rotated`: the log goes on under another epoch."""


class Measuring:
    """All of it, at 0 from the start."""

    def __init__(self) -> None:
        self.appends = Tally(APPENDS, OTHER)
        self.positions = Tally(POSITIONS, OTHER)
        self.epochs_changed = 0
        """How often a watched log was found to go on under another epoch."""
        self.batch_entries = Histogram(WIDTHS)
        self.append_s = Histogram(FAST_S)
        """From when entries are sent until Redis has answered."""
        self.replicas_s = Histogram(FAST_S)
        """From then on until it has said which replicas have them."""
