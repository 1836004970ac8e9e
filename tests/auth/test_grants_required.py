"""What a token does not allow is refused in one voice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pov_rt.auth.grants import Grants, action_of
from pov_rt.protocol.errors import Forbidden, InvalidId

ALL = Grants(None, frozenset({"subscribe"}), "red")
SOME = Grants(frozenset({"acme"}), frozenset({"subscribe"}), "red")
NO_GRANT = Grants(None, frozenset())


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ALL.require("subscribe"),
        lambda: ALL.require_pov("acme"),
        lambda: SOME.require_pov("acme"),
        lambda: ALL.require_every_pov(),
        lambda: ALL.require_pov_or_feed("acme"),
        lambda: SOME.require_pov_or_feed("acme"),
        lambda: ALL.require_pov_or_feed("*"),
    ],
)
def test_what_is_allowed_raises_nothing(ask: Callable[[], Any]) -> None:
    ask()


NOT_COVERED = "The token does not cover this PoV"


@pytest.mark.parametrize(
    ("ask", "message", "field"),
    [
        (lambda: SOME.require("publish"), "The token does not grant 'publish'", None),
        (lambda: SOME.require_pov("other"), NOT_COVERED, "povId"),
        (lambda: SOME.require_pov("other", "data.povId"), NOT_COVERED, "data.povId"),
        (lambda: SOME.require_every_pov(), NOT_COVERED, "povId"),
        (lambda: SOME.require_pov_or_feed("*"), NOT_COVERED, "povId"),
        (lambda: SOME.require_pov_or_feed("other", "povIds[1]"), NOT_COVERED, "povIds[1]"),
        (lambda: NO_GRANT.require("subscribe"), "The token does not grant 'subscribe'", None),
    ],
)
def test_what_is_not_allowed_is_said(ask: Callable[[], Any], message: str, field: Any) -> None:
    with pytest.raises(Forbidden) as raised:
        ask()
    assert (raised.value.message, raised.value.field) == (message, field)


@pytest.mark.parametrize("grants", [ALL, SOME], ids=["all", "some"])
@pytest.mark.parametrize("bad", ["", "*", "a\nb", "x" * 129])
def test_what_is_no_id_is_that_and_not_forbidden(grants: Grants, bad: str) -> None:
    with pytest.raises(InvalidId) as raised:
        grants.require_pov(bad, "data.povId")
    assert raised.value.field == "data.povId"


def test_the_question_is_answered_as_the_demand_is() -> None:
    for grants in (ALL, SOME, NO_GRANT):
        for pov_id in ("acme", "other", "*"):
            try:
                grants.require_pov_or_feed(pov_id)
                grants.require("subscribe")
                allowed = True
            except Forbidden:
                allowed = False
            assert grants.may_subscribe(pov_id) == allowed


def test_the_feed_is_the_teams() -> None:
    assert (SOME.topic("acme"), SOME.topic("*")) == ("pov/acme", "team/red")


@pytest.mark.parametrize(
    ("grant", "action"),
    [
        (None, "see"),
        ("subscribe", "see"),
        ("collaborate", "collaborate"),
        ("publish", "write"),
        ("moderate", "write"),
    ],
)
def test_what_needs_a_grant_is_an_action_and_a_plugins_own_is_the_most(
    grant: str | None, action: str
) -> None:
    assert action_of(grant) == action
