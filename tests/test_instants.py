"""Instants at every door: all that RFC 3339 has are taken, and what is none is still refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpclient import HTTPClient

from pov_rt.auth.grants import Kind
from pov_rt.protocol.encoding import mend_instants
from pov_rt.testing import Connect, RunningServer
from tests.clients import notify

NEVER = "9999-12-31T23:59:59.9999999Z"
LEAP = "2998-12-31T23:59:60Z"
GOOD = [
    NEVER,
    LEAP,
    "2998-12-31T23:59:60.5+00:00",
    "2998-07-01T05:29:60+05:30",
    "2998-01-01t00:00:00z",
]
BAD = ["2998-13-01T00:00:60Z", "2998-12-31T23:59:61Z", "2998-12-31T23:59:60", "never", "", 60, None]


class Asked(msgspec.Struct):
    """What a client may send."""

    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    other: Any = None


@given(
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)),
    st.text("0123456789", max_size=12),
    st.booleans(),
)
def test_every_instant_is_read_to_the_microsecond(at: datetime, more: str, is_leap: bool) -> None:
    at = at.replace(second=59, microsecond=0) if is_leap else at.replace(microsecond=0)
    second = 60 if is_leap else at.second
    text = f"{at:%Y-%m-%dT%H:%M}:{second:02}{'.' * bool(more)}{more}Z"
    content = json.dumps({"until": text, "other": ["x"]}).encode()
    try:
        read = msgspec.json.decode(content, type=Asked)
    except msgspec.DecodeError:
        mended = mend_instants(Asked, content)
        assert mended is not None
        read = msgspec.json.decode(mended, type=Asked)
    assert read.other == ["x"]
    assert read.until is not None
    if is_leap:
        assert read.until == at + timedelta(microseconds=999_999)
    else:
        fraction = timedelta(microseconds=int(more.ljust(6, "0")[:6]))
        assert abs(read.until - at - fraction) <= timedelta(microseconds=1)


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b'{"until": 1}', b'{"other": "%b"}' % LEAP.encode()]
)
def test_what_has_no_such_instant_stays_as_it_is(content: bytes) -> None:
    assert mend_instants(Asked, content) is None


def revoke(server: RunningServer, **body: Any) -> tuple[int, Any]:
    token = server.token("ops", Kind.SERVICE, can=["operate"])
    client = HTTPClient()
    try:
        answer = client.fetch(
            f"http://{server.address}/api/tokens/revoke",
            method="POST",
            headers={"Authorization": f"Bearer {token}"},
            body=json.dumps(body),
            raise_error=False,
        )
    finally:
        client.close()
    return answer.code, json.loads(answer.body)


@pytest.mark.parametrize("instant", GOOD)
def test_all_doors_take_it(server: RunningServer, connect: Connect, instant: str) -> None:
    code, _ = notify(server, expiresAt=instant)
    assert code == 200
    muted = connect("ana").request(
        {"type": "mute", "povId": "acme", "level": "off", "until": instant}
    )
    assert muted["type"] == "muted", muted
    past = instant.replace("2998", "2016").replace("9999", "2015")
    code, answer = revoke(server, userId="bo", issuedBefore=past)
    assert (code, answer["issuedBefore"][:4]) == (200, past[:4])


@pytest.mark.parametrize("instant", BAD)
def test_all_doors_name_the_field_of_what_is_none(
    server: RunningServer, connect: Connect, instant: Any
) -> None:
    for code, answer in (
        notify(server, expiresAt=instant),
        revoke(server, userId="bo", issuedBefore=instant),
    ):
        assert (code, answer["error"]["field"] in ("expiresAt", "issuedBefore")) == (400, True)
    refused = connect("ana").request(
        {"type": "mute", "povId": "acme", "level": "off", "until": instant}
    )
    assert (refused["code"], refused["field"]) == ("invalid_message", "until")


def test_a_leap_second_beside_another_fault_is_not_the_one_that_is_named(
    server: RunningServer,
) -> None:
    code, answer = notify(server, expiresAt=LEAP, details=7)
    assert (code, answer["error"]["field"]) == (400, "details")
