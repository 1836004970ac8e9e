"""Where the primary is, asked of the sentinels that watch it.

Each sentinel has two links: one is asked, the other hears of `+switch-master`, whereupon all are
asked at once, as they are every second. An answer counts when a majority of those that were named
gives one, for one or two that are cut off from the others may be the last to know. Of the answers
the one of the latest failover counts: sentinels agree on who leads it before it begins, and the
others learn of its end a moment later.

The sentinels say as well how they see the replicas, of which they choose the next primary
(`replicas`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pov_rt.config.settings import RedisSettings
from pov_rt.engine.redis.client.address import (
    SENTINEL_SCHEMES,
    Address,
    Place,
    SentinelAddress,
    parse_address,
    parse_sentinels,
)
from pov_rt.engine.redis.client.connection import Away, Connection, Reply, ServerError, pack
from pov_rt.engine.redis.client.link import Link
from pov_rt.engine.redis.client.replicas import Replica, View

POLL_S = 1.0
"""How often the sentinels are asked; one that owes an answer for longer is dialled anew."""
SENTINEL, WHERE, WHAT, WHO = "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS"
DOWN = frozenset({b"s_down", b"o_down"})
NEWS = ("+switch-master", "+slave")
"""The channels on which a sentinel tells of failovers, and of replicas that are new to it."""


class _Answer(NamedTuple):
    """What a sentinel says: the number of the last failover, and where the primary is since."""

    failover: int
    host: str
    port: int
    replicas: View
    """Those, and whom it calls the primary."""


class Sentinels:
    """Finds the primary; `on_moved` is told at once that it is another one than before."""

    def __init__(self, where: SentinelAddress, node: str) -> None:
        self.where = where
        self.on_moved: Callable[[str], None] | None = None
        self.problem = ""
        """Why nothing is known of the primary; empty when something is."""
        self.found: Address | None = None
        """Where the primary was when the sentinels were asked last."""
        self.views: Sequence[View] = ()
        """How each of those that answered last sees the replicas."""
        self._asked = [
            Link(each, f"pov-rt-sentinel-{node}", POLL_S, _need_nothing) for each in where.sentinels
        ]
        self._heard = [
            Link(each, f"pov-rt-sentinel-{node}", POLL_S, self._listen) for each in where.sentinels
        ]
        self._has_news = asyncio.Event()
        self._asking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        """Return what people read."""
        return str(self.where)

    @property
    def majority(self) -> int:
        """How many sentinels have to answer."""
        return len(self._asked) // 2 + 1

    def start(self) -> None:
        """Begin to ask."""
        for link in (*self._asked, *self._heard):
            link.start()
        self._task = asyncio.create_task(self._watch(), name="redis sentinels")

    async def close(self) -> None:
        """End it. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for link in (*self._asked, *self._heard):
            await link.close()

    def is_now(self, address: Address) -> bool:
        """Tell whether the primary has not moved since."""
        return address == self.found

    async def find(self) -> Address:
        """Ask the sentinels where the primary is now. Raises `Away`."""
        async with self._asking:  # so that no older answer comes after a newer one
            for link in self._asked:
                await link.tried()
            answers, others = await self._ask()
            if len(answers) < self.majority:
                self.problem = (
                    f"{len(answers)} of {len(self._asked)} sentinels say where the primary of "
                    f"{self.where.name} is, and {self.majority} have to: {'; '.join(others)}"
                )
                raise Away(self.problem)
            self.problem = ""
            latest = max(answers, key=lambda answer: answer.failover)
            # While a failover runs, the primary is a replica still to some of them.
            primary = f"{latest.host}:{latest.port}"
            self.views = [
                {name: each for name, each in answer.replicas.items() if name != primary}
                for answer in answers
            ]
            found = replace(self.where.primary, host=latest.host, port=latest.port)
            before, self.found = self.found, found
        if before not in (None, found) and self.on_moved is not None:
            self.on_moved(f"the primary of {self.where.name} is at {found} now")
        return found

    async def look(self) -> None:
        """Ask where the primary is, and how the replicas are seen. Raises `Away`."""
        await self.find()

    async def _ask(self) -> tuple[list[_Answer], list[str]]:
        """Return the answers of those who give one, and why the others give none."""
        name = self.where.name
        question = b"".join(pack(SENTINEL, each, name) for each in (WHERE, WHAT, WHO))
        sent = {
            str(link.address): link.connection.send(question, 3)
            for link in self._asked
            if link.connection is not None and link.connection.is_open
        }
        if sent:
            await asyncio.wait(sent.values())
        answers = []
        others = [link.problem for link in self._asked if link.problem]
        for where, future in sent.items():
            try:
                answers.append(self._read(await future))
            except (Away, ServerError) as error:
                others.append(f"{where}: {error}")
        return answers, others

    def _read(self, replies: Sequence[Reply]) -> _Answer:
        """Return what a sentinel says. Raises its refusal, also where it knows no such primary."""
        for reply in replies:
            if isinstance(reply, ServerError):
                raise reply
        (host, port), facts, others = replies
        own = by_name(facts)
        replicas = dict(_read_replica(by_name(each)) for each in others)
        # Who calls another one the primary, and well, makes the one that leads its replica.
        primary = Replica(_is_down(own), is_linked=True, priority=1, offset=0)
        replicas[f"{host.decode()}:{port.decode()}"] = primary
        return _Answer(int(own[b"config-epoch"]), host.decode(), int(port), replicas)

    async def _listen(self, connection: Connection) -> None:
        """Hear of failovers on a new connection, and ask what was missed."""

        def hear(replies: Sequence[Reply]) -> None:
            """Have all be asked: what it is about does not matter."""
            if any(not isinstance(each, ServerError) for each in replies):
                self._has_news.set()

        connection.on_message = hear
        connection.write(pack("SUBSCRIBE", *NEWS))

    async def _watch(self) -> None:
        """Ask from time to time, and when one has told of a failover."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._has_news.wait()
            self._has_news.clear()
            with contextlib.suppress(Away):  # `problem` has it
                await self.find()
            for asked, heard in zip(self._asked, self._heard, strict=True):
                if not asked.is_up:
                    heard.leave("the sentinel does not answer")  # it would hear nothing for ever


def parse_place(url: str, settings: RedisSettings, node: str) -> Place:
    """Return where `engine.url` says that Redis is. Raises `BadAddress`."""
    if url.partition("://")[0] not in SENTINEL_SCHEMES:
        return parse_address(url, settings.ca_file)
    user, password = settings.sentinel_user, settings.sentinel_password
    return Sentinels(parse_sentinels(url, user, password, settings.ca_file), node)


def by_name(facts: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return what a sentinel says of a server."""
    return dict(zip(facts[::2], facts[1::2], strict=True))


def _read_replica(facts: dict[bytes, bytes]) -> tuple[str, Replica]:
    """Return a replica's name, as its primary calls it, and how a sentinel sees it."""
    return f"{facts[b'ip'].decode()}:{facts[b'port'].decode()}", Replica(
        is_down=_is_down(facts),
        is_linked=facts[b"master-link-status"] == b"ok",
        priority=int(facts[b"slave-priority"]),
        offset=int(facts[b"slave-repl-offset"]),
    )


def _is_down(facts: dict[bytes, bytes]) -> bool:
    """Tell whether a sentinel holds a server for down."""
    return not DOWN.isdisjoint(facts[b"flags"].split(b","))


async def _need_nothing(connection: Connection) -> None:
    """Use a new connection as it is."""
