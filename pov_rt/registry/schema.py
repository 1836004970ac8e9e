"""The generated documents: AsyncAPI 3.0 of the socket, OpenAPI 3.1 of the HTTP side.

Both are made from the classes that validate, so they cannot say anything else than the server does.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.protocol.bodies import (
    BatchAnswer,
    ErrorAnswer,
    HistoryAnswer,
    LogPlace,
    PublishedActivity,
    SocketToken,
)
from pov_rt.protocol.errors import ERRORS
from pov_rt.protocol.messages import Message
from pov_rt.registry.build import Registry, Route
from pov_rt.version import VERSION

INFO = {"title": "pov-rt", "version": VERSION, "license": {"name": "MIT"}}

SUBPROTOCOLS = "the subprotocols `pov-rt.v1, bearer.<token>`; the server selects `pov-rt.v1`"
DEVICE = {"type": "string", "minLength": 1, "maxLength": 64, "default": "default"}

Document = dict[str, Any]


class Components:
    """The schemas of some classes. Of two classes with one name, each is listed by its full one."""

    def __init__(self, classes: Iterable[type[msgspec.Struct]]) -> None:
        kinds = list(dict.fromkeys(classes))
        refs, self.schemas = msgspec.json.schema_components(
            kinds, ref_template="#/components/schemas/{name}"
        )
        self._refs = dict(zip(kinds, refs, strict=True))

    def ref(self, kind: type[msgspec.Struct]) -> Document:
        """Return the reference to a class's schema."""
        return dict(self._refs[kind])

    def schema(self, kind: type[msgspec.Struct]) -> Document:
        """Return a class's schema, to add to it."""
        found: Document = self.schemas[self._refs[kind]["$ref"].rpartition("/")[2]]
        return found

    def bound_details(self, limits: LimitSettings) -> None:
        """Say how much may be in `details`, and how deep: JSON Schema has no words for it."""
        for schema in self.schemas.values():
            if "details" in schema.get("properties", {}):
                schema["properties"]["details"]["description"] = (
                    f"At most {limits.details_bytes} bytes of JSON, and at most "
                    f"{limits.details_depth} levels of objects and lists, this being the first."
                )


def asyncapi(registry: Registry, settings: Settings) -> Document:
    """Describe every message of the socket."""
    requests = {handler.tag: handler for handler in registry.handlers.values()}
    classes: dict[str, type[Message]] = {tag: h.spec.message for tag, h in requests.items()}
    for reply in [*registry.pushes, *(r for h in requests.values() for r in h.replies)]:
        classes.setdefault(_name(reply, classes), reply)
    components = Components(classes.values())
    components.bound_details(settings.limits)
    operations: Document = {}
    for tag, handler in sorted(requests.items()):
        operation = _operation("receive", handler.spec.function, tag)
        if handler.replies:
            replies = [_message_ref(_name(reply, classes)) for reply in handler.replies]
            operation["reply"] = {"channel": operation["channel"], "messages": replies}
        operations[f"receive.{tag}"] = operation
    for push in registry.pushes:
        operations[f"send.{tag_of(push)}"] = _operation("send", push, _name(push, classes))
    return {
        "asyncapi": "3.0.0",
        "info": INFO,
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": address(settings.server.host, settings.server.port),
                "protocol": "ws",
                "description": "Give the token in one of the two ways, not in both.",
                "security": [
                    {"$ref": "#/components/securitySchemes/query"},
                    {"$ref": "#/components/securitySchemes/subprotocol"},
                ],
            }
        },
        "channels": {
            "socket": {
                "address": "/ws/",
                "description": f"A WebSocket at /ws/ or any path below it. {_OPENING}",
                "messages": {
                    tag: {"$ref": f"#/components/messages/{tag}"} for tag in sorted(classes)
                },
                "bindings": {"ws": _HANDSHAKE},
            }
        },
        "operations": operations,
        "components": {
            "messages": {
                name: {
                    "name": tag_of(kind),
                    "summary": first_line(kind),
                    "payload": components.ref(kind),
                }
                for name, kind in sorted(classes.items())
            },
            "schemas": components.schemas,
            "securitySchemes": {
                "query": _key("httpApiKey", "query", "token", "The token as `?token=`."),
                "subprotocol": _key("httpApiKey", *_SUBPROTOCOL),
            },
        },
    }


_OPENING = (
    f"The token is `?token=` or in {SUBPROTOCOLS}. A client with the subprotocol gets `welcome` "
    "first, `token_expiring` ahead of its token's end and `closing` before a close; one without "
    "gets only answers and activities until it sends a type that a plugin added."
)

_SUBPROTOCOL = ("header", "Sec-WebSocket-Protocol", f"The token in {SUBPROTOCOLS}.")

_HANDSHAKE = {
    "method": "GET",
    "query": {
        "type": "object",
        "properties": {
            "token": {"type": "string", "description": "The token, unless a subprotocol has it."},
            "device": {**DEVICE, "description": "The user's device, such as `phone`."},
        },
    },
    "headers": {
        "type": "object",
        "properties": {
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "pattern": r"^pov-rt\.v1, ?bearer\.[!-~]+$",
                "description": "The token, unless the query has it.",
            }
        },
    },
    "bindingVersion": "0.1.0",
}


