"""Keys lie in partitions whose number is in the braces, whatever a topic is called."""

from __future__ import annotations

from pov_rt.engine.base import Entry
from pov_rt.engine.copying import HASH_BYTES
from pov_rt.engine.redis.layout import (
    Partitions,
    State,
    Stored,
    digest_of,
    hash_of,
    id_of,
    parse_entry,
    parse_state,
)


def test_a_topic_stays_in_its_partition_whatever_its_name_holds() -> None:
    partitions = Partitions("pr", 128)
    assert partitions.of("pov/a") == b"pr:{070}:"
    assert partitions.of("{pov}/é") in partitions.all
    assert len({partitions.of(f"pov/{n}") for n in range(5000)}) == len(partitions.all) == 128
    assert partitions.key("meta") == "pr:meta"


def test_a_channel_names_its_topic() -> None:
    partitions = Partitions("pr", 128)
    for topic in ("pov/a", "{x}:c:é", ""):
        channel = partitions.channel(topic)
        assert channel.startswith(partitions.of(topic) + b"c:")
        assert partitions.topic(channel) == topic


def test_ids_differ_by_topic_and_key() -> None:
    assert id_of("pov/a", "1").startswith(hash_of("pov/a"))
    assert id_of("pov/a", "1") != id_of("pov/a", "2") != id_of("pov/b", "2")
    assert len(digest_of(b"")) == HASH_BYTES


def test_states_and_entries_are_read() -> None:
    assert parse_state(b"7 ab 0123456789ab 1800000000000000 aa@3") == State("ab", 7, "0123456789ab")
    assert parse_state(b"0 ab 0123456789ab 0") == State("ab", 0, "0123456789ab")
    value = b"1800000000500000 4\0origin\0>017 3 team/main\0body\0\0"
    assert parse_entry(value) == Stored(Entry(4, b"body\0\0", 1_800_000_000.5, "origin"), "")
    value = b"1800000000500000 4\0\0<017 3 pov/a b\0"
    assert parse_entry(value) == Stored(Entry(4, b"", 1_800_000_000.5), "pov/a b")
