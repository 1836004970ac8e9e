"""What a token allows."""

import pytest

from pov_rt.auth.grants import DEFAULT_CAN, Grants, Kind


def test_grants_of_every_pov_see_any_pov_and_the_team_feed() -> None:
    grants = Grants(None, frozenset({"subscribe"}))
    assert grants.may_subscribe("pov-1")
    assert grants.may_subscribe("*")


def test_listed_povs_are_seen_and_no_other_byte_for_byte() -> None:
    grants = Grants(frozenset({"pov-1", "caf\u00e9"}), frozenset({"subscribe"}))
    assert grants.may_subscribe("pov-1")
    assert grants.may_subscribe("caf\u00e9")
    assert not grants.may_subscribe("cafe\u0301")
    assert not grants.may_subscribe("pov-")
    assert not grants.may_subscribe("POV-1")
    assert not grants.may_subscribe("*")


def test_an_empty_list_of_povs_sees_none() -> None:
    grants = Grants(frozenset(), frozenset({"subscribe"}))
    assert not grants.may_subscribe("pov-1")
    assert not grants.may_subscribe("*")


def test_only_listed_actions_are_allowed() -> None:
    grants = Grants(None, frozenset({"subscribe"}))
    assert grants.may("subscribe")
    assert not grants.may("publish")


def test_grants_of_a_token_cannot_be_changed_and_belong_to_the_main_team() -> None:
    grants = Grants(None, frozenset())
    assert grants.team_id == "main"
    with pytest.raises(AttributeError):
        grants.can = frozenset({"publish"})  # type: ignore[misc]


def test_by_default_only_a_service_may_publish() -> None:
    assert [kind for kind in Kind if "publish" in DEFAULT_CAN[kind]] == [Kind.SERVICE]
    assert all("subscribe" in DEFAULT_CAN[kind] for kind in Kind)
