"""Injects a seeded fault every second or so."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from threading import Event
from typing import Protocol

from tests.checker.launcher import set_clock
from tests.checker.proxy import Proxy
from tests.checker.servers import Disk, Server, ServerError

PAUSE_S = (0.2, 1.2)
STEP_S = (-3000.0, 4000.0)
"""Where the server's wall clock is put, from the true time."""
FULL_S = 6.0
"""How long to wait until the server has noticed that its disk is full."""


class Victim(Protocol):
    """A client whose connection can be cut."""

    def reset(self) -> None:
        """Cut it."""


WEIGHTS = {
    "kill -9": 6.0,
    "stop": 2.0,
    "reset": 2.0,
    "proxy": 2.0,
    "clock step": 1.5,
    "full disk": 1.0,
}
"""The faults, and how often each is chosen."""


class Nemesis(threading.Thread):
    """Owner: the run, which starts it and waits for its end.

    It ends after so many kills or seconds, whichever is given, and leaves a server that runs.
    `refused` is set by publishers when the server cannot store.
    """

    def __init__(
        self,
        server: Server,
        disk: Disk,
        proxy: Proxy,
        victims: Sequence[Victim],
        refused: Event,
        *,
        seed: int,
        faults: Sequence[str],
        kills: int | None,
        seconds: float | None,
    ) -> None:
        super().__init__(name="nemesis", daemon=True)
        self.counts: Counter[str] = Counter()
        self.error: ServerError | None = None
        self._server = server
        self._disk = disk
        self._proxy = proxy
        self._victims = victims
        self._refused = refused
        self._random = Random(seed)
        self._faults = [fault for fault in faults if fault != "full disk" or disk.there]
        self._kills = kills
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._over = Event()

    def stop(self) -> None:
        """End soon."""
        self._over.set()

    def run(self) -> None:
        """Inject faults to the end."""
        do: dict[str, Callable[[], None]] = {
            "kill -9": self._kill,
            "stop": self._stop_and_go_on,
            "reset": self._reset,
            "proxy": self._disturb,
            "clock step": self._step,
            "full disk": self._fill,
        }
        end = None if self._seconds is None else time.monotonic() + self._seconds
        weights = [WEIGHTS[fault] for fault in self._faults]
        try:
            while not self._over.wait(self._random.uniform(*PAUSE_S)):
                if end is not None and time.monotonic() >= end:
                    return
                (fault,) = self._random.choices(self._faults, weights)
                do[fault]()
                if self._kills is not None and self.counts["kill -9"] >= self._kills:
                    return
        except ServerError as error:
            self.error = error
        finally:
            self._disk.free()

    def _kill(self) -> None:
        if self._random.random() < 0.2:  # while it stands still, and much waits for it
            self._server.send(signal.SIGSTOP)
            self._over.wait(self._random.uniform(0, 0.3))
        self._server.kill()
        self.counts["kill -9"] += 1
        if self._random.random() < 0.15:  # and once more while it starts
            self._server.spawn()
            self._over.wait(self._random.uniform(0.1, 0.8))
            self._server.kill()
            self.counts["kill -9"] += 1
        self._server.start()

    def _stop_and_go_on(self) -> None:
        self._server.send(signal.SIGSTOP)
        self.counts["stop"] += 1
        self._over.wait(self._random.uniform(0.2, 2))
        self._server.send(signal.SIGCONT)

    def _reset(self) -> None:
        for victim in self._random.sample(self._victims, len(self._victims) // 2):
            self._loop.call_soon_threadsafe(victim.reset)
        self.counts["reset"] += 1

    def _disturb(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.disturb, Random(self._random.random()))
        self.counts["proxy"] += 1

    def _step(self) -> None:
        set_clock(self._server.clock, self._random.uniform(*STEP_S))
        self.counts["clock step"] += 1

    def _fill(self) -> None:
        self._refused.clear()
        if not self._disk.fill(self._random.randrange(64 * 1024)):
            return
        if self._refused.wait(FULL_S):
            self.counts["full disk"] += 1
            self._over.wait(self._random.uniform(0.1, 1))
        crash = self._random.random() < 0.4
        if crash:
            self._server.kill()
            self.counts["kill -9"] += 1
        if crash and self._random.random() < 0.5:
            self._server.spawn()
            try:
                self._server.wait()  # it may start on a full disk, or say why not
            except ServerError:
                self._disk.free()
                self._server.start()
            else:
                self._over.wait(self._random.uniform(0.1, 1))
        elif crash:
            self._disk.free()
            self._server.start()
        self._disk.free()
