"""For operators: an activity by its id, why somebody did not get it, and what happens, live."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import msgspec
from msgspec import UNSET
from tornado.iostream import StreamClosedError

from pov_rt.delivery.entries import ActivityEncoder
from pov_rt.protocol.bodies import (
    DeviceLane,
    Explained,
    ExplainedActivity,
    FoundActivities,
    FoundActivity,
    MissingNode,
    Station,
)
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.tenants import wire_of
from pov_rt.protocol.topics import pov_of
from pov_rt.runtime.clock import rfc3339
from pov_rt.server.nodes.live import Follower, Line, Whose
from pov_rt.server.trace.case import Activity, Case
from pov_rt.server.trace.judge import Lane, Verdict
from pov_rt.web.http import SERVICE, JsonHandler, parse_query
from pov_rt.web.routes.people import LinesHandler

OPERATE = "operate"
SHOWN_EVENTS = 50
"""Of a user's, in an answer: the newest."""
QUIET_S = 15.0
"""After so long without an event a follower is sent an empty line, so that no proxy gives up."""


class OperatorHandler(JsonHandler):
    """What those may ask who have a service token that grants `operate`."""

    PARAMETERS: frozenset[str] = frozenset()

    def read(self) -> Mapping[str, str]:
        """Ask for the token, and return the query. Raises what is wrong with either."""
        self.authenticate(SERVICE).grants.require(OPERATE)
        query = dict(parse_query(self.request.query))
        if unknown := sorted(set(query) - self.PARAMETERS):
            raise InvalidRequest(f"There is no parameter '{unknown[0]}'", field=unknown[0])
        if "userId" in query:
            check_id(query["userId"], "userId")
        if "povId" in query:
            self.identity.grants.require_pov(query["povId"])
        return query

    def scoped(self, query: Mapping[str, str], name: str) -> str | None:
        """Return the id of a parameter as the node knows it."""
        given = query.get(name)
        return None if given is None else str(self.identity.grants.scope(given))


class ActivityHandler(OperatorHandler):
    """`GET /api/activities/{activityId}`."""

    def authorize(self, activity_id: str) -> None:
        """Ask for a service token that may operate."""
        self.read()
        check_id(activity_id, "activityId")

    async def get(self, activity_id: str) -> None:
        """Answer where there is an activity with this id, and what it is."""
        encoder, explain = ActivityEncoder(), self.server.explain
        found: list[FoundActivity] = []
        for place, entry in await explain.find(activity_id, self.identity.grants):
            top = await self.server.engine.log.top(place.topic)
            stored = None if entry is None or not entry.body else encoder.item(entry)
            found.append(
                FoundActivity(
                    pov_id=wire_of(pov_of(place.topic)),
                    epoch=top.epoch,
                    offset=place.offset,
                    publisher=place.publisher or UNSET,
                    activity=UNSET if stored is None else msgspec.Raw(stored),
                )
            )
        self.answer(FoundActivities(activities=found))


class ExplainHandler(OperatorHandler):
    """`GET /api/activities/{activityId}/explain?userId=ana`, and perhaps `povId`, `device`."""

    PARAMETERS = frozenset({"userId", "povId", "device"})

    def authorize(self, activity_id: str) -> None:
        """Ask for a service token that may operate."""
        query = self.read()
        check_id(activity_id, "activityId")
        if "userId" not in query:
            raise InvalidRequest("Say of whom it is asked: userId=...", field="userId")
        if "device" in query:
            check_id(query["device"], "device")

    async def get(self, activity_id: str) -> None:
        """Answer why."""
        query = dict(parse_query(self.request.query))
        verdict, case = await self.server.explain.explain(
            activity_id,
            str(self.identity.grants.scope(query["userId"])),
            self.identity.grants,
            self.scoped(query, "povId"),
            query.get("device", ""),
        )
        self.answer(explained(verdict, case))


