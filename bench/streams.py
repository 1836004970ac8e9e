"""Logs over HTTP: what who waits for events, or for an answer, takes, and what it costs to ask."""

from __future__ import annotations

import selectors
import socket
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from bench import machine
from bench.load import LoadError
from bench.ours import Ours
from bench.peers import token
from bench.report import Check, Result
from bench.run import Feed, Receivers, Run, median_ratio

FOLLOWERS = 5_000
WARM = 200
PER_POV = 10
READERS = 500
PUBLICATIONS = 200
SILENCE_S = 20.0
MARK = b'"seq":'
MODES = {"events": "live=sse", "waiting answers": "live=long-poll"}


class OverHttp(Ours):
    """pov-rt, whose answers end after the scenario."""

    settings = '[streams]\npoll_s = 600\nsse_s = 600\nread_rate = "100000/s"\n'


def streams(run: Run) -> Result:
    """Followers over HTTP who get nothing: their memory, and the CPU of each request."""
    result = Result("streams", "resident memory per follower")
    for mode, live in MODES.items():
        kib, us = list[float](), list[float]()
        for _ in range(run.rounds):
            with OverHttp(run.folder) as server:
                number = run.scaled(FOLLOWERS)
                with ExitStack() as stack:
                    ask(server, stack, WARM, live)
                with ExitStack() as stack:
                    before = machine.resident_bytes(server.pids)
                    since = machine.busy(server.pids)
                    ask(server, stack, number, live)
                    seconds, (share,) = since()
                    taken = machine.resident_bytes(server.pids) - before
                kib.append(taken / number / 1024)
                us.append(share / 100 * seconds / number * 1e6)
        result.add(
            f"{number:,} followers",
            f"pov-rt, {mode}",
            kib=statistics.median(kib),
            cpu_us=statistics.median(us),
        )
        bar, aim = (2.5, 2.0) if mode == "events" else (20.0, 18.0)
        result.checks.append(
            Check(f"memory of {mode}", statistics.median(kib), bar, aim, unit="KiB")
        )
    deliver(run, result)
    return result


class Readers:
    """Sockets of answers that do not end; counts the activities that come on them."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._selector = selectors.DefaultSelector()
        self._ends = dict.fromkeys(sockets, b"")
        for each in sockets:
            self._selector.register(each, selectors.EVENT_READ)
        self.got = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def reset(self) -> None:
        """Count from zero again."""
        self.got = 0

    def expect(self, number: int) -> None:
        """Read until so many have come. Raises `LoadError` after 20 s of silence."""
        while self.got < number:
            ready = self._selector.select(SILENCE_S)
            if not ready:
                raise LoadError(f"of {number} activities {self.got} came")
            for key, _ in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = self._ends[sock] + sock.recv(1 << 18)
                self.got += data.count(MARK)
                # A mark that is cut is counted with what comes next.
                self._ends[sock] = data[1 - len(MARK) :]


def deliver(run: Run, result: Result) -> None:
    """Measure the server's CPU for what one follower gets: as events, and by a socket."""
    used: dict[str, list[float]] = {"events": [], "socket": []}
    number, publications = run.scaled(READERS), run.scaled(PUBLICATIONS)
    for mode in run.in_rounds(list(used), "deliveries, "):
        with OverHttp(run.folder) as server, ExitStack() as stack:
            topic = "pov-0"
            load: Receivers
            if mode == "events":
                sockets = ask(server, stack, number, MODES[mode], per_pov=number)
                load = stack.enter_context(Readers(sockets))
            else:
                load = clients = stack.enter_context(run.clients(server, number, [topic]))
                clients.open()
            feed = Feed(server, load, topic, number)
            feed.publish(10, 1)
            used[mode].append(feed.publish(publications, 1))
    for mode, each in used.items():
        result.add(
            f"{publications} activities to {number:,}",
            f"pov-rt, {mode}",
            delivery_us=statistics.median(each),
        )
    ratio = median_ratio(used["events"], used["socket"])
    result.checks.append(Check("CPU of a delivery, events to socket", ratio, 1.15, 1.0))


def ask(
    server: Ours, stack: ExitStack, number: int, live: str, per_pov: int = PER_POV
) -> list[socket.socket]:
    """Open so many, and wait until the server has begun to serve them.

    All are one user's: what a user has, such as a token that is remembered, is not counted.
    """
    given = token("user", "*")
    opened = []
    for index in range(number):
        pov = f"pov-{index // per_pov}"
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        sock.sendall(
            f"GET /api/povs/{pov}/stream?offset=now&{live} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {given}\r\n\r\n".encode()
        )
        opened.append(sock)
        if live.endswith("sse"):
            head = b""
            while b"upToDate" not in head:
                head += sock.recv(4096)
    machine.rest(server.pids)
    return opened
