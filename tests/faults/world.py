"""A Redis, two nodes, and the network between each of them and it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from tests.checker.clients import LOOPBACK, LOST, Http
from tests.checker.servers import Disk, Server
from tests.engine.redis.certificates import make_certificate
from tests.faults.cutter import Cutter
from tests.faults.spaces import PacketCutter, Space
from tests.redis_servers import HOW, RedisServer, find_program, free_port

PROGRAM = "redis-server"
KEPT = 1000
"""Activities of each log: as many as are replayed at most."""
USER, PASSWORD = "app", "secret"
RIGHTS = ("~*", "+@all")
CHANNELS = ("allchannels",)


class World:
    """Owner: the run. Use it in a `with`, then `start` it, and `close` it in the end.

    The second node speaks TLS to Redis, unless the nodes are in namespaces.
    """

    def __init__(self, folder: Path, seed: int, command: Sequence[str], *, netns: bool) -> None:
        self.folder = folder
        self.nodes: list[Server] = []
        self.cutters: list[Cutter] = []
        self.redis: RedisServer
        self.disk = Disk(folder / "disk")
        self.certificates = make_certificate(folder / "good")
        self.expired = make_certificate(folder / "expired", -1)
        self.tls_port = 0
        self.has_tls = not netns
        self.was_replica = False
        """Whether this Redis was another one's replica."""
        self._chance = Random(seed)
        self._command = command
        self._netns = netns
        self._stack = ExitStack()
        self._servers = 0

    def __enter__(self) -> World:
        self._stack.enter_context(self.disk)
        self._trusted = self.folder / "trusted.pem"
        self._trusted.write_bytes(self.certificates[0].read_bytes() + self.expired[0].read_bytes())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def start(self) -> None:
        """Start all. Raises `ServerError`, `SpaceError`."""
        self.redis, self.tls_port = await asyncio.to_thread(self.start_redis)
        for number in (1, 2):
            await self._start_node(number)

    def close(self) -> None:
        """End all."""
        for node in self.nodes:
            node.kill()
        for cutter in self.cutters:
            cutter.close()

    def start_redis(self, *options: str) -> tuple[RedisServer, int]:
        """Start a Redis as the nodes want one; return it and the port where it speaks TLS."""
        program = find_program(PROGRAM)
        assert program is not None, HOW[PROGRAM]
        self._servers += 1
        tls_port = free_port()
        certificate, key = self.certificates
        server = RedisServer(
            program, self.folder / "disk" / f"redis{self._servers}",
            "--appendonly", "yes", "--auto-aof-rewrite-percentage", "0",
            "--busy-reply-threshold", "200", "--repl-diskless-sync-delay", "0",
            "--tls-port", str(tls_port), "--tls-auth-clients", "no",
            "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
            "--tls-ca-cert-file", str(self._trusted),
            "--user", USER, "on", f">{PASSWORD}", *RIGHTS, *CHANNELS,
        )  # fmt: skip
        server.start(*options)
        self._stack.callback(server.kill)
        return server, tls_port

    def promote(self, server: RedisServer, tls_port: int) -> None:
        """Have another server be the one at the nodes' address; the last one is gone."""
        old, self.redis, self.tls_port = self.redis, server, tls_port
        self.was_replica = True
        for cutter, port in zip(self.cutters, self._ports(), strict=True):
            cutter.upstream = port
            cutter.reset()
        shutil.rmtree(old.folder)

    async def state(self, number: int) -> dict[str, Any] | None:
        """Return what a node says at `/readyz`; None if it does not answer."""
        body = await self._ask(number, "/readyz")
        return None if body is None else json.loads(body)

    async def waiting_bytes(self, number: int) -> float | None:
        """Return how much waits at a node to be appended; None if it does not answer."""
        body = await self._ask(number, "/metrics")
        if body is None:
            return None
        (found,) = re.findall(rb"^pov_rt_log_waiting_bytes (\S+)$", body, re.M)
        return float(found)

    async def _ask(self, number: int, target: str) -> bytes | None:
        node = self.nodes[number]
        http = Http(node.admin_port, "", node.host)
        try:
            return (await http.request(target)).body
        except LOST:
            return None
        finally:
            http.reset()

    def _ports(self) -> list[int]:
        return [self.redis.port, self.tls_port if self.has_tls else self.redis.port]

    async def _start_node(self, number: int) -> None:
        port, command, host = self._ports()[number - 1], self._command, LOOPBACK
        if self._netns:
            space = self._stack.enter_context(Space(number))
            command, host = (*space.prefix, *command), space.front
            cutter: Cutter = PacketCutter(port, self._chance, space)
        else:
            cutter = Cutter(port, self._chance)
        await cutter.start()
        self.cutters.append(cutter)
        folder = self.folder / f"node{number}"
        folder.mkdir()
        scheme = "rediss" if self.has_tls and number == 2 else "redis"
        url = f"{scheme}://{USER}:{PASSWORD}@{cutter.host}:{cutter.port}"
        more = f'[engine.redis]\nca_file = "{self._trusted}"\n'
        node = Server(folder, url, command, KEPT, more, host)
        self.nodes.append(node)
        await asyncio.to_thread(node.start)
