"""Every door judges alike: each message type and each route, with each fault that there is.

A row says how a good request looks. What is answered to a bad one follows from these rules, save
for `EXCEPTIONS`, which give their reasons. The cases are made from what is registered: a type, a
route or an id that is new fails a test here until a row has it.

| fault | code | field |
|---|---|---|
| a bad id | `invalid_id` | its path |
| a PoV that the token does not cover | `forbidden` | its path |
| a grant that the token does not have | `forbidden` | none |
| a field that is missing | `invalid_message`; over HTTP `Row.wrong` | its path |
| a number in a query that is none | `invalid_request` | its name |
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
import pytest
from msgspec import inspect as shape
from tornado.routing import PathMatches
from tornado.web import RequestHandler

from pov_rt.activities.publishing import Publisher
from pov_rt.auth.grants import Kind
from pov_rt.config.settings import ServerSettings
from pov_rt.plugins.amend import NewDetails, Retraction
from pov_rt.plugins.revoke import Revoke
from pov_rt.protocol.bodies import Block, PublishedActivity
from pov_rt.protocol.messages import NewActivity, NewNotification
from pov_rt.registry.build import build_registry
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.demo.mount import Demo
from tests import probe

PLUGIN = [Path(probe.__file__)]
REGISTRY = build_registry({}, PLUGIN)
HANDLERS = {handler.tag: handler for handler in REGISTRY.handlers.values()}

EVERYTHING = ("collaborate", "operate", "publish", "subscribe")
POVS = ["acme", "beta"]
OWN = ("own-1", "own-2", "own-3", "own-4")
"""Activities that whoever asks has published."""
SECRET = "secret"
BAD = {
    "empty": "",
    "long": "x" * 129,
    "reserved": "*",
    "control": "a\x07",
    "control-c1": "a\x85",
    "surrogate": "a\ud800",
}
TOKEN = object()
"""Stands in a row for a good token."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """A good message. `needs` are fields, and `grant` is one, that the handler itself asks for."""

    good: Json
    needs: tuple[str, ...] = ()
    grant: str | None = None


MESSAGES: dict[str, list[Message]] = {
    "ping": [Message({})],
    "pong": [Message({})],
    "subscribe": [
        Message(
            {"povId": "acme", "only": {"users": ["ana"], "notUsers": ["ben"]}},
            needs=("povId",),
            grant="subscribe",
        ),
        Message({"povIds": ["acme", "beta"]}),
    ],
    "resume": [Message({})],
    "unsubscribe": [Message({"povId": "acme"})],
    "ack": [Message({"povId": "acme", "offset": 0}, needs=("povId",))],
    "read": [Message({"povId": "acme", "offset": 0}, needs=("povId",))],
    "seen": [Message({"povId": "acme", "offset": 0}, needs=("povId",))],
    "unread": [Message({"povId": "acme", "offset": 0})],
    "mute": [Message({"povId": "acme", "level": "off"}, grant="subscribe")],
    "mutes": [Message({})],
    "history": [Message({"povId": "acme", "users": ["ana", "ben"]})],
    "presence": [Message({"povId": "acme"})],
    "typing": [Message({"povId": "acme", "active": True})],
    "refresh": [Message({"token": TOKEN})],
    "publish": [
        Message(
            {
                "data": {
                    "id": "a-1",
                    "type": "task",
                    "action": "done",
                    "povId": "acme",
                    "userId": "ana",
                }
            }
        )
    ],
    "amend": [Message({"povId": "acme", "activityId": OWN[0], "details": {}, "changeId": "c-1"})],
    "retract": [Message({"povId": "acme", "activityId": OWN[1], "changeId": "c-2"})],
    "probe.ask": [
        Message(
            {
                "inner": {"povId": "acme"},
                "povIds": ["acme", "beta"],
                "deep": [{"povId": "acme"}, {"povId": "beta"}],
                "byName": {"x": "acme"},
                "perhaps": "beta",
                "unset": "acme",
                "userId": "ana",
                "activityId": "a-1",
            }
        )
    ],
}
"""By type, so that each of its ids is in one of them."""


@dataclass(frozen=True)
class Row:
    """A good request, and what is answered to it.

    `ids` and `numbers` are in the query. `needs` are fields of the body that the handler itself
    asks for; `wrong` is the code when one is missing.
    """

    url: str
    grant: str | None = None
    kind: Kind | None = Kind.SERVICE
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    body: Json | None = None
    body_kind: type[msgspec.Struct] | None = None
    needs: tuple[str, ...] = ()
    wrong: str = "invalid_request"
    good: int = 200
    povs: Any = None
    """What its token has to cover, if not `POVS`."""


ACTIVITY = {"id": "a-2", "type": "t", "action": "a", "povId": "acme", "userId": "ana"}
POV, USER = {"pov_id": "acme"}, {"user_id": "ana"}
ROUTES: dict[str, Row] = {
    "GET /healthz": Row("", kind=None),
    "GET /readyz": Row("", kind=None),
    "GET /readyz/publish": Row("", kind=None),
    "GET /metrics": Row("", kind=None),
    "GET /": Row("/", kind=None),
    "GET /admin/{}": Row("", kind=None),
    "GET /api/node": Row("", kind=None),
    "GET /api/nodes": Row("", kind=None),
    "GET /api/node/hour": Row("", kind=None),
    "GET /api/node/activities": Row("", kind=None),
    "GET /client/{}": Row("/client/pov-rt.js", kind=None),
    "GET /dev/console.json": Row("/dev/console.json", kind=None),
    "GET /dev/problem.json": Row("/dev/problem.json", kind=None),
    "POST /dev/token": Row("/dev/token", body={"token": "x"}),
    "GET /dev/{}": Row("/dev/console.css", kind=None),
    "GET /demo": Row("/demo", kind=None),
    "GET /demo/": Row("/demo/", kind=None),
    "GET /demo/board": Row("/demo/board", kind=None),
    "GET /demo/.*": Row("/demo/none", kind=None, good=404),
    "GET /ws/_echo": Row("/ws/_echo", kind=Kind.SOCKET, good=426),
    "GET /ws/(?!_echo$).*": Row(
        "/ws/", kind=Kind.SOCKET, query={"device": "phone"}, ids=("device",), good=426
    ),
    "GET /api/auth/ws-token": Row("/api/auth/ws-token", kind=Kind.ACCESS),
    "POST /api/activities": Row(
        "/api/activities",
        "publish",
        body=ACTIVITY,
        body_kind=PublishedActivity,
        wrong="invalid_activity",
        good=201,
    ),
    "POST /api/activities/{}/amend": Row(
        "/api/activities/{activity_id}/amend",
        path={"activity_id": OWN[2]},
        body={"povId": "acme", "details": {}, "changeId": "c-3", "userId": "ana"},
        body_kind=NewDetails,
    ),
    "POST /api/activities/{}/retract": Row(
        "/api/activities/{activity_id}/retract",
        path={"activity_id": OWN[3]},
        body={"povId": "acme", "changeId": "c-4", "userId": "ana"},
        body_kind=Retraction,
    ),
    "GET /api/povs/{}/activities": Row(
        "/api/povs/{pov_id}/activities", "subscribe", path=POV, numbers=("after", "before", "limit")
    ),
    "GET /api/activities/{}": Row(
        "/api/activities/{activity_id}", "operate", path={"activity_id": OWN[0]}
    ),
    "GET /api/activities/{}/explain": Row(
        "/api/activities/{activity_id}/explain",
        "operate",
        path={"activity_id": OWN[0]},
        query={"userId": "ana", "povId": "acme", "device": "phone"},
        ids=("userId", "povId", "device"),
    ),
    "GET /api/trace": Row("/api/trace", "operate", query={"userId": "ana"}, ids=("userId",)),
    "GET /api/povs/{}/audit": Row("/api/povs/{pov_id}/audit", "operate", path=POV),
    "DELETE /api/povs/{}": Row("/api/povs/{pov_id}", "operate", path=POV),
    "DELETE /api/users/{}": Row("/api/users/{user_id}", "operate", path=USER),
    "GET /api/users/{}/export": Row("/api/users/{user_id}/export", "operate", path=USER),
    "GET /api/povs/{}/stream": Row(
        "/api/povs/{pov_id}/stream",
        "subscribe",
        path=POV,
        query={"users": "ana", "notUsers": "ben"},
        ids=("users", "notUsers"),
    ),
    "GET /api/activities/stream": Row("/api/activities/stream", "subscribe", povs="*"),
    "GET /api/inbox/stream": Row("/api/inbox/stream", kind=Kind.SOCKET),
    "GET /api/session": Row(
        "/api/session", kind=Kind.SOCKET, query={"device": "phone"}, ids=("device",)
    ),
    # What is wrong with a message is answered as over a socket: MESSAGES.
    "POST /api/messages": Row("/api/messages", kind=Kind.SOCKET, body={"type": "ping"}),
    "GET /api/povs/{}/presence": Row("/api/povs/{pov_id}/presence", path=POV),
    "GET /api/povs/{}/receipts": Row("/api/povs/{pov_id}/receipts", path=POV, numbers=("offset",)),
    "GET /api/connections": Row(
        "/api/connections",
        "operate",
        query={"userId": "ana", "povId": "acme"},
        ids=("userId", "povId"),
        numbers=("limit",),
    ),
    "GET /api/users": Row(
        "/api/users",
        "operate",
        query={"userId": "ana", "povId": "acme"},
        ids=("userId", "povId"),
        numbers=("limit",),
    ),
    "GET /api/povs": Row(
        "/api/povs", "operate", query={"povId": "acme"}, ids=("povId",), numbers=("limit",)
    ),
    "GET /api/plugins": Row("/api/plugins", "operate", numbers=("limit",)),
    "POST /api/users/{}/block": Row(
        "/api/users/{user_id}/block",
        "operate",
        path={"user_id": "eve"},
        body={"seconds": 60},
        body_kind=Block,
    ),
    "DELETE /api/users/{}/block": Row(
        "/api/users/{user_id}/block", "operate", path={"user_id": "eve"}
    ),
    "POST /api/users/{}/disconnect": Row("/api/users/{user_id}/disconnect", path=USER),
    "POST /api/users/{}/notifications": Row(
        "/api/users/{user_id}/notifications",
        path=USER,
        body={"id": "n-1", "type": "mention", "povId": "acme", "userId": "ben"},
        body_kind=NewNotification,
    ),
    "POST /api/tokens/revoke": Row(
        "/api/tokens/revoke", body={"userId": "eve"}, body_kind=Revoke, needs=("userId",)
    ),
    "PUT /api/povs/{}/probe/{}": Row(
        "/api/povs/{pov_id}/probe/{user_id}",
        path={**POV, **USER},
        body={"inner": {"povId": "acme"}, "userIds": ["ana", "ben"]},
        body_kind=probe.Body,
    ),
}
"""By method and path, `{}` for each parameter. A plugin's grant is known."""
OPERATORS = {
    *("GET /healthz", "GET /readyz", "GET /readyz/publish", "GET /metrics"),
    *(
        "GET /admin/{}",
        "GET /api/nodes",
        "GET /api/node",
        "GET /api/node/hour",
        "GET /api/node/activities",
    ),
}
"""On a port of their own, with tests of their own: tests/web/routes/test_ops.py and admin."""

