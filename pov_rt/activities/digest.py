"""What happened while somebody was away for too long, in numbers instead of activities."""

from __future__ import annotations

from collections import Counter

from pov_rt.delivery.stored import Reader
from pov_rt.engine.base import Log
from pov_rt.protocol.messages import Part

MAX_COUNTED = 10_000
PAGE = 1000
MOST = 20
"""Of sorts of activities and of users, those that occur most are named."""


class Sort(Part):
    """How often one sort of activity occurred."""

    type: str
    action: str
    count: int


class Author(Part):
    """How many activities one user caused."""

    user_id: str
    count: int


class Digest(Part):
    """Of the activities that were missed `counted` are still there, by `people` different users.

    `activities` and `users` name the 20 most frequent, the most frequent first.
    """

    counted: int
    people: int
    activities: list[Sort]
    users: list[Author]


async def make_digest(log: Log, stored: Reader, topic: str, after: int) -> Digest:
    """Count the newest activities of a topic after an offset, at most 10,000."""
    sorts: Counter[tuple[str, str]] = Counter()
    authors: Counter[str] = Counter()
    counted, before = 0, 0
    while counted < MAX_COUNTED:
        page = await log.read(topic, before, PAGE, reverse=True)
        missed = [entry for entry in page.entries if entry.offset > after]
        heads = stored.heads(topic, missed)
        sorts.update((head.type, head.action) for head in heads)
        authors.update(head.user_id for head in heads)
        counted += len(heads)
        if len(missed) < PAGE:
            break
        before = page.entries[-1].offset
    return Digest(
        counted=counted,
        people=len(authors),
        activities=[
            Sort(type=kind, action=action, count=count)
            for (kind, action), count in sorts.most_common(MOST)
        ],
        users=[Author(user_id=user, count=count) for user, count in authors.most_common(MOST)],
    )
