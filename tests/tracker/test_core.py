"""Which requests become activities, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from pov_rt.protocol.messages import NewActivity
from pov_rt.tracker.core import Chooser, Facts, Track, encode_path, name_of

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
    candidate = chooser.pick("POST", path, status) if chooser.watches("POST", path) else None
    facts = Facts("POST", path, status, 0.1, user=user)
    return candidate and chooser.make(candidate, facts)


def describe(facts: Facts) -> NewActivity:
    return NewActivity(type="request", action="done", pov_id="p")


def test_the_first_rule_that_fits_decides_though_a_later_one_would_take_the_status() -> None:
    later = Track("POST", RULE.path, type="task", action="tried", statuses={409})
    chooser = Chooser([RULE, later])
    done = choose(chooser, PATH)
    assert (done.action, done.pov_id, done.user_id) == ("done", "acme", "ana")
    assert done.details == {"task_id": "7"}
    assert choose(chooser, PATH, 409) is None


def test_an_activity_says_who_did_it() -> None:
    for path in (PATH, "/other"):
        assert choose(Chooser([RULE], describe=describe), path).user_id == "ana"
        named = Chooser([RULE], describe=describe, anonymous="guest")
        assert choose(named, path).user_id == "ana"
        assert choose(named, path, user=None).user_id == "guest"
        with pytest.raises(LookupError, match="anonymous="):
            choose(Chooser([RULE], describe=describe), path, user=None)


def test_describe_is_asked_about_the_rest_that_was_done_and_before_send_about_all() -> None:
    asked: list[Facts] = []

    def ask(facts: Facts) -> NewActivity:
        asked.append(facts)
        return describe(facts)

    chooser = Chooser([RULE], describe=ask, before_send=lambda each: None)
    for path, status in ((PATH, 200), ("/other", 200), ("/other", 404), ("/healthz", 200)):
        assert choose(chooser, path, status) is None
    assert [(each.path, each.status, each.user) for each in asked] == [("/other", 200, "ana")]


def test_of_a_sample_some_are_chosen_and_none_at_zero() -> None:
    assert not any(choose(Chooser([RULE], sample_rate=0.0), PATH) for _ in range(200))
    some = sum(bool(choose(Chooser([RULE], sample_rate=0.5), PATH)) for _ in range(1000))
    assert 0 < some < 1000


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        (
            Track("POST", "/tasks/{task_id}", "task", "done"),
            {},
            "write it into the path, or have pov=",
        ),
        (Track("GET", "/povs/{pov_id}", "pov", "seen"), {}, "add it to methods="),
        (RULE, {"methods": "POST"}, "lists of texts"),
        (RULE, {"exclude": "^/x"}, "lists of texts"),
        (RULE, {"sample_rate": 5}, "between 0 and 1"),
    ],
)
def test_what_could_never_be_meant_is_refused(
    rule: Track, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Chooser([rule], **options)


class Person:
    is_authenticated = True

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (None, None),
        ("", None),
        ("ana", "ana"),
        (b"ana", "ana"),
        (7, "7"),
        ({"id": 7}, "7"),
        ({"userId": "ana", "id": 7}, "ana"),
        (Person(id=7, username="ana"), "7"),
        (Person(username="ana"), "ana"),
        (Person(id=None), None),
        (Person(id=7, is_authenticated=False), None),
    ],
)
def test_a_users_id_is_found_where_frameworks_have_it(user: Any, name: str | None) -> None:
    assert name_of(user) == name


@pytest.mark.parametrize(
    ("path", "raw", "root", "encoded"),
    [
        ("/a/b c/\u00fc", None, "", "/a/b%20c/%C3%BC"),
        ("/a/b/c", "/a/b%2Fc?q=1", "", "/a/b%2Fc"),
        ("/a/(x)@1,2;3", None, "", "/a/(x)@1,2;3"),
        ("/a%2Fb", "/a%252Fb", "", "/a%252Fb"),
        ("/elsewhere", "/a/b%2Fc", "", "/elsewhere"),
        ("/api/a/b/c", "/api/a/b%2Fc", "/api", "/a/b%2Fc"),
        ("/api/a", None, "/api/", "/a"),
        ("/\u00fc/a", "/%C3%BC/a", "/\u00fc", "/a"),
        ("/apis/a", None, "/api", "/apis/a"),
        ("/a", None, "/api", "/a"),
    ],
)
def test_a_path_is_as_it_came_below_where_the_application_is(
    path: str, raw: str | None, root: str, encoded: str
) -> None:
    assert encode_path(path, raw, root) == encoded
