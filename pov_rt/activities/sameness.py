"""When two activities, or notifications, under one id are the same: a retry, and no other one."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from pov_rt.protocol.details.traces import TRACEPARENT, untraced
from pov_rt.protocol.encoding import encode, encode_sorted
from pov_rt.protocol.messages import MAX_SAFE_INTEGER, Activity, Notification

_POINT = ord(".")


def compared(new: Activity | Notification) -> bytes:
    """Return what is equal for two that say the same in JSON; b"" where the body itself will do.

    Who serializes anew for a retry may write the keys of `details` in another order, and a whole
    number as `1` or `1.0`: objects have no order, and JSON has one kind of number (RFC 8259). So
    with an instant and its time zone. What is published again in another request is the same: the
    trace that it belongs to does not count.
    """
    content = b""
    if isinstance(new, Activity) and new.details is not UNSET and TRACEPARENT in new.details:
        new = untraced(new)
        content = encode(new)
    if new.details is not UNSET:
        content = encode_sorted(new)
        # A byte is found much faster (docs/measurements.md, batches). In a text: for nothing.
        if _POINT in content and b".0" in content:
            new = msgspec.structs.replace(new, details=_whole(new.details))
            content = encode_sorted(new)
    if type(new) is Notification and new.expires_at is not UNSET:
        at = new.expires_at.timestamp()
        content = encode_sorted((at, msgspec.structs.replace(new, expires_at=UNSET)))
    return content


def _whole(value: Any) -> Any:
    """Return details with whole numbers as integers. They are as deep as was checked before."""
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SAFE_INTEGER:
        return int(value)  # a larger one is sent in one way only: as an integer it is refused
    return value
