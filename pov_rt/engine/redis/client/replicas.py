"""Which replicas have what was written, and whether the next primary is sure to have it.

A primary that is being replaced does not know that for a second or more, and neither do its other
replicas: they confirm what it is sent, and the next primary has nothing of it. So what counts is
not how many have confirmed, but that nobody has not who could be chosen. What makes that so:

1. *Who has it* is said by the primary. Behind what was written stand ROLE, WAIT, INFO: the first
   has the offset that it ends at or before, WAIT has the replicas confirm at once instead of each
   second, and the last has how far each of them, by name, has confirmed. A replica that has
   confirmed keeps it when it becomes the primary; from then on it confirms nothing more.
2. *All that the sentinels know have it*: then it is safe, whoever is chosen and whenever. This is
   how it is when all is well, and it costs no question: who is down or has just come back is known,
   too, and has not confirmed.
3. *Some of those have not*: then the sentinels are asked again, once it is known who has it. What
   they say now counts: a majority, each for itself, for each of them may be the one that chooses.
   One that is down, or has priority 0, cannot have been chosen by then. One that comes back later
   is given everything before the primary counts it among its replicas.
4. *A sentinel that calls another one the primary*, for it has not heard of a failover yet, would
   make this one a replica of that: so that one has to have it, too, or be down, until they agree.
5. *One that is back and does not follow yet* is sent all of it when it does, and until then it is
   not chosen where it is behind one that has confirmed: sentinels take the one that is furthest. As
   soon as the primary begins to bring it up to date it has to confirm: what sentinels know of the
   others is a second old, so that one that is nearly there looks furthest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pov_rt.engine.redis.client.connection import PRIMARY, Reply, ServerError, pack
from pov_rt.protocol.errors import Unavailable

REPLICA = re.compile(r"^slave\d+:ip=(.*?),port=(\d+),state=\w+,offset=(\d+)", re.M)
"""A replica in INFO, whatever state it is in."""
COMMANDS = 3
"""How many commands `Replicas.question` is."""


class Replica(NamedTuple):
    """A replica as a sentinel sees it when it chooses: the best priority, then the furthest."""

    is_down: bool
    is_linked: bool
    """Whether it follows its primary."""
    priority: int
    """0: it is never chosen; else the lowest is the best."""
    offset: int

    def is_behind(self, other: Replica) -> bool:
        """Tell whether the other one is chosen before this one."""
        return other.priority <= self.priority and other.offset > self.offset


View = Mapping[str, Replica]
"""What one sentinel says, by `HOST:PORT`."""


class Electors(Protocol):
    """Who may choose another primary."""

    @property
    def views(self) -> Sequence[View]:
        """What each of them has said of the replicas; empty where nobody chooses."""
        ...

    async def look(self) -> None:
        """Have them say it anew, and who the primary is. Raises `Away`."""
        ...


class Unconfirmed(Unavailable):
    """What was written is there, and not where it has to be before anybody may rely on it."""


class Nobody:
    """Where there are no sentinels: nobody chooses another primary."""

    views: Sequence[View] = ()

    async def look(self) -> None:
        """Have nothing to ask."""


class Replicas:
    """Says what is safe: `least` replicas have it, and all that could be the next primary."""

    def __init__(self, electors: Electors, least: int, wait_ms: int) -> None:
        self.electors = electors
        self.least = least
        self.wait_ms = wait_ms
        self._confirmed: dict[str, int] = {}
        """How far each has confirmed of those that follow, or begin to, by the primary's word."""

    def question(self) -> bytes:
        """Return what is sent behind what was written."""
        number = max(self.least, len(set(self._required())))
        return pack("ROLE") + pack("WAIT", number, self.wait_ms) + pack("INFO", "replication")

    def read(self, replies: Sequence[Reply]) -> int:
        """Take the replies to `question`; return the offset that has to be confirmed.

        Raises `Unconfirmed`: Redis does not say, or is no primary any more.
        """
        refused = [str(reply) for reply in replies if isinstance(reply, ServerError)]
        if not refused and replies[0][0] != PRIMARY:
            refused = ["it is a replica now"]
        if refused:
            raise Unconfirmed(f"Redis does not say which replicas have it: {refused[0]}")
        role, _, info = replies
        self._confirmed = {}
        for host, port, offset in REPLICA.findall(info.decode()):
            self._confirmed[f"{host}:{port}"] = int(offset)
        return int(role[1])

    def are_sure(self, offset: int) -> bool:
        """Tell whether it is safe up to an offset, whatever has become of the sentinels' views."""
        have = self._have(offset)
        return len(have) >= self.least and all(have >= view.keys() for view in self.electors.views)

    def lack(self, offset: int) -> str:
        """Return why it is not safe up to an offset, as of the sentinels' views; else nothing."""
        have = self._have(offset)
        if len(have) < self.least:
            return f"fewer than {self.least} replicas of Redis have it (engine.redis.replicas)"
        others = {*self._required(), *self._ahead(have)} - have
        if others:
            return f"the sentinels may choose {', '.join(sorted(others))}, which has not got it"
        return ""

    def _have(self, offset: int) -> set[str]:
        return {name for name, confirmed in self._confirmed.items() if confirmed >= offset}

    def _eligible(self) -> Iterator[tuple[View, str, Replica]]:
        for view in self.electors.views:
            for name, each in view.items():
                if not each.is_down and each.priority:
                    yield view, name, each

    def _required(self) -> Iterator[str]:
        """Yield who follows and could be chosen."""
        for _, name, each in self._eligible():
            if each.is_linked or name in self._confirmed:
                yield name

    def _ahead(self, have: set[str]) -> Iterator[str]:
        """Yield who could be chosen before all that have confirmed."""
        for view, name, each in self._eligible():
            if not any(each.is_behind(view[other]) for other in have & view.keys()):
                yield name
