"""What is kept about a user: exported as lines, erased. Who is kept out. And the end of a PoV.

All of it can be begun anew after a crash, and then completes: each step removes what it finds, and
what was removed is not found again. Nothing is hidden in between: an entry is whole or erased.

An erased entry keeps its place in its logs and has no body, so that offsets, epochs and everybody's
positions stay good (`delivery/stored` and `delivery/replay` say what becomes of it).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import msgspec

from pov_rt.auth.grants import Kind
from pov_rt.auth.revocations import REVOCATIONS, Revocation, decode
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.host import Services, describe
from pov_rt.engine.base import Match, Rewrite
from pov_rt.engine.keeping import AUDITS, no_body
from pov_rt.protocol.bodies import Blocked, DeletedPov, Erased, Unblocked
from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.protocol.errors import CloseCode, NotFound, Unavailable
from pov_rt.protocol.tenants import restore, team_of, wire_of
from pov_rt.protocol.topics import channel_topic, pov_of, pov_topic, team_topic, user_topic
from pov_rt.runtime import turns
from pov_rt.runtime.clock import rfc3339
from pov_rt.server.now import Happening
from pov_rt.server.trace.explain import Explain

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT", Erased, DeletedPov)

PAGE, PAGE_BYTES = 100, 256 * 1024
VALUES = 4
"""Of plugins, read at a time: each may be large."""
PASSES = 10
"""How often the log is searched while what was found is changed by somebody else."""
FEEDS, INBOXES = team_topic(""), user_topic("")


class _Names(msgspec.Struct, rename="camel"):
    """Who did what an activity or a notification tells of, and who changed it later."""

    user_id: str | None = None
    by: str | None = None


_read_names = msgspec.json.Decoder(_Names).decode
_read_all = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
CHANGE = ("by", "reason")
"""What is of whoever changed another's activity."""


class Name:
    """Tells what is published in a user's name: what has it as `userId`, whoever published it.

    And what of others' activities the user has changed.
    """

    def __init__(self, user_id: str) -> None:
        self._wire_id, self._team = wire_of(user_id), team_of(user_id)
        self._needle = encode(self._wire_id)

    def is_on(self, body: bytes) -> bool:
        """Tell whether a stored body names the user so; with teams, perhaps another's."""
        return self.is_theirs(body) is not None

    def is_theirs(self, body: bytes) -> bool | None:
        """Tell whether a body is the user's own, or was only changed by them; None: neither."""
        if self._needle not in body:
            return None
        try:
            names = _read_names(body)
        except DECODE_ERRORS:  # damage, which nobody is shown
            return None
        if names.user_id == self._wire_id:
            return True
        return False if names.by == self._wire_id else None

    def without(self, body: bytes) -> bytes:
        """Return what is left of a body: nothing of the user's own."""
        if self.is_theirs(body):
            return b""
        left = {name: raw for name, raw in _read_all(body).items() if name not in CHANGE}
        return encode(left)

    def is_in(self, topic: str) -> bool:
        """Tell whether a user of this name in a topic is this one."""
        if self._team is None:
            return True
        name = topic.partition("/")[2]
        return self._team == (name if topic.startswith(FEEDS) else team_of(name))


