"""Why did this user not get that activity? A pure function: from a `Case` to a `Verdict`.

Each device is judged by itself, from the end: what its client said it did with the activity, what
it acknowledged, what it was sent, what it was subscribed to, whether it was connected. The first of
these that is known is the device's answer. Of several devices the one counts that it came furthest
to; where it came equally far, the one that was there last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pov_rt.delivery.filters import Head, Only
from pov_rt.protocol.tenants import wire_of
from pov_rt.protocol.topics import TEAM_FEED, pov_of
from pov_rt.server.trace.case import Activity, Case, Live
from pov_rt.server.trace.causes import CAUSES, SHOWN
from pov_rt.server.trace.events import Event
from pov_rt.server.trace.history import Device, Span, Visit, tell

STEPS = ("published", "log", "node", "queue", "socket", "acknowledged", "shown")
ACKED = 8
"""The rank from which on the device has it, and says what it did with it."""
SKEW_S = 0.05
"""By how much what happened in one step may be noted in another order."""


class Step(NamedTuple):
    """One station of a lane. `at` is when it was passed; None: it was not, or nobody knows when."""

    name: str
    passed: bool | None
    at: float | None = None
    text: str = ""


class Lane(NamedTuple):
    """One device: how far the activity came on its way there, and why not further."""

    device: str
    cause: str
    sentence: str
    since: float | None
    next: str
    steps: Sequence[Step] = ()
    connection: str = ""
    """The last one that is known of."""
    node: str = ""
    """Where that is, or was."""
    is_open: bool = False


class Verdict(NamedTuple):
    """The answer. `since` is since when that is so, None where nobody knows."""

    cause: str
    sentence: str
    since: float | None
    next: str
    lanes: Sequence[Lane] = ()

    @property
    def is_good(self) -> bool:
        """Whether the user has it."""
        return CAUSES[self.cause].is_good


class _Found(NamedTuple):
    cause: str
    since: float | None
    what: str = ""
    sent_at: float | None = None
    acked_at: float | None = None


def judge(case: Case) -> Verdict:
    """Return what happened, since when, and what happens next."""
    activity = case.activity
    if activity is None:
        return _verdict(case, _judge_missing(case))
    ways = [_Way(case, activity, tell(case, activity.topic))]
    if case.feed is not None and case.feed.activity is not None:
        there = case.feed.activity
        ways.append(_Way(case.feed, there, tell(case, there.topic)))
    names = {*ways[0].history, *case.devices, *(each.device for each in case.live)}
    if case.device:
        names = {case.device}
    lanes = [_lane(name, ways) for name in sorted(names)]
    state = _judge_state(case, activity)
    if state is not None and not any(CAUSES[lane.cause].rank >= 6 for lane in lanes):
        return _verdict(case, state, lanes)
    if not lanes:
        refused = _last(case.events, "refused")
        found = _refused(refused) if refused is not None else _Found("never_connected", case.since)
        return _verdict(case, found)
    best = max(lanes, key=lambda lane: (CAUSES[lane.cause].rank, lane.since or 0.0))
    return Verdict(best.cause, best.sentence, best.since, best.next, lanes)


def _verdict(case: Case, found: _Found, lanes: Sequence[Lane] = ()) -> Verdict:
    sentence, then = _words_of(case, found, "no device")
    return Verdict(found.cause, sentence, found.since, then, lanes)


def _words_of(case: Case, found: _Found, device: str) -> tuple[str, str]:
    """Return what is said of a cause, and what happens next."""
    cause = CAUSES[found.cause]
    topic = case.activity.topic if case.activity is not None else ""
    names = {
        "user": wire_of(case.user),
        "device": device,
        "id": case.activity_id,
        "pov": case.pov or (wire_of(pov_of(topic)) if topic.startswith("pov/") else "the inbox"),
        "what": found.what,
    }
    return _fill(cause.sentence, names), _fill(cause.next, names)


def _fill(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


# What is in no log:


def _judge_missing(case: Case) -> _Found:
    if case.elsewhere:
        kind, _, where = case.elsewhere.partition(" ")
        return _Found(kind, None, where)
    for event in reversed(case.publishing):
        if event.more.get("id") != case.activity_id:
            continue
        words = f"{event.more.get('code', '')}: {event.more.get('message', '')}"
        if event.kind == "rejected":
            is_plugins = event.more.get("byPlugin")
            return _Found("rejected_by_plugin" if is_plugins else "rejected", event.at, words)
    return _Found("unknown", None)


def _judge_state(case: Case, activity: Activity) -> _Found | None:
    if activity.state in ("removed", "erased", "retracted", "expired"):
        return _Found(activity.state, None)
    for event in reversed(case.publishing):
        if event.kind == "conflict" and event.more.get("id") == case.activity_id:
            what = f"what came first is at offset {event.offset}"
            # Said only while nobody has got what came first: `judge` looks.
            return _Found("conflict", event.at, what)
    return None


# One device:


class _Way(NamedTuple):
    """One log that has the activity, and what became of each device on it: a PoV's, or a feed."""

    case: Case
    activity: Activity
    history: Mapping[str, Device]


