"""Two machines for real: each node in a network namespace of its own, whose packets are dropped.

A node has two links to the machine where Redis and the clients are: one for the clients, which
nobody cuts, and one for Redis. Needs root, `ip` and `tc`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from tests.faults.cutter import Cutter

NETEM = "netem: the kernel has no sch_netem (modprobe sch_netem)"


class SpaceError(Exception):
    """There can be no namespaces here; the text says what is missing."""


class Space:
    """The namespace of the node with this number. Use it in a `with`."""

    def __init__(self, number: int) -> None:
        self.name = f"pov-rt-{os.getpid()}-{number}"
        self.front = f"10.213.{number}.2"
        """Where clients reach the node."""
        self.back = f"10.214.{number}.1"
        """Where the node reaches Redis."""
        self.prefix = ("ip", "netns", "exec", self.name)
        """What runs the command behind it in here."""
        self._number = number
        self._front = f"pf{os.getpid()}-{number}"
        self._back = f"pb{os.getpid()}-{number}"

    def __enter__(self) -> Space:
        if lacking := missing():
            raise SpaceError(lacking)
        run("ip", "netns", "add", self.name)
        try:
            self._link(self._front, "10.213")
            self._link(self._back, "10.214")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(SpaceError):
            run("ip", "netns", "del", self.name)  # and with it the links

    def discipline(self, *, is_to_redis: bool, words: Sequence[str]) -> None:
        """Have what is sent one way be queued so (see tc(8)), or as usual without words."""
        inside = self.prefix if is_to_redis else ()
        device = ("dev", self._device(is_to_redis), "root")
        if words:
            run(*inside, "tc", "qdisc", "replace", *device, *words)
        else:
            with suppress(SpaceError):  # there may be none
                run(*inside, "tc", "qdisc", "del", *device)

    def _device(self, is_inside: bool) -> str:
        return f"{self._back}i" if is_inside else self._back

    def _link(self, name: str, network: str) -> None:
        here, there = f"{network}.{self._number}.1/30", f"{network}.{self._number}.2/30"
        inside = ("ip", "-n", self.name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}i",
            "netns", self.name)  # fmt: skip
        run("ip", "addr", "add", here, "dev", name)
        run("ip", "link", "set", name, "up")
        run(*inside, "addr", "add", there, "dev", f"{name}i")
        run(*inside, "link", "set", f"{name}i", "up")


class PacketCutter(Cutter):
    """A cutter whose ways are cut by packets: what passes on is for the address alone."""

    def __init__(self, upstream: int, chance: Random, space: Space) -> None:
        super().__init__(upstream, chance, space.back)
        self._space = space
        self._words: Sequence[str] = ()

    def cut(self, *, to_redis: bool, from_redis: bool) -> None:
        """Drop all packets that way; both false: heal it."""
        for is_to_redis, is_cut in ((True, to_redis), (False, from_redis)):
            words = ("pfifo", "limit", "0") if is_cut else self._words
            self._space.discipline(is_to_redis=is_to_redis, words=words)

    def slow(self, delay_s: float, lost: float = 0.0) -> None:
        """Delay each packet, and lose a part; as the proxy does, where there is no netem."""
        if not has_netem(self._space):
            super().slow(delay_s, lost)
            return
        self._words = ()
        if delay_s:
            lost_words = ("loss", f"{lost:.1%}") if lost else ()
            self._words = ("netem", "delay", f"{delay_s * 1000:.0f}ms", *lost_words)
        self.cut(to_redis=False, from_redis=False)


def missing() -> str:
    """Return what is missing for namespaces; empty: nothing."""
    if os.getuid():
        return "network namespaces take root"
    if absent := [name for name in ("ip", "tc") if shutil.which(name) is None]:
        return f"there is no {' and no '.join(absent)}: apt-get install iproute2"
    return ""


def has_netem(space: Space) -> bool:
    """Tell whether packets can be delayed."""
    try:
        space.discipline(is_to_redis=False, words=("netem", "delay", "1ms"))
    except SpaceError:
        return False
    space.discipline(is_to_redis=False, words=())
    return True


def run(*command: str) -> None:
    """Run a command. Raises `SpaceError` with what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpaceError(f"{' '.join(command)}: {done.stderr.strip()}")
