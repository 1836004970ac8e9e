"""Beats of all nodes over Redis, and the directory: who is there, and who hears whom.

Every `BEAT_S` seconds each node publishes a beat on the channel that all nodes hear, and writes in
the hash `PREFIX:node` what it is and when it heard whom last; who wrote nothing for `GONE_S`
seconds is not there any more. The write is also what finds out that Redis takes none, and that it
does again; and that what was there is gone, for the node's own entry is then a new one.

A node whose own beats do not come back, though Redis takes them, first listens over another
connection. If they do not come back then either, it is the others who say what is at fault: where
they hear, this node is deaf; where nobody hears, Redis is. A node that is alone is never deaf.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from pov_rt.engine.base import Peer
from pov_rt.engine.redis.client.connection import Reply, ServerError, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.link import Unfit
from pov_rt.engine.redis.health.conditions import Conditions
from pov_rt.engine.redis.reader import BEAT, Reader
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.measure.histogram import SLOW_S, Histogram
from pov_rt.version import VERSION

log = logging.getLogger(__name__)

BEAT_S = 2.0
"""How often a node publishes a beat."""
SILENT_S = 6.0
"""For how long a node's own beats may not come back."""
GONE_S = 60.0
"""Who wrote nothing in the directory for so long is not there."""
PROTOCOL: Final = (1, 1)
"""The oldest and the newest way of talking among nodes that this version knows."""
COPYING: Final = (0, 0)
"""What a copy of the database says that it knows: so no node starts beside it."""
MOST_HEARD = 64
"""Of how many nodes one writes when it heard them: those that it heard last."""


def directory_entry(
    names: tuple[str, str],
    protocol: tuple[int, int],
    started: float,
    at: int,
    hears: Mapping[str, int],
) -> bytes:
    """Return what the directory has of somebody: who is there since when, and still was at `at`.

    `names` are its id, and what operators call it.
    """
    entry = {
        "id": names[0],
        "name": names[1],
        "version": VERSION,
        "protocol": protocol,
        "address": socket.gethostname(),
        "started": started,
        "at": at,
        "hears": hears,
    }
    return json.dumps(entry, separators=(",", ":")).encode()


