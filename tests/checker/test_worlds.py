"""What may be missing from a log, and what may not."""

from __future__ import annotations

from tests.checker.records import History, Join, Kept, Place
from tests.checker.worlds import check_removal, has_reason


def test_not_to_recover_needs_a_reason() -> None:
    def reason(missed: int | None, oldest: int = 1) -> bool:
        join = Join(0, "e", 2000, missed=missed, kept=Kept(oldest, 500))
        return has_reason(join, Place("e", 1000))

    assert reason(1001)
    assert not reason(1000)
    assert not reason(None)
    assert reason(900, oldest=1002)
    assert not reason(900, oldest=1001), "the next one is there"


def test_no_more_leaves_a_log_than_is_too_many() -> None:
    history = History()
    stream = history.stream("ana", "p")
    for oldest in (1, 41, 46):
        check_removal(stream, Join(0, "e", 50, kept=Kept(oldest, 10)), history, history.notes)
    assert history.notes.violations == []
    check_removal(stream, Join(0, "e", 50, kept=Kept(47, 10)), history, history.notes)
    assert history.notes.counts == {"removed": 1}
