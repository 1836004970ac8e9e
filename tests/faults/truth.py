"""What Redis itself has of the logs: asked directly, so that no node's opinion is in it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import hiredis
import msgspec

from pov_rt.engine.redis.client.connection import pack
from pov_rt.engine.redis.layout import Partitions, parse_entry, parse_state
from tests.checker.records import Place
from tests.redis_servers import RedisServer

WAIT_S = 20.0
PARTITIONS = Partitions("pr", 128)


class _Named(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Named).decode


def ask(server: RedisServer, *commands: Sequence[str | bytes | int]) -> list[Any]:
    """Return the replies to commands. Raises `OSError`, and the first refusal."""
    reader = hiredis.Reader(notEnoughData=...)
    replies: list[Any] = []
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        connection.sendall(b"".join(pack(*each) for each in commands))
        while len(replies) < len(commands):
            data = connection.recv(1 << 20)
            if not data:
                raise ConnectionResetError("Redis closed the connection")
            reader.feed(data)
            while (reply := reader.gets()) is not ...:
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
                replies.append(reply)
    return replies


def read_tops(server: RedisServer, topics: Sequence[str]) -> dict[str, Place | None]:
    """Return where the logs end; None of those that nobody has touched since the start."""
    states = [("HGET", PARTITIONS.of(topic) + b"m", topic) for topic in topics]
    bases = [("GET", PARTITIONS.of(topic) + b"base") for topic in topics]
    info, *replies = ask(server, ("INFO", "server"), *states, *bases)
    run = info.split(b"run_id:")[1][:12].decode()
    found: dict[str, Place | None] = {}
    values = zip(topics, replies[: len(topics)], replies[len(topics) :], strict=True)
    for topic, state, base in values:
        parsed = parse_state(state or base) if state or base else None
        is_current = parsed is not None and parsed.run == run
        found[topic] = Place(parsed.epoch, parsed.offset) if parsed and is_current else None
    return found


def read_ids(server: RedisServer, topic: str) -> list[tuple[int, str]]:
    """Return what is kept of a log, in order: the offset that an entry says it has, and its id."""
    (values,) = ask(server, ("LRANGE", PARTITIONS.of(topic) + b"s:" + topic.encode(), 0, -1))
    found = (parse_entry(value).entry for value in values)
    return [(entry.offset, _decode(entry.body).id) for entry in found]