Answer = tuple[str | None, str | None]
"""Code and field; without a code all is well."""
GOOD: Answer = (None, None)
URL_PARTS = "in a URL it is no UTF-8: what cannot be read has no field"
NO_RESULT = "its result could not name it, for half a character cannot be sent"
NO_SEGMENT = "an empty part of a path makes it another path"

EXCEPTIONS: dict[tuple[str, str], tuple[Answer, str]] = {
    ("unsubscribe povId", "not covered"): (GOOD, "whoever lost the right to see it may leave"),
    ("unsubscribe povId", "feed not covered"): (GOOD, "whoever lost the right to see it may leave"),
    ("subscribe povIds[0]", "surrogate"): (("invalid_message", "povIds[0]"), NO_RESULT),
    ("subscribe povIds[1]", "surrogate"): (("invalid_message", "povIds[1]"), NO_RESULT),
    ("probe.ask unset", "not covered"): (GOOD, "a `PovOrFeed` is for the handler to judge"),
    ("probe.ask unset", "feed not covered"): (GOOD, "a `PovOrFeed` is for the handler to judge"),
    **{
        (f"{door} {name}", "surrogate"): (("invalid_request", None), URL_PARTS)
        for door, row in ROUTES.items()
        for name in row.ids
    },
    **{
        (f"{door} {name}", fault): (answer, reason)
        for door, row in ROUTES.items()
        for name in ("{pov_id}", "{user_id}", "{activity_id}")
        if name[1:-1] in row.path
        for fault, answer, reason in (
            ("empty", ("not_found", None), NO_SEGMENT),
            ("surrogate", ("invalid_request", None), URL_PARTS),
        )
    },
}


