"""A retry is the same activity however its JSON is written; anything else is another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpclient import HTTPClient

from pov_rt.activities.sameness import compared
from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.messages import MAX_SAFE_INTEGER, Activity, Notification
from pov_rt.testing import RunningServer
from tests.clients import ENGINES, notify, settings_of

whole = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
values = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.just("1.0"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip
details = st.dictionaries(st.text(max_size=3), values, max_size=5)
Choose = Callable[[st.SearchStrategy[Any]], Any]


def written_anew(value: Any, choose: Choose) -> Any:
    """Return the same JSON value in other words: keys in any order, whole numbers either way."""
    if isinstance(value, dict):
        items = choose(st.permutations(list(value.items())))
        return {key: written_anew(inner, choose) for key, inner in items}
    if isinstance(value, list):
        return [written_anew(inner, choose) for inner in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value == int(value) and abs(value) <= MAX_SAFE_INTEGER:
        return choose(st.sampled_from([int, float]))(value)
    return value


def kinds(value: Any) -> Any:
    """Return what JSON says, for Python to compare: there `True == 1`, and lists are in order."""
    if isinstance(value, dict):
        return {key: kinds(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [kinds(inner) for inner in value]
    return (isinstance(value, bool), value)


def content(given: dict[str, Any]) -> bytes:
    """Return what is compared of an activity with these details, as they come off the wire."""
    decoded = msgspec.json.decode(json.dumps(given))
    return compared(
        Activity(id="1", type="t", action="a", pov_id="p", user_id="u", details=decoded)
    )


@given(details, st.data())
def test_the_same_json_is_the_same(one: dict[str, Any], data: st.DataObject) -> None:
    assert content(one) == content(written_anew(one, data.draw))


@given(details, details)
def test_other_json_is_another(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (content(one) == content(other)) == (kinds(one) == kinds(other))


def test_without_details_the_body_itself_is_compared() -> None:
    assert compared(Activity(id="1", type="t", action="a", pov_id="p", user_id="u")) == b""


def test_a_trace_is_not_compared() -> None:
    other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    assert content({"n": 1, "traceparent": TRACE}) == content({"n": 1, "traceparent": other})
    assert content({"n": 1, "traceparent": TRACE}) == content({"n": 1})
    plain = Activity(id="1", type="t", action="a", pov_id="p", user_id="u")
    assert content({"traceparent": TRACE}) == encode(plain), "whose body itself is compared"


def test_an_instant_is_the_same_in_any_time_zone_and_is_not_left_out() -> None:
    at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    spelt = [at, at.astimezone(timezone(timedelta(hours=5, minutes=45)))]
    same = {compared(Notification(id="1", type="t", expires_at=each)) for each in spelt}
    later = compared(Notification(id="1", type="t", expires_at=at + timedelta(microseconds=1)))
    assert len(same) == 1
    assert later not in same


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_of(request.param, tmp_path)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIRST = '{"a":1,"b":{"x":1,"y":2},"n":[100,0,-3]}'


@pytest.mark.parametrize(
    ("again", "is_same"),
    [
        ('{"b":{"y":2,"x":1},"n":[100,0,-3],"a":1}', True),
        ('{"a":1.0,"b":{"x":1,"y":2e0},"n":[1e2,-0.0,-3.0]}', True),
        ('{"\\u0061":1,"b":{"x":7,"x":1,"y":2},"n":[100,0,-3]}', True),
        ('{"a":"1","b":{"x":1,"y":2},"n":[100,0,-3]}', False),
        ('{"a":true,"b":{"x":1,"y":2},"n":[100,0,-3]}', False),
        ('{"a":1,"b":{"x":1,"y":2},"n":[0,100,-3]}', False),
        ('{"a":1,"b":{"x":1,"y":2.5},"n":[100,0,-3]}', False),
        ('{"a":1,"b":{"x":1,"y":2}}', False),
        ("{}", False),
        (None, False),
        (f'{{"a":1,"b":{{"x":1,"y":2}},"traceparent":"{TRACE}","n":[100,0,-3]}}', True),
        ('{"a":1,"b":{"x":1,"y":2},"traceparent":"a word","n":[100,0,-3]}', False),
    ],
)
def test_over_http_a_retry_keeps_the_offset_and_the_body_stays(
    server: RunningServer, again: str | None, is_same: bool
) -> None:
    token = server.token("app", Kind.SERVICE)

    def ask(method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        with closing(HTTPClient()) as client:
            answer = client.fetch(
                f"http://{server.address}{path}",
                method=method,
                headers={"Authorization": f"Bearer {token}"},
                body=body,
                raise_error=False,
            )
        return answer.code, json.loads(answer.body)

    def send(details: str | None) -> tuple[int, Any]:
        text = "" if details is None else f',"details":{details}'
        body = f'{{"type":"t","action":"a","povId":"acme","userId":"u","id":"k1"{text}}}'
        return ask("POST", "/api/activities", body)

    status, place = send(FIRST)
    assert status == 201
    status, answer = send(again)
    assert (status == 200) is is_same
    if is_same:
        assert answer == place
    else:
        assert (status, answer["error"]["code"]) == (409, "id_conflict")
    _, page = ask("GET", "/api/povs/acme/activities")
    kept = [msgspec.json.encode(each["data"]["details"]).decode() for each in page["activities"]]
    assert kept == [FIRST]


def test_a_notification_is_compared_in_the_same_way(server: RunningServer) -> None:
    same: list[dict[str, Any]] = [
        {"details": {"a": 1, "b": [2]}, "expiresAt": "2999-01-01T00:00:00Z"},
        {"details": {"b": [2.0], "a": 1.0}, "expiresAt": "2999-01-01T05:00:00+05:00"},
    ]
    places = [notify(server, id="n", **each) for each in same]
    assert [code for code, _ in places] == [200, 200]
    assert [place["duplicate"] for _, place in places] == [False, True]
    status, answer = notify(server, id="n", **(same[0] | {"details": {"a": 2, "b": [2]}}))
    assert (status, answer["error"]["code"]) == (409, "id_conflict")