class People:
    """Finds and removes what is kept about users, and PoVs. Owner: the server."""

    def __init__(
        self,
        services: Services,
        hooks: Hooks,
        explain: Explain,
        happening: Happening,
    ) -> None:
        self._services = services
        self._explain = explain
        self._happening = happening
        self._engine = services.engine
        self._hooks = hooks
        self._removing: dict[str, asyncio.Task[Any]] = {}

    async def close(self) -> None:
        """End what is being removed; it completes when it is asked for again."""
        for task in self._removing.values():
            task.cancel()
        await asyncio.gather(*self._removing.values(), return_exceptions=True)

    # To export:

    async def export(self, user_id: str) -> AsyncIterator[bytes]:
        """Yield all that is kept about a user, as JSON objects with a `kind`; the last is `end`.

        It says how many there were before it: without it something is missing. Raises
        `Unavailable`.
        """
        counts: Counter[str] = Counter()
        async for kind, fields in self._everything(user_id):
            counts[kind] += 1
            yield encode({"kind": kind, **fields})
        yield encode({"kind": "end", "counts": counts})

    async def _everything(self, user_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async for each in self._written(user_id):
            yield each
        async for each in self._inbox(user_id):
            yield each
        services = self._services
        for topic, name, position in await self._engine.marks.of(user_id):
            where = {"inbox": True} if topic.startswith(INBOXES) else {"povId": pov_of(topic)}
            yield "mark", {**where, "name": name, **position._asdict()}
        for device, used_at in (await services.cursors.devices(user_id)).items():
            yield "device", {"device": device, "usedAt": rfc3339(used_at)}
        for pov_id, only in (await services.durable.of(user_id)).items():
            yield "subscription", {"povId": pov_id, "only": only}
        after = ("", "")
        while values := await self._engine.store.owned(user_id, after, VALUES):
            for space, key, body in values:
                yield "value", {"plugin": space, "key": key, "value": msgspec.Raw(body)}
                after = (space, key)
        async for each in self._of_sessions(user_id):
            yield each
        async for plugin, value in self._hooks.export(user_id):
            if value is None:
                yield "failed", {"plugin": plugin}
            else:
                yield "plugin", {"plugin": plugin, "value": msgspec.Raw(value)}

    async def _of_sessions(self, user_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        now = self._services.clock.monotonic()
        for connection in self._services.directory.of(user_id):
            yield "connection", {"connection": describe(connection, now)}
        for found in await self._revocations(user_id):
            times = {"issuedBefore": found.before, "at": found.at, "until": found.until}
            said = {name: rfc3339(time) for name, time in times.items() if time is not None}
            yield "block" if found.block else "revocation", said
        for event in await self._explain.events(user_id):
            if event.user == user_id:
                yield "event", event.shown()

    async def _written(self, user_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        name = Name(user_id)
        async for matches in self._search(name):
            for topic, entry in matches:
                place = {"offset": entry.offset, "at": rfc3339(entry.at)}
                data = {**place, "data": msgspec.Raw(entry.body)}
                if not name.is_theirs(entry.body):
                    yield "changed", data
                elif topic.startswith(AUDITS):
                    yield "delivery", data
                elif topic.startswith(INBOXES):
                    yield "sent", {"to": restore(topic.removeprefix(INBOXES)), **data}
                else:
                    # Gone from its PoV's own log, it has its place in the team's feed alone.
                    feed = {"feed": "*"} if topic.startswith(FEEDS) else {}
                    yield "activity", {**feed, **data}

    async def _inbox(self, user_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        topic, after = user_topic(user_id), 0
        while entries := (
            await self._engine.log.read(topic, after, PAGE, max_bytes=PAGE_BYTES)
        ).entries:
            for entry in entries:
                if entry.body:
                    data = msgspec.Raw(entry.body)
                    yield "notification", {
                        "offset": entry.offset, "at": rfc3339(entry.at), "data": data,
                    }  # fmt: skip
            after = entries[-1].offset

    # To erase:

    async def erase(self, user_id: str) -> Erased:
        """Remove all that is kept about a user, and return what that was. Raises `Unavailable`.

        Their connections are closed first, with 4500. Who asks twice meanwhile waits for the same;
        who goes away leaves it to finish.
        """
        return await self._once(f"user {user_id}", self._erase(user_id))

    async def _erase(self, user_id: str) -> Erased:
        services, engine = self._services, self._engine
        connections = [each.id for each in services.directory.of(user_id)]
        order = services.directory.disconnect(
            user_id=user_id, connection_id=None, code=CloseCode.DISCONNECTED
        )
        closed = await services.orders.closed(order)
        erased = await self._erase_written(Name(user_id))
        inbox = (await engine.log.top(user_topic(user_id)))[1:]
        await engine.log.drop(user_topic(user_id), no_body)
        # Behind the entries: until then a retry is known for what it is.
        ids = 0
        for kind in ("user", *Kind):
            ids += await engine.log.disown(f"{kind}:{user_id}")
        subscriptions = await services.durable.clear(user_id)
        marks, devices = await services.cursors.clear(user_id)
        values = await engine.store.erase(user_id)
        services.reports.clear(user_id)
        services.publishing.forget(user_id)
        self._happening.clear()
        failed = await self._hooks.erase(user_id)
        await self._explain.erase(user_id, connections)
        await engine.scrub()
        services.directory.last_seen.forget(user_id)  # their connections have ended by now
        log.info("a user was erased")
        return Erased(
            user_id=user_id,
            activities=erased["activity"],
            changed=erased["changed"],
            notifications=erased["notification"],
            inbox=inbox[0] - inbox[1] + 1,
            ids=ids,
            marks=marks,
            devices=devices,
            subscriptions=subscriptions,
            values=values,
            connections=closed.number,
            revocations=len(await self._revocations(user_id)),
            failed=failed,
            missing=list(closed.missing),
        )

    async def _erase_written(self, name: Name) -> Counter[str]:
        """Leave nothing of the entries in a user's name but their places; return how many of each.

        What somebody else changes, or retention removes, meanwhile is looked for again. Raises
        `Unavailable` if that goes on and on.
        """
        done: Counter[str] = Counter()
        for _ in range(PASSES):
            is_left = False
            async for matches in self._search(name):
                rewrites = [
                    Rewrite(topic, entry.offset, entry.body, name.without(entry.body))
                    for topic, entry in matches
                ]
                edited = await self._engine.log.edit(rewrites)
                is_left = is_left or not all(edited)
                for rewrite, was_there in zip(rewrites, edited, strict=True):
                    done[_kind_of(rewrite)] += was_there
            if not is_left:
                return done
        raise Unavailable("What is to be erased is being changed all the time; ask again")

    async def _search(self, name: Name) -> AsyncIterator[list[Match]]:
        """Yield all entries in a user's name, some at a time."""
        after: str | None = ""
        while after is not None:
            page = await self._engine.log.search("", name.is_on, after)
            if found := [match for match in page.found if name.is_in(match.topic)]:
                yield found
            after = page.next

    async def _revocations(self, user_id: str) -> list[Revocation]:
        """Return those that are about a user: of tokens, and a block."""
        names = [Revocation(user_id=user_id, block=block).name for block in (False, True)]
        found = [await self._engine.sets.get(REVOCATIONS, name) for name in names]
        return [decode(body) for body in found if body is not None]

    # To keep a user out for a time:

    async def block(self, user_id: str, for_s: float) -> Blocked:
        """Refuse a user on all nodes for a time, over restarts; raises as `Directory.block`.

        Nodes that do not confirm it within a second are named: they do it when they hear of it.
        """
        done = await self._services.directory.block(user_id, for_s)
        until = "" if done.revocation.until is None else rfc3339(done.revocation.until)
        log.info("a user is blocked until %s", until, extra={"user": user_id})
        closed, missing = await self._services.orders.closed(done.order)
        return Blocked(user_id=user_id, until=until, closed=closed, missing=list(missing))

    async def unblock(self, user_id: str) -> Unblocked:
        """Let a user in again; raises as `Directory.unblock`."""
        was_blocked = await self._services.directory.unblock(user_id)
        if was_blocked:
            log.info("a user is not blocked any more", extra={"user": user_id})
        return Unblocked(was_blocked=was_blocked)

    # To delete a PoV:

    async def delete(self, pov_id: str) -> DeletedPov:
        """Remove a PoV's log with all that hangs on it, and return what that was.

        Its subscribers are told `unsubscribed`, with the code `not_found`. Should something be
        published on it again, it has another epoch. Raises `Unavailable`.
        """
        return await self._once(f"pov {pov_id}", self._delete(pov_id))

    async def _delete(self, pov_id: str) -> DeletedPov:
        services, engine, topic = self._services, self._engine, pov_topic(pov_id)
        why = NotFound("This PoV was deleted")
        ended = 0
        for number, connection in enumerate(services.directory.all(), 1):
            if topic in connection.topics:
                ended += services.permissions.end(connection, pov_id, why)
            if number % turns.SENDS == 0:
                await asyncio.sleep(0)
        subscriptions = await services.durable.drop(pov_id)
        for found in services.registry.found:
            channel = channel_topic(found.plugin.name, pov_id)
            for lease in await engine.leases.members(channel):
                await engine.leases.remove(channel, lease.member)
        _, last, oldest = await engine.log.top(topic)
        await engine.log.drop(topic, no_body)
        await engine.log.drop(AUDITS + pov_id, no_body)
        services.digests.rewritten(topic)
        await engine.scrub()
        log.info("a PoV was deleted")
        return DeletedPov(
            pov_id=pov_id, activities=last - oldest + 1, subscriptions=subscriptions, ended=ended
        )

    async def _once(self, what: str, work: Coroutine[Any, Any, AnswerT]) -> AnswerT:
        """Do something that is not under way already, and return its answer."""
        task = self._removing.get(what)
        if task is None:
            task = self._removing[what] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._done(what, done))
        else:
            work.close()
        answer: AnswerT = await asyncio.shield(task)
        return answer

    def _done(self, what: str, task: asyncio.Task[Any]) -> None:
        del self._removing[what]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("not all was removed: %s", error)  # who asked may have gone away


def _kind_of(rewrite: Rewrite) -> str:
    if rewrite.body:
        return "changed"
    if rewrite.topic.startswith(AUDITS):
        return "delivery"
    return "notification" if rewrite.topic.startswith(INBOXES) else "activity"
