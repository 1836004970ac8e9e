"""Which requests become activities, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from pov_rt.protocol.messages import NewActivity
from pov_rt.tracker.core import Chooser, Facts, Track

RULE = Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done")
PATH = "/povs/acme/tasks/7/done"


@pytest.mark.parametrize(
    ("method", "path", "parts"),
    [
        ("POST", PATH, {"pov_id": "acme", "task_id": "7"}),
        ("POST", "/povs/a%2Fb/tasks/%C3%BC/done", {"pov_id": "a/b", "task_id": "ü"}),
        ("PUT", PATH, None),
        ("POST", f"{PATH}/", None),
        ("POST", f"/api{PATH}", None),
        ("POST", "/povs//tasks/7/done", None),
        ("POST", "/povs/a/b/tasks/7/done", None),
    ],
)
def test_a_rule_is_for_the_whole_path(method: str, path: str, parts: dict[str, str] | None) -> None:
    assert RULE.match(method, path) == parts


def test_what_is_no_part_stands_for_itself() -> None:
    rule = Track("POST", "/a.b/(x)/{pov_id}", type="t", action="a")
    assert rule.match("POST", "/a.b/(x)/p") == {"pov_id": "p"}
    assert rule.match("POST", "/aXb/(x)/p") is None


def choose(chooser: Chooser, path: str, status: int = 200, user: str | None = "ana") -> Any:
    return chooser.choose("POST", path, status, 0.1, lambda: user)


def test_the_first_rule_that_fits_decides_though_a_later_one_would_take_the_status() -> None:
    later = Track("POST", RULE.path, type="task", action="tried", statuses={409})
    chooser = Chooser([RULE, later])
    done = choose(chooser, PATH)
    assert (done.action, done.pov_id, done.user_id) == ("done", "acme", "ana")
    assert done.details == {"task_id": "7"}
    assert choose(chooser, PATH, 409) is None


def test_an_activity_says_who_did_it() -> None:
    def describe(facts: Facts) -> NewActivity:
        return NewActivity(type="request", action="done", pov_id="p")

    for path in (PATH, "/other"):
        assert choose(Chooser([RULE], describe=describe), path).user_id == "ana"
        named = Chooser([RULE], describe=describe, anonymous="guest")
        assert choose(named, path).user_id == "ana"
        assert choose(named, path, user=None).user_id == "guest"
        with pytest.raises(LookupError, match="anonymous="):
            choose(Chooser([RULE], describe=describe), path, user=None)


def test_describe_is_asked_about_the_rest_that_was_done_and_before_send_about_all() -> None:
    asked: list[Facts] = []

    def describe(facts: Facts) -> NewActivity:
        asked.append(facts)
        return NewActivity(type="request", action="done", pov_id="p")

    chooser = Chooser([RULE], describe=describe, before_send=lambda each: None)
    for path, status in ((PATH, 200), ("/other", 200), ("/other", 404), ("/healthz", 200)):
        assert choose(chooser, path, status) is None
    assert [(each.path, each.status, each.user) for each in asked] == [("/other", 200, "ana")]


def test_of_a_sample_some_are_chosen_and_none_at_zero() -> None:
    assert not any(choose(Chooser([RULE], sample_rate=0.0), PATH) for _ in range(200))
    some = sum(bool(choose(Chooser([RULE], sample_rate=0.5), PATH)) for _ in range(1000))
    assert 0 < some < 1000