class Place(NamedTuple):
    """Where something is in a JSON value: how to get there, its path, and that of its field."""

    steps: tuple[Any, ...] = ()
    name: str = ""
    field: str = ""
    sort: str = ""

    def attribute(self, name: str) -> Place:
        path, above = (f"{each}.{name}" if each else name for each in (self.name, self.field))
        return Place((*self.steps, name), path, above)

    def item(self, step: int | str, name: str) -> Place:
        return Place((*self.steps, step), self.name + name, self.field)


NOWHERE = Place()


def children(kind: shape.Type, value: Any, at: Place) -> Iterator[tuple[shape.Type, Any, Place]]:
    """Yield what is directly in a value that fits a type."""
    if isinstance(kind, shape.Metadata):
        yield kind.type, value, at
    elif isinstance(kind, shape.UnionType):
        yield from ((each, value, at) for each in kind.types)
    elif isinstance(kind, shape.ListType | shape.FrozenSetType) and isinstance(value, list):
        for index, item in enumerate(value):
            name = f"[{index}]" if isinstance(kind, shape.ListType) else ""
            yield kind.item_type, item, at.item(index, name)
    elif isinstance(kind, shape.DictType) and isinstance(value, dict):
        yield from ((kind.value_type, value[key], at.item(key, f".{key}")) for key in value)
    elif isinstance(kind, shape.StructType) and isinstance(value, dict):
        for each in kind.fields:
            if each.encode_name in value:
                yield each.type, value[each.encode_name], at.attribute(each.encode_name)


