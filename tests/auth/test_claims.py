"""What is read of a token's claims: under any names, of all types that do for what they decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.auth.claims import OWN, Claims, Names, as_text, decode, find, read, texts, write
from pov_rt.auth.tokens import Tokens
from pov_rt.config.settings import RoleSettings
from pov_rt.protocol.errors import InvalidId, TokenError
from tests.auth.apps import ACCESS, NOW, SOCKET, app_token, raw_token

URL = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"


@pytest.mark.parametrize(
    ("said", "path", "found"),
    [
        ({"sub": "a"}, "sub", "a"),
        ({"sub": "a"}, "userId", msgspec.UNSET),
        ({"user": {"id": 7}}, "user.id", 7),
        ({"a": {"b": {"c": "d"}}}, "a.b.c", "d"),
        ({"a": {}}, "a.b", msgspec.UNSET),
        ({"a": None}, "a.b", None),
        ({"a": "text"}, "a.b", None),
        ({"a": ["b"]}, "a.b", None),
        ({"a": {"b": None}}, "a.b", None),
        ({URL: "a"}, URL, "a"),
        ({"https://app.example/rt": {"user": "a"}}, "https://app.example/rt.user", "a"),
        ({"https://app.example": {"com/rt": 1}}, "https://app.example.com/rt", 1),
        ({"user.id": "a", "user": {"id": "b"}}, "user.id", "a"),
        ({"cognito:groups": ["a"]}, "cognito:groups", ["a"]),
        ({"": {"": "a"}}, ".", "a"),
        ({}, ".", msgspec.UNSET),
    ],
)
def test_a_path_is_a_name_or_leads_into_objects(said: Any, path: str, found: object) -> None:
    assert find(said, path) == found


NULLABLE = ("email", "role", "aud", "iss", "nbf", "iat", "jti", "teamId", "parent", "parentIat")


@pytest.mark.parametrize("name", NULLABLE)
def test_null_is_as_good_as_absent(tokens: Tokens, name: str) -> None:
    absent, null = (
        tokens.verify(app_token(), ACCESS),
        tokens.verify(raw_token({}, **{name: None}), ACCESS),
    )
    assert (null.grants, null.kind, null.user_id) == (absent.grants, absent.kind, absent.user_id)
    assert (null.issued_at, null.role, null.email) == (None, None, None)


@pytest.mark.parametrize("name", ["povs", "can", "exp", "userId"])
def test_null_grants_nothing_by_default(tokens: Tokens, name: str) -> None:
    with pytest.raises(TokenError) as refusal:
        tokens.verify(raw_token({}, **{name: None}), ACCESS)
    assert name in str(refusal.value.__cause__)


ANYTHING: tuple[object, ...] = (3, 1.5, True, False, "x", "", [], ["admin"], [None], {}, {"a": []})


@pytest.mark.parametrize("value", ANYTHING, ids=repr)
@pytest.mark.parametrize(
    "name", ["email", "role", "sub", "parent", "scope", "groups", "iss", "name"]
)
def test_what_decides_nothing_may_be_anything(tokens: Tokens, name: str, value: object) -> None:
    identity = tokens.verify(raw_token({}, **{name: value}), ACCESS)
    assert identity.user_id == "alice"
    assert identity.email is None or isinstance(identity.email, str)
    assert tokens.verify(tokens.exchange(identity), SOCKET).grants == identity.grants


@pytest.mark.parametrize(
    ("role", "can", "told"),
    [
        (None, {"subscribe", "collaborate"}, None),
        ("lead", {"publish"}, "lead"),
        (["lead"], {"publish"}, "lead"),
        (["other", "lead"], {"publish"}, "lead"),
        (["lead", "guest"], {"publish", "subscribe"}, "lead"),
        (["other", "another"], {"subscribe", "collaborate"}, "other"),
        ([], {"subscribe", "collaborate"}, None),
        (3, {"poll"}, "3"),
        (True, None, None),
        ({"lead": True}, None, None),
        (["lead", None], None, None),
    ],
)
def test_of_several_roles_all_count_and_what_is_none_is_refused_where_roles_decide(
    make: Callable[..., Tokens], role: object, can: set[str] | None, told: str | None
) -> None:
    roles = {"lead": ["publish"], "guest": ["subscribe"], "3": ["poll"]}
    tokens = make(roles={name: RoleSettings(can=can) for name, can in roles.items()})
    if can is None:
        with pytest.raises(TokenError) as refusal:
            tokens.verify(app_token(role=role), ACCESS)
        assert "role has to be" in str(refusal.value.__cause__)
        return
    identity = tokens.verify(app_token(role=role), ACCESS)
    assert (identity.grants.can, identity.role) == (frozenset(can), told)
    exchanged = tokens.verify(tokens.exchange(identity), SOCKET)
    assert (exchanged.grants.can, exchanged.role) == (frozenset(can), told)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), ("", ""), (7, "7"), (-1, "-1"), (0, "0"), (2**70, str(2**70)), (True, None),
     (1.0, None), (None, None), ([], None), ({}, None)],
)  # fmt: skip
def test_integers_are_texts_and_nothing_else_is(value: object, text: str | None) -> None:
    assert as_text(value) == text
    assert texts([value, "b"]) == ([text] if text is not None else []) + ["b"]


def test_integers_are_ids_wherever_ids_are(tokens: Tokens) -> None:
    identity = tokens.verify(app_token(userId=42, teamId=7, povs=[1, "a"], jti=9), ACCESS)
    assert (identity.user_id, identity.token_id) == ("42", "9")
    assert (identity.grants.team_id, identity.grants.povs) == ("7", ("1", "a"))


NAMES = Names("user.id", "realm_access.roles", "https://app.example/team", "app.rt.povs")


@pytest.fixture
def renamed(make: Callable[..., Tokens]) -> Tokens:
    return make(
        user_claim=NAMES.user,
        role_claim=NAMES.role,
        team_claim=NAMES.team,
        povs_claim=NAMES.povs,
        roles={"lead": RoleSettings(can=["publish"])},
    )


def theirs(**more: Any) -> str:
    claims = {
        "userId": "a user can choose this",
        "user": {"id": 5},
        "realm_access": {"roles": ["offline", "lead"]},
        "https://app.example/team": "north",
        "app": {"rt": {"povs": ["a"]}},
    }
    return app_token(**claims | more)


def test_an_apps_own_tokens_are_read_under_its_names_alone(renamed: Tokens) -> None:
    identity = renamed.verify(theirs(povs="*", teamId="south", role="other"), ACCESS)
    assert (identity.user_id, identity.role, identity.grants.team_id) == ("5", "lead", "north")
    assert (identity.grants.povs, identity.grants.can) == (("a",), frozenset({"publish"}))
    assert renamed.verify(theirs(), SOCKET).user_id == "5", "an app that mints its own"


def test_what_is_made_for_this_server_has_our_names(renamed: Tokens) -> None:
    own = app_token(aud="pov-rt.socket", userId="ana", user={"id": 5}, povs="*")
    assert renamed.verify(own, SOCKET).user_id == "ana"
    exchanged = renamed.verify(renamed.exchange(renamed.verify(theirs(), ACCESS)), SOCKET)
    assert (exchanged.user_id, exchanged.role, exchanged.grants.team_id) == ("5", "lead", "north")
    with pytest.raises(TokenError):
        renamed.verify(app_token(aud="pov-rt.socket", userId=None, user={"id": 5}), SOCKET)


@pytest.mark.parametrize("app", [None, "x", {"rt": None}, {"rt": []}, {"rt": {"povs": None}}])
def test_a_way_to_povs_that_breaks_off_grants_nothing(renamed: Tokens, app: object) -> None:
    assert renamed.verify(theirs(app={"rt": {}}), ACCESS).grants.povs is None, "the default"
    with pytest.raises(TokenError):
        renamed.verify(theirs(app=app), ACCESS)


def test_a_user_that_is_not_there_is_named_with_the_setting_and_what_is_there(
    renamed: Tokens,
) -> None:
    with pytest.raises(TokenError) as refusal:
        renamed.verify(theirs(user={}), ACCESS)
    words = str(refusal.value.__cause__)
    assert words.startswith("it has no user.id, which would say whose it is (auth.user_claim)")
    assert "it has: exp, userId, user, realm_access" in words


def test_a_bad_id_is_named_as_the_app_calls_it(renamed: Tokens) -> None:
    with pytest.raises(TokenError) as refusal:
        renamed.verify(theirs(app={"rt": {"povs": ["a", "b\n"]}}), ACCESS)
    assert isinstance(refusal.value.__cause__, InvalidId)
    assert refusal.value.__cause__.field == "app.rt.povs[1]"


names = st.builds(
    Names,
    *(st.sampled_from([name, f"a.{name}", f"a.b.{name}", f"http://x.y/{name}"]) for name in OWN),
)
ids = st.text("ab.é", min_size=1, max_size=4)
claims = st.builds(
    Claims,
    exp=st.just(NOW),
    user_id=ids,
    email=st.none() | ids,
    role=st.lists(ids, max_size=3),
    iat=st.just(msgspec.UNSET) | st.floats(0, NOW),
    jti=st.just(msgspec.UNSET) | ids,
    povs=st.just(msgspec.UNSET) | st.just("*") | st.lists(ids, max_size=3),
    can=st.just(msgspec.UNSET) | st.lists(ids, max_size=3),
    team_id=st.just(msgspec.UNSET) | ids,
)


@given(claims, names)
def test_what_is_written_under_any_names_is_read_under_them(said: Claims, used: Names) -> None:
    assert read(decode(write(said, used)), used, is_ours=False, has_roles=True) == said


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a*.\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab."), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from([*NULLABLE, "povs", "can", "exp", "userId", "a"]), json_values),
    names,
    st.booleans(),
    st.booleans(),
)
def test_whatever_a_token_says_is_read_or_refused_in_words(
    said: dict[str, Any], used: Names, is_ours: bool, has_roles: bool
) -> None:
    payload = json.dumps({"exp": NOW, "userId": "a"} | said).encode()
    try:
        found = read(decode(payload), used, is_ours=is_ours, has_roles=has_roles)
    except (ValueError, InvalidId) as error:
        if not str(error):
            raise
        return
    assert isinstance(found.user_id, str)
    assert found.povs is msgspec.UNSET or found.povs == "*" or isinstance(found.povs, list)
    assert found.povs is not msgspec.UNSET or find(said, used.povs) is msgspec.UNSET
