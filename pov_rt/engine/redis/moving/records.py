"""What is in Redis as records, and records in Redis; see `engine.copying`.

One partition after the other, so that what has to be known meanwhile is of one alone.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, TypeVar, cast

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.bounds import MarkRules, StoreRules
from pov_rt.engine.copying import (
    HASH_BYTES,
    Begun,
    CopiedEntry,
    CopiedId,
    CopiedLog,
    CopiedMark,
    CopiedMember,
    CopiedNumber,
    CopiedValue,
    Epochs,
    Record,
    Records,
    microseconds,
    was_kept,
)
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.redis.client.connection import Reply, ServerError, pack
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.client.link import refusal
from pov_rt.engine.redis.client.walking import START, walk
from pov_rt.engine.redis.layout import REMEMBERED, hash_of
from pov_rt.engine.redis.state.store import WHATEVER
from pov_rt.protocol.errors import Unavailable

PAGE, PAGE_BYTES = 500, 1024 * 1024
"""Records of a page, or bytes of its bodies."""
WIDTH = 16
"""Topics, users and sets that are looked at in one step."""
STEP_BYTES = 64 * 1024
"""Of entries of each topic in one step."""
WINDOWS = (0, 1)
SPARE_S = 60
"""For how long entries outlive their age, as where they are appended."""
USERS, SETS, SPACES = "us", "xs", "kb"

ItemT = TypeVar("ItemT")
Args = tuple[bytes | str | int, ...]


class RedisCopying:
    """What is in a Redis; see `copying.Copying`."""

    def __init__(self, functions: Functions, settings: EngineSettings, keeping: Keeping) -> None:
        self._functions = functions
        self._partitions = functions.partitions
        self._settings = settings
        self._keeping = keeping
        self._mark_age_s = int(MarkRules(settings, keeping.ages[-1]).age_s)
        self._values = StoreRules(settings)
        self._args: Mapping[type[Record], Callable[[Any], tuple[str, str, Args]]] = {
            CopiedLog: self._log_args,
            CopiedId: self._id_args,
            CopiedNumber: self._number_args,
            CopiedMark: self._mark_args,
            CopiedMember: self._member_args,
            CopiedValue: self._value_args,
        }

    async def dump(self, at: float) -> AsyncIterator[Records]:
        now = microseconds(at)
        past = Functions(self._functions.link, self._partitions, lambda: now)
        found = _Dump(past, self._settings, self._keeping, now, self._mark_age_s)
        kinds = (
            found.begun, found.logs, found.entries, found.ids, found.numbers, found.marks,
            found.members, found.values,
        )  # fmt: skip
        for kind in kinds:
            async for page in _paged(kind()):
                yield page

    async def restore(self, records: Records) -> None:
        kind = type(records[0])
        if kind is Begun:
            calls = list(self._base_calls(cast("Begun", records[0])))
        elif kind is CopiedEntry:
            calls = list(self._entry_calls(cast("Sequence[CopiedEntry]", records)))
        else:
            args = map(self._args[kind], records)
            calls = [self._pack(name, of, *rest) for name, of, rest in args]
        if not calls:
            return
        # None of them is sent a second time: an entry would be there twice.
        replies = await self._functions.call_all(calls, repeats=False)
        if kind is CopiedValue:
            for value, (done, *_) in zip(
                cast("Sequence[CopiedValue]", records), replies, strict=True
            ):
                if done < 0:
                    raise self._values.full(value.space, is_share=done == -2)

    async def finish(self) -> None:
        """Return at once: it is as it was appended."""

    async def leave(self) -> None:
        """Have all logs go over to another epoch if they are used once more."""
        for prefix in self._partitions.all:
            topics: set[bytes] = set()
            async for _, names in walk(self._functions, "topics", (prefix,)):
                topics.update(names)
            pages = [*_slices(sorted(topics), PAGE), ()]  # the last one is for logs to come
            calls = [self._functions.pack("copy_leave", prefix, *page) for page in pages]
            await self._functions.call_all(calls)

    def _pack(self, name: str, of: str, *args: bytes | str | int) -> bytes:
        return self._functions.pack(name, self._partitions.of(of), *args)

    def _base_calls(self, begun: Begun) -> Iterator[bytes]:
        epochs = begun.epochs
        # Of each partition it has to be one epoch: otherwise those topics have a new one.
        if self._partitions.number % len(epochs) == 0:
            for at, prefix in enumerate(self._partitions.all):
                yield self._functions.pack("restore_base", prefix, epochs[at % len(epochs)])

    def _entry_calls(self, entries: Sequence[CopiedEntry]) -> Iterator[bytes]:
        for topic, group in groupby(entries, lambda each: each.topic):
            living_s = math.ceil(self._keeping.of(topic).max_age_s) + SPARE_S
            for some in _slices(list(group), PAGE):
                values = map(self._value_of, some)
                yield self._pack("restore_entries", topic, topic, living_s, *values)

    def _value_of(self, entry: CopiedEntry) -> bytes:
        """Return an entry as functions/02_lists.lua has it."""
        place = ""
        if entry.side:
            partition = self._partitions.index(entry.other)
            place = f"{entry.side}{partition:03d} {entry.other_offset} {entry.other}"
        return f"{entry.at} {entry.offset}\0{entry.origin}\0{place}\0".encode() + entry.body

    def _log_args(self, log: CopiedLog) -> tuple[str, str, Args]:
        (own, _), *older = log.epochs
        # Whatever process it is said to be of, it is of the one that takes it over.
        words = [str(log.offset), own, "-", str(log.at), *(f"{e}@{last}" for e, last in older)]
        return "restore_log", log.topic, (log.topic, " ".join(words))

    def _id_args(self, each: CopiedId) -> tuple[str, str, Args]:
        digest = each.digest.to_bytes(HASH_BYTES, "big")
        name = hash_of(each.topic) + each.key
        window = microseconds(self._settings.id_window_s)
        args = (each.topic, window, name, each.publisher, digest, each.offset, each.at)
        return "restore_id", each.topic, args

    def _number_args(self, each: CopiedNumber) -> tuple[str, str, Args]:
        publishers = self._partitions.of(each.publisher)
        args = (each.topic, each.publisher, publishers, each.name, each.seq, each.at)
        return "restore_number", each.topic, args

    def _mark_args(self, mark: CopiedMark) -> tuple[str, str, Args]:
        topic, name, user, epoch, offset, at = mark
        users = self._partitions.of(user)
        args = (topic, name, users, user, epoch, offset, at, self._mark_age_s)
        return "marks_restore", topic, args

    def _member_args(self, each: CopiedMember) -> tuple[str, str, Args]:
        prefix = self._partitions.of(each.name)
        return "sets_update", each.name, (0, prefix, each.name, each.member, each[3], each.body)

    def _value_args(self, value: CopiedValue) -> tuple[str, str, Args]:
        space, key, owner, body = value
        bounds = self._values.each, int(self._values.bound.limit), self._partitions.number
        args = (space, key, self._partitions.of(owner), owner, body, *bounds, WHATEVER)
        return "store_put", space, args


class _Dump:
    """What there is at an instant, one record at a time."""

    def __init__(
        self,
        functions: Functions,
        settings: EngineSettings,
        keeping: Keeping,
        now: int,
        mark_age_s: int,
    ) -> None:
        self._functions = functions
        self._partitions = functions.partitions
        self._settings = settings
        self._keeping = keeping
        self._now = now
        self._mark_age_s = mark_age_s
        self._known: dict[str, bool] = {}
        """Whether topics have a log."""

    async def begun(self) -> AsyncIterator[Begun]:
        calls = [self._functions.pack("copy_base", prefix) for prefix in self._partitions.all]
        epochs = [epoch.decode() for epoch in await self._functions.call_all(calls)]
        yield Begun(tuple(epochs))

    async def logs(self) -> AsyncIterator[CopiedLog]:
        for prefix in self._partitions.all:
            for log in await self._logs_of(prefix):
                yield log

    async def _logs_of(self, prefix: bytes) -> list[CopiedLog]:
        """Return the logs of a partition."""
        found: list[CopiedLog] = []
        for topics in _slices(await self._names(prefix, "topics"), PAGE):
            packed = self._functions.pack("copy_states", prefix, *topics)
            (states,) = await self._functions.call_all([packed])
            for topic, state in zip(topics, states, strict=True):
                if state is not None:
                    found.append(_parse_log(topic, state.decode()))
        return found

    async def _names(self, prefix: bytes, function: str, *args: str) -> list[str]:
        names: set[str] = set()
        async for _, page in walk(self._functions, function, (prefix,), *args):
            names.update(name.decode() for name in page)
        return sorted(names)

    async def entries(self) -> AsyncIterator[CopiedEntry]:
        for prefix in self._partitions.all:
            for logs in _slices(await self._logs_of(prefix), WIDTH):
                left = dict.fromkeys((log.topic for log in logs), 0)
                while left:
                    for entry in await self._step(prefix, left):
                        yield entry

    async def _step(self, prefix: bytes, left: dict[str, int]) -> list[CopiedEntry]:
        """Read some of each topic, behind where it has got to; `left` is moved on."""
        calls = []
        for topic, after in left.items():
            most, age_s = self._keeping.of(topic)
            args = (topic, most, microseconds(age_s), after, PAGE, 0, STEP_BYTES)
            calls.append(self._functions.pack("read", prefix, *args))
        found: list[CopiedEntry] = []
        replies = await self._functions.call_all(calls)
        for (topic, after), reply in zip(list(left.items()), replies, strict=True):
            if reply is None:
                raise Unavailable("Redis was started anew meanwhile: copy again")
            _, top, oldest, *parts = reply
            values = list(chain(*parts))
            found += [_parse_entry(topic, value) for value in values]
            left[topic] = max(oldest, after + 1) + len(values) - 1
            if not values or left[topic] >= top:
                del left[topic]
        await self._look_for({entry.other for entry in found if entry.side})
        return [self._shown(entry) for entry in found]

    async def _look_for(self, topics: set[str]) -> None:
        """Find out which topics have a log."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
        unknown = sorted(topics - self._known.keys())
        for some in _slices(unknown, PAGE):
            of = self._partitions.of
            packed = [pack("HGET", of(topic) + b"m", topic) for topic in some]
            for topic, state in zip(some, await self._send(packed), strict=True):
                self._known[topic] = state is not None and not state.startswith(b"0 ")

    async def _send(self, packed: Sequence[bytes]) -> list[Reply]:
        replies = await self._functions.link.send(b"".join(packed), len(packed))
        for reply in replies:
            if isinstance(reply, ServerError):
                raise refusal(reply)
        return replies

    def _shown(self, entry: CopiedEntry) -> CopiedEntry:
        """Return an entry as it is read, which may be a stub by now."""
        if not entry.side:
            return entry
        if entry.side == "<" and self._keeping.fades:
            if entry.at < self._now - microseconds(self._keeping.of(entry.other).max_age_s):
                return entry.alone(self._keeping.stub(entry.body))
        return entry if self._known[entry.other] else entry.alone()

    async def ids(self) -> AsyncIterator[CopiedId]:
        window = microseconds(self._settings.id_window_s)
        for prefix in self._partitions.all:
            logs = {hash_of(log.topic): log for log in await self._logs_of(prefix)}
            seen: set[tuple[bytes, bytes]] = set()
            for ago in WINDOWS:
                async for _, page in walk(self._functions, "copy_ids", (prefix,), window, ago):
                    for name, publisher, digest, offset, at, epoch in _rows(page, 6):
                        log = logs.get(name[:HASH_BYTES])
                        if log is None or (name, publisher) in seen:
                            continue
                        if was_kept(log.epochs, epoch.decode(), offset):
                            seen.add((name, publisher))
                            yield CopiedId(
                                log.topic,
                                name[HASH_BYTES:],
                                publisher.decode(),
                                int.from_bytes(digest, "big"),
                                offset,
                                int(at),
                            )

    async def numbers(self) -> AsyncIterator[CopiedNumber]:
        settings = self._settings
        age = microseconds(max(settings.producer_age_s, settings.id_window_s))
        for prefix in self._partitions.all:
            topics = {log.topic for log in await self._logs_of(prefix)}
            seen: set[tuple[str, ...]] = set()
            async for _, page in walk(self._functions, "copy_numbers", (prefix,)):
                for *names, seq, used in _rows(page, 5):
                    topic, publisher, name = (each.decode() for each in names)
                    found = CopiedNumber(topic, publisher, name, int(seq), int(used))
                    is_known = topic in topics and found[:3] not in seen
                    if is_known and found.at + age > self._now:
                        seen.add(found[:3])
                        yield found

    async def marks(self) -> AsyncIterator[CopiedMark]:
        async for user, row in self._each("marks_of", USERS, 2, 5, self._mark_age_s):
            topic, name, epoch, offset, at = row
            yield CopiedMark(topic.decode(), name.decode(), user, epoch.decode(), offset, int(at))

    async def members(self) -> AsyncIterator[CopiedMember]:
        async for name, (member, body, expires_at) in self._each("sets_members", SETS, 1, 3):
            yield CopiedMember(name, member.decode(), body, int(expires_at))

    async def _each(
        self, function: str, which: str, keys: int, width: int, *args: int
    ) -> AsyncIterator[tuple[str, tuple[Any, ...]]]:
        """Yield the names of all users or sets, with each row that a function has of them.

        A row is known by the first of its fields, and comes once.
        """
        for prefix in self._partitions.all:
            for names in _slices(await self._names(prefix, "copy_names", which), WIDTH):
                left = dict.fromkeys(names, START)
                seen: dict[str, set[tuple[bytes, ...]]] = {name: set() for name in names}
                while left:
                    calls = [
                        self._functions.pack(function, prefix, cursor, name, *args)
                        for name, cursor in left.items()
                    ]
                    replies = await self._functions.call_all(calls)
                    for name, (cursor, *page) in zip(list(left), replies, strict=True):
                        for row in _rows(page, width):
                            if row[:keys] not in seen[name]:
                                seen[name].add(row[:keys])
                                yield name, row
                        left[name] = cursor
                        if cursor == START:
                            del left[name], seen[name]

    async def values(self) -> AsyncIterator[CopiedValue]:
        for prefix in self._partitions.all:
            for space in await self._names(prefix, "copy_names", SPACES):
                after, page = "", [b""]
                while page:
                    page = await self._functions.call("store_read", space, space, "", after, WIDTH)
                    for name, body, owner in _rows(page, 3):
                        after = name.decode()
                        yield CopiedValue(space, after, owner.decode(), body)


