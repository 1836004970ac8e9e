"""The exact bytes of what is pushed, and when a notification has expired."""

from __future__ import annotations

import pytest
from msgspec import structs

from pov_rt.delivery.entries import ActivityEncoder, has_expired
from pov_rt.engine.base import Entry


@pytest.mark.parametrize(
    ("kind", "name", "tail"),
    [
        ("pov", b"activity", b"}"),
        ("team", b"activity", b',"feed":"*"}'),
        ("user", b"notification", b"}"),
    ],
)
def test_a_push_is_its_stored_bytes_with_time_and_offset(
    kind: str, name: bytes, tail: bytes
) -> None:
    encoder = ActivityEncoder()
    entry = Entry(3, '{"id":"é"}'.encode(), 0.25)
    data = '{"id":"é","at":"1970-01-01T00:00:00.250Z"}'.encode()
    assert encoder.message(entry, kind) == (
        b'{"type":"' + name + b'","data":' + data + b',"offset":3' + tail
    )
    assert encoder.item(structs.replace(entry, offset=4)) == b'{"data":' + data + b',"offset":4}'
    assert b"1970-01-01T00:00:01" in encoder.item(structs.replace(entry, at=1.0)), "no stale time"


@pytest.mark.parametrize(
    ("body", "expired"),
    [
        (b'{"id":"1"}', False),
        (b'{"id":"1","expiresAt":"1970-01-01T00:01:40Z"}', True),
        (b'{"id":"1","expiresAt":"1970-01-01T01:01:40+01:00"}', True),
        (b'{"id":"1","expiresAt":"1970-01-01T00:01:40.001Z"}', False),
        # A publisher's own field of that name is no business of ours.
        (b'{"id":"1","details":{"expiresAt":"1970-01-01T00:00:00Z"}}', False),
    ],
)
def test_a_notification_expires_at_its_own_instant(body: bytes, expired: bool) -> None:
    assert has_expired(body, 100.0) is expired
