"""Several nodes on one Redis: ours, and Centrifugo's.

Nodes, Redis and the load share the two cores: there is none left for each of them. So what counts
is CPU per unit of work, and a rate beside another one of the same run (docs/measurements.md, nodes
on one Redis).
"""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from bench.centrifugo import Centrifugo
from bench.load import LoadError
from bench.machine import LOAD_CORE, SERVER_CORE, cpu_s
from bench.ours import Ours
from bench.peers import HttpPublisher, Peer
from pov_rt.engine.redis.client.connection import pack
from pov_rt.engine.redis.layout import Partitions

SHARED = (SERVER_CORE, LOAD_CORE)
PREFIX, PARTITIONS = "pr", 128
"""What the engine's keys begin with, and how many partitions it has: the settings' defaults."""
AT_ONCE = 512
DEADLINE_S = 20.0
"""A machine that is busy with other things is slow, and nothing of it has failed."""


class Redis(Peer):
    """A Redis as operations.md advises: with an append-only file, which is flushed each second."""

    name = "redis"
    cores = SHARED

    @property
    def url(self) -> str:
        """Return what a node is given."""
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Return what to run."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # It would fall into one round and not into another.
            "auto-aof-rewrite-percentage": "0",
        }
        given = [word for name, value in options.items() for word in (f"--{name}", value)]
        return ["redis-server", *given]

    @contextmanager
    def followed(self, topics: int) -> Iterator[None]:
        """Have so many topics be followed during the block, by somebody who is no node of ours."""
        partitions = Partitions(PREFIX, PARTITIONS)
        channels = [partitions.channel(f"elsewhere-{number}") for number in range(topics)]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock:
            for start in range(0, topics, AT_ONCE):
                some = channels[start : start + AT_ONCE]
                sock.sendall(pack("SUBSCRIBE", *some))
                _confirmed(sock, start + len(some))
            yield

    def reads(self) -> int:
        """Return how often entries were read from a list since it was started."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock:
            sock.sendall(pack("INFO", "commandstats") + pack("QUIT"))
            said = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        found = re.search(rb"cmdstat_lrange:calls=(\d+)", said)
        return int(found[1]) if found else 0

    @contextmanager
    def followers(self, topic: str, number: int) -> Iterator[None]:
        """Have so many connections follow a topic during the block, as many nodes would."""
        channel = Partitions(PREFIX, PARTITIONS).channel(topic)
        with ExitStack() as stack, selectors.DefaultSelector() as ready:
            for _ in range(number):
                address = ("127.0.0.1", self.port)
                sock = stack.enter_context(socket.create_connection(address, timeout=30))
                sock.sendall(pack("SUBSCRIBE", channel))
                _confirmed(sock, 1)
                ready.register(sock, selectors.EVENT_READ)
            ended = Event()
            reading = Thread(target=_drain, args=(ready, ended))
            reading.start()
            try:
                yield
            finally:
                ended.set()
                reading.join()


def _drain(ready: selectors.BaseSelector, ended: Event) -> None:
    """Read whatever comes, and forget it."""
    while not ended.is_set():
        for key, _ in ready.select(0.05):
            key.fileobj.recv(1 << 16)  # type: ignore[union-attr]


def _confirmed(sock: socket.socket, number: int) -> None:
    """Read until so many channels are followed."""
    end, said = b":%d\r\n" % number, b""
    while not said.endswith(end):
        more = sock.recv(1 << 16)
        if not more:
            raise LoadError(f"Redis hung up: {said[-200:]!r}")
        said = said[-len(end) :] + more


class OursOnRedis(Ours):
    """One of our nodes."""

    cores = SHARED
    settings = f"[engine.redis]\ndeadline_s = {DEADLINE_S}\n"

    def __init__(self, folder: Path, redis: Redis, number: int) -> None:
        self.name = f"pov-rt, node {number}"
        self.engine = redis.url
        super().__init__(folder)


class CentrifugoOnRedis(Centrifugo):
    """One of Centrifugo's nodes.

    What is in a batch is done at once: one by one each would wait for Redis.
    """

    cores = SHARED
    parallel = True

    def __init__(self, folder: Path, redis: Redis, number: int) -> None:
        self.name = f"centrifugo, node {number}"
        self._url = redis.url
        super().__init__(folder)

    def engine(self) -> dict[str, Any]:
        """Return where it keeps what it keeps."""
        return {"type": "redis", "redis": {"address": [self._url]}}


class Site:
    """Servers that are one to their users; the first is published to, the last has the clients."""

    def __init__(self, name: str, nodes: Sequence[HttpPublisher], redis: Redis | None) -> None:
        self.name = name
        self.nodes = nodes
        self.redis = redis

    @property
    def first(self) -> HttpPublisher:
        """The node that is published to."""
        return self.nodes[0]

    @property
    def last(self) -> HttpPublisher:
        """The node that has the clients."""
        return self.nodes[-1]

    def cpu_us(self) -> dict[str, float]:
        """Return the microseconds that each of its servers ran so far."""
        servers = {f"node_{number}": node for number, node in enumerate(self.nodes, 1)}
        given = servers | ({"redis": self.redis} if self.redis else {})
        return {name: 1e6 * cpu_s(server.pids) for name, server in given.items()}