def ids_in(kind: shape.Type, value: Any, at: Place = NOWHERE) -> Iterator[Place]:
    """Yield the ids of a value that fits a type."""
    sort = sort_of(kind)
    if sort is not None and isinstance(value, str):
        yield at._replace(sort=sort)
        return
    for child in children(kind, value, at):
        yield from ids_in(*child)


def required(kind: shape.Type, value: Any, at: Place = NOWHERE) -> Iterator[Place]:
    """Yield the fields of a value that may not be absent."""
    if isinstance(kind, shape.StructType) and isinstance(value, dict):
        yield from (at.attribute(each.encode_name) for each in kind.fields if each.required)
    for child in children(kind, value, at):
        yield from required(*child)


def fields_of(kind: Any, name: str = "") -> Iterator[tuple[str, shape.Field]]:
    """Yield every field of a type and of what is in it, whatever lists are in between."""
    if isinstance(kind, shape.StructType):
        for each in kind.fields:
            there = f"{name}.{each.encode_name}" if name else each.encode_name
            yield there, each
            yield from fields_of(each.type, there)
    for inner in types_in(kind):
        yield from fields_of(inner, name)


def types_in(kind: Any) -> tuple[shape.Type, ...]:
    """Return the types of what is not in a field of its own."""
    if isinstance(kind, shape.UnionType):
        return kind.types
    names = ("type", "item_type", "value_type")
    return tuple(getattr(kind, name) for name in names if hasattr(kind, name))


def sort_of(kind: shape.Type) -> str | None:
    return (kind.extra or {}).get("id") if isinstance(kind, shape.Metadata) else None


def has_id(kind: shape.Type) -> bool:
    """Tell whether a field is an id, or several, and no object."""
    return sort_of(kind) is not None or any(map(has_id, types_in(kind)))


def changed(value: Json, steps: Sequence[Any], new: Any) -> Json:
    """Return a copy with something else at a place; with `...` for the new, without it."""
    value = copy.deepcopy(value)
    inner: Any = value
    for step in steps[:-1]:
        inner = inner[step]
    if new is ...:
        del inner[steps[-1]]
    else:
        inner[steps[-1]] = new
    return value


