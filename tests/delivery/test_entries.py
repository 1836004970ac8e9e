"""The exact bytes of what is pushed, and when a notification has expired."""

from __future__ import annotations

import pytest

from pov_rt.delivery.entries import ActivityEncoder
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
    assert encoder.item(entry._replace(offset=4)) == b'{"data":' + data + b',"offset":4}'
    assert b"1970-01-01T00:00:01" in encoder.item(entry._replace(at=1.0)), "no stale time"
