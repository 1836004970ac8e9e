"""The first block of the wire's contract, and the additions, over real sockets."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from pov_rt.activities.publishing import Publisher
from pov_rt.protocol.messages import NewActivity
from pov_rt.runtime.clock import rfc3339
from pov_rt.testing import Client, Connect, RunningServer

PUBLISHER = Publisher("service:app", "app", "main")


@pytest.fixture
def connect(server: RunningServer) -> Connect:
    """Open clients that know only the first block."""
    return partial(server.connect, v1=False)


def publish(server: RunningServer, pov_id: str, *ids: str, **fields: Any) -> None:
    batch = [
        NewActivity(id=each, type="task", action="done", pov_id=pov_id, **fields) for each in ids
    ]
    server.run(lambda: server.web.server.publishing.publish(batch, PUBLISHER))


def test_ping_is_answered_by_exactly_pong(connect: Connect) -> None:
    ana = connect()
    ana.send('{"type":"ping"}')
    assert ana.socket.recv(timeout=30) == '{"type":"pong"}'


def test_a_clients_pong_is_accepted_silently(connect: Connect) -> None:
    ana = connect()
    ana.send('{"type":"pong"}')
    ana.send('{"type":"ping"}')
    assert ana.receive() == {"type": "pong"}


def test_subscribed_begins_with_type_and_pov_id(connect: Connect) -> None:
    ana = connect()
    ana.send('{"type":"subscribe","povId":"acme"}')
    text = ana.socket.recv(timeout=30)
    assert isinstance(text, str)
    assert text.startswith('{"type":"subscribed","povId":"acme"')
    answer = json.loads(text)
    assert (answer["offset"], answer["oldestOffset"]) == (0, 1)
    assert answer["guarantee"] == {"survives": "process", "entries": 10_000, "seconds": 604_800}


def test_unsubscribed_has_the_pov_id_and_nothing_follows_it(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    ana.send('{"type":"subscribe","povId":"acme"}')
    ana.receive()
    ana.send('{"type":"unsubscribe","povId":"acme"}')
    assert ana.receive() == {"type": "unsubscribed", "povId": "acme"}
    publish(server, "acme", "a-1")
    ana.send('{"type":"ping"}')
    assert ana.receive() == {"type": "pong"}


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "",
        "[]",
        "null",
        "1",
        '"ping"',
        "{}",
        '{"type":null}',
        '{"type":[]}',
        '{"type":{}}',
        '{"type":1}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","povId":1}',
        '{"type":"subscribe","povId":null}',
        '{"type":"subscribe","povId":[]}',
        '{"type":"subscribe","povId":""}',
        '{"type":"subscribe","povId":"a\\u0000b"}',
        '{"type":"subscribe","povId":"a\\nb"}',
        '{"type":"subscribe","povId":"\\ud800"}',
        '{"type":"subscribe","povId":"%s"}' % ("x" * 129),
        '{"type":"subscribe","povId":"a","povIds":["b"]}',
        '{"type":"unsubscribe"}',
        '{"type":"ping"',
        '{"type":"ping","id":1e999}',
        '{"type":"ping","id":NaN}',
        '{"type":"ping","id":%s}' % ("1" * 5000),
        "[" * 3000,
        "\ufeff" + '{"type":"ping"}',
    ],
)
def test_what_is_wrong_gets_the_contracts_text_and_the_connection_stays(
    connect: Connect, text: str
) -> None:
    ana = connect()
    ana.send(text)
    raw = ana.socket.recv(timeout=30)
    assert isinstance(raw, str)
    assert raw.startswith('{"type":"error","message":"Invalid message format"')
    ana.send('{"type":"ping"}')
    assert ana.receive() == {"type": "pong"}


def test_a_binary_frame_is_an_invalid_message(connect: Connect) -> None:
    ana = connect()
    ana.send(b'{"type":"ping"}')
    assert ana.receive()["message"] == "Invalid message format"


@pytest.mark.parametrize("kind", ["nope", "__class__", "PING", "x" * 10_000, "\u202eping"])
def test_an_unknown_type_gets_the_contracts_text(connect: Connect, kind: str) -> None:
    ana = connect()
    ana.send(json.dumps({"type": kind}))
    raw = ana.socket.recv(timeout=30)
    assert isinstance(raw, str)
    assert raw.startswith('{"type":"error","message":"Unknown message type"')


def test_activities_reach_exactly_the_subscribers_of_their_pov(
    server: RunningServer, connect: Connect
) -> None:
    ana, ben = connect("ana"), connect("ben")
    ana.request({"type": "subscribe", "povId": "acme"})
    ben.request({"type": "subscribe", "povId": "other"})
    publish(server, "acme", "a-1", user_id="eve")
    publish(server, "other", "b-1")
    raw = ana.socket.recv(timeout=30)
    assert isinstance(raw, str)
    assert raw.startswith(
        '{"type":"activity","data":{"id":"a-1","type":"task","action":"done",'
        '"povId":"acme","userId":"eve"'
    )
    assert json.loads(raw)["offset"] == 1
    assert ben.receive()["data"]["id"] == "b-1"


def test_order_and_offsets_of_a_batch_are_those_of_the_publisher(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povId": "acme"})
    ids = [f"a-{index}" for index in range(300)]
    publish(server, "acme", *ids)
    received = [ana.receive() for _ in ids]
    assert [each["data"]["id"] for each in received] == ids
    assert [each["offset"] for each in received] == list(range(1, 301))


@pytest.mark.parametrize("request_id", ["x", "", 0, -5, 2**53 - 1, "x" * 64, "\u2028"])
def test_an_id_is_echoed_on_answers_and_errors(connect: Connect, request_id: Any) -> None:
    ana = connect()
    ana.send(json.dumps({"type": "ping", "id": request_id}))
    assert ana.receive() == {"type": "pong", "id": request_id}
    ana.send(json.dumps({"type": "subscribe", "id": request_id}))
    error = ana.receive()
    assert error["id"] == request_id
    assert (error["code"], error["field"]) == ("invalid_message", "povId")
    ana.send(json.dumps({"type": "nope", "id": request_id}))
    assert ana.receive()["id"] == request_id


@pytest.mark.parametrize("request_id", [1.5, 2**53, "x" * 65, True, {}, None])
def test_a_wrong_id_is_an_error_without_it(connect: Connect, request_id: Any) -> None:
    ana = connect()
    ana.send(json.dumps({"type": "ping", "id": request_id}))
    error = ana.receive()
    assert (error["message"], error["field"]) == ("Invalid message format", "id")
    assert "id" not in error


def test_the_subprotocol_gets_welcome_first_and_closing_last(server: RunningServer) -> None:
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    token = server.token("ana", povs=["acme"])
    protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{token}")]
    url = f"ws://{server.address}/ws/any/path?device=phone"
    with connect(url, subprotocols=protocols, proxy=None) as socket:
        assert socket.subprotocol == "pov-rt.v1"
        welcome = json.loads(socket.recv(timeout=30))
        assert list(welcome)[:4] == ["type", "connectionId", "userId", "device"]
        assert (welcome["userId"], welcome["device"]) == ("ana", "phone")
        assert (welcome["pingInterval"], welcome["version"]) == (25.0, "0.1.0")
        assert welcome["expiresAt"] > rfc3339(0)
        server.run(server.web.server.drain)
        closing = json.loads(socket.recv(timeout=30))
        assert (closing["type"], closing["code"]) == ("closing", 4000)
        assert 0 < closing["retryAfter"] < 10
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "restarting")


def test_several_povs_get_one_answer_with_a_result_each(connect: Connect) -> None:
    ana = connect(povs=["a", "b"])
    answer = ana.request({"type": "subscribe", "povIds": ["a", "b", "secret", "x\ny"]})
    assert answer["povIds"] == ["a", "b", "secret", "x\ny"]
    codes = [each.get("code") for each in answer["results"]]
    assert codes == [None, None, "forbidden", "invalid_id"]
    assert [each["povId"] for each in answer["results"]] == answer["povIds"]
    assert answer["results"][0]["offset"] == 0


def test_the_team_feed_has_every_activity_of_the_team(
    server: RunningServer, connect: Connect
) -> None:
    ana = connect()
    assert ana.request({"type": "subscribe", "povId": "*"})["povId"] == "*"
    publish(server, "acme", "a-1")
    publish(server, "other", "b-1")
    first, second = ana.receive(), ana.receive()
    assert [first["data"]["povId"], second["data"]["povId"]] == ["acme", "other"]
    assert [first["offset"], second["offset"]] == [1, 2]
    assert first["feed"] == second["feed"] == "*"


def test_the_team_feed_is_for_those_who_may_see_everything(connect: Connect) -> None:
    ana = connect(povs=["acme"])
    answer = ana.request({"type": "subscribe", "povId": "*"})
    assert (answer["code"], answer["field"]) == ("forbidden", "povId")


def test_a_pov_outside_the_grants_is_forbidden(connect: Connect) -> None:
    ana = connect(povs=["acme"])
    assert ana.request({"type": "subscribe", "povId": "secret"})["code"] == "forbidden"
    assert ana.request({"type": "subscribe", "povId": "acme"})["type"] == "subscribed"


def test_a_connection_has_a_bounded_number_of_subscriptions(connect: Connect) -> None:
    ana = connect()
    ana.request({"type": "subscribe", "povIds": [f"p-{index}" for index in range(200)]})
    answer = ana.request({"type": "subscribe", "povId": "one-more"})
    assert (answer["code"], answer["field"]) == ("limit_exceeded", "povId")
    again = ana.request({"type": "subscribe", "povId": "p-7"})
    assert again["type"] == "subscribed"


def test_publishing_needs_the_grant_and_is_in_the_own_name(connect: Connect) -> None:
    ana, ben = connect("ana", can=["subscribe", "publish"]), connect("ben", can=["subscribe"])
    ana.request({"type": "subscribe", "povId": "acme"})
    data = {"type": "note", "action": "added", "povId": "acme", "userId": "eve"}
    answer = ana.request({"type": "publish", "data": data})
    assert (answer["type"], answer["offset"]) == ("published", 1)
    assert ana.receive()["data"]["userId"] == "ana"
    assert ben.request({"type": "publish", "data": data})["code"] == "forbidden"


def flood(client: Client) -> None:
    for _ in range(5000):
        client.send('{"type":"ping"}')
    while True:
        client.receive()


def test_a_flood_is_rate_limited_and_then_closed(server: RunningServer, connect: Connect) -> None:
    ana = connect()
    with pytest.raises(ConnectionClosed) as closed:
        flood(ana)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4501
    assert server.call(lambda: server.web.server.dispatcher.errors["rate_limited"]) >= 500
