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
    Block,
    Blocked,
    ConnectionsPage,
    DeletedPov,
    Erased,
    ErrorAnswer,
    HistoryAnswer,
    PluginsPage,
    PovsPage,
    Published,
    PublishedActivity,
    SocketToken,
    Unblocked,
    UsersPage,
)
from pov_rt.protocol.errors import ERRORS
from pov_rt.protocol.messages import Activity, Message, NewActivity
from pov_rt.registry.build import Registry, Route
from pov_rt.registry.schema.activities import add_details, struct_kinds
from pov_rt.registry.schema.operators import ANSWERS, operator_paths
from pov_rt.version import VERSION

INFO = {"title": "pov-rt", "version": VERSION, "license": {"name": "MIT"}}

SUBPROTOCOLS = "the subprotocols `pov-rt.v1, bearer.<token>`; the server selects `pov-rt.v1`"
DEVICE = {"type": "string", "minLength": 1, "maxLength": 64, "default": "default"}

Document = dict[str, Any]

_PARAMETER = re.compile(r"\{(\w+)\}")


class Components:
    """The schemas of some classes, and of the details that activities have.

    Of two classes with one name, each is listed by its full one.
    """

    def __init__(
        self, classes: Iterable[type[msgspec.Struct]], registry: Registry, settings: Settings
    ) -> None:
        declared = registry.activities
        kinds = list(dict.fromkeys([*classes, *struct_kinds(declared)]))
        refs, self.schemas = msgspec.json.schema_components(
            kinds, ref_template="#/components/schemas/{name}"
        )
        self._refs = dict(zip(kinds, refs, strict=True))
        self._bound_details(settings.limits)
        rules = add_details(self.schemas, declared, self._refs)
        for kind in kinds if rules else ():
            if issubclass(kind, Activity | NewActivity):
                self.schema(kind)["allOf"] = rules

    def ref(self, kind: type[msgspec.Struct]) -> Document:
        """Return the reference to a class's schema."""
        return dict(self._refs[kind])

    def schema(self, kind: type[msgspec.Struct]) -> Document:
        """Return a class's schema, to add to it."""
        found: Document = self.schemas[self._refs[kind]["$ref"].rpartition("/")[2]]
        return found

    def _bound_details(self, limits: LimitSettings) -> None:
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
    components = Components([*classes.values(), Activity, NewActivity], registry, settings)
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
    core: tuple[type[msgspec.Struct], ...] = (
        Activity,
        BatchAnswer,
        Block,
        Blocked,
        DeletedPov,
        Erased,
        ErrorAnswer,
        HistoryAnswer,
        Published,
        PublishedActivity,
        SocketToken,
        Unblocked,
        *_LISTINGS.values(),
    )
    components = Components([*core, *ANSWERS, *answers, *bodies], registry, settings)
    items = {"anyOf": [components.ref(Published), components.ref(ErrorAnswer)]}
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
    place = components.ref(Published)
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
    pov, user = (_parameter(name, "path", {"type": "string"}) for name in ("povId", "userId"))
    paths["/api/povs/{povId}"] = {
        "delete": {
            "operationId": "deletePov",
            "summary": "Delete a PoV with all that is kept of it; needs the grant `operate`",
            "security": [{"service": []}],
            "parameters": [pov],
            "responses": _responses({"200": ("What was removed", components.ref(DeletedPov))}),
        }
    }
    paths["/api/users/{userId}"] = {
        "delete": {
            "operationId": "eraseUser",
            "summary": "Erase all that is kept about a user; needs the grant `operate`",
            "security": [{"service": []}],
            "parameters": [user],
            "responses": _responses({"200": ("What was removed", components.ref(Erased))}),
        }
    }
    paths |= operator_paths(components.ref, _parameter, _responses)
    lines = {"schema": {"type": "string", "description": "An object with a `kind` a line."}}
    paths["/api/users/{userId}/export"] = {
        "get": {
            "operationId": "exportUser",
            "summary": "Read all that is kept about a user; needs the grant `operate`",
            "security": [{"service": []}],
            "parameters": [user],
            "responses": {
                "200": {"description": "NDJSON", "content": {"application/x-ndjson": lines}},
                **_responses({}),
            },
        }
    }
    paths["/api/users/{userId}/block"] = {
        "post": {
            "operationId": "blockUser",
            "summary": "Keep a user out for a time; needs the grant `operate`",
            "security": [{"service": []}],
            "parameters": [user],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": components.ref(Block)}},
            },
            "responses": _responses({"200": ("Until when", components.ref(Blocked))}),
        },
        "delete": {
            "operationId": "unblockUser",
            "summary": "Let a blocked user in again; needs the grant `operate`",
            "security": [{"service": []}],
            "parameters": [user],
            "responses": _responses(
                {"200": ("Whether there was a block", components.ref(Unblocked))}
            ),
        },
    }
    paths |= {
        f"/api/{name}": _listing(name, components.ref(page)) for name, page in _LISTINGS.items()
    }
    if settings.streams.enabled:
        paths |= {path: _stream(path, *words) for path, words in _STREAMS.items()}
        paths |= _session()
    for route in registry.routes:
        path = paths.setdefault(f"/api{_PARAMETER.sub(_on_the_wire, route.spec.path)}", {})
        path[route.spec.method.lower()] = _plugin_operation(route, components)
    return paths