@dataclass(frozen=True)
class Case:
    """A request with one fault, and what is answered by the rules."""

    door: str
    name: str
    fault: str
    rule: Answer
    claims: Json
    message: Json = field(default_factory=dict)
    path: Json = field(default_factory=dict)
    query: Json = field(default_factory=dict)
    result: int | None = None
    """Which of several results has the error, of a message that is all right as a whole."""
    all_povs: bool = False
    """The token covers every PoV."""

    @property
    def expected(self) -> Answer:
        """What is answered."""
        exception = EXCEPTIONS.get((f"{self.door} {self.name}", self.fault))
        return self.rule if exception is None else exception[0]

    def __str__(self) -> str:
        return f"{self.door}-{self.name}-{self.fault}{'-all' if self.all_povs else ''}"

    def for_all_tokens(self) -> Iterator[Case]:
        """Yield this one, and the same for a token that covers every PoV, and so lists none."""
        yield self
        yield replace(self, claims={**self.claims, "povs": "*"}, all_povs=True)


GRANTS = {
    f"{route.spec.method} /api{re.sub(r'{.*?}', '{}', route.spec.path)}": route.spec.grant
    for route in REGISTRY.routes
}
"""What the plugins' routes say that is needed."""


def claims(but: str | None = None, povs: Any = None) -> Json:
    """Return what a token says that covers the PoVs of the rows, and grants all but one."""
    return {"povs": povs or POVS, "can": [grant for grant in EVERYTHING if grant != but]}


def value_cases(
    door: str, kind: shape.Type, good: Json, needs: Sequence[str], wrong: str
) -> Iterator[Case]:
    """Yield the faults of a message or of a body."""
    for steps, name, _, sort in ids_in(kind, good):
        where = {"result": steps[-1]} if sort == "unchecked" else {}
        for fault, bad in BAD.items():
            if (sort, fault) == ("feed", "reserved") or (sort, fault) == ("unchecked", "reserved"):
                continue
            message = changed(good, steps, bad)
            case = Case(door, name, fault, ("invalid_id", name), claims(), message, **where)
            yield from case.for_all_tokens()
        if sort in ("pov", "feed", "unchecked"):
            message = changed(good, steps, SECRET)
            yield Case(door, name, "not covered", ("forbidden", name), claims(), message, **where)
        if sort == "feed":
            message = changed(good, steps, "*")
            yield Case(door, name, "feed not covered", ("forbidden", name), claims(), message)
    for steps, name, *_ in [*required(kind, good), *map(NOWHERE.attribute, needs)]:
        yield Case(door, name, "missing", (wrong, name), claims(), changed(good, steps, ...))


def message_cases() -> Iterator[Case]:
    for tag, handler in HANDLERS.items():
        for row in MESSAGES.get(tag, ()):
            good = {"type": tag, **row.good}
            kind = shape.type_info(handler.spec.message)
            yield Case(tag, "", "good", GOOD, claims(), good)
            yield from value_cases(tag, kind, good, row.needs, "invalid_message")
            grant = handler.spec.grant or row.grant
            if grant is not None:
                yield Case(tag, "", "not granted", ("forbidden", None), claims(grant), good)


def route_cases() -> Iterator[Case]:
    for door, row in ROUTES.items():
        if door in OPERATORS:
            continue
        covers = claims(povs=row.povs)
        good = Case(door, "", "good", GOOD, covers, row.body or {}, row.path, row.query)
        yield good
        yield from url_cases(good, row)
        grant = row.grant or GRANTS.get(door)
        if grant is not None:
            rule = ("forbidden", None)
            lacks = claims(grant, row.povs)
            yield replace(good, fault="not granted", rule=rule, claims=lacks)
        if row.body_kind is not None:
            kind = shape.type_info(row.body_kind)
            for case in value_cases(door, kind, good.message, row.needs, row.wrong):
                yield replace(case, path=row.path, query=row.query)


def url_cases(good: Case, row: Row) -> Iterator[Case]:
    """Yield the faults of a request's path and query."""
    for name, wire in (
        ("pov_id", "povId"),
        ("user_id", "userId"),
        ("activity_id", "activityId"),
    ):
        if name in row.path:
            at = replace(good, name=f"{{{name}}}", rule=("invalid_id", wire))
            for fault, bad in BAD.items():
                case = replace(at, fault=fault, path={**row.path, name: bad})
                yield from case.for_all_tokens()
            if name == "pov_id":
                path = {**row.path, name: SECRET}
                yield replace(at, fault="not covered", rule=("forbidden", wire), path=path)
    for name in row.ids:
        for fault, bad in BAD.items():
            at = replace(good, name=name, fault=fault, rule=("invalid_id", name))
            yield replace(at, query={**row.query, name: bad})
    for name in row.numbers:
        for bad in ("", "x", "-1", "1" * 17):
            at = replace(good, name=name, fault=f"number {bad!r}", rule=("invalid_request", name))
            yield replace(at, query={**row.query, name: bad})


