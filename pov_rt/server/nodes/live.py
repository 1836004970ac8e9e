"""What happens on all nodes, as an operator follows it: each is asked, and says what comes.

Whoever asks says what it has, and is answered what came behind that: an answer that is lost, or a
node that is silent for a while, costs time and no event, as long as that node has room for them. A
node that has forgotten who asks says so, and what it has in memory follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from secrets import token_hex
from typing import NamedTuple

import msgspec

from pov_rt.engine.base import Peer
from pov_rt.protocol.bodies import MissingNode
from pov_rt.protocol.errors import ClientError, NotFound, Unavailable
from pov_rt.runtime.containment import Tasks
from pov_rt.server.nodes.asking import WAIT_S, Asking, Question, Silent, missing_node
from pov_rt.server.trace.events import Event
from pov_rt.server.trace.explain import Explain
from pov_rt.server.trace.trace import Trace

log = logging.getLogger(__name__)

WAITING = 1000
"""Events that wait for who follows them; past that the following ends, and says so."""
MOST = 500
"""Events in an answer."""
WHILE_S = 5.0
"""For how long an answer waits for something to happen."""
FORGET_S = 30.0
"""A node that does not ask for so long follows no more."""
AGAIN_S = 2.0
"""After so long it is looked for nodes that are new, and a silent one is asked again."""


class Whose(msgspec.Struct, frozen=True):
    """What is followed: a user's events, or else those on a topic."""

    user: str
    topic: str

    def is_wanted(self, event: Event) -> bool:
        """Tell whether an event is one of those."""
        return event.topic == self.topic if self.topic else event.user == self.user

    def in_memory(self, trace: Trace) -> list[Event]:
        """Return those of this node that are in memory."""
        return [each for each in trace.of(self.topic or self.user) if self.is_wanted(each)]


class Follow(msgspec.Struct):
    """Asks for what happens behind an event's `number`, under a name that the asker made for it.

    The answer waits for `wait_s` for something to happen. 0: only what is in memory is wanted.
    Unless it `begins`, it is refused where the name is not known any more: there may be a gap.
    """

    name: str
    whose: Whose
    after: int
    wait_s: float
    begins: bool = True


FOLLOW = Question("follow", Follow, list[Event])


class Line(NamedTuple):
    """An event, or a node that says nothing; `node` is empty for this one."""

    node: str
    event: Event | MissingNode


class Following:
    """What happens on this node, for one who follows it."""

    def __init__(self, trace: Trace, whose: Whose, after: int = 0) -> None:
        self._trace = trace
        self._whose = whose
        self._events = deque(each for each in whose.in_memory(trace) if each.number > after)
        self._room = len(self._events) + WAITING
        self._news = asyncio.Event()
        self.forgetting: asyncio.TimerHandle | None = None
        trace.listeners.append(self._take)

    def end(self) -> None:
        """Follow no more."""
        self._trace.listeners.remove(self._take)

    async def next(self, after: int, wait_s: float) -> list[Event]:
        """Return what came behind an event, once there is some, or after `wait_s` nothing.

        Raises `Unavailable` if too much has come since this was asked last.
        """
        while self._events and self._events[0].number <= after:
            self._events.popleft()
        if not self._events:
            self._news.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                return []
        if len(self._events) > self._room:
            raise Unavailable("Too much happens for who follows it")
        return list(islice(self._events, MOST))

    def _take(self, event: Event) -> None:
        # One above it says that there were more: whoever reads slowly costs no more than that.
        if self._whose.is_wanted(event) and len(self._events) <= self._room:
            self._events.append(event)
            self._news.set()


