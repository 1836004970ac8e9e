"""The generated documents name everything there is, lead nowhere else, and say what is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.httpclient import HTTPClient, HTTPRequest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, ServerSettings, Settings
from pov_rt.protocol.messages import CORE_PUSHES
from pov_rt.registry.build import build_registry
from pov_rt.registry.schema import asyncapi, openapi, tag_of
from pov_rt.testing import RunningServer, make_settings

REGISTRY = build_registry({})
SETTINGS = Settings()

PLUGIN = '''"""One of two plugins whose classes have the same names."""
from pov_rt.plugin import Context, Message, Part, Plugin, Request

plugin = Plugin("{name}")

class Place(Part):
    """Also the name of a class of the server."""
    {name}: str

class Ask(Message, tag="{name}.ask"):
    """Ask."""
    place: Place

class Answer(Message, tag="{name}.answer"):
    """Answer."""
    {name}: str

@plugin.on(Ask)
def ask(message: Ask, context: Context) -> Answer:
    """Answer."""
    return Answer({name}="x")

@plugin.http("GET", "/{name}/{{place}}", grant="subscribe")
def read(request: Request) -> Place:
    """Read."""
    return Place({name}=request.path["place"])

@plugin.http("DELETE", "/{name}/{{place}}", grant="subscribe")
def remove(request: Request) -> None:
    """Remove."""
'''


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    for name in ("anton", "berta"):
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name))
    return tmp_path


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def follow(document: Any, reference: str) -> Any:
    place = document
    assert reference.startswith("#/")
    for key in reference.removeprefix("#/").split("/"):
        place = place[key.replace("~1", "/").replace("~0", "~")]
    return place


def components_of(document: Any) -> set[str]:
    return {
        f"#/components/{kind}/{name}"
        for kind, named in document["components"].items()
        if kind != "securitySchemes"
        for name in named
    }


def test_every_reference_leads_somewhere_and_everything_is_referred_to(twins: Path) -> None:
    for registry in (REGISTRY, build_registry({}, twins)):
        for document in (asyncapi(registry, SETTINGS), openapi(registry, SETTINGS)):
            found = set(references(document))
            for reference in found:
                follow(document, reference)
            assert components_of(document) <= found


def test_equal_names_in_two_plugins_are_told_apart(twins: Path) -> None:
    registry = build_registry({}, twins)
    document = asyncapi(registry, SETTINGS)
    for name in ("anton", "berta"):
        messages = document["components"]["messages"]
        answer = follow(document, messages[f"{name}.answer"]["payload"]["$ref"])
        assert name in answer["properties"]
        ask = follow(document, messages[f"{name}.ask"]["payload"]["$ref"])
        place = follow(document, ask["properties"]["place"]["$ref"])
        assert set(place["properties"]) == {name}


def test_every_message_is_there_with_a_summary() -> None:
    document = asyncapi(REGISTRY, SETTINGS)
    messages = document["components"]["messages"]
    assert REGISTRY.tags | {tag_of(push) for push in CORE_PUSHES} <= set(messages)
    assert all(message["summary"] for message in messages.values())
    assert all(operation["summary"] for operation in document["operations"].values())
    subscribe = document["operations"]["receive.subscribe"]
    assert subscribe["reply"]["messages"] == [{"$ref": "#/channels/socket/messages/subscribed"}]
    ping = document["components"]["schemas"]["Ping"]
    assert ping["properties"]["type"] == {"enum": ["ping"]}


def test_how_to_connect_is_said() -> None:
    settings = replace(SETTINGS, server=ServerSettings(host="::1", port=8000))
    document = asyncapi(REGISTRY, settings)
    assert document["servers"]["local"]["host"] == "[::1]:8000"
    ways = [follow(document, way["$ref"]) for way in document["servers"]["local"]["security"]]
    assert [(way["in"], way["name"]) for way in ways] == [
        ("query", "token"),
        ("header", "Sec-WebSocket-Protocol"),
    ]
    handshake = document["channels"]["socket"]["bindings"]["ws"]
    assert set(handshake["query"]["properties"]) == {"token", "device"}
    assert set(handshake["headers"]["properties"]) == {"Sec-WebSocket-Protocol"}


def test_a_path_calls_its_parameters_as_the_wire_does_and_declares_each() -> None:
    paths = openapi(REGISTRY, SETTINGS)["paths"]
    assert {"/api/povs/{povId}/presence", "/api/users/{userId}/disconnect"} <= set(paths)
    for path, operations in paths.items():
        assert "_" not in path
        for operation in operations.values():
            given = [each for each in operation.get("parameters", ()) if each["in"] == "path"]
            assert [each["name"] for each in given] == re.findall(r"\{(\w+)\}", path)


def test_every_way_in_is_declared() -> None:
    document = openapi(REGISTRY, SETTINGS)
    declared = document["components"]["securitySchemes"]
    used = set()
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["security"]
            used |= {name for way in operation["security"] for name in way}
    assert used == set(declared)
    assert declared["cookie"]["name"] == SETTINGS.auth.cookie


def check(document: Any, schema: Any, value: Any) -> None:
    """Assert that a value is all that the schema says, and nothing that it does not."""
    if "$ref" in schema:
        return check(document, follow(document, schema["$ref"]), value)
    if "anyOf" in schema:
        fitting = 0
        for each in schema["anyOf"]:
            try:
                check(document, each, value)
                fitting += 1
            except AssertionError:
                pass
        assert fitting == 1, value
    elif schema.get("type") == "object":
        assert isinstance(value, dict), value
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), value
        if properties:
            assert set(value) <= set(properties), value
        for name, inner in value.items():
            check(document, properties.get(name, {}), inner)
    elif schema.get("type") == "array":
        assert isinstance(value, list), value
        for inner in value:
            check(document, schema["items"], inner)
    elif kind := schema.get("type"):
        types: dict[str, Any] = {
            "string": str,
            "integer": int,
            "number": (int, float),
            "boolean": bool,
            "null": type(None),
        }
        assert isinstance(value, types[kind]), value


class TestWhatTheServerAnswers:
    @pytest.fixture
    def plugins_dir(self, twins: Path) -> Path:
        return twins

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(streams={"poll_s": 0.05})

    def test_is_what_the_document_says(self, server: RunningServer) -> None:
        document = openapi(server.web.server.registry, server.web.settings)
        one = {"id": "a-1", "type": "task", "action": "done", "povId": "acme", "userId": "eve"}
        schema = document["components"]["schemas"]["PublishedActivity"]
        assert schema["additionalProperties"] is False
        check(document, schema, one)
        service = server.token("app", Kind.SERVICE)
        access = server.token("ana", Kind.ACCESS)
        seen = set()
        client = HTTPClient()

        def ask(
            method: str,
            path: str,
            template: str,
            status: int,
            token: str,
            body: Any = None,
            **headers: str,
        ) -> Any:
            answer = client.fetch(
                HTTPRequest(
                    f"http://{server.address}{path}",
                    method=method,
                    headers={"Authorization": f"Bearer {token}"} | headers,
                    body=None if body is None else json.dumps(body),
                    allow_nonstandard_methods=True,
                ),
                raise_error=False,
            )
            assert answer.code == status
            responses = document["paths"][template][method.lower()]["responses"]
            expected = responses[str(status) if str(status) in responses else "default"]
            if "$ref" in expected:
                expected = follow(document, expected["$ref"])
            seen.add((method, template, str(status) if str(status) in responses else "default"))
            if "content" not in expected:
                assert answer.body == b""
                return None
            kind = answer.headers["Content-Type"].partition(";")[0]
            content = expected["content"][kind]
            is_json = kind == "application/json"
            value = json.loads(answer.body) if is_json else answer.body.decode()
            check(document, content["schema"], value)
            return value

        path = "/api/activities"
        ask("POST", path, path, 201, service, one)
        ask("POST", path, path, 200, service, one)
        batch = ask("POST", path, path, 200, service, [one, {**one, "id": "a-2"}, {"typ": 1}])
        assert [each.get("duplicate") for each in batch["results"]] == [True, None, None]
        assert batch["results"][2]["error"]["index"] == 2
        ask("POST", path, path, 400, service, {"type": "x"})
        path = "/api/auth/ws-token"
        ask("GET", path, path, 200, access)
        ask("GET", path, path, 401, service)
        path = "/api/povs/{povId}/activities"
        page = ask("GET", path.format(povId="acme"), path, 200, access)
        assert len(page["activities"]) == 2
        ask("GET", path.format(povId="*"), path, 400, access)
        ask("GET", "/ws/", "/ws/", 426, server.token())
        operator = server.token("app", Kind.SERVICE, can=["operate"])
        for path in (
            "/api/activities/{activityId}",
            "/api/activities/{activityId}/explain?userId=ana",
            "/api/trace?userId=ana",
        ):
            url, name = path.format(activityId="a-1"), path.partition("?")[0]
            ask("GET", url, name, 200, operator)
            ask("GET", url, name, 403, service)
        for method, path in (
            ("GET", "/api/connections"),
            ("GET", "/api/users"),
            ("GET", "/api/povs"),
            ("GET", "/api/plugins"),
            ("DELETE", "/api/users/{userId}/block"),
            ("GET", "/api/users/{userId}/export"),
            ("GET", "/api/povs/{povId}/audit"),
            ("DELETE", "/api/users/{userId}"),
            ("DELETE", "/api/povs/{povId}"),
        ):
            ask(method, path.format(userId="eve", povId="acme"), path, 200, operator)
            ask(method, path.format(userId="eve", povId="acme"), path, 403, service)
        path = "/api/users/{userId}/block"
        ask("POST", path.format(userId="fay"), path, 200, operator, {"seconds": 60})
        ask("POST", path.format(userId="fay"), path, 400, operator, {"seconds": 0})
        for path in ("/api/povs/{povId}/stream", "/api/activities/stream", "/api/inbox/stream"):
            url = path.format(povId="acme")
            ask("HEAD", url, path, 200, access)
            ask("GET", url, path, 200, access)
            ask("GET", url, path, 304, access, **{"If-None-Match": "*"})
            ask("GET", f"{url}?offset=now&live=long-poll", path, 204, access)
            ask("GET", f"{url}?offset=x", path, 400, access)
        path = "/api/messages"
        ask("POST", path, path, 200, server.token(), {"type": "ping"})
        ask("POST", path, path, 401, "x", {"type": "ping"})
        ask("GET", "/api/session", "/api/session", 401, "x")
        for name in ("anton", "berta"):
            path = f"/api/{name}/{{place}}"
            assert ask("GET", path.format(place="x"), path, 200, access) == {name: "x"}
            ask("DELETE", path.format(place="x"), path, 204, access)
            ask("DELETE", path.format(place="x"), path, 401, "x")
        client.close()
        missing = {
            (method.upper(), path, status)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            for status in operation["responses"]
            if set(operation.get("tags", ())) <= {"anton", "berta"}
        } - seen
        assert missing == {
            ("GET", "/ws/", "101"),
            ("GET", "/api/session", "200"),  # which has no end
            ("POST", "/api/messages", "204"),
            *(("GET", f"/api/{name}/{{place}}", "default") for name in ("anton", "berta")),
        }


def test_how_much_details_may_hold_is_said_wherever_they_are() -> None:
    limits = LimitSettings(details_bytes=1000, details_depth=7)
    settings = Settings(limits=limits)
    for document, names in (
        (asyncapi(REGISTRY, settings), {"Activity", "NewActivity", "Notification"}),
        (openapi(REGISTRY, settings), {"Activity", "PublishedActivity"}),
    ):
        schemas = document["components"]["schemas"]
        having = {name for name, each in schemas.items() if "details" in each.get("properties", {})}
        assert having >= names
        for name in having:
            said = schemas[name]["properties"]["details"]["description"]
            assert "1000 bytes" in said
            assert "7 levels" in said
