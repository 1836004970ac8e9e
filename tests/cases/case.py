"""What a recorded case is, and how what comes is compared with it; README.md is for its readers.

The rule for both ways to play one: who sends a message chooses the values of its names, who
receives it takes them from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent / "recorded"

Object = dict[str, Any]
Names = dict[str, Any]


class Step(msgspec.Struct, tag_field="step", forbid_unknown_fields=True, rename="camel"):
    """One step; its `step` is the class's tag."""


class App(Step, tag="app"):
    """The app has its client do something."""

    does: Object


class Connects(Step, tag="connects"):
    """The client opens a connection, not earlier than `after_s` after the last one ended."""

    after_s: float = 0
    ping_interval: float = 25


class Refused(Step, tag="refused"):
    """The client opens a connection, and is refused the token that it has."""

    status: int
    code: str


class Sends(Step, tag="sends"):
    """The client sends a message."""

    message: Object


class Says(Step, tag="says"):
    """The server sends a message."""

    message: Object


class Drops(Step, tag="drops"):
    """The server closes the connection with a code; without one the network breaks it."""

    code: int | None = None
    reason: str = ""
    retry_after: float | None = None


class Shows(Step, tag="shows"):
    """The client has told the app something."""

    line: Object


class Away(Step, tag="away"):
    """The client opens no connection for so long."""

    seconds: float


class Happens(Step, tag="happens"):
    """Something is done at the server that the client is then told of; one field says what."""

    publish: Object | None = None
    times: int = 1
    amend: Object | None = None
    retract: Object | None = None
    delete_pov: str | None = None
    forget_all: bool = False
    advance_s: float = 0


AnyStep = App | Connects | Refused | Sends | Says | Drops | Shows | Away | Happens


class Case(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A scenario. `scripted` says why no real server can be brought to it; others play both ways.

    `section` is where the protocol's page says what is tested; `settings` and `claims` are those of
    the real server and of the client's token.
    """

    about: str
    section: str
    steps: list[AnyStep]
    scripted: str | None = None
    settings: dict[str, Object] = {}
    claims: Object = {}


def load() -> dict[str, Case]:
    """Return all cases by name. Raises ValueError naming a file that is none."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            found[path.stem] = msgspec.json.decode(path.read_bytes(), type=Case)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def mismatch(pattern: Any, found: Any, names: Names, at: str = "") -> str | None:
    """Tell where something is not as the pattern has it; None if it is. Names are taken over.

    Objects may have more than their pattern. A null is for what must be absent.
    """
    if isinstance(pattern, dict) and isinstance(found, dict):
        for key, inner in pattern.items():
            told = mismatch(inner, found.get(key), names, f"{at}.{key}" if at else key)
            if told is not None:
                return told
        return None
    if isinstance(pattern, list) and isinstance(found, list) and len(pattern) == len(found):
        told_each = (mismatch(*both, names, at) for both in zip(pattern, found, strict=True))
        return next((told for told in told_each if told is not None), None)
    expected = pattern
    if isinstance(pattern, str) and pattern.startswith("$"):
        name = pattern.lstrip("$?")
        if found is None and not pattern.startswith("$?"):
            return f"{at} is missing"
        expected = names.setdefault(name, found)
    return None if expected == found else f"{at or 'all'} is {found!r}, not {expected!r}"


def filled(pattern: Any, names: Names) -> Any:
    """Return what a pattern stands for; a name without a value gets its own as that.

    What is null is left out.
    """
    if isinstance(pattern, dict):
        values = {key: filled(inner, names) for key, inner in pattern.items()}
        return {key: value for key, value in values.items() if value is not None}
    if isinstance(pattern, list):
        return [filled(inner, names) for inner in pattern]
    if isinstance(pattern, str) and pattern.startswith("$"):
        name = pattern.lstrip("$?")
        return names.setdefault(name, name)
    return pattern
