"""Signals to other nodes: published on the topic's channel, kept nowhere."""

from __future__ import annotations

from pov_rt.engine.base import Room
from pov_rt.engine.redis.layout import Partitions
from pov_rt.engine.redis.reader import SIGNAL
from pov_rt.engine.redis.writer import Writer


class RedisSignals:
    """Signals; see `base.Signals`. They go out with what is appended in the same turn."""

    def __init__(self, writer: Writer, partitions: Partitions, node: str) -> None:
        self._writer = writer
        self._partitions = partitions
        self._node = node

    def send(self, topic: str, body: bytes, origin: str = "", *, room: Room = Room.USERS) -> bool:
        head = f"{self._node}\0{origin}\0".encode()
        return self._writer.publish(self._partitions.channel(topic), SIGNAL + head + body, room)