class TraceHandler(OperatorHandler, LinesHandler):
    """`GET /api/trace?userId=ana`, or `povId`: what happened on all nodes, as lines.

    With `follow=true` what happens follows, until the client goes.
    """

    PARAMETERS = frozenset({"userId", "povId", "follow"})

    def authorize(self) -> None:
        """Ask for a service token that may operate."""
        query = self.read()
        if ("userId" in query) == ("povId" in query):
            raise InvalidRequest("Say whose events: userId=..., or povId=...", field="userId")

    async def get(self) -> None:
        """Answer with a JSON object a line: first what is in memory."""
        query = dict(parse_query(self.request.query))
        user_id = self.scoped(query, "userId")
        topic = "" if user_id is not None else self.identity.grants.topic(query["povId"])
        whose, live = Whose(user_id or "", topic), self.server.live
        self.set_header("Content-Type", "application/x-ndjson")
        if query.get("follow") != "true" or self.request.method == "HEAD":
            self.finish(b"".join(map(_line, await live.so_far(whose))))
            return
        follower = live.follow(whose)
        try:
            with suppress(StreamClosedError):
                await self.flush()  # so that who follows knows that it does
                await self._follow(follower)
        finally:
            await follower.end()

    async def _follow(self, follower: Follower) -> None:
        self._stream.watch_end()
        leaving = asyncio.ensure_future(self.server.leaving.wait())
        coming = asyncio.ensure_future(follower.next())
        try:
            while True:
                either = (coming, leaving)
                await asyncio.wait(either, timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done():
                    return
                lines = [b"\n"]
                if coming.done():
                    lines = [_line(each) for each in coming.result()]
                    coming = asyncio.ensure_future(follower.next())
                await self.send(lines)
        finally:
            leaving.cancel()
            coming.cancel()


def _line(line: Line) -> bytes:
    """Return what happened, or who says nothing, as a line; its node, if that is another one."""
    if isinstance(line.event, MissingNode):
        return encode({"event": "missing", **msgspec.structs.asdict(line.event)}) + b"\n"
    return encode(line.event.shown() | ({"node": line.node} if line.node else {})) + b"\n"


def explained(verdict: Verdict, case: Case) -> Explained:
    """Return a verdict as it is answered."""
    events = [
        each.shown() | ({"node": case.nodes[each.run]} if each.run in case.nodes else {})
        for each in case.events[-SHOWN_EVENTS:]
    ]
    return Explained(
        node=case.node,
        missing=list(case.missing),
        id=case.activity_id,
        user_id=wire_of(case.user),
        cause=verdict.cause,
        answer=verdict.sentence,
        since=_time(verdict.since),
        next=verdict.next,
        delivered=verdict.is_good,
        activity=UNSET if case.activity is None else _activity(case.activity),
        lanes=[_lane(each) for each in verdict.lanes],
        events=events,
        trace_since=_time(case.since),
    )


def _activity(activity: Activity) -> ExplainedActivity:
    head = activity.head
    is_povs = activity.topic.startswith("pov/")
    return ExplainedActivity(
        id=activity.id,
        pov_id=wire_of(pov_of(activity.topic)) if is_povs else UNSET,
        epoch=activity.epoch,
        offset=activity.offset,
        at=_time(activity.at),
        type=UNSET if head is None else head.type,
        action=(head.action if head is not None else "") or UNSET,
        user_id=(wire_of(head.user_id) if head is not None else "") or UNSET,
        publisher=activity.publisher or UNSET,
        traceparent=activity.traceparent or UNSET,
    )


def _lane(lane: Lane) -> DeviceLane:
    stations = [
        Station(name=each.name, passed=each.passed, at=_time(each.at), text=each.text or UNSET)
        for each in lane.steps
    ]
    return DeviceLane(
        device=lane.device,
        cause=lane.cause,
        answer=lane.sentence,
        since=_time(lane.since),
        connection_id=lane.connection or UNSET,
        node=lane.node,
        connected=lane.is_open,
        stations=stations,
    )


def _time(at: float | None) -> str | msgspec.UnsetType:
    return UNSET if at is None else rfc3339(at)
