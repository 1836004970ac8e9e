"""What a unit of work costs a server that has other things: a few clients who find out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from bench.cost import answered
from bench.load import Load
from bench.peers import Peer
from bench.run import Feed, Run

PINGING, READING = 100, 500
"""Clients that ping, and subscribers of one PoV."""
PINGS, PUBLICATIONS, SPREAD = 60, 200, 40
"""Of each client; to one subscriber; to `READING` of them: some 0.1 to 0.2 s of work each."""
ONE, MANY = "probe-one", "probe-many"
CLIENTS = PINGING + READING + 1
"""All of a probe's."""


class Costs(NamedTuple):
    """Microseconds of the server's CPU for each unit of work."""

    ping: float
    publish: float
    delivery: float


class Probe:
    """Clients of a server, to be asked again and again what things cost it now."""

    def __init__(self, peer: Peer, pinging: Load, one: Feed, many: Feed) -> None:
        self.peer = peer
        self._pinging, self._one, self._many = pinging, one, many

    def ask(self) -> Costs:
        """Measure each cost once."""
        return Costs(
            answered(self.peer, self._pinging, PINGS),
            self._one.publish(PUBLICATIONS, 1),
            self._many.publish(SPREAD, 1),
        )


def least(rounds: Iterable[Costs]) -> Costs:
    """Return the least of each cost, which other work disturbed least."""
    return Costs(*map(min, zip(*rounds, strict=True)))


@contextmanager
def probed(run: Run, peer: Peer) -> Iterator[Probe]:
    """Connect a probe to a server for the block, which is warm then."""
    with ExitStack() as stack:
        loads = []
        for number, topic in ((PINGING, "pinging"), (1, ONE), (READING, MANY)):
            loads.append(stack.enter_context(run.clients(peer, number, [topic])))
            loads[-1].open()
        pinging, one, many = loads
        probe = Probe(peer, pinging, Feed(peer, one, ONE, 1), Feed(peer, many, MANY, READING))
        probe.ask()
        yield probe