MESSAGE_CASES = list(message_cases())
ROUTE_CASES = list(route_cases())


@pytest.fixture(scope="module")
def everything() -> Iterator[RunningServer]:
    """A server with every door."""
    settings = msgspec.structs.replace(
        make_settings(
            server=ServerSettings(port=0, admin_port=0, drain_s=0.2, conformance_echo=True)
        ),
        dev=True,
    )
    with RunningServer(settings, PLUGIN) as running:
        publish_own(running)
        yield running


def publish_own(server: RunningServer) -> None:
    """Publish what a good request may change, in the names of all who ask."""
    batch = [NewActivity(id=each, type="task", action="done", pov_id="acme") for each in OWN]
    for kind, user in (("user", "ana"), ("user", "app"), ("service", "app")):
        publisher = Publisher(f"{kind}:{user}", user, "main")
        server.run(partial(server.web.server.publishing.publish, batch, publisher))


@pytest.mark.parametrize("case", MESSAGE_CASES, ids=str)
def test_a_message_with_a_fault_is_answered_by_the_rules(
    everything: RunningServer, case: Case
) -> None:
    client = everything.connect(**case.claims)
    try:
        client.request({"type": "subscribe", "povIds": POVS})
        message = {
            name: everything.token() if value is TOKEN else value
            for name, value in case.message.items()
        }
        client.send(json.dumps({**message, "id": 1}))
        if case.expected == GOOD and not any(HANDLERS[case.door].replies):
            client.send({"type": "ping", "id": 1})
        answer = client.receive()
        while answer.get("id") != 1:
            answer = client.receive()
    finally:
        client.socket.close()
    if case.result is not None and case.expected[0] != "invalid_message":
        assert answer["results"][case.result]["code"] == case.expected[0]
        assert "code" not in answer["results"][1 - case.result]
        return
    assert (answer.get("code"), answer.get("field")) == case.expected
    if case.expected[0] in ("invalid_id", "invalid_message"):
        assert list(answer)[:2] == ["type", "message"]
        assert answer["message"] == "Invalid message format"
        assert case.expected[0] != "invalid_id" or case.name.split(".")[-1] in answer["detail"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"action": "undone"}, ("id_conflict", "data.id")),
        ({"id": "a-9", "type": "no type"}, ("invalid_activity", "data.type")),
        ({"id": "a-9", "details": {"n": [2**53]}}, ("invalid_activity", "data.details.n[0]")),
        ({"id": "a-9", "details": {"x": "a\ud800"}}, ("invalid_message", "data.details.x")),
        ({"id": "a-9", "details": {"x": "y" * 17_000}}, ("too_large", "data.details")),
    ],
)
def test_what_is_wrong_with_an_activity_is_named_by_its_path_in_the_message(
    everything: RunningServer, change: Json, expected: Answer
) -> None:
    client = everything.connect("cy")
    try:
        good = {**MESSAGES["publish"][0].good["data"], "id": "a-8"}
        assert client.request({"type": "publish", "data": good})["type"] == "published"
        client.send(json.dumps({"type": "publish", "data": {**good, **change}}))
        answer = client.receive()
        assert (answer["code"], answer["field"]) == expected
    finally:
        client.socket.close()


def ask(
    server: RunningServer, case: Case, body: bytes | None, kind: Kind | None = None
) -> tuple[int, Any]:
    """Make a request, with a token of the row's kind unless told otherwise."""
    row, method = ROUTES[case.door], case.door.partition(" ")[0]
    url = row.url.format(**{name: url_part(text) for name, text in case.path.items()})
    if case.query:
        url += "?" + urlencode(case.query, errors="surrogatepass")
    connection = HTTPConnection(server.address, timeout=10)
    headers = {}
    if row.kind is not None:
        token = server.token("app", kind or row.kind, **case.claims)
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, url, body, headers)
    with connection.getresponse() as response:
        is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        content = response.read() if is_json else b""  # events have no end
    connection.close()
    return response.status, json.loads(content) if is_json else None


