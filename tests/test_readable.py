"""Whatever one door takes, every door takes and every reader can read; what is refused is named.

Over real doors, on both engines: an activity is published over HTTP (alone, in an array, as
NDJSON), over a socket, by a plugin, and its details are a notification's, too. They are at each
bound and beyond: depth, size, characters, numbers, keys.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pov_rt.auth.grants import Kind
from pov_rt.cli.tail import format_activity
from pov_rt.config.settings import EngineSettings, LimitSettings
from pov_rt.engine.base import NewEntry
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.messages import NewActivity
from pov_rt.protocol.topics import pov_topic, user_topic
from pov_rt.testing import Incidents, RunningServer, make_settings
from tests.clients import APP, ENGINES, subscribe

DEPTH = LimitSettings().details_depth
SIZE = LimitSettings().details_bytes
NUMBERS = (
    "0", "-0", "-0.0", "1.5", "1E+2", "5e-324", "1e-400", "1.7976931348623157e308", "1e22",
    "9007199254740991", "-9007199254740991", "9007199254740992", "18446744073709551616",
    "1" * 400, "1e400", "-1e400", "NaN", "-Infinity", "01", "-",
)  # fmt: skip
STRINGS = (r'"\ud800"', r'"\udc00\ud800"', r'"\ud83e\udd84"', r'"\u0000"', '"\\/"', '"\u2028"', '"')
texts = st.text(max_size=20)
strings = st.builds(lambda t, a: json.dumps(t, ensure_ascii=a), texts, st.booleans()).filter(
    lambda text: "\\ud" not in text
)
leaves = st.sampled_from([*NUMBERS, *STRINGS, "true", "null", "{}", "[]"]) | strings
members = st.lists(st.tuples(strings, leaves), max_size=3).map(
    lambda each: "{" + ",".join(f"{name}:{value}" for name, value in each) + "}"
)
lists = st.lists(leaves, max_size=3).map(lambda each: "[" + ",".join(each) + "]")


def wrap(inner: str, levels: int, kinds: str) -> str:
    """Put a value into `levels` objects or lists."""
    ring = list(itertools.islice(itertools.cycle(kinds), levels))
    opened = "".join('{"a":' if kind == "o" else "[" for kind in ring)
    return opened + inner + "".join("}" if kind == "o" else "]" for kind in reversed(ring))


def as_object(inner: str, levels: int, kinds: str, size: int) -> str:
    """Return details of so many levels, filled up to a size."""
    text = f'{{"a":{wrap(inner, levels, kinds)}}}'
    room = size - len(text) - 7
    return text if room < 1 else f'{text[:-1]},"p":"{"x" * room}"}}'


details = st.builds(
    as_object,
    leaves | members | lists,
    st.sampled_from([0, 0, 0, 1, *range(DEPTH - 3, DEPTH + 1), 101, 500, 970, 1200, 5000]),
    st.sampled_from(["o", "l", "ol", "llo"]),
    st.sampled_from([0, 0, 0, SIZE - 1, SIZE, SIZE + 1]),
)


@pytest.fixture(scope="module", params=ENGINES)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("data")
    url = "memory://" if request.param == "memory" else f"sqlite://{folder}/log.db"
    given = make_settings(engine=EngineSettings(url=url))
    plugin = Path(__file__).parent / "plugin_open.py"
    with RunningServer(given, [plugin]) as running:
        yield running


@pytest.fixture(scope="module")
def incidents() -> Iterator[Incidents]:
    handler = Incidents()
    logging.getLogger("pov_rt").addHandler(handler)
    yield handler
    logging.getLogger("pov_rt").removeHandler(handler)


Verdict = tuple[int, str | None, str | None]


def post(server: RunningServer, path: str, body: str, kind: str = "json") -> tuple[int, Any]:
    connection = HTTPConnection(server.address, timeout=10)
    token = server.token("app", Kind.SERVICE)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": f"application/{kind}"}
    connection.request("POST", path, body.encode("utf-8", "surrogatepass"), headers)
    with connection.getresponse() as response:
        answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def get(server: RunningServer, path: str) -> Any:
    connection = HTTPConnection(server.address, timeout=10)
    token = server.token("app", Kind.SERVICE)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    with connection.getresponse() as response:
        assert response.status == 200, path
        answer = json.loads(response.read())
    connection.close()
    return answer


def at_http(server: RunningServer, pov: str, raw: str) -> list[str]:
    """Publish over HTTP in all three ways; return the verdicts, a good one being ''."""
    one, good = activity(pov, raw), activity(pov, "{}")
    status, answer = post(server, "/api/activities", one)
    assert (status in (200, 201)) == ("error" not in answer)
    found = [verdict(answer)]
    for body, kind in ((f"[{good},{one},{good}]", "json"), (f"{good}\n{one}\n{good}", "x-ndjson")):
        status, answer = post(server, "/api/activities", body, kind)
        if status != 200:  # no list at all
            found.append(answer["error"]["code"])
            continue
        first, tried, last = answer["results"]
        assert "error" not in first
        assert "error" not in last, "one that is wrong refuses no other"
        found.append(verdict(tried))
    return found


def activity(pov: str, raw: str) -> str:
    return f'{{"type":"t","action":"a","povId":"{pov}","userId":"u","details":{raw}}}'


def verdict(answer: Any) -> str:
    error = answer.get("error", answer if answer.get("type") == "error" else None)
    if error is None:
        return ""
    assert error["code"] != "internal", error
    assert "incident" not in error, error
    return str(error["code"])


def by_a_plugin(server: RunningServer, pov: str, raw: str) -> str | None:
    """Publish as a plugin does; None for what Python cannot hold as it stands."""
    try:
        value = json.loads(raw, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError):
        return None
    new = NewActivity(type="t", action="a", pov_id=pov, details=value)
    try:
        server.run(lambda: server.web.server.hooks.hosts["ping"].publish(new))
    except ClientError as error:
        return error.code
    return ""


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a repeated key")
    return found


names = map("p{}".format, itertools.count())


@pytest.mark.timeout(240)  # some 40 requests and commits for each example
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(details)
@example(as_object("1", DEPTH - 1, "l", 0))
@example(as_object("1", DEPTH, "l", 0))
@example(as_object("1", 970, "o", 0))
@example(as_object("1", 5000, "o", 0))
@example(as_object('"é"', 0, "o", SIZE))
@example('{"a":{"":"\\ud800","":0}}')
@example('{"a":["\\ud800"],"a":0,"a":1}')
@example('{"a":0,"a":"\\ud800"}')
@example(f'{{"a":[{",".join(["{}"] * 3000)}]}}')
def test_what_one_door_takes_all_doors_take_and_all_readers_read(
    served: RunningServer, incidents: Incidents, raw: str
) -> None:
    pov = next(names)
    live = served.connect(pov)
    subscribe(live, pov)
    verdicts = set(at_http(served, pov, raw))
    live.send(f'{{"type":"publish","data":{activity(pov, raw)},"id":"p"}}')
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] not in ("published", "error"):
        seen.append(live.receive())
    verdicts.add(verdict(seen.pop()))
    if (planned := by_a_plugin(served, pov, raw)) is not None:
        verdicts.add(planned)
    _, answer = post(served, f"/api/users/{pov}/notifications", f'{{"type":"t","details":{raw}}}')
    told = verdict(answer)
    assert incidents.records == []
    assert (verdicts == {""}) == (told == "") == ("" in verdicts), (verdicts, told)
    if verdicts == {""}:
        count = 8 + (planned is not None)
        seen += [live.receive() for _ in range(count - len(seen))]
        read_everywhere(served, pov, raw, seen)
    live.socket.close()


def read_everywhere(server: RunningServer, pov: str, raw: str, seen: list[dict[str, Any]]) -> None:
    wanted, count = json.loads(raw), len(seen)
    past = f"/api/povs/{pov}/activities?"
    later = server.connect(pov)
    told = later.receive()
    assert (told["type"], told["data"]["details"]) == ("notification", wanted)
    pages = [
        get(server, f"{past}after=0")["activities"],
        get(server, f"{past}before=0")["activities"][::-1],
        later.request({"type": "history", "povId": pov, "after": 0})["activities"],
        later.request({"type": "history", "povId": pov, "types": ["t"]})["activities"][::-1],
    ]
    subscribe(later, pov, since={"last": count})
    pages.append([later.receive() for _ in range(count)])
    host = server.web.server.hooks.hosts["ping"]
    of_host = server.run(lambda: host.history(pov))
    assert [each.details for _, each in of_host.activities] == [
        each["data"]["details"] for each in seen
    ]
    digest = server.run(lambda: host.digest(pov, 0, within_s=60))
    assert digest is not None
    assert digest.counted == count
    for page in pages:
        assert [each["data"] for each in page] == [each["data"] for each in seen]
    for each in seen:
        assert each["data"]["details"] in (wanted, {})
        for style in ("json", "plain", "coloured"):
            assert format_activity(each, style)
    later.socket.close()


def test_what_is_too_deep_is_named_with_the_bound(served: RunningServer) -> None:
    client = served.connect("deep")
    for levels in (DEPTH, 200, 960, 1500, 30_000):
        raw = as_object("1", levels, "l", 0)
        _, answer = post(served, "/api/activities", activity("acme", raw))
        error = answer["error"]
        assert (error["code"], error["field"]) == ("invalid_activity", "details"), levels
        assert f"deeper than {DEPTH} levels" in error["message"]
        _, answer = post(served, "/api/users/ana/notifications", f'{{"type":"t","details":{raw}}}')
        assert answer["error"]["field"] == "details"
        assert f"deeper than {DEPTH} levels" in answer["error"]["message"]
        if levels < 30_000:  # that is no message's size
            client.send(f'{{"type":"publish","data":{activity("acme", raw)},"id":1}}')
            error = client.receive()
            assert (error["code"], error["field"], error["id"]) == (
                "invalid_activity", "data.details", 1,
            )  # fmt: skip
            assert f"deeper than {DEPTH} levels" in error["message"]


def test_depth_elsewhere_in_a_message_or_body_is_a_wrong_field(
    served: RunningServer, incidents: Incidents
) -> None:
    client = served.connect("deep2")
    for levels in (DEPTH + 2, 500, 960, 1500, 9_000):
        deep = wrap("1", levels, "ol")
        client.send(f'{{"type":"open.say","what":{deep},"id":1}}')
        answer = client.receive()
        assert (answer["code"], answer["field"]) == ("invalid_message", "what")
        assert f"{DEPTH + 2} levels" in answer["detail"]
        status, answer = post(served, "/api/open", f'{{"what":{deep}}}')
        assert (status, answer["error"]["code"]) == (400, "invalid_request")
        assert answer["error"]["field"] == "what"
    client.send(f'{{"type":"open.say","what":{wrap("1", DEPTH + 1, "ol")},"id":1}}')
    assert client.receive()["type"] == "open.said"
    unknown = f'{{"type":"ping","x":{wrap("1", 3000, "l")}}}'
    for odd in (unknown, wrap("1", 3000, "o"), "[" * 60_000):
        client.send(odd)
        assert client.receive()["code"] == "invalid_message"
    assert incidents.records == []


BAD = {
    "deep": b'{"id":"b","type":"t","action":"a","povId":"P","userId":"u","details":%b}',
    "cut": b'{"id":"b","type":"t","action":"a","povId":"P","userId":"u","details":{"a"',
    "headless": b'{"id":"b"}',
    "bytes": b'{"id":"b","type":"t","action":"a","povId":"P","userId":"u","details":{"a":"\xff"}}',
    "nothing": b"",
    "zeros": b"\0" * 50,
}
BAD["deep"] %= wrap("1", 4000, "l").encode()


@pytest.mark.parametrize("sort", BAD)
def test_a_bad_entry_is_left_out_and_not_the_page(
    served: RunningServer, incidents: Incidents, sort: str
) -> None:
    pov, log = f"bad-{sort}", served.web.server.engine.log
    before = served.web.server.hub.stored.bad
    good = b'{"id":"%d","type":"t","action":"a","povId":"P","userId":"u"}'

    def entries(topic: str) -> list[NewEntry]:
        bodies = [good % 1, BAD[sort], good % 3]
        return [NewEntry(topic, APP.key, str(i), body) for i, body in enumerate(bodies)]

    served.run(lambda: log.append([*entries(pov_topic(pov)), *entries(user_topic(pov))]))
    client = served.connect(pov)
    told = [client.receive() for _ in range(2)]
    assert [(each["type"], each["offset"]) for each in told] == [
        ("notification", 1), ("notification", 3),
    ]  # fmt: skip
    past = f"/api/povs/{pov}/activities?"
    pages = [
        get(served, f"{past}after=0"),
        client.request({"type": "history", "povId": pov, "after": 0}),
        client.request({"type": "history", "povId": pov, "after": 0, "types": ["t"]}),
    ]
    for page in pages:
        assert [each["offset"] for each in page["activities"]] == [1, 3]
        assert "next" not in page
    assert get(served, f"{past}after=0&limit=2")["next"] == 2
    for more in ({}, {"only": {"types": ["t"]}}):
        other = served.connect(pov)
        subscribe(other, pov, since={"last": 10}, **more)
        replayed: list[int] = []
        while len(replayed) < 2:
            message = other.receive()
            replayed += [message["offset"]] if message["type"] == "activity" else []
        assert replayed == [1, 3]
        other.socket.close()
    host = served.web.server.hooks.hosts["ping"]
    digest = served.run(lambda: host.digest(pov, 0, within_s=60))
    assert digest is not None
    assert digest.counted == 2
    assert len(served.run(lambda: host.history(pov)).activities) == 2
    counted = served.web.server.hub.stored.bad - before
    if sort == "nothing":
        assert counted == 0, "one without a body was erased: there is nothing to say"
    else:
        assert counted >= 8, "each was counted"
    assert all(each.getMessage().startswith("an entry of the log") for each in incidents.records)
    incidents.records.clear()
    client.socket.close()
