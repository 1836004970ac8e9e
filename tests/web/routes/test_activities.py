"""Publishing over HTTP, and pages of history."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tornado.httpclient import HTTPClient, HTTPRequest, HTTPResponse

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import Connect, RunningServer, make_settings

ONE = {"id": "a-1", "type": "task", "action": "done", "povId": "acme", "userId": "eve"}


def call(
    server: RunningServer,
    path: str,
    *,
    method: str = "GET",
    token: str | None = None,
    body: Any = None,
    **headers: str,
) -> HTTPResponse:
    """Make a request; a body that is no bytes is sent as JSON."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    client = HTTPClient()
    try:
        return client.fetch(
            HTTPRequest(
                f"http://{server.address}{path}",
                method=method,
                headers=given,
                body=data,
                allow_nonstandard_methods=True,
                follow_redirects=False,
            ),
            raise_error=False,
        )
    finally:
        client.close()


def post(server: RunningServer, body: Any, **claims: Any) -> tuple[int, dict[str, Any]]:
    token = server.token("app", Kind.SERVICE, **claims)
    answer = call(server, "/api/activities", method="POST", token=token, body=body)
    return answer.code, json.loads(answer.body)


def error_of(server: RunningServer, body: Any, **claims: Any) -> tuple[int, str, str | None]:
    code, answer = post(server, body, **claims)
    return code, answer["error"]["code"], answer["error"].get("field")


def test_a_producers_number_says_what_is_a_retry(server: RunningServer) -> None:
    def numbered(seq: object, **more: Any) -> dict[str, Any]:
        return {**ONE, "id": f"n-{seq}", "producer": "spool", "seq": seq, **more}

    assert [post(server, numbered(seq))[0] for seq in (3, 5, 4, 5, 6)] == [201, 201, 200, 200, 201]
    code, place = post(server, numbered(4, id="another"))
    assert (code, place["offset"]) == (200, 3)
    _, answer = post(server, [numbered(7), numbered(7, id="x"), numbered(1, povId="other")])
    assert [(each["offset"], "duplicate" in each) for each in answer["results"]] == [
        (4, False),
        (4, True),
        (1, False),
    ]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"producer": "x"}, "invalid_activity", "seq"),
        ({"seq": 1}, "invalid_activity", "producer"),
        ({"producer": "x", "seq": 0}, "invalid_activity", "seq"),
        ({"producer": "x", "seq": 2**53}, "invalid_activity", "seq"),
        ({"producer": "", "seq": 1}, "invalid_activity", "producer"),
        ({"producer": "a\n", "seq": 1}, "invalid_id", "producer"),
    ],
)
def test_a_bad_number_is_named(
    server: RunningServer, fields: dict[str, Any], code: str, field: str
) -> None:
    assert error_of(server, {**ONE, **fields}) == (400, code, field)


