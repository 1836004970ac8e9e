"""Of what devices say that they have shown the last is remembered, and each user has a part."""

from __future__ import annotations

from pov_rt.activities.shown import EACH, MAX_USERS, Reason, Reports, Shown
from pov_rt.engine.base import Position


def shown(offset: int, reason: Reason | None = None) -> Shown:
    return Shown(Position("e", offset), reason, float(offset))


def test_the_last_of_each_device_and_topic_is_remembered() -> None:
    reports = Reports()
    reports.note("ana", "phone", "pov/a", shown(1))
    reports.note("ana", "phone", "pov/a", shown(2, "muted"))
    reports.note("ana", "laptop", "pov/a", shown(1, "hidden"))
    reports.note("ana", "phone", "pov/b", shown(7))
    reports.note("ben", "phone", "pov/a", shown(9))
    assert reports.of("ana", "pov/a") == {"phone": shown(2, "muted"), "laptop": shown(1, "hidden")}
    assert reports.of("eve", "pov/a") == reports.of("ana", "pov/c") == {}


def test_whoever_says_much_forgets_their_own() -> None:
    reports = Reports()
    reports.note("ben", "phone", "pov/0", shown(1))
    for number in range(EACH + 5):
        reports.note("ana", "phone", "pov/0", shown(number))
        reports.note("ana", "phone", f"pov/{number}", shown(number))
    assert reports.of("ben", "pov/0") == {"phone": shown(1)}
    assert reports.of("ana", "pov/0") == {"phone": shown(EACH + 4)}, "it was said again"
    known = [number for number in range(EACH + 5) if reports.of("ana", f"pov/{number}")]
    assert known == [0, *range(6, EACH + 5)]


def test_of_too_many_users_the_longest_silent_is_forgotten() -> None:
    reports = Reports()
    for number in range(MAX_USERS):
        reports.note(f"u{number}", "phone", "pov/a", shown(1))
    reports.note("u0", "laptop", "pov/a", shown(2))
    reports.note("new", "phone", "pov/a", shown(3))
    assert set(reports.of("u0", "pov/a")) == {"phone", "laptop"}
    assert reports.of("u1", "pov/a") == {}
    assert reports.of("u2", "pov/a")
    assert reports.of("new", "pov/a")


def test_what_a_users_devices_said_is_forgotten_at_once() -> None:
    reports = Reports()
    for user in ("ana", "ben"):
        reports.note(user, "phone", "pov/a", shown(1))
    reports.clear("ana")
    reports.clear("ana")
    assert reports.of("ana", "pov/a") == {}
    assert reports.of("ben", "pov/a")
