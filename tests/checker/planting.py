"""How a bug is planted: what a function of the server does is replaced."""

from __future__ import annotations

from random import Random
from typing import Any

chance = Random()
"""No count, which each kill would begin anew."""


def find(owner: Any, name: str) -> Any:
    """Return what is there. Raises AttributeError if it is gone."""
    return getattr(owner, name)


def replace(owner: Any, name: str, function: Any) -> None:
    """Replace what is there. Raises AttributeError if it is gone."""
    find(owner, name)
    setattr(owner, name, function)


def one_in(number: int) -> bool:
    """Tell whether it is this one's turn."""
    return not chance.randrange(number)
