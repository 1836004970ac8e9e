"""Which pattern counts for which topic."""

from __future__ import annotations

import pytest

from pov_rt.config.settings import EngineSettings, PovSettings
from pov_rt.engine.keeping import Keeping, Limits
from pov_rt.protocol.tenants import TenantId
from pov_rt.protocol.topics import pov_topic, team_topic, user_topic

ENGINE = EngineSettings(max_entries=100, max_age_s=1000.0)
DEFAULT = Limits(100, 1000.0)


def keeping(**numbers: int) -> Keeping:
    """Return rules of which each keeps as many entries as is said."""
    return Keeping(ENGINE, {name: PovSettings(max_entries=most) for name, most in numbers.items()})


@pytest.mark.parametrize(
    ("pov_id", "most"),
    [
        ("acme-1", 2),
        ("acme-", 2),
        ("acme-demo", 3),
        ("acme", 1),
        ("blue", 1),
        ("acme-\n1", 2),
        ("a[12]?", 4),
        ("a1x", 1),
    ],
)
def test_the_most_specific_pattern_counts(pov_id: str, most: int) -> None:
    rules = keeping(**{"*": 1, "acme-*": 2, "acme-demo": 3, "a[12]?": 4})
    for _ in range(2):  # found, and remembered
        assert rules.of(pov_topic(pov_id)) == Limits(most, 1000.0)


def test_of_equally_long_ones_the_first_by_the_alphabet_counts_however_they_stand() -> None:
    for rules in (keeping(**{"b*": 2, "*a": 1}), keeping(**{"*a": 1, "b*": 2})):
        assert rules.of("pov/ba").max_entries == 1


def test_what_no_pattern_fits_and_what_is_no_pov_is_kept_as_by_default() -> None:
    rules = keeping(**{"a*": 1})
    for topic in ("pov/b", team_topic("a"), user_topic("a"), "pov/"):
        assert rules.of(topic) == DEFAULT
    everything = keeping(**{"*": 1})
    assert everything.of(team_topic("a")) == everything.of(user_topic("a")) == DEFAULT


def test_what_a_pattern_does_not_say_is_as_by_default() -> None:
    rules = Keeping(ENGINE, {"a": PovSettings(max_age_s=5.0), "b": PovSettings(max_entries=5)})
    assert rules.of("pov/a") == Limits(100, 5.0)
    assert rules.of("pov/b") == Limits(5, 1000.0)
    assert (rules.own_age_of("pov/a"), rules.own_age_of("pov/b")) == (5.0, None)
    assert rules.ages == [5.0, 1000.0]


def test_with_teams_a_pattern_is_for_the_team_and_the_pov() -> None:
    rules = keeping(**{"blue/*": 1, "*/demo": 2, "blue/demo": 3})
    found = [
        rules.of(pov_topic(TenantId.of(team, pov_id))).max_entries
        for team, pov_id in (("blue", "x"), ("red", "demo"), ("blue", "demo"), ("red", "x"))
    ]
    assert found == [1, 2, 3, 100]


def test_it_is_known_whether_a_feed_may_have_what_a_pov_has_not() -> None:
    shorter, longer = (Keeping(ENGINE, {"a": PovSettings(max_age_s=age)}) for age in (1.0, 2000.0))
    assert (shorter.fades, longer.fades, Keeping(ENGINE).fades) == (True, False, False)
