"""Whether what was published with a producer's numbers is there once, and in their order."""

from __future__ import annotations

from itertools import islice

from tests.checker.records import History, Notes
from tests.checker.worlds import World, Worlds


def check_numbers(history: History, worlds: Worlds, notes: Notes) -> None:
    """Look at each PoV's log. That nothing is there twice, `history` checks of everything."""
    for (topic, epoch), world in worlds.items():
        if not topic.startswith("*"):
            _check_order(history, world, f"{topic} of {epoch}", notes)
    for number, place in history.kept.items():
        topic = history.topics[number]
        world = worlds.get((topic, place.epoch), World())
        if number not in world.numbers and _is_whole(world, place.offset):
            text = f"{history.names[number]} is there by {topic} {place.offset}, its publisher was"
            notes.add("number", f"{text} told, and it is not: its number was taken for another's")


def _check_order(history: History, world: World, where: str, notes: Notes) -> None:
    newest: dict[str, int] = {}
    for number in world.numbers:
        seq = history.numbered.get(number)
        if seq is None:
            continue
        producer = history.kinds[number].user
        if seq < newest.get(producer, 0):
            text = f"{history.names[number]} comes after number {newest[producer]} in {where}"
            notes.add("order", text)
        newest[producer] = max(seq, newest.get(producer, 0))


def _is_whole(world: World, end: int) -> bool:
    """Tell whether all is known that a log had up to an offset, from the first that anybody got."""
    first = next((offset for offset, number in enumerate(world.numbers) if number), end)
    return end <= len(world.numbers) and all(islice(world.numbers, first, end))
