"""What the parts of a copy are made of; EngineSuite copies every engine."""

from __future__ import annotations

import pytest

from pov_rt.engine.copying import (
    Sum,
    compare,
    digest_of,
    hash_of_name,
    hashed_name,
    key_hash,
    name_of_hash,
    was_kept,
)
from pov_rt.protocol.errors import Unavailable


def test_a_place_was_kept_that_no_epoch_since_left_behind() -> None:
    epochs = (("third", 9), ("second", 4), ("first", 7))
    assert [was_kept(epochs, "third", offset) for offset in (0, 9, 10)] == [True, True, False]
    assert [was_kept(epochs, "first", offset) for offset in (4, 5)] == [True, False]
    assert not was_kept(epochs, "another", 0)
    assert not was_kept((), "third", 0)


@pytest.mark.parametrize("key", ["", "1", "é\n" * 100])
def test_a_key_is_known_by_its_hash_alone(key: str) -> None:
    name = hashed_name(key)
    assert name == name_of_hash(key_hash(key))
    assert hash_of_name(name) == key_hash(key) == hash_of_name(key)
    assert name not in (key, hashed_name(name))


def test_what_is_compared_has_a_digest_of_eight_bytes() -> None:
    contents = (b"", b"a", b"b", b"a" * 10_000_000)
    assert len({digest_of(each) for each in contents}) == len(contents)
    assert all(0 <= digest_of(each) < 1 << 63 for each in contents)


def test_what_differs_is_said_with_both_counts() -> None:
    sums = {"topics": Sum(1, 2), "entries": Sum(1000, 3)}
    compare(sums, dict(sums))
    with pytest.raises(Unavailable, match=r"entries \(1,000 and 999\); something was changed"):
        compare(sums, {**sums, "entries": Sum(999, 3)})
    with pytest.raises(Unavailable, match=r"topics \(1 and 1\)"):
        compare(sums, {**sums, "topics": Sum(1, 3)})