def test_one_activity_is_201_with_its_place_and_a_retry_200(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme"})
    code, place = post(server, {**ONE, "details": {"n": 1, "é": ["\u2028"]}})
    assert code == 201
    assert list(place) == ["id", "povId", "offset", "epoch"]
    assert post(server, {**ONE, "details": {"n": 1, "é": ["\u2028"]}}) == (200, place)
    assert error_of(server, {**ONE, "details": {"n": 2}}) == (409, "id_conflict", "id")
    pushed = ana.receive()
    assert pushed["offset"] == place["offset"] == 1
    assert pushed["data"]["details"] == {"n": 1, "é": ["\u2028"]}
    assert ana.request({"type": "ping"})["type"] == "pong"


def test_what_is_absent_is_filled_in(server: RunningServer, connect: Connect) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme"})
    code, place = post(server, {"type": "t", "action": "a", "povId": "acme", "userId": "eve"})
    assert code == 201
    data = ana.receive()["data"]
    assert (data["id"], data["userId"]) == (place["id"], "eve")
    assert len(data["at"]) == len("2026-11-24T13:00:00.000Z")


def test_a_service_says_who_did_it(server: RunningServer) -> None:
    nobody = {name: value for name, value in ONE.items() if name != "userId"}
    for wrong in (nobody, {**nobody, "userId": None}, {**nobody, "userid": "eve"}):
        code, answer = post(server, wrong)
        assert (code, answer["error"]["code"]) == (400, "invalid_activity")
        assert answer["error"]["field"] == ("userid" if "userid" in wrong else "userId")
    assert post(server, nobody)[1]["error"]["message"] == "The field 'userId' is missing"
    code, answer = post(server, [ONE, nobody])
    first, second = answer["results"]
    assert (code, first["povId"]) == (200, "acme")
    assert (second["error"]["field"], second["error"]["index"]) == ("userId", 1)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"povid": "x"}, "invalid_activity", "povid"),
        ({"offset": 7}, "invalid_activity", "offset"),
        ({"at": "now"}, "invalid_activity", "at"),
        ({"id": ""}, "invalid_id", "id"),
        ({"id": "x" * 129}, "invalid_id", "id"),
        ({"id": 7}, "invalid_activity", "id"),
        ({"id": "a\nb"}, "invalid_id", "id"),
        ({"type": ""}, "invalid_activity", "type"),
        ({"type": "x" * 65}, "invalid_activity", "type"),
        ({"type": "a b"}, "invalid_activity", "type"),
        ({"action": "é"}, "invalid_activity", "action"),
        ({"action": None}, "invalid_activity", "action"),
        ({"povId": "*"}, "invalid_id", "povId"),
        ({"povId": "a\u0085b"}, "invalid_id", "povId"),
        ({"userId": "*"}, "invalid_id", "userId"),
        ({"details": []}, "invalid_activity", "details"),
        ({"details": {"n": 2**53}}, "invalid_activity", "details.n"),
        ({"details": {"a": [1, {"b": -(2**53)}]}}, "invalid_activity", "details.a[1].b"),
        ({"details": {"x": "y" * 17000}}, "too_large", "details"),
    ],
)
def test_a_wrong_field_is_named(
    server: RunningServer, change: dict[str, Any], code: str, field: str
) -> None:
    status, got, named = error_of(server, {**ONE, **change})
    assert (got, named) == (code, field)
    assert status == (413 if code == "too_large" else 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"null",
        b"7",
        b"[",
        b'{"id":NaN}',
        b'{"type":"t","action":"a","povId":"p","details":{"x":1e999}}',
        b'{"type":"t","action":"a","povId":"p","details":{"x":"\\ud800"}}',
        b'{"type":"t","action":"a","povId":"\xff"}',
        b'{"details":' + b"[" * 100_000,
        '{"type":"ping"}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_no_activity_is_400(server: RunningServer, body: bytes) -> None:
    assert post(server, body)[0] == 400


def test_a_batch_answers_each_in_order_and_publishes_the_valid_ones(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme"})
    batch = [ONE, {**ONE, "id": "a-2", "povId": ""}, {**ONE, "id": "a-3"}, 7, ONE]
    code, answer = post(server, batch)
    assert code == 200
    first, second, third, fourth, fifth = answer["results"]
    assert (first["offset"], third["offset"], fifth["offset"]) == (1, 2, 1)
    assert (second["error"]["index"], second["error"]["field"]) == (1, "povId")
    assert fourth["error"]["index"] == 3
    assert [ana.receive()["data"]["id"] for _ in range(2)] == ["a-1", "a-3"]


def test_ndjson_is_a_batch(server: RunningServer) -> None:
    lines = b"\n".join(json.dumps({**ONE, "id": f"n-{n}"}).encode() for n in range(3)) + b"\n\n"
    token = server.token("app", Kind.SERVICE)
    answer = call(
        server,
        "/api/activities",
        method="POST",
        token=token,
        body=lines,
        Content_Type="application/x-ndjson; charset=utf-8",
    )
    assert [each["offset"] for each in json.loads(answer.body)["results"]] == [1, 2, 3]


def test_a_batch_is_bounded(server: RunningServer) -> None:
    assert error_of(server, [ONE] * 1001)[:2] == (413, "too_large")


def test_a_body_is_bounded(server: RunningServer) -> None:
    assert error_of(server, b" " * (4 * 1024 * 1024 + 1))[:2] == (413, "too_large")


def test_publishing_needs_a_service_token_with_the_grant_for_the_pov(
    server: RunningServer,
) -> None:
    assert error_of(server, ONE, can=["subscribe"])[:2] == (403, "forbidden")
    assert error_of(server, ONE, povs=["other"]) == (403, "forbidden", "povId")
    for token in (None, "x", server.token("ana"), server.token("ana", Kind.ACCESS)):
        answer = call(server, "/api/activities", method="POST", token=token, body=ONE)
        assert answer.code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


class TestWithLists:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(types=["task"], actions=["done"]))

    def test_other_types_and_actions_are_refused(self, server: RunningServer) -> None:
        assert post(server, ONE)[0] == 201
        assert error_of(server, {**ONE, "type": "x"}) == (400, "invalid_activity", "type")
        assert error_of(server, {**ONE, "action": "x"}) == (400, "invalid_activity", "action")


def history(server: RunningServer, query: str = "", **claims: Any) -> tuple[int, dict[str, Any]]:
    answer = call(server, f"/api/povs/acme/activities{query}", token=server.token(**claims))
    return answer.code, json.loads(answer.body)


def test_history_is_paged_both_ways(server: RunningServer) -> None:
    post(server, [{**ONE, "id": f"h-{n}"} for n in range(5)])

    def offsets(query: str) -> list[int]:
        return [each["offset"] for each in history(server, query)[1]["activities"]]

    assert offsets("") == [1, 2, 3, 4, 5]
    assert offsets("?limit=2") == [1, 2]
    assert offsets("?after=2&limit=2") == [3, 4]
    assert offsets("?after=5") == []
    assert offsets("?before=0&limit=2") == [5, 4]
    assert offsets("?before=4&limit=2") == [3, 2]
    page = history(server)[1]
    assert (page["povId"], page["offset"], page["oldestOffset"]) == ("acme", 5, 1)
    assert page["activities"][0]["data"]["id"] == "h-0"
    assert "next" not in page
    assert history(server, "?after=2&limit=2")[1]["next"] == 4
    assert "next" not in history(server, "?after=3&limit=2")[1]
    assert history(server, "?before=4&limit=2")[1]["next"] == 2
    assert "next" not in history(server, "?before=3&limit=2")[1]


@pytest.mark.parametrize("way", ["after", "before"])
def test_a_page_of_large_activities_ends_early_and_says_where_to_go_on(
    server: RunningServer, way: str
) -> None:
    details = {"text": "x" * 16_000}
    for batch in range(4):
        post(server, [{**ONE, "id": f"{batch}-{n}", "details": details} for n in range(25)])
    pages: list[list[int]] = []
    start: int | None = 0
    while start is not None:
        page = history(server, f"?{way}={start}&limit=80")[1]
        pages.append([each["offset"] for each in page["activities"]])
        start = page.get("next")
    assert [len(page) for page in pages] == [65, 35], "1 MiB of 16,200 bytes each, and the rest"
    order = range(1, 101) if way == "after" else range(100, 0, -1)
    assert [offset for page in pages for offset in page] == list(order)


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=1001", "?after=x", "?after=-1", "?after=1&before=2", "?lmit=3"]
)
def test_a_wrong_parameter_is_named(server: RunningServer, query: str) -> None:
    code, answer = history(server, query)
    assert (code, "field" in answer["error"]) == (400, True)


def test_history_is_for_those_who_may_see_the_pov(server: RunningServer) -> None:
    assert history(server, povs=["other"])[0] == 403
    assert history(server, can=["publish"])[0] == 403
    assert call(server, "/api/povs/acme/activities").code == 401
    bad = call(server, "/api/povs/a%0ab/activities", token=server.token())
    assert bad.code == 400


def test_a_wrong_method_and_path_are_json_errors(server: RunningServer) -> None:
    wrong = call(server, "/api/activities", method="PUT", body=b"")
    assert (wrong.code, json.loads(wrong.body)["error"]["code"]) == (405, "method_not_allowed")
    absent = call(server, "/nowhere")
    assert (absent.code, json.loads(absent.body)["error"]["code"]) == (404, "not_found")
    assert "Tornado" not in str(absent.headers)