def _lane(name: str, ways: Sequence[_Way]) -> Lane:
    """Judge a device by the way that the activity came furthest on.

    Of two that it came equally far on, by that on which the device did something last.
    """
    judged: list[tuple[tuple[int, float], _Way, _Found]] = []
    for way in ways:
        device = way.history.get(name, Device(name))
        found = _judge_device(way.case, way.activity, device, way.history)
        place = CAUSES[found.cause].rank, device.touched(way.activity.topic)
        judged.append((place, way, found))
    (rank, _), way, found = max(judged, key=lambda each: each[0])
    # What is muted is the PoV, whichever way it comes.
    sentence, then = _words_of(ways[0].case if rank >= ACKED else way.case, found, name)
    visits = way.history[name].visits if name in way.history else []
    here = [each for each in way.case.live if each.device == name]
    last = [*((each.id, each.node) for each in visits), *((each.id, each.node) for each in here)]
    connection, node = last[-1] if last else ("", way.case.node)
    steps = _steps(ways[0].case, ways[0].activity, way.case, found, node)
    return Lane(name, found.cause, sentence, found.since, then, steps, connection, node, bool(here))


def _judge_device(
    case: Case, activity: Activity, device: Device, history: Mapping[str, Device]
) -> _Found:
    sent_at = _sent_at(case, activity, device)
    said = _judge_said(case, activity, device, history, sent_at)
    if said is not None:
        return said
    if sent_at is not None:
        return _judge_sent(case, activity, device, sent_at)
    live = [each for each in case.live if each.device == device.name]
    visits = device.visits
    spans = [span for visit in visits for span in visit.spans]
    relevant = _spans_after(spans, activity)
    if relevant:
        found = _judge_spans(case, activity, device, relevant, live)
        if found is not None:
            return found
    if live or (visits and visits[-1].ended is None and case.activity is None):
        return _judge_unsubscribed(case, activity, device, live)
    return _judge_away(case, activity, device)


def _judge_said(
    case: Case,
    activity: Activity,
    device: Device,
    history: Mapping[str, Device],
    sent_at: float | None,
) -> _Found | None:
    """Judge by what the client said: read, shown, acknowledged."""
    topics = {activity.topic}
    mine = [event for event in device.events if event.topic in topics]
    reads = [each for each in mine if each.kind == "read" and _covers(each, activity)]
    acks = [each for each in mine if each.kind == "acked" and _covers(each, activity)]
    acked_at = acks[0].at if acks else None
    shown = [each for each in mine if each.kind == "shown" and each.offset >= activity.offset]
    if reads:
        return _Found("read", reads[0].at, f" at offset {reads[0].offset}", sent_at, acked_at)
    elsewhere = _read_elsewhere(activity, device, history)
    if shown:
        reason = shown[0].more.get("reason")
        if reason is not None and elsewhere is not None:
            return elsewhere._replace(sent_at=sent_at, acked_at=acked_at)
        cause = "shown" if reason is None else SHOWN.get(reason, reason)
        cause = cause if cause in CAUSES else "not_shown"
        return _Found(cause, shown[0].at, "", sent_at, acked_at or shown[0].at)
    if elsewhere is not None:
        return elsewhere._replace(sent_at=sent_at, acked_at=acked_at)
    if acks or case.acked.get(device.name, 0) >= activity.offset:
        if case.mute == "off":
            return _Found("muted", acked_at, "", sent_at, acked_at)
        return _Found("delivered", acked_at, "", sent_at, acked_at)
    return None


