"""What checks find, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from pov_rt.protocol.characters import escape

Level = Literal["ok", "doubt", "bad", "skipped"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a check found, and the line, or lines, that mend it; where all is well, none."""

    check: str
    level: Level
    what: str
    mend: str = ""


def ok(check: str, what: str) -> Finding:
    """Return that all is well."""
    return Finding(check, "ok", what)


def skipped(check: str, why: str) -> Finding:
    """Return that a check could not be made, and why."""
    return Finding(check, "skipped", why)


def doubt(check: str, what: str, mend: str) -> Finding:
    """Return what works, and may not for long, or not for everybody."""
    return Finding(check, "doubt", what, mend)


def bad(check: str, what: str, mend: str) -> Finding:
    """Return what does not work."""
    return Finding(check, "bad", what, mend)


class Check(NamedTuple):
    """A check by its name; `find` yields what it finds."""

    name: str
    find: Callable[[], Iterator[Finding]]


def run(checks: Sequence[Check]) -> Iterator[Finding]:
    """Make the checks one after the other. One that fails is a finding, and the others go on."""
    for check in checks:
        try:
            yield from check.find()
        except OSError as error:
            yield skipped(check.name, f"cannot be looked at: {error.strerror or error}")


MARKS = {"ok": "ok", "doubt": "doubt", "bad": "BAD", "skipped": "-"}


def describe(finding: Finding) -> str:
    """Return a finding as lines for people."""
    first = f"{MARKS[finding.level]:<6}{finding.check:<12}{escape(finding.what)}"
    lines = [escape(line) for line in finding.mend.split("\n") if line]
    return "\n".join([first, *(f"{'':<18}{line}" for line in lines)])
