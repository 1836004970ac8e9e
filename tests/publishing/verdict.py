"""What may be in the logs, after what apps were told; and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

from tests.checker.records import Notes
from tests.publishing.activities import Seen
from tests.publishing.ledger import Told

KINDS = ("lost", "doubled", "order", "unwanted", "altered", "forgotten")


def check(
    notes: Notes,
    told: Mapping[str, Told],
    kept: Mapping[str, Set[int]],
    logs: Mapping[str, Sequence[Seen]],
) -> None:
    """Note what breaks a promise.

    `told` has the notes of each lane; `kept` has, of lanes that publish by transactions, those
    numbers of which the app's own table has the row that was written with them; `logs` has each
    PoV's log, oldest first.
    """
    times: Counter[tuple[str, int]] = Counter()
    for pov, log in logs.items():
        last: dict[str, int] = {}
        for seen in log:
            times[seen.lane, seen.number] += 1
            if not seen.is_whole:
                notes.add("altered", f"{seen.lane} {seen.number} is another one on {pov}")
            if seen.number < last.get(seen.lane, 0):
                text = f"on {pov} {seen.lane} {seen.number} comes after {last[seen.lane]}"
                notes.add("order", text)
            last[seen.lane] = max(seen.number, last.get(seen.lane, 0))
    for (lane, number), count in times.items():
        if count > 1:
            notes.add("doubled", f"{lane} {number} was published {count} times")
        if not may_be(told.get(lane, Told()), kept.get(lane), number):
            notes.add("unwanted", f"{lane} {number} was rolled back or refused, and is published")
    for lane, each in told.items():
        rows = kept.get(lane)
        for number in sorted(each.safe if rows is None else rows - each.void):
            if not times[lane, number]:
                notes.add("lost", f"{lane} {number} was safe, and is not published")
        for number in sorted(each.safe - (each.safe if rows is None else rows)):
            notes.add("forgotten", f"{lane} {number} was committed, and its row is gone")


def may_be(told: Told, rows: Set[int] | None, number: int) -> bool:
    """Tell whether an activity may be published.

    Of one that was cut off nobody was told: by way of a spool it may be there or not.
    """
    if number in told.void:
        return False
    return number <= told.begun if rows is None else number in rows
