"""Reasons of ends as they are counted: without what varies."""

from __future__ import annotations

import pytest

from pov_rt.connections.directory import TRANSPORTS
from pov_rt.connections.ends import SORTS, sort_of


@pytest.mark.parametrize(
    ("reason", "sort"),
    [
        ("slow consumer, 1048577 bytes unsent for 5 s", "slow consumer"),
        ("connection lost: Connection reset by peer", "connection lost"),
        ("closed by the client with 1001", "closed by the client"),
        ("gap, reconnect to recover", "gap"),
        ("disconnected by an operator", "disconnected by an operator"),
    ],
)
def test_what_varies_is_no_part_of_a_sort(reason: str, sort: str) -> None:
    assert sort_of(reason) == sort
    assert sort in SORTS["ws"]


def test_every_transport_has_its_sorts_and_each_is_one() -> None:
    assert tuple(SORTS) == TRANSPORTS
    for sorts in SORTS.values():
        assert len(set(sorts)) == len(sorts)
        assert [sort_of(sort) for sort in sorts] == list(sorts)
