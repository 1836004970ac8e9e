"""What each lane of an app noted: which of its activities it began, and what became of them.

A note is one write to the end of a file, which the system has when the app is killed right after.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

BEGUN, SAFE, VOID = "b", "s", "v"


class Told(NamedTuple):
    """The notes of a lane. What is neither safe nor void was cut off: nobody was told."""

    begun: int = 0
    """Numbers go from 1 to this one."""
    safe: frozenset[int] = frozenset()
    void: frozenset[int] = frozenset()
    """Rolled back, or refused: these must never be published."""


class Lane:
    """Numbers one thread's activities, over all lives of its app. Owner: that thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.last = read(folder, name).begun
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def begin(self) -> int:
        """Return the next number, which nobody used before."""
        self.last += 1
        self._note(BEGUN, self.last)
        return self.last

    def tell(self, what: str, *numbers: int) -> None:
        """Note what became of some."""
        self._note(what, *numbers)

    def _note(self, what: str, *numbers: int) -> None:
        os.write(self._file, "".join(f"{what}{number}\n" for number in numbers).encode())


def read(folder: Path, name: str) -> Told:
    """Return what a lane noted, nothing if it never ran."""
    found: dict[str, set[int]] = {BEGUN: set(), SAFE: set(), VOID: set()}
    path = folder / name
    for line in path.read_text().splitlines() if path.exists() else ():
        found[line[0]].add(int(line[1:]))
    return Told(max(found[BEGUN], default=0), frozenset(found[SAFE]), frozenset(found[VOID]))


def names(folder: Path) -> list[str]:
    """Return all lanes that ever ran."""
    return sorted(path.name for path in folder.iterdir())