def _read_elsewhere(
    activity: Activity, device: Device, history: Mapping[str, Device]
) -> _Found | None:
    for other in history.values():
        if other.name == device.name:
            continue
        for event in other.events:
            if event.kind == "read" and event.topic == activity.topic and _covers(event, activity):
                return _Found("read_elsewhere", event.at, f" since {other.name} read it")
    return None


def _covers(event: Event, activity: Activity) -> bool:
    is_log = event.more.get("epoch", activity.epoch) == activity.epoch
    return is_log and event.offset >= activity.offset


def _judge_sent(case: Case, activity: Activity, device: Device, sent_at: float) -> _Found:
    live = [each for each in case.live if each.device == device.name]
    if device.visits and not live:
        last = device.visits[-1]
        if last.reason == "ping timeout" and (last.ended or 0) >= sent_at:
            return _Found("frozen", last.ended, ", after it had been sent it", sent_at)
    unsent = sum(each.unsent_bytes for each in live)
    if unsent:
        return _Found("behind", sent_at, f"; {unsent} bytes wait for it to read", sent_at)
    acks = any(event.kind == "acked" for event in device.events) or device.name in case.acked
    return _Found("unacknowledged" if acks else "written", sent_at, "", sent_at)


def _sent_at(case: Case, activity: Activity, device: Device) -> float | None:
    """Return when a device was sent the activity, None if it was not."""
    for visit in device.visits:
        for span in visit.spans:
            until = _until(case, visit, span)
            if span.epoch != activity.epoch or not span.after < activity.offset:
                continue
            if until is None or activity.offset > until or not _wants(span.only, activity.head):
                continue
            if activity.offset <= span.top:
                return span.began
            return _handed_at(case, activity, visit.node)
    for live in case.live:
        # Its begin may be older than the trace.
        is_known = any(visit.id == live.id and visit.spans for visit in device.visits)
        if live.device == device.name and not is_known and live.delivered is not None:
            if live.delivered >= activity.offset and _wants(live.only, activity.head):
                return activity.at
    return None


def _handed_at(case: Case, activity: Activity, node: str) -> float | None:
    """Return when a node handed the activity out, as far as that is known."""
    handout = case.handouts.get(node)
    return activity.at if handout is None else handout.at


def _until(case: Case, visit: Visit, span: Span) -> int | None:
    """Return up to where a span's connection was sent everything."""
    if span.until is not None or span is not visit.spans[-1]:
        return span.until
    for live in case.live:
        if live.id == visit.id and live.delivered is not None:
            return live.delivered
    return None


def _wants(only: Any, head: Head | None) -> bool:
    if not only or head is None:
        return True
    if only is True:  # too large to be kept
        return True
    return msgspec.convert(only, Only).wants(head)


def _spans_after(spans: Sequence[Span], activity: Activity) -> Sequence[Span]:
    """Return the spans in which the activity could have been sent: the last before, and after."""
    published = activity.at or 0.0
    return [span for span in spans if span.ended is None or span.ended >= published - SKEW_S]


def _judge_spans(
    case: Case,
    activity: Activity,
    device: Device,
    spans: Sequence[Span],
    live: Sequence[Live],
) -> _Found | None:
    last = spans[-1]
    for span in spans:
        if not _wants(span.only, activity.head) and span.after < activity.offset:
            return _Found("filter", span.began, f": {_filter_words(span.only)}")
    is_reset = last.epoch != activity.epoch and last.ended is None
    is_foreign = last.recovered is False and last.missed is None
    if is_reset or (is_foreign and last.began >= (activity.at or 0.0)):
        return _Found("gap", last.began)
    for span in spans:
        if span.recovered is False and activity.offset <= span.after:
            return _Found("missed", span.began, f": {span.missed} were missed")
    if last.after >= activity.offset and last.ended is None:
        return _Found("subscribed_later", last.began)
    if last.ended is None and any(each.behind or each.delivered is not None for each in live):
        unsent = sum(each.unsent_bytes for each in live)
        return _Found("behind", last.began, f"; {unsent} bytes wait for it to read")
    return None


def _filter_words(only: Any) -> str:
    if only is True:
        return "it is too large to be shown"
    return msgspec.json.encode(only).decode()


# Connected:


