"""The activities that apps publish: each says which it is, so that a changed one is noticed."""

from __future__ import annotations

from typing import Any, NamedTuple

from pov_rt.client import NewActivity

POVS = 4
"""Of each way, all of its lanes together."""
PAD = "x" * 100


class Seen(NamedTuple):
    """An activity in a PoV's log."""

    lane: str
    number: int
    is_whole: bool
    """Whether it is as it was published, on this PoV."""


def make(lane: str, number: int, pov: str) -> NewActivity:
    """Return a lane's activity."""
    return NewActivity(
        type="task",
        action="done",
        pov_id=pov,
        user_id=lane,
        details={"n": number, "text": text(lane, number, pov)},
    )


def text(lane: str, number: int, pov: str) -> str:
    """Return what nothing but this activity says."""
    return f"{lane} {number} {pov} {PAD}"


def recognise(activity: dict[str, Any], pov: str) -> Seen:
    """Return which activity of a log it is."""
    lane, details = activity["userId"], activity["details"]
    number = details["n"]
    whole = details == {"n": number, "text": text(lane, number, pov)} and activity["povId"] == pov
    return Seen(lane, number, whole and (activity["type"], activity["action"]) == ("task", "done"))


def povs(way: str) -> list[str]:
    """Return the PoVs on which a way's activities are."""
    return [f"{way}-{number}" for number in range(POVS)]