def _parse_log(topic: str, state: str) -> CopiedLog:
    offset, epoch, _, at, *older = state.split(" ")
    epochs: Epochs = ((epoch, int(offset)),)
    for each in older:
        name, _, last = each.rpartition("@")
        epochs += ((name, int(last)),)
    return CopiedLog(topic, int(offset), epochs, int(at))


def _parse_entry(topic: str, value: bytes) -> CopiedEntry:
    place_in_log, origin, place, body = value.split(b"\0", 3)
    at, offset = place_in_log.split(b" ")
    found = CopiedEntry(topic, int(offset), int(at), origin.decode(), body)
    if not place:
        return found
    side, (_, other_offset, other) = place[:1], place[1:].split(b" ", 2)
    return found._replace(side=side.decode(), other=other.decode(), other_offset=int(other_offset))


def _rows(page: Iterable[Reply], width: int) -> Iterator[tuple[Any, ...]]:
    return zip(*[iter(page)] * width, strict=True)


def _slices(items: Sequence[ItemT], number: int) -> Iterator[Sequence[ItemT]]:
    for start in range(0, len(items), number):
        yield items[start : start + number]


async def _paged(records: AsyncIterator[Record]) -> AsyncIterator[Records]:
    page: list[Record] = []
    size = 0
    async for each in records:
        page.append(each)
        size += len(getattr(each, "body", b""))
        if len(page) >= PAGE or size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page