def url_part(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


@pytest.mark.parametrize("case", ROUTE_CASES, ids=str)
def test_a_request_with_a_fault_is_answered_by_the_rules(
    everything: RunningServer, case: Case
) -> None:
    row = ROUTES[case.door]
    body = json.dumps(case.message).encode() if row.body is not None else None
    status, answer = ask(everything, case, body)
    if case.expected == GOOD:
        assert status == row.good, answer
        return
    error = answer["error"]
    assert (error["code"], error.get("field")) == case.expected


@pytest.mark.parametrize(
    "case", [case for case in ROUTE_CASES if case.door == "POST /api/activities"], ids=str
)
def test_one_of_a_batch_is_refused_like_one_alone(everything: RunningServer, case: Case) -> None:
    body = json.dumps([{**ACTIVITY, "id": "a-3"}, case.message]).encode()
    status, answer = ask(everything, case, body)
    if case.expected == ("forbidden", None):  # the grant is asked of all
        assert status == 403
        return
    good, bad = answer["results"]
    assert good["povId"] == "acme"
    if case.expected != GOOD:
        assert (bad["error"]["code"], bad["error"].get("field")) == case.expected
        assert bad["error"]["index"] == 1


# What there is, and what has rows:


def bodies() -> dict[str, tuple[shape.Type, list[Json]]]:
    """Return what comes in with a type, and the rows' good ones."""
    found = {
        tag: (shape.type_info(handler.spec.message), [row.good for row in MESSAGES.get(tag, ())])
        for tag, handler in HANDLERS.items()
    }
    for door, row in ROUTES.items():
        if row.body_kind is not None:
            found[door] = (shape.type_info(row.body_kind), [row.body or {}])
    return found


def test_every_message_type_has_a_row() -> None:
    missing = sorted(HANDLERS.keys() - MESSAGES.keys())
    assert not missing, f"say in MESSAGES how a good message of type {missing} looks"
    assert not MESSAGES.keys() - HANDLERS.keys()


def test_every_route_has_a_row(everything: RunningServer) -> None:
    web = everything.web
    found = set()
    for site in (everything.call(web.make_app), everything.call(web.make_admin_app)):
        for rule in site.wildcard_router.rules:
            assert isinstance(rule.matcher, PathMatches)
            if isinstance(rule.target, Demo):
                continue  # an app of its own, with tests of its own: tests/web/demo
            pattern = rule.matcher.regex.pattern.removesuffix("$").replace("(?!stream$)", "")
            path = re.sub(r"\((\?P<\w+>)?\[\^/\]\+\)", "{}", pattern)
            for method in methods(rule.target, rule.target_kwargs):
                found.add(f"{method} {path}")
    missing = sorted(found - ROUTES.keys())
    assert not missing, f"say in ROUTES how a good request for {missing} looks"
    assert not ROUTES.keys() - found


def methods(target: type[RequestHandler], kwargs: Json) -> Iterator[str]:
    """Yield the methods that a handler answers."""
    if "routes" in kwargs:
        yield from kwargs["routes"]
        return
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        if getattr(target, method.lower()) is not getattr(RequestHandler, method.lower()):
            yield method


@pytest.mark.parametrize("door", bodies())
def test_every_id_is_in_a_row(door: str) -> None:
    kind, rows = bodies()[door]
    missing = {name for name, each in fields_of(kind) if has_id(each.type)}
    for row in rows:
        missing -= {place.field for place in ids_in(kind, row)}
    assert not missing, f"no row of {door} has {sorted(missing)}"


NO_IDS = {
    "id": "of a message: the client's own, any text",
    "tokenId": "whatever the issuer of the token wrote",
}


@pytest.mark.parametrize("door", bodies())
def test_a_field_that_is_called_an_id_is_one(door: str) -> None:
    kind, _ = bodies()[door]
    for name, each in fields_of(kind):
        last = name.rpartition(".")[2]
        if re.search(r"(^i|I)ds?$|[uU]sers$", last):
            is_known = name in NO_IDS and door in (*HANDLERS, "POST /api/tokens/revoke")
            assert has_id(each.type) or is_known, f"{door} {name} is checked by nobody"


def test_every_exception_is_met() -> None:
    met = {(f"{case.door} {case.name}", case.fault) for case in [*MESSAGE_CASES, *ROUTE_CASES]}
    assert not EXCEPTIONS.keys() - met
    assert not GRANTS.keys() - ROUTES.keys()