class Live:
    """Follows what happens on all nodes. Owner: the server."""

    def __init__(self, explain: Explain, asking: Asking) -> None:
        self._explain = explain
        self._asking = asking
        self._followings: dict[str, Following] = {}
        """Those of other nodes, by the names that they made."""
        asking.on(FOLLOW, self._answer)

    async def so_far(self, whose: Whose) -> Sequence[Line]:
        """Return what is in memory of all nodes, in order, and then who says nothing.

        Raises `NotFound` if this node keeps no trace.
        """
        found = [("", event) for event in whose.in_memory(self._trace())]
        told = await self._asking.ask_all(FOLLOW, Follow("", whose, 0, 0.0))
        for peer, events in told.answers:
            found += [(peer.name, event) for event in events]
        found.sort(key=lambda each: each[1].at)
        return [
            *(Line(*each) for each in found),
            *(Line(each.node, each) for each in told.missing),
        ]

    def follow(self, whose: Whose) -> Follower:
        """Return who follows what happens, from what is in memory on; raises as `so_far`."""
        return Follower(Following(self._trace(), whose), whose, self._asking)

    def _trace(self) -> Trace:
        if (trace := self._explain.trace) is None:
            raise NotFound("There is no trace: set trace.enabled")
        return trace

    async def _answer(self, asked: Follow) -> list[Event]:
        trace = self._trace()
        if not asked.wait_s:
            return asked.whose.in_memory(trace)[-MOST:]
        following = self._followings.get(asked.name)
        if following is None:
            if not asked.begins:
                raise Unavailable("It was not asked for too long, and some of this may be lost")
            following = self._followings[asked.name] = Following(trace, asked.whose, asked.after)
        elif following.forgetting is not None:
            following.forgetting.cancel()
        loop = asyncio.get_running_loop()
        following.forgetting = loop.call_later(FORGET_S, self._forget, asked.name)
        try:
            return await following.next(asked.after, asked.wait_s)
        except Unavailable:  # it is said, and goes on with what is in memory
            self._forget(asked.name)
            raise

    def _forget(self, name: str) -> None:
        if (following := self._followings.pop(name, None)) is not None:
            if following.forgetting is not None:  # or it ends the next one of this name
                following.forgetting.cancel()
            following.end()


class Follower:
    """Gets what happens from each node, a piece of each at a time; `end` has to be called."""

    def __init__(self, own: Following, whose: Whose, asking: Asking) -> None:
        self._own = own
        self._whose = whose
        self._asking = asking
        self._pieces: asyncio.Queue[list[Line] | ClientError] = asyncio.Queue(1)
        self._followed: set[str] = set()
        self._tasks = Tasks(log, "following what happens")
        self._tasks.spawn(self._read_own())
        self._tasks.spawn(self._find())

    async def next(self) -> list[Line]:
        """Return what has happened on a node. Raises `Unavailable` if that is too much."""
        piece = await self._pieces.get()
        if isinstance(piece, ClientError):
            raise piece
        return piece

    async def end(self) -> None:
        """Follow no more."""
        await self._tasks.end()
        self._own.end()

    async def _find(self) -> None:
        """Follow nodes that are there, and those that come."""
        while True:
            for peer in self._asking.peers:
                if peer.run not in self._followed:
                    self._followed.add(peer.run)
                    self._tasks.spawn(self._read_other(peer.run))
            await asyncio.sleep(AGAIN_S)

    async def _read_own(self) -> None:
        after = 0
        try:
            while True:
                events = await self._own.next(after, WHILE_S)
                after = await self._hand("", events, after)
        except Unavailable as error:
            await self._pieces.put(error)

    async def _read_other(self, run: str) -> None:
        """Get what happens on another node until it has ended; say once why it says nothing."""
        name, after, begins, told = token_hex(8), 0, True, ""
        while (peer := self._peer(run)) is not None:
            asked = Follow(name, self._whose, after, WHILE_S, begins)
            try:
                events = await self._asking.ask(peer, FOLLOW, asked, WHILE_S + WAIT_S)
            except ClientError as error:
                is_silent = isinstance(error, Silent)
                why = "silent" if is_silent else error.message
                if why != told:
                    await self._pieces.put([Line(peer.name, missing_node(peer, error))])
                # What it refused was told, and it need not say once more that there is a gap.
                begins, told = begins or not is_silent, why
                await asyncio.sleep(AGAIN_S)
            else:
                begins, told = False, ""
                after = await self._hand(peer.name, events, after)

    async def _hand(self, node: str, events: Sequence[Event], after: int) -> int:
        """Hand on what a node has said; return behind which event it is to be asked next."""
        if not events:
            return after
        await self._pieces.put([Line(node, event) for event in events])
        return events[-1].number

    def _peer(self, run: str) -> Peer | None:
        return next((each for each in self._asking.peers if each.run == run), None)
