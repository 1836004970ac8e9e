"""A real primary of Redis with its replicas, and the sentinels that watch it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.redis_servers import HOW, PROGRAMS, RedisServer, find_program

NAME = "trio"
PATIENCE_S = 60.0
"""How long sentinels may take for what they do within a few seconds on a machine of their own."""


class Sentinel(RedisServer):
    """A sentinel; `settings` are the lines of its file, in which it notes what it finds out."""

    def __init__(self, program: str, folder: Path, primary: RedisServer, *settings: str) -> None:
        super().__init__(program, folder, certificate=primary.certificate)
        self.file = folder / "sentinel.conf"
        quorum = 2
        lines = (
            *(f"{name} {value}" for name, value in self.listening()),
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {NAME} 1000",
            f"sentinel failover-timeout {NAME} 3000",
            f"sentinel parallel-syncs {NAME} 2",
            *settings,
        )
        self.file.write_text("".join(f"{line}\n" for line in lines))

    def line(self) -> list[str]:
        """Return the program and its arguments."""
        return [self.program, str(self.file), "--sentinel"]

    def primary(self) -> int:
        """Return the port at which it says the primary is."""
        words = self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME).split(b"\r\n")
        return int(words[4])

    def sees(self, replicas: int, others: int) -> bool:
        """Tell whether it knows so many replicas, all of them well, and so many other sentinels."""
        facts = self.command("INFO", "sentinel")
        known = b"status=ok" in facts and b"failover_in_progress" not in self.command(
            "SENTINEL", "MASTER", NAME
        )
        known &= b"slaves=%d,sentinels=%d\r" % (replicas, others + 1) in facts
        # The flags of one that is well are `slave` and nothing else.
        found = self.command("SENTINEL", "REPLICAS", NAME).split(b"\r\n")
        flags = [found[at + 2] for at, word in enumerate(found) if word == b"flags"]
        return known and flags == [b"slave"] * replicas


class Group:
    """Three servers of which one is the primary, and three sentinels."""

    def __init__(self, servers: list[RedisServer], sentinels: list[Sentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """Return what `engine.url` is."""
        places = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        scheme = "redis" if self.servers[0].certificate is None else "rediss"
        return f"{scheme}+sentinel://{places}/{NAME}"

    @property
    def primary(self) -> RedisServer:
        """Return the server that the sentinels call the primary."""
        port = self.sentinels[0].primary()
        return next(each for each in self.servers if each.port == port)

    def fail_over(self) -> None:
        """Have another server be the primary, as planned."""
        answer = self.sentinels[0].command("SENTINEL", "FAILOVER", NAME)
        assert answer == b"+OK\r\n", answer

    def cut_replicas(self) -> None:
        """Have nothing more arrive at the replicas: they may not come back to the primary."""
        primary = self.primary
        assert primary.command("ACL", "SETUSER", "default", "-psync", "-sync") == b"+OK\r\n"
        assert primary.command("CLIENT", "KILL", "TYPE", "replica") == b":2\r\n"

    def heal(self) -> None:
        """Start what was killed, and return once all know each other and the replicas are there.

        A server that comes back is told at once whose replica it is, which sentinels do late.
        """
        self._until(self._is_settled)
        primary = self.primary
        for server in self.servers:
            if not server.is_running:
                server.start("--replicaof", "127.0.0.1", str(primary.port))
            elif server is not primary:
                server.command("REPLICAOF", "127.0.0.1", primary.port)
        self._until(self._is_well)

    def _is_settled(self) -> bool:
        """Tell whether all agree who the primary is, and nobody is about to change that."""
        states = [each.command("SENTINEL", "MASTER", NAME) for each in self.sentinels]
        return len({each.primary() for each in self.sentinels}) == 1 and not any(
            b"failover_in_progress" in state for state in states
        )

    def _is_well(self) -> bool:
        primary = self.primary
        facts = primary.command("INFO", "replication")
        number = len(self.servers) - 1
        return (
            facts.count(b"state=online") == number
            and {each.primary() for each in self.sentinels} == {primary.port}
            and all(each.sees(number, len(self.sentinels) - 1) for each in self.sentinels)
        )

    def _until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, "the sentinels do not agree"
            time.sleep(0.05)


@contextmanager
def group_running(
    folder: Path, name: str = PROGRAMS[0], certificate: tuple[Path, Path] | None = None
) -> Iterator[Group]:
    """Run a group of one of `PROGRAMS`, which must be installed, for the block; perhaps by TLS."""
    program = find_program(name)
    assert program is not None, HOW[name]
    with ExitStack() as stack:
        primary, *replicas = (
            RedisServer(
                program,
                folder / f"server{at}",
                "--repl-diskless-sync-delay",
                "0",
                certificate=certificate,
            )
            for at in range(3)
        )
        sentinels = [Sentinel(program, folder / f"sentinel{at}", primary) for at in range(3)]
        for server in (primary, *replicas, *sentinels):
            server.outlives = True
            stack.callback(server.kill)
        primary.start()
        for replica in replicas:
            replica.start("--replicaof", "127.0.0.1", str(primary.port))
        for sentinel in sentinels:
            sentinel.start()
        group = Group([primary, *replicas], sentinels)
        group.heal()
        yield group
