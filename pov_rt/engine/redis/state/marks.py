"""Watermarks in Redis: functions/50_marks.lua says how they lie there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.base import Position
from pov_rt.engine.bounds import MarkRules
from pov_rt.engine.redis.client.connection import Reply
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.walking import walk
from pov_rt.protocol.errors import Unavailable


class RedisMarks:
    """Watermarks; see `base.Marks`. Of many, some are looked at in a step."""

    def __init__(
        self, functions: Functions, settings: EngineSettings, longest_s: float = 0.0
    ) -> None:
        self.rules = MarkRules(settings, longest_s)
        self._functions = functions
        self._partitions = functions.partitions

    async def advance(self, topic: str, user: str, name: str, position: Position) -> Position:
        rules = self.rules
        there_is_room, number, epoch, offset = await self._functions.call(
            "marks_advance",
            topic,
            topic,
            self._partitions.of(user),
            user,
            name,
            *position,
            int(rules.age_s),
            int(rules.renew_s),
            rules.each,
            int(rules.bound.limit),
            self._partitions.number,
        )
        if number != b"":
            rules.number = number
        if not there_is_room:
            rules.check_room(user)
        return _position(epoch, offset)

    async def get(self, topic: str, user: str, name: str) -> Position | None:
        ((found,),) = await self.get_many(user, (topic,), (name,))
        return found

    async def get_many(
        self, user: str, topics: Sequence[str], names: Sequence[str]
    ) -> Sequence[Sequence[Position | None]]:
        if not (topics and names):
            return [[] for _ in topics]
        age, renew = int(self.rules.age_s), int(self.rules.renew_s)
        replies = await self._functions.call_all(
            [self._pack("marks_get", topic, topic, user, age, renew, *names) for topic in topics]
        )
        await self._use(user, topics, names, replies)
        return [
            [None if mark is None else _position(*mark[:2]) for mark in reply] for reply in replies
        ]

    async def _use(
        self, user: str, topics: Sequence[str], names: Sequence[str], replies: Sequence[Reply]
    ) -> None:
        """Write down that marks were used, of which that is due."""
        calls = []
        for topic, reply in zip(topics, replies, strict=True):
            due = [
                name
                for name, mark in zip(names, reply, strict=True)
                if mark is not None and mark[2]
            ]
            if due:
                users = self._partitions.of(user)
                calls.append(self._pack("marks_use", topic, topic, users, user, *due))
        if calls:
            try:
                await self._functions.call_all(calls)
            except Unavailable:
                # They were read all the same. It stays due, and is written down by the next use.
                return

    async def carry(self, topic: str, name: str, start: Position, end: Position) -> None:
        async for _ in self._walk("marks_carry", topic, topic, name, *start, end.offset):
            pass

    async def all(self, topic: str, name: str) -> Mapping[str, Position]:
        found: dict[str, Position] = {}
        async for page in self._walk("marks_all", topic, topic, name, int(self.rules.age_s)):
            for user, epoch, offset in zip(*[iter(page)] * 3, strict=True):
                found[user.decode()] = _position(epoch, offset)
        return found

    async def drop(self, topic: str, user: str, name: str) -> None:
        users = self._partitions.of(user)
        self._count(await self._functions.call("marks_drop", topic, topic, users, user, name))

    async def drop_all(self, user: str, name: str) -> None:
        await self._drop("marks_drop_user", user, name)

    async def of(self, user: str) -> Sequence[tuple[str, str, Position]]:
        found: dict[tuple[str, str], Position] = {}
        async for page in self._walk("marks_of", user, user, int(self.rules.age_s)):
            for topic, name, epoch, offset, _ in zip(*[iter(page)] * 5, strict=True):
                found[topic.decode(), name.decode()] = _position(epoch, offset)
        return [(*key, found[key]) for key in sorted(found)]

    async def drop_user(self, user: str) -> int:
        return await self._drop("marks_drop_user", user)

    async def drop_topic(self, topic: str) -> None:
        """Forget all marks on a topic."""
        await self._drop("marks_drop_topic", topic)

    async def count(self) -> None:
        """Learn how many there are of all nodes' users."""
        before = self.rules.number
        number = await self._functions.call("marks_count", "", self._partitions.number)
        if self.rules.number == before:  # else something newer is known
            self.rules.number = number

    async def tidy(self) -> None:
        """Forget those that were not used for too long. For one node at a time."""
        age = int(self.rules.age_s)
        due = list(self._partitions.all)
        while due:
            calls = [self._functions.pack("marks_tidy", prefix, age) for prefix in due]
            replies = await self._functions.call_all(calls)
            self._count(sum(gone for gone, _ in replies))
            due = [prefix for prefix, (_, more) in zip(due, replies, strict=True) if more]

    async def _drop(self, function: str, of: str, *more: str) -> int:
        dropped = 0
        async for (number,) in self._walk(function, of, of, *more, repeats=False):
            dropped += self._count(number)
        return dropped

    async def _walk(
        self, function: str, of: str, *args: bytes | str | int, repeats: bool = True
    ) -> AsyncIterator[list[Reply]]:
        prefixes = (self._partitions.of(of),)
        async for _, page in walk(self._functions, function, prefixes, *args, repeats=repeats):
            yield page

    def _count(self, dropped: int) -> int:
        self.rules.number -= dropped
        return dropped

    def _pack(self, function: str, topic: str, *args: bytes | str | int) -> bytes:
        return self._functions.pack(function, self._partitions.of(topic), *args)


def _position(epoch: bytes, offset: int) -> Position:
    return Position(epoch.decode(), offset)