def _judge_unsubscribed(
    case: Case, activity: Activity, device: Device, live: Sequence[Live]
) -> _Found:
    topic = activity.topic
    last = device.last("failed", "lost", "left", topic=topic)
    denied = _last(case.events, "denied", topic=topic)
    if last is not None and last.kind == "lost":
        is_apps = denied is not None and abs(denied.at - last.at) < 1 + SKEW_S
        return _Found("denied" if is_apps else "lost", last.at, f": {_words(last)}")
    if denied is not None and (last is None or last.kind != "left" or denied.at >= last.at):
        return _Found("denied", denied.at, f": {_words(denied)}")
    if last is not None and last.kind == "left":
        return _Found("unsubscribed", last.at)
    if last is not None:
        code = last.more.get("code")
        cause = {
            "forbidden": "no_grant",
            "rate_limited": "over_budget",
            "limit_exceeded": "over_budget",
        }.get(str(code), "refused_subscription")
        return _Found(cause, last.at, f": {_words(last)}")
    flood = device.last("failed")
    if flood is not None and flood.more.get("code") == "rate_limited":
        return _Found("over_budget", flood.at, f": {_words(flood)}")
    others = sorted({name for each in live for name in each.others})
    began = device.visits[-1].began if device.visits else None
    if TEAM_FEED in others and case.other_feed:
        return _Found("other_feed", began, f" ({case.other_feed})")
    if others:
        named = ", ".join(others[:5]) + (" and more" if len(others) > 5 else "")
        return _Found("other_pov", began, f": it follows {named}")
    return _Found("not_subscribed", began)


def _words(event: Event) -> str:
    return f"{event.more.get('code', '')}: {event.more.get('message', '')}"


# Not connected:

_REASONS: Sequence[tuple[str, str]] = (
    ("slow consumer", "slow"),
    ("ping timeout", "frozen"),
    ("restarting", "restart"),
    ("the server ended", "restart"),
    ("disconnected by an operator", "disconnected"),
    ("too many messages", "flooding"),
    ("closed by the client", "away"),
    ("connection lost", "cut"),
    ("the client went away", "cut"),
    ("gap", "gap"),
)


def _judge_away(case: Case, activity: Activity, device: Device) -> _Found:
    last = device.visits[-1] if device.visits else None
    refused = _last(case.events, "refused")
    if refused is not None and (last is None or refused.at >= (last.ended or last.began)):
        return _refused(refused)
    if last is None or last.ended is None:
        return _Found("away", case.devices.get(device.name), "")
    revoked = _last(case.events, "refused", code="token_revoked")
    found = "closed"
    if last.reason.startswith("token expired or revoked"):
        is_revoked = not last.expired or revoked is not None
        found = "token_revoked" if is_revoked else "token_expired"
    else:
        for start, cause in _REASONS:
            if last.reason.startswith(start):
                found = cause
                break
    return _Found(found, last.ended, f" ({last.reason})" if last.reason else "")


def _refused(event: Event) -> _Found:
    code = str(event.more.get("code"))
    cause = code if code in ("token_expired", "token_revoked", "token_invalid") else "refused"
    if code in ("rate_limited", "limit_exceeded"):
        cause = "over_budget"
    return _Found(cause, event.at, f": {_words(event)}")


def _last(
    events: Sequence[Event], kind: str, *, topic: str | None = None, code: str | None = None
) -> Event | None:
    for event in reversed(events):
        if event.kind == kind and topic in (None, event.topic):
            if code is None or event.more.get("code") == code:
                return event
    return None


# The line:


def _steps(case: Case, activity: Activity, way: Case, found: _Found, node: str) -> Sequence[Step]:
    """Return the stations of one device's lane; `way` is the log that it is on."""
    append, cause = case.append, CAUSES[found.cause]
    arrived = append.at - append.whole_s if append is not None else None
    by = f"by {activity.publisher}" if activity.publisher else ""
    steps = [
        Step("published", True, arrived, by),
        Step("log", True, activity.at, f"#{activity.offset}"),
        Step("node", True, _handed_at(way, activity, node), node),
    ]
    rank = cause.rank
    is_sent = rank >= 6 or found.sent_at is not None
    queue = Step("queue", True if is_sent else False if rank == 5 else None)
    socket = Step("socket", is_sent, found.sent_at)
    acked: bool | None = found.acked_at is not None or rank >= 7
    if found.cause == "written":
        acked = None
    shown = found.cause in ("shown", "read", "feed", "digest")
    rest = [queue, socket, Step("acknowledged", acked if is_sent else None, found.acked_at)]
    rest.append(
        Step(
            "shown",
            shown if rank >= 7 and found.cause != "delivered" else None,
            found.since if shown else None,
        )
    )
    return [*steps, *rest]
