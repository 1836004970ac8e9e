"""What members do now and then, each on one of the PoVs that it is subscribed to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from tests.checker.activities import ACTIONS, TYPES
from tests.checker.courses import EVERYTHING, Filter
from tests.checker.requests import Request
from tests.checker.voices import Voice

Habit = Callable[[Voice, str], None]
REFRESH_S = 1.2
"""How often a member takes a new token: the server allows one a second."""
PLAYED = (
    "filters changed",
    "moved",
    "left",
    "refreshed",
    "revoked",
    "read",
    "receipts",
    "resumed",
    "cursors moved",
    "positions",
    "answers in place of an echo",
    "inbox read",
    "conflicts",
    "pages read",
    "polls answered",
    "events read",
    "numbers repeated",
)
"""What members, devices and publishers count; all of it happens in a run of a minute."""
BACK = 50
"""How far back a member goes to have something sent once more."""


def make_filter(random: Random, users: list[str]) -> Filter:
    """Return any filter, or none."""
    if random.random() < 0.2:
        return EVERYTHING
    some = frozenset(random.sample(users, min(2, len(users))))
    return random.choice(
        (
            Filter(types=frozenset(random.sample(TYPES, random.randrange(1, 3)))),
            Filter(actions=frozenset({random.choice(ACTIONS)})),
            Filter(types=frozenset({"task", "phase"}), actions=frozenset({"created"})),
            Filter(users=some),
            Filter(not_users=some),
            Filter(types=frozenset({"never"})),
        )
    )


def change_filter(member: Voice, topic: str) -> None:
    """Subscribe once more, with another filter."""
    users = sorted(member.history.authors - {""})
    member.history.counts["filters changed"] += 1
    member.subscribe(topic, make_filter(member.random, users) if users else EVERYTHING)


def move(member: Voice, topic: str) -> None:
    """Subscribe once more, from further back."""
    place = member.reached[topic]
    member.history.counts["moved"] += 1
    if member.random.random() < 0.3:
        last = member.random.randrange(1, BACK)
        member.subscribe(topic, member.current[topic], last=last)
    else:
        # Now and then from the beginning, of which not all is kept or replayed.
        back = place.offset if member.random.random() < 0.1 else member.random.randrange(BACK)
        offset = max(0, place.offset - back)
        member.subscribe(topic, member.current[topic], since=place._replace(offset=offset))


def leave(member: Voice, topic: str) -> None:
    """Unsubscribe, and come back from where it was."""
    member.history.counts["left"] += 1
    member.send({"type": "unsubscribe", "povId": topic}, Request("unsubscribe", topic))
    if member.random.random() < 0.7:
        only = member.current[topic]
        member.subscribe(topic, only, since=member.reached[topic])


def acknowledge(member: Voice, topic: str) -> None:
    """Acknowledge: at times less than before, as a slow page may."""
    member.acknowledge(topic, step_back(member, topic))


def read(member: Voice, topic: str) -> None:
    """Say how far the user has read: at times less than before, as another window may."""
    member.read(topic, step_back(member, topic))


def step_back(member: Voice, topic: str) -> int:
    """Return an offset that was delivered, not always the newest."""
    back = member.random.randrange(20) if member.random.random() < 0.3 else 0
    return max(0, member.seen[topic] - back)


def publish(member: Voice, _: str) -> None:
    """Publish, without having it back more often than not."""
    for activity in [member.source.make() for _ in range(member.random.randrange(1, 4))]:
        member.publish(activity, echo=member.random.random() < 0.25)


def refresh(member: Voice, topic: str) -> None:
    """Take a token for the same PoVs, fewer or more."""
    now = asyncio.get_running_loop().time()
    if now < member.refreshed_at + REFRESH_S:
        return
    member.refreshed_at = now
    topics = member.character.topics
    povs = member.random.choice(
        (member.granted, topics, [each for each in topics if each != topic], topics[:2])
    )
    if member.random.random() < 0.5:  # in one packet with what it decides on
        member.subscribe(topic, member.current[topic], since=member.reached[topic])
    member.refresh(povs)


def ping(member: Voice, _: str) -> None:
    """Ask for a pong, which has its turn as any answer has."""
    member.send({"type": "ping"}, Request("ping"))


HABITS: Mapping[str, Habit] = {
    "filter": change_filter,
    "move": move,
    "leave": leave,
    "ack": acknowledge,
    "read": read,
    "publish": publish,
    "refresh": refresh,
    "ping": ping,
}
