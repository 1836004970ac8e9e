"""Bugs to plant into the server, each of which the checker has to find (`prove`).

Each changes what one function of the server does, as a slip there would: `plant` looks that
function up, so that a bug whose place is gone is noticed at once (`tests/checker/test_planted.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tests.checker import planted_delivery as delivery
from tests.checker import planted_engine as engine
from tests.checker import planted_members as members
from tests.checker import planted_streams as streams

FIXED_S = 6.0


class Bug(NamedTuple):
    """A bug, and the run that has to find it: by which checks, with which clients and faults."""

    text: str
    """What it breaks."""
    plant: Callable[[], None]
    kinds: Collection[str]
    """The checks that tell this bug from others: violations of these kinds count."""
    clients: Sequence[str]
    """Who takes part: all clients whose names begin so."""
    faults: Sequence[str] = ("reset",)
    engine: str = "sqlite"
    rate: float = 2000.0
    seconds: float = FIXED_S
    max_entries: int = 2000


MAIN = ("position", "cursor", "http")
FEEDS = ("quiet", "position-a", "http")
SIDE = ("http-side",)
KILL = ("kill -9",)
INBOXES = ("inbox", "notifier", "http-side")

BUGS = {
    "early": Bug(
        "an activity is acknowledged before it is committed",
        engine.acknowledge_early,
        {"lost", "place", "retry", "order"},
        MAIN,
        KILL,
    ),
    "skipped": Bug(
        "one of many activities is not delivered", delivery.skip_one, {"hole", "lost"}, MAIN
    ),
    "altered": Bug("a letter of a body is altered", delivery.alter_body, {"foreign"}, MAIN),
    "swapped": Bug(
        "two activities of a topic change places", delivery.swap_two, {"hole", "repeated"}, MAIN
    ),
    "double": Bug(
        "who comes back gets the last one again", delivery.begin_too_early, {"repeated"}, MAIN
    ),
    "hand-over": Bug(
        "what comes between join and answer is lost", delivery.lose_at_start, {"hole"}, MAIN
    ),
    "border": Bug(
        "a replay leaves out the last entry of a page", delivery.lose_at_border, {"hole"}, MAIN
    ),
    "held": Bug(
        "who is held for being slow misses one",
        delivery.lose_when_held,
        {"hole", "lost", "stuck"},
        ("slow", "passed", "http"),
        faults=("clock step",),
        rate=8000.0,
        seconds=20.0,
    ),
    "removed": Bug(
        "a replay goes on behind a hole that retention made, without 4004",
        delivery.go_on_behind_hole,
        {"hole"},
        ("passed", "slow", "http"),
        faults=("clock step",),
        rate=8000.0,
        seconds=15.0,
        max_entries=400,
    ),
    "not recovered": Bug(
        "recovered is false without a reason", delivery.deny_recovery, {"flag"}, MAIN
    ),
    "named ahead": Bug(
        "subscribed names an offset ahead of what follows",
        delivery.name_ahead,
        {"repeated"},
        ("filter-b", *SIDE),
    ),
    "feed hole": Bug(
        "the team feed misses one", delivery.skip_in_feed, {"hole", "lost"}, FEEDS
    ),
    "foreign feed": Bug(
        "an activity is in another team's feed", engine.mix_feeds, {"foreign"}, FEEDS
    ),
    "left": Bug(
        "what was unsubscribed from is delivered on", delivery.stay, {"stray"},
        ("plain", "filter-a", *SIDE), seconds=10.0,
    ),
    "filter hole": Bug(
        "a filter leaves out what it wants", delivery.filter_some, {"hole", "ahead", "lost"},
        ("resume-", "read", *SIDE),
    ),
    "filter late": Bug(
        "a filter is in force after its answer only", delivery.filter_late, {"filter", "hole"},
        ("filter", "all", *SIDE),
    ),
    "filter early": Bug(
        "a filter is in force before its answer", delivery.filter_early,
        {"ahead", "hole", "filter"},
        ("filter", "all", *SIDE),
    ),
    "position": Bug(
        "a position is ahead of what was delivered", delivery.tell_ahead,
        {"ahead", "repeated", "behind"}, ("resume-", "read", "http-side"), seconds=12.0,
    ),
    "filter forgotten": Bug(
        "resume forgets the filters", members.forget_filters, {"filter"}, ("resume-", *SIDE)
    ),
    "durable": Bug(
        "durable subscriptions are forgotten at a restart", members.forget_durable,
        {"forgotten"}, ("resume-", *SIDE), KILL,
    ),
    "echo": Bug(
        "a sender gets back what it sent with echo: false", members.echo, {"own"}, ("echo", *SIDE)
    ),
    "echo place": Bug(
        "the answer to echo: false comes behind its place", delivery.answer_late,
        {"hole", "own"}, ("echo", *SIDE),
    ),
    "cursor": Bug(
        "a cursor goes back", members.move_cursors_back, {"cursor"}, ("revoked", "refresh", *SIDE)
    ),
    "read": Bug(
        "a read mark goes back", members.move_reads_back, {"read"}, ("read", *SIDE)
    ),
    "receipts": Bug(
        "receipts are not told to others", members.lose_receipts, {"receipts"},
        ("read", "all", *SIDE),
    ),
    "second device": Bug(
        "what one device acknowledged is lost to the other", members.share_inbox_cursors,
        {"lost", "hole"}, INBOXES,
    ),
    "inbox twice": Bug(
        "notifications come again to the second device", members.forget_inbox_cursors,
        {"cursor"}, INBOXES,
    ),
    "revoked": Bug(
        "a socket whose token is revoked goes on", members.keep_revoked, {"revoked"},
        ("revoke", "revoked", *SIDE), seconds=5.0,
    ),
    "lost PoV": Bug(
        "a PoV that a refresh took away is delivered on", members.keep_lost, {"stray"},
        ("refresh-", *SIDE),
    ),
    "regained": Bug(
        "a PoV that was left and entered again is not delivered", delivery.ignore_return,
        {"lost", "stuck", "hole", "ahead"}, ("plain", "all", *SIDE),
    ),
    "ids": Bug(
        "ids are forgotten at a restart: a retry is a second activity", engine.forget_ids,
        {"retry", "twice", "conflict"}, MAIN, KILL,
    ),
    "conflict": Bug(
        "other contents under a known id count as a retry", engine.miss_conflicts,
        {"conflict"}, ("socket-a", "position", "http-a"),
    ),
    "replies": Bug(
        "answers change places", members.delay_answers, {"reply"}, ("socket", "echo", "all", "ack",
        *SIDE)
    ),
    "epoch": Bug(
        "a log that was lost keeps its epoch", engine.keep_epoch,
        {"epoch", "order", "place", "flag", "lost"}, MAIN, KILL, engine="memory",
    ),
    "clock": Bug(
        "a step of the clock removes entries", engine.believe_clock, {"removed", "flag"}, MAIN,
        ("clock step", "reset"),
    ),
    "page hole": Bug(
        "a page of a log over HTTP leaves one out", streams.skip_in_page, {"hole", "lost", "ahead"},
        ("pages", "http-a"),
    ),
    "poll hole": Bug(
        "an answer that waited leaves one out", streams.skip_in_poll, {"hole", "lost", "ahead"},
        ("poll", "http-a", "http-quiet"),
    ),
    "events ahead": Bug(
        "events are followed by a position ahead of them", streams.tell_events_ahead,
        {"hole", "ahead"}, ("events", "http-a"),
    ),
    "silent 410": Bug(
        "what follows a lost position is answered as if nothing were gone",
        streams.go_on_in_silence, {"hole"}, ("pages", "http-a"), rate=4000.0, seconds=15.0,
        max_entries=20,
    ),
    "numbers": Bug(
        "producers' numbers are forgotten at a restart", streams.forget_numbers,
        {"twice", "number"}, ("numbered", "position", "quiet"), KILL,
    ),
    "number lost": Bug(
        "a new number is taken for a retry", streams.mistake_numbers, {"number"},
        ("numbered", "position", "quiet"),
    ),
    "digest": Bug(
        "a digest counts what there is not", members.count_too_much, {"digest"},
        ("revoked-a", "read-b", *SIDE), max_entries=20,
    ),
}  # fmt: skip
