"""Operators find an activity by its id, and read what happened, live."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

import pytest

from pov_rt.auth.grants import Kind
from tests.server.trace.plant import planted

OPS: dict[str, Any] = {"user": "ops", "service": True, "can": ["operate"]}


def test_an_activity_is_found_by_its_id_on_whatever_pov() -> None:
    with planted() as plant:
        plant.publish(povId="beta")
        plant.publish(povId="acme", details={"text": "hello"})
        answer = plant.http.get("/api/activities/x", **OPS)
        assert answer.status == 200
        found = {each["povId"]: each for each in answer.body["activities"]}
        assert set(found) == {"acme", "beta"}
        acme = found["acme"]
        assert (acme["offset"], acme["publisher"]) == (1, "service:app")
        assert acme["activity"]["data"]["details"] == {"text": "hello"}
        # Only what the token covers.
        mine = plant.http.get("/api/activities/x", **OPS, povs=["beta"]).body["activities"]
        assert [each["povId"] for each in mine] == ["beta"]
        assert plant.http.get("/api/activities/none", **OPS).status == 404


def test_what_happened_to_a_user_is_read_and_then_followed() -> None:
    with planted() as plant:
        ana = plant.follow()
        lines = plant.http.get("/api/trace?userId=ana", **OPS).body
        kinds = [json.loads(line)["event"] for line in lines.splitlines()]
        assert kinds[0] == "opened"
        assert "joined" in kinds
        connection = HTTPConnection(plant.server.address, timeout=40)
        token = plant.token("ops", Kind.SERVICE, can=["operate"])
        head = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/api/trace?povId=acme&follow=true", headers=head)
        answer = connection.getresponse()
        ana.request({"type": "unsubscribe", "povId": "acme"})
        event = json.loads(answer.readline())
        assert (event["event"], event["povId"], event["userId"]) == ("left", "acme", "ana")
        plant.server.run(plant.node.drain)  # which no restart waits for
        answer.read()
        assert answer.isclosed()
        connection.close()


def test_whose_events_they_are_is_said_once() -> None:
    with planted() as plant:
        assert plant.http.get("/api/trace?userId=ana&povId=acme", **OPS).status == 400
        assert plant.http.get("/api/trace", **OPS).status == 400


def test_where_there_is_no_trace_it_is_said() -> None:
    with planted() as plant:
        plant.server.call(lambda: setattr(plant.node.explain, "trace", None))
        assert plant.http.get("/api/trace?userId=ana", **OPS).status == 404


@pytest.mark.parametrize(
    "path", ["/api/activities/x", "/api/activities/x/explain?userId=ana", "/api/trace?userId=ana"]
)
def test_the_admin_port_answers_the_same_to_the_same_tokens(path: str) -> None:
    with planted() as plant:
        plant.publish()
        plant.hang_up(plant.follow())

        def at_admin_port(token: str) -> tuple[int, bytes]:
            port = plant.server.web.admin_port
            connection = HTTPConnection("127.0.0.1", port, timeout=40)
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            with connection.getresponse() as answer:
                found = answer.status, answer.read()
            connection.close()
            return found

        status, body = at_admin_port(plant.token("ops", Kind.SERVICE, can=["operate"]))
        expected = plant.http.get(path, **OPS).body
        said = body.decode()
        assert (status, said if "trace" in path else json.loads(said)) == (200, expected)
        for token, refused in (
            (plant.token("ana", can=["operate"]), 401),
            (plant.token("ops", Kind.SERVICE, can=["publish"]), 403),
        ):
            assert at_admin_port(token)[0] == refused
