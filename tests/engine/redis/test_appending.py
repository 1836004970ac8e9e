"""What an entry is to the function that appends, and what becomes of it."""

from __future__ import annotations

import pytest

from pov_rt.config.settings import EngineSettings, PovSettings
from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.appending import Appending, Done
from pov_rt.engine.redis.layout import Partitions, digest_of, id_of
from pov_rt.protocol.errors import Unavailable

A, FEED = "pov/a", "team/main"


def make(**settings: float) -> Appending:
    own = EngineSettings(**settings)  # type: ignore[arg-type]  # of any kind
    return Appending(own, Keeping(own, {"a": PovSettings(max_entries=3)}), Partitions("pr", 16))


def test_what_is_kept_goes_with_each_entry() -> None:
    appending = make(max_entries=100, max_age_s=2.0, id_window_s=5.0, producer_age_s=1.0)
    rules = appending.rules(A, FEED).split()
    assert rules[:5] == [b"3", b"2000000", b"100", b"2000000", b"5000000"]
    assert rules[5:] == [b"1000000", b"50000", b"1000000", b"500000", b"5000000", b"16"]
    assert appending.rules(A, "").split()[2:4] == [b"3", b"2000000"]


def test_an_entry_is_told_apart_by_its_body_or_by_what_is_compared() -> None:
    partitions, appending = Partitions("pr", 16), make()
    new = NewEntry(A, "p", "key", b"body", FEED, "origin", producer="spool", seq=7)
    of = partitions.of
    assert appending.args(new) == (
        appending.rules(A, FEED), A, id_of(A, "key"), digest_of(b"body"), "p", of("p"),
        FEED, of(FEED), "origin", "spool", 7, b"body",
    )  # fmt: skip
    other = appending.args(new._replace(compared=b"other", feed=""))
    assert (other[3], other[6], other[7]) == (digest_of(b"other"), "", b"")


def test_answers_are_judged() -> None:
    appending = make()
    judge = appending.judge
    done = judge([b"a", b"e", 7, b"f", 9, 1, 12], "p")
    assert done == Done(Appended("e", 7), "f", 9, is_told=True)
    assert appending.topics.used() == 12
    assert judge([b"a", b"e", 7, b"", 0, 0, -1], "p") == Done(Appended("e", 7), is_told=False)
    assert appending.topics.used() == 12
    assert judge([b"d", b"e", 7], "p").result == Appended("e", 7, duplicate=True)
    assert judge([b"c", b"e", 7], "p").result == Conflict("e", 7)


@pytest.mark.parametrize(
    ("reply", "words", "retry_s", "bound"),
    [
        ([b"t", 9], "the log has 9 topics, as many as engine.max_topics", 1.0, "topics"),
        ([b"h", 1_500_001], r"may begin 50000 topics.*topics_per_hour", 2.0, "topics"),
        ([b"p", 9], "there are 9 producers", 1.0, "producers"),
        ([b"o", 9], "one publisher has 9 producers, half of", 1.0, "producers"),
    ],
)
def test_refusals_say_which_bound_it_is(
    reply: list[bytes | int], words: str, retry_s: float, bound: str
) -> None:
    appending = make()
    with pytest.raises(Unavailable, match=words) as refused:
        appending.judge(reply, "p")
    assert refused.value.retry_after_s == retry_s
    refusals = {each.name: each.refused for each in (appending.topics, appending.producers)}
    assert refusals.pop(bound) == 1
    assert set(refusals.values()) == {0}
