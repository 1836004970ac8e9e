"""The scenarios by their names."""

from __future__ import annotations

from collections.abc import Callable

from bench.backends import spool, tracker
from bench.cluster import cluster
from bench.collaboration import presence, typing
from bench.cost import connect, fanout, idle, inbound, topics
from bench.delay import latency, publish, slow
from bench.durability import durable, recover
from bench.functions import crossings
from bench.growth import growth
from bench.hostile import hostile
from bench.off import off
from bench.report import Result
from bench.restart import restart
from bench.run import Run
from bench.screen import screen
from bench.streams import streams
from bench.widgets import page

SCENARIOS: dict[str, Callable[[Run], Result]] = {
    each.__name__: each
    for each in (
        fanout,
        topics,
        inbound,
        connect,
        idle,
        streams,
        tracker,
        spool,
        publish,
        latency,
        slow,
        durable,
        recover,
        restart,
        cluster,
        presence,
        typing,
        crossings,
        growth,
        off,
        hostile,
        screen,
        page,
    )
}