_LISTINGS: dict[str, type[msgspec.Struct]] = {
    "connections": ConnectionsPage,
    "users": UsersPage,
    "povs": PovsPage,
    "plugins": PluginsPage,
}
"""The lists for operators, and what a page of each is."""


def _listing(name: str, page: Document) -> Document:
    text: Document = {"type": "string"}
    return {
        "get": {
            "operationId": f"list{name.capitalize()}",
            "summary": f"List the {name} of the node; needs the grant `operate`",
            "description": "Other parameters are what a row has to have, such as `userId`.",
            "security": [{"service": []}],
            "parameters": [
                _parameter("sort", "query", text, "What is worst first; with `-` last."),
                _parameter("q", "query", text, "A part of any of the row's texts."),
                _parameter("after", "query", text, "`next` of the page before."),
                _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000}),
            ],
            "responses": _responses({"200": ("A page", page)}),
        }
    }


_STREAMS = {
    "/api/povs/{povId}/stream": ("Pov", "a PoV's activities"),
    "/api/activities/stream": ("Feed", "all activities of a team"),
    "/api/inbox/stream": ("Inbox", "the user's own notifications"),
}
"""The logs that are there over HTTP: what its operations are called, and what it has."""


def _stream(path: str, name: str, what: str) -> Document:
    """Describe how a log is read."""
    items: Document = {"type": "array", "items": {"type": "object"}}
    texts: Document = {"type": "array", "items": {"type": "string"}}
    headers = {
        each: {"schema": {"type": "string"}, "description": text}
        for each, text in (
            ("Stream-Next-Offset", "Where the answer ends: the `offset` of the next request."),
            ("Stream-Up-To-Date", "`true` if nothing follows."),
        )
    }
    good = _json("Messages as a WebSocket gets them, or events that bring them", items)
    good["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    where = {"type": "string", "default": "-1"}
    live = {"enum": ["long-poll", "sse"]}
    in_path = [_parameter("povId", "path", {"type": "string"})] if "{povId}" in path else []
    filters = ["types", "actions", "users", "notUsers"] if name != "Inbox" else []
    head = {
        "operationId": f"end{name}Stream",
        "summary": f"Find out where the log of {what} ends",
        "security": [{"any": []}],
        "parameters": in_path,
        "responses": {"200": {"description": "It ends there", "headers": headers}},
    }
    get = {
        "operationId": f"read{name}Stream",
        "summary": f"Read the log of {what}, and what comes; docs/protocol.md has the contract",
        "security": [{"any": []}, {"query": []}],
        "parameters": [
            *in_path,
            _parameter("offset", "query", where, "`-1`, `now`, or what an answer said."),
            _parameter("live", "query", live, "Wait for what comes."),
            _parameter("cursor", "query", {"type": "string"}, "What the answer before said."),
            *(_parameter(each, "query", texts, "As `only` of `subscribe`.") for each in filters),
            _parameter("device", "query", DEVICE),
            _parameter("Last-Event-ID", "header", {"type": "string"}, "Instead of `offset`."),
        ],
        "responses": {
            "200": {**good, "headers": headers},
            "204": {"description": "Nothing came", "headers": headers},
            "304": {"description": "The page is as it was"},
            **_responses({}),
        },
    }
    return {"get": get, "head": head}


def _session() -> Document:
    """Describe what takes the place of a WebSocket; AsyncAPI has the messages."""
    message: Document = {"type": "object", "required": ["type"]}
    some: Document = {"type": "array", "items": message}
    opened = _json("Each message is an event", None)
    opened["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    live = "`long-poll`: each answer has what came since the one before, and ends."
    last = "The `id` of the answer before; without it a session is opened."
    lent = "`connectionId` of the `welcome` of the user's session, whose messages these are."
    body = {
        "required": True,
        "content": {"application/json": {"schema": {"anyOf": [message, some]}}},
    }
    return {
        "/api/session": {
            "get": {
                "operationId": "openSession",
                "summary": "Get all messages of a WebSocket as events",
                "security": [{"any": []}, {"query": []}],
                "parameters": [
                    _parameter("device", "query", DEVICE),
                    _parameter("live", "query", {"enum": ["sse", "long-poll"]}, live),
                    _parameter("Last-Event-ID", "header", {"type": "string"}, last),
                ],
                "responses": {"200": opened, **_responses({})},
            }
        },
        "/api/messages": {
            "post": {
                "operationId": "sendMessages",
                "summary": "Send one message, which is answered, or some for a session",
                "security": [{"any": []}],
                "parameters": [_parameter("Pov-Rt-Connection", "header", {"type": "string"}, lent)],
                "requestBody": body,
                "responses": _responses(
                    {
                        "200": ("The answer of one message, if it has one", some),
                        "204": ("The session has them", None),
                    }
                ),
            }
        },
    }


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
            _parameter(_on_the_wire(name)[1:-1], "path", {"type": "string"})
            for name in _PARAMETER.finditer(route.spec.path)
        ],
        **body,
        "responses": _responses(good),
    }


def _on_the_wire(parameter: re.Match[str]) -> str:
    """Return a path's parameter as everything on the wire is called: `{povId}` for `{pov_id}`."""
    first, *others = parameter[1].split("_")
    return f"{{{first}{''.join(map(str.capitalize, others))}}}"


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
