"""How much of each topic is kept: as `engine` in the settings says, or a pattern of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings, PovSettings
from pov_rt.protocol.tenants import SEPARATOR
from pov_rt.protocol.topics import pov_topic

REMEMBERED = 50_000
"""Topics whose pattern is remembered."""
POVS = pov_topic("")


def no_body(_: bytes) -> bytes:
    """Leave nothing of a body."""
    return b""


AUDITS = "audit/"
"""What begins the topics in which is kept who was sent what of a PoV."""
AUDITED = 1000
"""Receivers of each activity of a PoV that an audit has room for."""


class Limits(NamedTuple):
    """What is kept of a topic: its newest `max_entries`, none of them older than `max_age_s`."""

    max_entries: int
    max_age_s: float


class Keeping:
    """Tells what is kept of a topic. Asked on the loop, and by the threads that read and write.

    A pattern is for the logs of the PoVs that it fits; `*` in it stands for any characters, all
    else for itself. With `auth.tenants` it is for `TEAM/POV`. Of several that fit, the one with the
    most characters beside `*` counts, of equally long ones the first by the alphabet. What it does
    not say is as for all others.

    An audit is kept as long as its PoV's log, and with more entries, for each activity has several.
    Feeds and inboxes are kept as `engine` says. But an age is a promise about the activity: of what
    is too old for its PoV a feed has a `stub` (which may be called in any thread) and nothing else.
    """

    def __init__(
        self,
        settings: EngineSettings,
        povs: Mapping[str, PovSettings] | None = None,
        stub: Callable[[bytes], bytes] = no_body,
    ) -> None:
        self.stub = stub
        self.default = Limits(settings.max_entries, settings.max_age_s)
        self.rules = {
            pattern: _limits(own, self.default)
            for pattern, own in sorted((povs or {}).items(), key=lambda each: _rank(each[0]))
        }
        """What is kept by which pattern; of those that fit a PoV the first one counts."""
        self._fits = {pattern: _compile(pattern) for pattern in self.rules}
        self.ages = sorted(
            {self.default.max_age_s, *(own.max_age_s for own in self.rules.values())}
        )
        """All ages that there are, the shortest first."""
        self._known: dict[str, Limits] = {}
        self._audited = frozenset(pattern for pattern, own in (povs or {}).items() if own.audit)

    @property
    def has_rules(self) -> bool:
        """Whether any PoV may be kept otherwise."""
        return bool(self.rules)

    @property
    def fades(self) -> bool:
        """Whether something may be too old for its PoV and not for a feed."""
        return self.ages[0] < self.default.max_age_s

    @property
    def has_audits(self) -> bool:
        """Whether of any PoV it is kept who was sent what."""
        return bool(self._audited)

    def audits(self, topic: str) -> bool:
        """Tell whether of a PoV's topic it is kept who was sent what."""
        return bool(self._audited) and self.pattern_of(topic) in self._audited

    def own_age_of(self, topic: str) -> float | None:
        """Return how long a topic's entries are kept if that is not as by default."""
        age = self.of(topic).max_age_s
        return None if age == self.default.max_age_s else age

    def of(self, topic: str) -> Limits:
        """Return what is kept of a topic."""
        if topic.startswith(AUDITS):
            own = self.of(POVS + topic.removeprefix(AUDITS))
            return own._replace(max_entries=own.max_entries * AUDITED)
        if not self.rules or not topic.startswith(POVS):
            return self.default
        found = self._known.get(topic)
        if found is None:
            pattern = self.pattern_of(topic)
            found = self.default if pattern is None else self.rules[pattern]
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[topic] = found
        return found

    def pattern_of(self, topic: str) -> str | None:
        """Return the pattern that counts for a topic; None if it is kept as by default."""
        if not topic.startswith(POVS):
            return None
        name = topic.removeprefix(POVS).replace(SEPARATOR, "/", 1)
        return next((each for each, fits in self._fits.items() if fits.fullmatch(name)), None)


def _rank(pattern: str) -> tuple[int, str]:
    return -len(pattern.replace("*", "")), pattern


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _limits(own: PovSettings, default: Limits) -> Limits:
    return Limits(
        default.max_entries if own.max_entries is None else own.max_entries,
        default.max_age_s if own.max_age_s is None else own.max_age_s,
    )
