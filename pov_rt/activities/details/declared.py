"""Which activities have declared details, and the check of those that are published.

A key is an activity's type and action with a dot between them, `task.completed`; `task.*` is every
action of `task` that has no key of its own. Names may have dots themselves: a key is compared as a
whole, so that no activity gets past one that reads like it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from msgspec import UNSET

from pov_rt.activities.checks import NAME
from pov_rt.protocol.details.traces import without_trace
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.messages import Activity

ANY = ".*"
"""How a key ends that is for every action of a type."""

KEY = re.compile(rf"({NAME.pattern})\.(?:{NAME.pattern}|\*)")


class DetailsType(Protocol):
    """What the details of an activity have to be."""

    @property
    def source(self) -> Any:
        """What it was made of: a JSON Schema, or a struct's class; equal where nothing changed."""

    def check(self, details: dict[str, Any]) -> None:
        """Raise `InvalidActivity` that names the field at fault, as `details.items[3].dueAt`."""


class Declared:
    """The declared details by key. Immutable."""

    def __init__(self, types: Mapping[str, DetailsType] | None = None) -> None:
        self.types = dict(types or {})
        self._of_one = {key: each for key, each in self.types.items() if not key.endswith(ANY)}
        self._of_any = {
            key.removesuffix(ANY): each for key, each in self.types.items() if key.endswith(ANY)
        }

    def changed_from(self, old: Declared) -> list[str]:
        """Return the keys under which something else is declared than was."""
        now, before = self.types, old.types
        return sorted(
            key
            for key in now | before
            if key not in now or key not in before or now[key].source != before[key].source
        )

    def check(self, activity: Activity) -> None:
        """Raise `InvalidActivity` for details that are not as declared; none count as `{}`.

        They may have a trace context, whether that is declared or not: whoever publishes does not
        choose it.
        """
        wanted = self._of_one.get(f"{activity.type}.{activity.action}")
        if wanted is None:
            wanted = self._of_any.get(activity.type)
        if wanted is None:
            return
        details = {} if activity.details is UNSET else activity.details
        try:
            wanted.check(details)
        except InvalidActivity:
            plain = without_trace(details)
            if plain is details:
                raise
            wanted.check(plain)


def find_key_problem(key: str) -> str | None:
    """Return what is wrong with a key and what would be right, or None."""
    if KEY.fullmatch(key):
        return None
    if NAME.fullmatch(key):
        return f'name the action, too: "{key}.completed", or "{key}{ANY}" for every action'
    return (
        "this must be a type and an action, or *, with a dot between them: each of 1 to 64 "
        "letters, digits, '_', '.' or '-'"
    )


def split_key(key: str) -> Iterator[tuple[str, str]]:
    """Yield each type and action that a key stands for: one, if the names have no dots."""
    parts = key.split(".")
    if key.endswith(ANY):
        yield key.removesuffix(ANY), "*"
        return
    for place in range(1, len(parts)):
        kind, action = ".".join(parts[:place]), ".".join(parts[place:])
        if NAME.fullmatch(kind) and NAME.fullmatch(action):
            yield kind, action


def field_of(path: tuple[str | int, ...]) -> str:
    """Return a path below `details` as errors name it."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(["details", *steps])