class Canary:
    """Beats of this node, and what comes of them. `entries` is the directory at the last beat."""

    def __init__(
        self, functions: Functions, reader: Reader, conditions: Conditions, node: str, clock: Clock
    ) -> None:
        self.name: Final = f"{node}/{uuid4().hex[:12]}"
        """This process's: after a restart the node has another one."""
        self.entries: dict[str, dict[str, Any]] = {}
        self.called = ""
        """What operators call this node."""
        self.is_deaf = False
        self.replaced = 0
        """How often the connection that listens was replaced, for it did not hear."""
        self.sent = self.came_back = 0
        """The numbers of the last beat that was sent, and of the last that this node heard."""
        self.lag_s = 0.0
        """How long the last beat that came back was on its way."""
        self.lags_s = Histogram(SLOW_S)
        self._functions = functions
        self._reader = reader
        self._conditions = conditions
        self._node = node
        self._clock = clock
        self._started = clock.time()
        self._key = functions.partitions.key("node").encode()
        self._channel = functions.partitions.key("all").encode()
        self._heard: dict[str, int] = {}
        """When whom was heard, in microseconds by Redis's clock; the one heard last is the last."""
        self._ahead_us = 0
        """How far Redis's clock is ahead of the monotonic one."""
        self._sent_at: dict[int, float] = {}
        self._silent_since: float | None = None
        """When the oldest beat that Redis took and that did not come back was sent."""
        self._tries = 0
        """How often the connection was replaced since a beat came back."""
        self._others_hear = False
        self._has_news = asyncio.Event()
        """Set when a node is first heard of which the directory had nothing yet."""
        self._is_entered = False
        """Whether this process has written in the directory."""
        self._beating: asyncio.Lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        reader.on_all[BEAT] = self._hear

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._keep_beating(), name="redis beats")

    async def close(self) -> None:
        """End it, and leave the directory if Redis is there. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        link = self._functions.link
        if self.sent and link.is_up:  # also where the start was refused after the first beat
            try:
                await link.send(pack("HDEL", self._key, self.name), 1)
            except Unavailable as error:
                log.info("the directory of nodes keeps this one for a while: %s", error)

    def lines(self) -> Iterator[str]:
        """Yield what is wrong, with what mends it."""
        if self.is_deaf:
            yield (
                "this node does not hear what Redis tells, and other nodes do: its clients are "
                "sent to them. To mend it: look at the network between this machine and Redis"
            )
        elif self._tries > 1 and self._others():
            yield (
                "no node hears what is published, though Redis takes it. To mend it: look at "
                "Redis's log and its client-output-buffer-limit, and start it anew"
            )
        elif self._tries:
            yield (
                "this node does not hear what it publishes itself, and listens over another "
                "connection. To mend it: look at the network between this machine and Redis"
            )

    async def _keep_beating(self) -> None:
        least_s = BEAT_S / 10
        while True:
            # Whatever is heard: nodes that answer each other's beats must not do so without end.
            await asyncio.sleep(least_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S - least_s):
                    await self._has_news.wait()
            self._has_news.clear()
            try:
                await self.beat()
            except Exception:  # a bug: whether this node hears is to be known all the same
                log.exception("no beat could be published")

    def admit(self) -> None:
        """Raise `Unfit` if a node is there with which this version cannot talk."""
        for entry in self._others():
            low, high = entry["protocol"]
            if (low, high) == COPYING:
                raise Unfit(
                    f"{entry['id']} on {entry['address']} is at work on this Redis: start nodes "
                    f"when it has ended. If it was killed, that is {GONE_S:g} s later"
                )
            if low > PROTOCOL[1] or high < PROTOCOL[0]:
                raise Unfit(
                    f"the node {entry['id']} (version {entry['version']}) is on this Redis, and "
                    f"talks in the ways {low} to {high}, this version in {PROTOCOL[0]} to "
                    f"{PROTOCOL[1]}: have all nodes go by a version in between first"
                )

    async def beat(self) -> None:
        """Publish a beat, write and read the directory, and judge. Not while one is on its way."""
        async with self._beating:
            now = self._clock.monotonic()
            is_taken = False
            try:
                is_taken = await self._exchange(now)
            except Unavailable:
                pass  # the link says why
            if not is_taken:
                # What Redis does not take cannot come back.
                self._silent_since = None
            elif self.came_back < self.sent and self._silent_since is None:
                self._silent_since = now
            self._judge(now)

    async def _exchange(self, now: float) -> bool:
        """Return whether Redis took the beat."""
        link, conditions = self._functions.link, self._conditions
        refusals = conditions.refusals
        if not self._ahead_us:
            # For the first entry as well: nobody may take it for one of long ago.
            (time,) = await link.send(pack("TIME"), 1)
            self._take_time(time)
        self.sent += 1
        self._sent_at = {
            number: at for number, at in self._sent_at.items() if at > now - GONE_S
        } | {self.sent: now}
        beat = f"{self.name}\0{self.sent}".encode()
        commands = (
            pack("TIME"),
            pack("HSET", self._key, self.name, self.entry()),
            pack("HGETALL", self._key),
            pack("PUBLISH", self._channel, BEAT + beat),
        )
        time, wrote, found, taken = await link.send(b"".join(commands), len(commands))
        after = self._clock.monotonic()
        at_us = self._take_time(time)
        if at_us:
            conditions.told_time(at_us / 1e6, after - now)
        if not isinstance(wrote, ServerError):
            conditions.accepted(refusals)
            if wrote and self._is_entered:
                self._reader.look()
            self._is_entered = True
        if not isinstance(found, ServerError):
            await self._take(dict(zip(found[::2], found[1::2], strict=True)))
        return not isinstance(taken, ServerError)

    def _take_time(self, time: Reply) -> int:
        """Return Redis's time by its answer, which is kept; 0 if it refused."""
        if isinstance(time, ServerError):
            return 0
        at_us = self._functions.now() or int(time[0]) * 1_000_000 + int(time[1])
        self._ahead_us = at_us - round(self._clock.monotonic() * 1e6)
        return at_us

    def entry(self) -> bytes:
        """Return what the directory has of this node."""
        names, at = (self._node, self.called), self._redis_us()
        return directory_entry(names, PROTOCOL, self._started, at, self._heard)

    def _redis_us(self) -> int:
        return self._ahead_us + round(self._clock.monotonic() * 1e6)

    async def _take(self, found: dict[bytes, bytes]) -> None:
        """Keep who is there, and remove the others from the directory."""
        gone: list[bytes] = []
        self.entries = {}
        before = self._redis_us() - round(GONE_S * 1e6)
        for name, text in found.items():
            entry = json.loads(text)
            if self._last(name.decode(), entry) < before and name.decode() != self.name:
                gone.append(name)
            else:
                self.entries[name.decode()] = entry
        if gone:
            await self._functions.link.send(pack("HDEL", self._key, *gone), 1)

    def _last(self, name: str, entry: Mapping[str, Any]) -> int:
        """Return when a node last was there: it may be heard while Redis takes no writes."""
        return max(int(entry["at"]), self._heard.get(name, 0))

    def peers(self) -> Sequence[Peer]:
        """Return the other nodes, as the directory had them at the last beat.

        Each is silent since it wrote there or its beat was heard, whichever is later.
        """
        now = self._redis_us()
        found = [
            Peer(
                entry["id"],
                entry.get("name") or entry["id"],  # older nodes have no name there
                entry["address"],
                entry["version"],
                max(0.0, (now - self._last(name, entry)) / 1e6),
            )
            for name, entry in self.entries.items()
            if name != self.name
        ]
        return sorted(found, key=lambda each: (each.name, each.run))

    def _others(self) -> list[dict[str, Any]]:
        return [entry for name, entry in self.entries.items() if name != self.name]

    def _hear(self, message: bytes) -> None:
        name, number, *_ = message.decode().split("\0")
        if self._heard.pop(name, None) is None and name not in self.entries and name != self.name:
            self._has_news.set()
        self._heard[name] = self._redis_us()
        if len(self._heard) > MOST_HEARD:
            del self._heard[next(iter(self._heard))]
        if name == self.name:
            self.came_back = int(number)
            now = self._clock.monotonic()
            self.lag_s = now - self._sent_at.pop(int(number), now)
            self.lags_s.add(self.lag_s)
            self._silent_since, self._tries = None, 0
            self._set_deaf(False)

    def _judge(self, now: float) -> None:
        if self._silent_since is None or now - self._silent_since < SILENT_S:
            return
        since = self._redis_us() - round((SILENT_S + 2 * BEAT_S) * 1e6)
        others_hear = any(at > since for each in self._others() for at in each["hears"].values())
        if self._tries and others_hear:
            self._set_deaf(True)
        elif self.is_deaf:
            self._set_deaf(False)  # now the others do not hear either
        self._tries += 1
        self._silent_since = None
        self.replaced += 1
        connection = self._reader.link.connection
        if connection is not None:
            connection.abort("this node does not hear what it publishes itself")

    def _set_deaf(self, is_deaf: bool) -> None:
        if is_deaf != self.is_deaf:
            self.is_deaf = is_deaf
            self._reader.set_deaf(is_deaf)
            if is_deaf:
                log.error("this node is deaf: it does not hear what Redis tells, others do")
            else:
                log.warning("this node hears again what Redis tells, or no node does")