def openapi(registry: Registry, settings: Settings) -> Document:
    """Describe every route of the HTTP side."""
    answers = [route.answer for route in registry.routes if route.answer is not None]
    bodies = [route.spec.body for route in registry.routes if route.spec.body is not None]
    core = (BatchAnswer, ErrorAnswer, HistoryAnswer, LogPlace, PublishedActivity, SocketToken)
    components = Components([*core, *answers, *bodies])
    components.bound_details(settings.limits)
    items = {"anyOf": [components.ref(LogPlace), components.ref(ErrorAnswer)]}
    components.schema(BatchAnswer)["properties"]["results"]["items"] = items
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": f"http://{address(settings.server.host, settings.server.port)}"}],
        "paths": _paths(registry, settings, components),
        "components": {
            "schemas": components.schemas,
            "responses": {
                "error": _json(
                    "What is wrong. `code` is one of "
                    f"{', '.join(sorted({error.code for error in ERRORS}))}, or a plugin's own.",
                    components.ref(ErrorAnswer),
                )
            },
            "securitySchemes": {
                "access": _bearer("The app's access token."),
                "cookie": _key("apiKey", "cookie", settings.auth.cookie, "The app's access token."),
                "service": _bearer("A service token: `pov-rt token --kind service`."),
                "any": _bearer("A service token, a socket token or the app's access token."),
                "query": _key(
                    "apiKey", "query", "token", "A socket token, or the app's access token."
                ),
                "subprotocol": _key("apiKey", *_SUBPROTOCOL),
            },
        },
    }


def _paths(registry: Registry, settings: Settings, components: Components) -> Document:
    activity = components.ref(PublishedActivity)
    batch = {"type": "array", "items": activity, "maxItems": settings.limits.publish_batch}
    place = components.ref(LogPlace)
    number = {"type": "integer", "minimum": 0, "default": 0}
    paths: Document = {
        "/api/auth/ws-token": {
            "get": {
                "operationId": "getSocketToken",
                "summary": "Exchange the app's access token for a socket token",
                "security": [{"access": []}, {"cookie": []}],
                "responses": _responses({"200": ("A token", components.ref(SocketToken))}),
            }
        },
        "/ws/": {
            "get": {
                "operationId": "connect",
                "summary": "Open a WebSocket, here or below; AsyncAPI describes its messages",
                "description": f"{_OPENING} Without `Upgrade`, and with the token as bearer, it "
                "says why a socket was refused: 401, or 426 if the token is good.",
                "security": [{"query": []}, {"subprotocol": []}, {"any": []}],
                "parameters": [_parameter("device", "query", DEVICE)],
                "responses": _responses({"101": ("The socket is open", None)}),
            }
        },
        "/api/activities": {
            "post": {
                "operationId": "publish",
                "summary": "Publish one activity, or a batch as an array or NDJSON",
                "security": [{"service": []}],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"anyOf": [activity, batch]}},
                        "application/x-ndjson": {
                            "schema": {"type": "string", "description": "An activity a line."}
                        },
                    },
                },
                "responses": _responses(
                    {
                        "200": (
                            "What became of each of a batch; or the place of a retry",
                            {"anyOf": [components.ref(BatchAnswer), place]},
                        ),
                        "201": ("The place of a new activity", place),
                    }
                ),
            }
        },
        "/api/povs/{povId}/activities": {
            "get": {
                "operationId": "readActivities",
                "summary": "Read a page of a PoV's activities",
                "security": [{"any": []}],
                "parameters": [
                    _parameter("povId", "path", {"type": "string"}),
                    _parameter("after", "query", number, "From this offset on."),
                    _parameter("before", "query", number, "Backwards; from 0: the newest first."),
                    _parameter("limit", "query", {"type": "integer", "minimum": 1, "default": 100}),
                ],
                "responses": _responses({"200": ("A page", components.ref(HistoryAnswer))}),
            }
        },
    }
    for route in registry.routes:
        path = paths.setdefault(f"/api{route.spec.path}", {})
        path[route.spec.method.lower()] = _plugin_operation(route, components)
    return paths


def _plugin_operation(route: Route, components: Components) -> Document:
    good: dict[str, tuple[str, Document | None]] = {"204": ("Done", None)}
    if route.answer is not None:
        good = {"200": ("The plugin's answer", components.ref(route.answer))}
    body: Document = {}
    if route.spec.body is not None:
        schema = components.ref(route.spec.body)
        body = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        }
    return {
        "operationId": f"{route.plugin.name}.{route.spec.function.__name__}",
        "summary": first_line(route.spec.function),
        "tags": [route.plugin.name],
        "security": [{"any": []}],
        "parameters": [
            _parameter(name, "path", {"type": "string"})
            for name in re.findall(r"\{(\w+)\}", route.spec.path)
        ],
        **body,
        "responses": _responses(good),
    }


def address(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tag_of(message: type[Message]) -> str:
    """Return the wire type."""
    return str(message.__struct_config__.tag)


def first_line(documented: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _name(sent: type[Message], classes: Mapping[str, type[Message]]) -> str:
    """Return what a message that the server sends is called: its type, unless a client's is."""
    tag = tag_of(sent)
    return tag if classes.get(tag, sent) is sent else f"{tag}_sent"


def _operation(action: str, documented: Any, message: str) -> Document:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/socket"},
        "summary": first_line(documented),
        "messages": [_message_ref(message)],
    }


def _message_ref(tag: str) -> dict[str, str]:
    return {"$ref": f"#/channels/socket/messages/{tag}"}


def _key(kind: str, place: str, name: str, description: str) -> Document:
    return {"type": kind, "in": place, "name": name, "description": description}


def _bearer(description: str) -> Document:
    return {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": description,
    }


def _responses(good: dict[str, tuple[str, Document | None]]) -> Document:
    responses: Document = {status: _json(*answer) for status, answer in good.items()}
    return {**responses, "default": {"$ref": "#/components/responses/error"}}


def _json(description: str, schema: Document | None) -> Document:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, place: str, schema: Document, description: str = "") -> Document:
    parameter: Document = {"name": name, "in": place, "required": place == "path", "schema": schema}
    return {**parameter, "description": description} if description else parameter
