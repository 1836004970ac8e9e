"""The generated documents: AsyncAPI 3.0 of the socket, OpenAPI 3.1 of the HTTP side.

Both are made from the classes that validate, so they cannot say anything else than the server does.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from pov_rt.errors import ERRORS
from pov_rt.messages import CORE_PUSHES, Activity, Message, NewActivity
from pov_rt.registry import Registry
from pov_rt.version import VERSION

REF = "#/components/schemas/{name}"
INFO = {"title": "pov-rt", "version": VERSION, "license": {"name": "MIT"}}


def asyncapi(registry: Registry) -> dict[str, Any]:
    """Describe every message of the socket."""
    requests = {handler.tag: handler for handler in registry.handlers.values()}
    classes: dict[str, type[Message]] = {tag: h.spec.message for tag, h in requests.items()}
    for reply in [*CORE_PUSHES, *(r for h in requests.values() for r in h.replies)]:
        classes.setdefault(tag_of(reply), reply)
    _, schemas = msgspec.json.schema_components(classes.values(), ref_template=REF)
    channel = {"$ref": "#/channels/socket"}
    operations: dict[str, Any] = {}
    for tag, handler in sorted(requests.items()):
        operations[f"receive.{tag}"] = {
            "action": "receive",
            "channel": channel,
            "summary": first_line(handler.spec.function),
            "messages": [_message_ref(tag)],
        }
        if handler.replies:
            replies = [_message_ref(tag_of(reply)) for reply in handler.replies]
            operations[f"receive.{tag}"]["reply"] = {"channel": channel, "messages": replies}
    for push in CORE_PUSHES:
        operations[f"send.{tag_of(push)}"] = {
            "action": "send",
            "channel": channel,
            "summary": first_line(push),
            "messages": [_message_ref(tag_of(push))],
        }
    return {
        "asyncapi": "3.0.0",
        "info": INFO,
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:8765", "protocol": "ws"}},
        "channels": {
            "socket": {
                "address": "/ws/",
                "messages": {
                    tag: {"$ref": f"#/components/messages/{tag}"} for tag in sorted(classes)
                },
            }
        },
        "operations": operations,
        "components": {
            "messages": {
                tag: {
                    "name": tag,
                    "summary": first_line(kind),
                    "payload": {"$ref": REF.format(name=kind.__name__)},
                }
                for tag, kind in sorted(classes.items())
            },
            "schemas": schemas,
        },
    }


def openapi(registry: Registry) -> dict[str, Any]:
    """Describe every route of the HTTP side."""
    answers = [route.answer for route in registry.routes if route.answer is not None]
    _, schemas = msgspec.json.schema_components([Activity, NewActivity, *answers], ref_template=REF)
    schemas["Error"] = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "examples": sorted({e.code for e in ERRORS})},
                    "message": {"type": "string"},
                    "field": {"type": "string"},
                    "retryAfter": {"type": "number"},
                },
                "required": ["code", "message"],
            }
        },
        "required": ["error"],
    }
    paths: dict[str, Any] = {
        "/api/auth/ws-token": {
            "get": _operation(
                "Exchange the app's access token for a socket token",
                {"200": _json("`{token}`", {"type": "object", "required": ["token"]})},
            )
        },
        "/api/activities": {
            "post": {
                **_operation(
                    "Publish one activity, or a batch as an array or NDJSON",
                    {
                        "200": _json("`{results}`, or the place of a retry", {"type": "object"}),
                        "201": _json("The place of a new activity", {"type": "object"}),
                    },
                ),
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": REF.format(name="NewActivity")}},
                        "application/x-ndjson": {"schema": {"type": "string"}},
                    },
                },
            }
        },
        "/api/povs/{povId}/activities": {
            "get": {
                **_operation(
                    "Read a page of a PoV's activities",
                    {"200": _json("A page with the log's state", {"type": "object"})},
                ),
                "parameters": [
                    _parameter("povId", "path"),
                    *(_parameter(name, "query") for name in ("after", "before", "limit")),
                ],
            }
        },
    }
    for route in registry.routes:
        schema = {"$ref": REF.format(name=route.answer.__name__)} if route.answer else {}
        path = paths.setdefault(f"/api{route.spec.path}", {})
        path[route.spec.method.lower()] = {
            **_operation(
                first_line(route.spec.function), {"200": _json("The plugin's answer", schema)}
            ),
            "parameters": [
                _parameter(name, "path") for name in re.findall(r"\{(\w+)\}", route.spec.path)
            ],
        }
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def tag_of(message: type[Message]) -> str:
    """Return the wire type."""
    return str(message.__struct_config__.tag)


def first_line(documented: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _message_ref(tag: str) -> dict[str, str]:
    return {"$ref": f"#/channels/socket/messages/{tag}"}


def _operation(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    error = _json("What is wrong", {"$ref": REF.format(name="Error")})
    return {"summary": summary, "responses": {**responses, "default": error}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, place: str) -> dict[str, Any]:
    kind = "string" if place == "path" else "integer"
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": kind}}
