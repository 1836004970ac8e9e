"""Ids below a team: unique inside, and on the wire what the client called them."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.tenants import TenantId, restore, team_of, wire_of
from pov_rt.protocol.topics import pov_of, pov_topic

IDS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)


@given(st.tuples(IDS, IDS), st.tuples(IDS, IDS))
def test_two_ids_are_one_only_if_team_and_id_are(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    first, second = TenantId.of(*one), TenantId.of(*other)
    assert (first == second) == (one == other)
    assert (pov_topic(first) == pov_topic(second)) == (one == other)
    assert pov_of(pov_topic(first)) == first
    assert (first.team_id, first.wire_id) == one == (team_of(first), wire_of(str(first)))
    assert first != first.wire_id
    assert type(restore(str(first))) is TenantId


def test_the_wire_shows_the_clients_own_id_wherever_it_is() -> None:
    mine = TenantId.of("red", "acme")
    assert encode({"povId": mine, "all": [mine], "plain": "acme"}) == (
        b'{"povId":"acme","all":["acme"],"plain":"acme"}'
    )
    assert wire_of("acme") == "acme"
    assert team_of("acme") is None
    assert restore("acme") == "acme"
    with pytest.raises(TypeError, match="cannot be written"):
        encode(object())


def test_a_database_takes_it_as_the_string_it_is() -> None:
    with sqlite3.connect(":memory:") as connection:
        found = connection.execute("SELECT ? = ?", (TenantId.of("a", "b"), "a\x1fb")).fetchone()
    assert found == (1,)


@pytest.mark.parametrize("wire_id", ["", "*", "a\x1fb", "x" * 129, "\u202e"])
def test_an_id_is_no_better_for_its_team(wire_id: str) -> None:
    with pytest.raises(InvalidId, match="povId"):
        check_id(TenantId.of("red", wire_id), "povId")
    check_id(TenantId.of("x" * 128, "x" * 128), "povId")
