"""What the other nodes know of a user and an activity: the part of `Explain` that is theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from pov_rt.protocol.bodies import MissingNode
from pov_rt.server.nodes.asking import AnswerT, Asking, BodyT, Question
from pov_rt.server.trace.case import Live
from pov_rt.server.trace.events import Event
from pov_rt.server.trace.trace import Append, Handout

MOST_EVENTS = 500
"""Of a user's, from another node: the newest."""


class Of(msgspec.Struct):
    """Whose events are asked for, and of which activity the attempts to publish it."""

    user: str
    activity: str


class Events(msgspec.Struct):
    """What a node has of those, in order."""

    users: Sequence[Event]
    publishing: Sequence[Event]


class At(msgspec.Struct):
    """A user, and an activity by its place."""

    user: str
    topic: str
    offset: int


class Passed(msgspec.Struct):
    """The user's connections on a node, and what is known there of the activity."""

    live: Sequence[Live]
    append: Append | None
    handout: Handout | None


EVENTS = Question("events", Of, Events)
PASSED = Question("passed", At, Passed)


class Others:
    """What the others know of one case. Who does not answer once is `missing`, and asked no more.

    `nodes` has whose the events of a run are.
    """

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._peers = asking.peers
        self.missing: list[MissingNode] = []
        self.nodes: dict[str, str] = {}

    async def events(self, user_id: str, activity_id: str) -> Events:
        """Return what all of them have, node by node."""
        told = await self._ask(EVENTS, Of(user_id, activity_id))
        for name, events in told.items():
            self.nodes.update({each.run: name for each in events.users})
        users = chain.from_iterable(each.users for each in told.values())
        publishing = chain.from_iterable(each.publishing for each in told.values())
        return Events(list(users), list(publishing))

    async def passed(self, user_id: str, topic: str, offset: int) -> Mapping[str, Passed]:
        """Return what each of them knows, by its name."""
        return await self._ask(PASSED, At(user_id, topic, offset))

    async def _ask(self, question: Question[BodyT, AnswerT], body: BodyT) -> Mapping[str, AnswerT]:
        told = await self._asking.ask_all(question, body, self._peers)
        self.missing += told.missing
        self._peers = [peer for peer, _ in told.answers]
        return {peer.name: answer for peer, answer in told.answers}
