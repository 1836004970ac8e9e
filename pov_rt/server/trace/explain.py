"""Gathers what is known of a user and an activity, and has it judged; keeps the trace's file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pov_rt.activities.cursors import READ, acked
from pov_rt.auth.grants import Grants
from pov_rt.config.settings import TraceSettings
from pov_rt.delivery.entries import has_expired
from pov_rt.delivery.filters import Head
from pov_rt.dispatch.hooks import Hooks
from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Entry, Located
from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.protocol.errors import NotFound, Unavailable
from pov_rt.protocol.tenants import restore, team_of, wire_of
from pov_rt.protocol.topics import pov_of, pov_topic, team_topic, user_topic
from pov_rt.runtime.containment import Tasks
from pov_rt.server.nodes.asking import Asking
from pov_rt.server.nodes.traces import (
    EVENTS,
    MOST_EVENTS,
    PASSED,
    At,
    Events,
    Of,
    Others,
    Passed,
)
from pov_rt.server.trace.case import Activity, Case, Live, State
from pov_rt.server.trace.events import Event, filter_of, needles_of, read_those
from pov_rt.server.trace.judge import Verdict, judge
from pov_rt.server.trace.places import offset_in, under_epoch
from pov_rt.server.trace.spill import Spill
from pov_rt.server.trace.trace import Trace

log = logging.getLogger(__name__)

SEARCH_S = 1.0
"""How long bodies are looked through for an id that no engine remembers any more."""
FEEDS = team_topic("")
MUTES = "mute"
"""The plugin that says how loud a PoV is; its export has it."""


class _Stored(msgspec.Struct, rename="camel"):
    """What of an activity, or a notification, is told here."""

    id: str
    type: str
    action: str = ""
    user_id: str = ""
    retracted: bool = False
    original: Any = None
    details: Any = None


class _Muting(msgspec.Struct, rename="camel"):
    pov_id: str
    level: str


_decode = msgspec.json.Decoder(_Stored).decode
_muting = msgspec.json.Decoder(_Muting).decode


class Explain:
    """Answers why. Owner: the server, which calls `start`, `sweep` and `close`."""

    def __init__(
        self, services: Services, hooks: Hooks, settings: TraceSettings, asking: Asking
    ) -> None:
        self._services = services
        self._asking = asking
        asking.on(EVENTS, self._answer_events)
        asking.on(PASSED, self._answer_passed)
        self._hooks = hooks
        self._clock = services.clock
        self._tasks = Tasks(log, "writing the trace")
        self._writing = False
        self.trace: Trace | None = None
        self.spill: Spill | None = None
        if settings.enabled:
            self.trace = Trace(settings, services.clock)
            services.bounds.add(self.trace.bound)
            services.borders.add(self.trace)
            data = services.settings.server.data
            if settings.file_bytes and data:
                self.spill = Spill(Path(data), settings, services.clock)

    def start(self) -> None:
        """Note that the node has started: what was open before is not any more."""
        if self.trace is None:
            return
        if self.spill is not None:
            self._tasks.spawn(self._remember(self.spill, self.trace.run))
        self.trace.note("started", "")

    async def _remember(self, spill: Spill, run: str) -> None:
        """Have the directory know again who left before the node began."""
        try:
            known = await spill.left_at(run)
        except OSError as error:
            log.warning("who left before is not known: the trace cannot be read: %s", error)
            return
        directory = self._services.directory
        seen = {restore(user_id): at for user_id, at in known.items()}
        directory.last_seen.restore(seen, directory.users())

    def sweep(self) -> None:
        """Write what waits to the file; called about once a second."""
        if self.trace is None or not self.trace.unwritten or self._writing:
            return
        if self.spill is None:
            self.trace.unwritten.clear()
        else:
            self._writing = True
            self._tasks.spawn(self._write(self.spill, self.trace))

    async def close(self) -> None:
        """Note that the node has ended, and write what waits."""
        await self._tasks.end()
        if self.trace is not None:
            self.trace.note("stopped", "")
            if self.spill is not None:
                await self._write(self.spill, self.trace)

    async def erase(self, user_id: str, connections: Collection[str] = ()) -> None:
        """Forget what happened to a user, whose `connections` are ending. Raises `Unavailable`."""
        if self.trace is not None:
            self.trace.forget(user_id, connections)
        if self.spill is not None:
            try:
                await self.spill.erase(user_id)
            except OSError as error:
                raise Unavailable(f"the trace cannot be written: {error.strerror}") from error

    async def _write(self, spill: Spill, trace: Trace) -> None:
        try:
            lines = list(trace.unwritten)
            trace.unwritten.clear()
            if lines:
                await spill.write(lines)
        finally:
            self._writing = False

    # Activities by id:

    async def places(self, activity_id: str, grants: Grants) -> Sequence[Located]:
        """Return where there is something with an id, as far as these grants may see it."""
        found = await self._locate(activity_id)
        return [each for each in found if sees(grants, each.topic)]

    async def _locate(self, activity_id: str) -> Sequence[Located]:
        found = await self._services.engine.log.locate(activity_id)
        if found:
            return found
        needle, until = b'{"id":%b,' % encode(activity_id), self._clock.monotonic() + SEARCH_S
        after: str | None = ""
        there: list[Located] = []
        while after is not None and self._clock.monotonic() < until:
            page = await self._services.engine.log.search("", _begins(needle), after)
            there += [Located(each.topic, "", each.entry.offset) for each in page.found]
            after = page.next
        return there

    async def entry(self, place: Located) -> Entry | None:
        """Return what is at a place; None if it is not kept any more."""
        page = await self._services.engine.log.read(place.topic, place.offset - 1, 1)
        if page.entries and page.entries[0].offset == place.offset:
            return page.entries[0]
        return None

    async def find(
        self, activity_id: str, grants: Grants
    ) -> Sequence[tuple[Located, Entry | None]]:
        """Return all that has an id, with its places. Raises `NotFound`."""
        places = [
            each for each in await self.places(activity_id, grants) if each.topic[:4] == "pov/"
        ]
        if not places:
            raise NotFound("There is no activity with this id, or it is not remembered any more")
        return [(place, await self.entry(place)) for place in places]

    # Why:

    async def explain(
        self,
        activity_id: str,
        user_id: str,
        grants: Grants,
        pov_id: str | None = None,
        device: str = "",
    ) -> tuple[Verdict, Case]:
        """Return why a user did not get an activity, or that they did; perhaps on one device."""
        case = replace(await self._gather(activity_id, user_id, grants, pov_id), device=device)
        return judge(case), case

    async def _gather(
        self, activity_id: str, user_id: str, grants: Grants, pov_id: str | None
    ) -> Case:
        topics = [pov_topic(pov_id)] if pov_id is not None else []
        places = await self._locate(activity_id)
        others = Others(self._asking)
        theirs = await others.events(user_id, activity_id)
        events = _in_order([*await self.events(user_id), *theirs.users])
        place, elsewhere = self._choose(places, user_id, grants, topics, events)
        refusals = _in_order([*await self._publishing(activity_id), *theirs.publishing])
        publishing = [each for each in refusals if not topics or each.topic in topics]
        known: dict[str, Any] = {
            "user": user_id,
            "activity_id": activity_id,
            "now": self._clock.time(),
            "events": events,
            "publishing": publishing,
            "pov": "" if pov_id is None else wire_of(pov_id),
            "since": events[0].at if events else None,
            "run": "" if self.trace is None else self.trace.run,
            "node": self._services.node,
            "nodes": others.nodes,
            "missing": others.missing,
        }
        if place is None:
            return Case(activity=None, elsewhere=elsewhere, **known)
        activity = await self._read(activity_id, place)
        case = Case(activity=activity, **known, **await self._facts(user_id, activity, others))
        return await self._with_feed(await self._placed(case), activity, place, others)

    async def _placed(self, case: Case) -> Case:
        """Return a case whose events say their places in the log as it is now."""
        activity = case.activity
        if activity is None:
            return case
        log = self._services.engine.log
        return replace(
            case, events=await under_epoch(log, activity.topic, activity.epoch, case.events)
        )

    async def _with_feed(
        self, case: Case, activity: Activity, place: Located, others: Others
    ) -> Case:
        """Return a case with what is known by way of the team's feed, if the user follows one."""
        here = self._services.directory.of(case.user)
        followed = [topic for each in here for topic in each.topics]
        feeds = {each for each in followed if each.startswith(FEEDS)}
        feeds |= {each.topic for each in case.events if each.topic.startswith(FEEDS)}
        if not feeds or (entry := await self.entry(place)) is None or not entry.body:
            return case
        for feed in sorted(feeds):
            offset = await offset_in(self._services.engine.log, feed, entry)
            if offset:
                top = await self._services.engine.log.top(feed)
                there = activity._replace(topic=feed, epoch=top.epoch, offset=offset)
                facts = await self._facts(case.user, there, others)
                facts |= {"append": case.append, "mute": case.mute}
                by_feed = replace(case, activity=there, pov="the team feed", **facts)
                return replace(case, feed=await self._placed(by_feed))
            if offset == 0:
                case = replace(case, other_feed=feed.removeprefix(FEEDS))
        return case

    def _choose(
        self,
        places: Sequence[Located],
        user_id: str,
        grants: Grants,
        topics: Sequence[str],
        events: Sequence[Event],
    ) -> tuple[Located | None, str]:
        """Return which of several places is meant, or that it is where the user cannot have it."""
        seen = [each for each in places if sees(grants, each.topic)]
        mine, team = user_topic(user_id), team_of(user_id)
        possible = [
            each
            for each in seen
            if team is None or team_of(each.topic.partition("/")[2]) in (team, None)
        ]
        if seen and not possible:
            other = team_of(seen[0].topic.partition("/")[2])
            return None, f"other_tenant  (the team {other})"
        own = [each for each in possible if each.topic == mine or each.topic.startswith("pov/")]
        if topics:
            named = [each for each in own if each.topic in topics]
            if own and not named:
                return None, f"other_pov_activity it is on {wire_of(pov_of(own[-1].topic))}"
            own = named
        if possible and not own:
            return None, f"other_inbox it is in the inbox of {wire_of(possible[-1].topic[5:])}"
        joined = {event.topic for event in events if event.kind == "joined"}
        own.sort(key=lambda each: (each.topic in joined, each.offset))
        return (own[-1], "") if own else (None, "")

    async def _read(self, activity_id: str, place: Located) -> Activity:
        top = await self._services.engine.log.top(place.topic)
        entry = await self.entry(place)
        if entry is None:
            return Activity(
                activity_id, place.topic, top.epoch, place.offset, "removed",
                publisher=place.publisher,
            )  # fmt: skip
        head: Head | None = None
        parent: str | None = None
        known: State = "there"
        if not entry.body:
            known = "erased"
        else:
            try:
                said = _decode(entry.body)
                head = Head(said.type, said.action, said.user_id)
                known = "retracted" if said.retracted else "there"
                if isinstance(said.details, dict):
                    told = said.details.get("traceparent")
                    parent = told if isinstance(told, str) else None
            except DECODE_ERRORS:
                known = "erased"
            if place.topic.startswith("user/") and has_expired(entry.body, self._clock.time()):
                known = "expired"
        return Activity(
            activity_id, place.topic, top.epoch, place.offset, known, entry.at, head,
            place.publisher, parent,
        )  # fmt: skip

    async def _facts(self, user_id: str, activity: Activity, others: Others) -> dict[str, Any]:
        services, topic = self._services, activity.topic
        devices = await services.cursors.devices(user_id)
        own = self._passed(user_id, topic, activity.offset)
        theirs = await others.passed(user_id, topic, activity.offset)
        live = [*own.live, *chain.from_iterable(each.live for each in theirs.values())]
        appends = [each.append for each in (own, *theirs.values()) if each.append is not None]
        names = sorted({*devices, *(each.device for each in live)})
        (marks,) = await services.engine.marks.get_many(
            user_id, [topic], [READ, *map(acked, names)]
        )
        read, *acks = [
            mark.offset if mark is not None and mark.epoch == activity.epoch else 0
            for mark in marks
        ]
        return {
            "devices": devices,
            "acked": {name: offset for name, offset in zip(names, acks, strict=True) if offset},
            "read": read,
            "mute": await self._mute(user_id, topic),
            "live": live,
            "append": appends[0] if appends else None,
            "handouts": {
                node: each.handout
                for node, each in {services.node: own, **theirs}.items()
                if each.handout is not None
            },
        }

    def _passed(self, user_id: str, topic: str, offset: int) -> Passed:
        """Return what this node knows."""
        live = [self._live(each, topic) for each in self._services.directory.of(user_id)]
        if (trace := self.trace) is None:
            return Passed(live, None, None)
        return Passed(live, trace.append_of(topic, offset), trace.handout_of(topic, offset))

    async def _answer_passed(self, at: At) -> Passed:
        return self._passed(at.user, at.topic, at.offset)

    async def _answer_events(self, of: Of) -> Events:
        users, publishing = await self.events(of.user), await self._publishing(of.activity)
        return Events(users[-MOST_EVENTS:], publishing[-MOST_EVENTS:])

    def _live(self, connection: Any, topic: str) -> Live:
        hub = self._services.hub
        sent = hub.delivered_to(connection, topic)
        followed = connection.topics.get(topic)
        only = None if followed is None else followed.only.get(connection)
        return Live(
            connection.id,
            connection.device,
            None if sent is None else sent.offset,
            hub.replay.is_behind(connection),
            connection.transport.unsent_bytes,
            filter_of(only),
            sorted(
                wire_of(each.pov_id)
                for each in connection.topics.values()
                if each.is_subscription and each.name != topic
            ),
            self._services.node,
        )

    async def _mute(self, user_id: str, topic: str) -> str:
        async for _, value in self._hooks.export(user_id, MUTES):
            if value is not None:
                muting = _muting(value)
                if topic == pov_topic(muting.pov_id) or wire_of(topic) == wire_of(muting.pov_id):
                    return muting.level
        return ""

    async def events(self, user_id: str) -> Sequence[Event]:
        """Return a user's events, of this run and those before, with the starts of nodes."""
        if self.trace is None:
            return ()
        kept = [*self.trace.of(user_id), *self.trace.of("")]
        if self.spill is not None:
            kept += await self.spill.read(user_id)
            kept += read_those(self.trace.unwritten, needles_of(user_id))
        wanted = (
            each for each in kept if each.user in (user_id, "") and each.kind not in NOT_THEIRS
        )
        return _in_order(wanted)

    async def _publishing(self, activity_id: str) -> Sequence[Event]:
        """Return what became of attempts to publish an id that were refused."""
        if self.trace is None:
            return ()
        kept = self.trace.about(activity_id)
        if self.spill is not None:
            kept += await self.spill.about(activity_id)
        return _in_order(kept)


NOT_THEIRS = frozenset({"rejected", "conflict"})


def _in_order(events: Iterable[Event]) -> Sequence[Event]:
    unique = {(each.run, each.number): each for each in events}
    return sorted(unique.values(), key=lambda each: (each.at, each.number))


def _begins(needle: bytes) -> Callable[[bytes], bool]:
    def begins(body: bytes) -> bool:
        return body.startswith(needle)

    return begins


def sees(grants: Grants, topic: str) -> bool:
    """Tell whether an operator may be told of a topic: of all teams, or of one's own."""
    team, name = grants.operates_on, topic.partition("/")[2]
    if topic.startswith("team/"):
        return team in (None, name)
    if team is not None and team_of(name) != team:
        return False
    return not topic.startswith("pov/") or grants.povs is None or pov_of(topic) in grants.povs
