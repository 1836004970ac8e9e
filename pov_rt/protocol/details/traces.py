"""Trace contexts (W3C Trace Context, Level 1): of which request in whatever system something came.

A request has its context in the header `traceparent`, an activity in a member of its details of
that name, for whoever handles it to go on with the trace. It says nothing of what happened: so it
is not compared where two activities may be the same, and details may have it whatever else is
declared of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from msgspec import UNSET

from pov_rt.protocol.messages import Activity, NewActivity

TRACEPARENT: Final = "traceparent"
"""The header, and the member of an activity's details."""
_CONTEXT: Final = re.compile(
    r"((?!ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)
_FIRST: Final = "00"

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def read_traceparent(value: object) -> str | None:
    """Return a trace context, None of what is none: nothing is to be lost by a bad header.

    Of a version that is not known yet what the first version has is kept, and what may follow it
    is not.
    """
    if not isinstance(value, str):
        return None
    found = _CONTEXT.match(value)
    if found is None:
        return None
    rest = value[found.end() :]
    return None if rest and (found[1] == _FIRST or rest[0] != "-") else found[0]


def current_traceparent() -> str | None:
    """Return the context of the request that is being handled, None where none is known."""
    return _current.get()


@contextmanager
def traced(traceparent: str | None) -> Iterator[None]:
    """Have what is published in the block belong to a trace; one that is none changes nothing.

    It holds in the thread, or task, that the block is in, and in tasks that it begins.
    """
    context = read_traceparent(traceparent)
    if context is None:
        yield
        return
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def with_trace(activity: NewActivity, traceparent: str | None) -> NewActivity:
    """Return an activity of a trace; what it says itself stays."""
    context = read_traceparent(traceparent)
    details: dict[str, Any] = {} if activity.details is UNSET else activity.details
    if context is None or TRACEPARENT in details:
        return activity
    return msgspec.structs.replace(activity, details={**details, TRACEPARENT: context})


def without_trace(details: dict[str, Any]) -> dict[str, Any]:
    """Return details without a trace context; the same object if they have none."""
    if TRACEPARENT not in details or read_traceparent(details[TRACEPARENT]) is None:
        return details
    return {name: value for name, value in details.items() if name != TRACEPARENT}


def untraced(activity: Activity) -> Activity:
    """Return an activity as it would be without a trace; the same object if it has none."""
    if activity.details is UNSET:
        return activity
    details = without_trace(activity.details)
    if details is activity.details:
        return activity
    return msgspec.structs.replace(activity, details=details or UNSET)
