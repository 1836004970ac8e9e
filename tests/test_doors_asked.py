"""What the app says is asked at every door: each message type and route that is about a PoV.

The doors and their good requests are those of `test_doors`. Another server answers, over HTTP, and
nothing that it says is remembered. Whoever may not write on a PoV is refused where the grant is
`publish`, and so on (`action_of`); where there is no PoV, nobody is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import inspect as shape

from pov_rt.auth.grants import Kind, action_of
from pov_rt.testing import Client, RunningServer, make_settings
from tests.receivers import SECRET, Receiver, receive
from tests.test_doors import (
    GRANTS,
    HANDLERS,
    MESSAGES,
    PLUGIN,
    POVS,
    ROUTES,
    TOKEN,
    Case,
    Json,
    Row,
    ask,
    claims,
    ids_in,
    publish_own,
)

NO = "You may not do this on this PoV"
ACTIONS = ("see", "collaborate", "write")

NOT_ASKED = {
    "unsubscribe": "whoever lost the right to see it may leave",
    "ack": "one's own cursor, on a subscription that stands",
}

MESSAGE_ROWS = [
    pytest.param(tag, row.good, row.grant, id=f"{tag}-{number}")
    for tag, rows in MESSAGES.items()
    for number, row in enumerate(rows)
]
ROUTE_ROWS = [
    pytest.param(door, row, id=door)
    for door, row in ROUTES.items()
    if row.url.startswith("/api/") and row.kind is Kind.SERVICE
]
SERVICE_ONLY = {
    "POST /api/activities",
    "GET /api/connections",
    "GET /api/users",
    "GET /api/povs",
    "GET /api/plugins",
    "POST /api/users/{}/block",
    "DELETE /api/users/{}/block",
    "POST /api/users/{}/disconnect",
    "POST /api/users/{}/notifications",
    "POST /api/tokens/revoke",
    "DELETE /api/povs/{}",
    "DELETE /api/users/{}",
    "GET /api/users/{}/export",
    "GET /api/activities/{}",
    "GET /api/activities/{}/explain",
    "GET /api/trace",
    "GET /api/povs/{}/audit",
}
"""No user gets there, and services are trusted with what their tokens grant."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive() as made:
        yield made


@pytest.fixture(scope="module")
def server(receiver: Receiver) -> Iterator[RunningServer]:
    settings = make_settings()
    settings.plugins["authoriser"] = {"url": receiver.url, "secret": SECRET, "ttl_s": 0}
    with RunningServer(settings, PLUGIN) as running:
        publish_own(running)
        yield running


@pytest.fixture
def allow(receiver: Receiver) -> Iterator[Callable[..., None]]:
    """Return what says which actions are allowed from then on; all are in the beginning."""

    def set_allowed(*actions: str) -> None:
        receiver.decide = lambda call: 204 if call.json["action"] in actions else 403
        while not receiver.calls.empty():
            receiver.calls.get()

    set_allowed(*ACTIONS)
    yield set_allowed
    set_allowed(*ACTIONS)


def has_pov(tag: str, good: Json) -> bool:
    if tag == "resume":
        return True  # those that were subscribed to durably
    kind = shape.type_info(HANDLERS[tag].spec.message)
    return any(
        place.sort in ("pov", "feed", "unchecked") for place in ids_in(kind, {"type": tag, **good})
    )


def request(server: RunningServer, client: Client, tag: str, good: Json, *, silent: bool) -> Json:
    """Send a message and return its answer; that of a `ping` if it is `silent`."""
    fields = {name: server.token() if value is TOKEN else value for name, value in good.items()}
    client.send(json.dumps({"type": tag, **fields, "id": 1}))
    if silent:
        client.send({"type": "ping", "id": 1})
    return next(answer for answer in iter(client.receive, None) if answer.get("id") == 1)


def verdicts(answer: Json) -> set[str | None]:
    """Return what was said of each PoV: None is a yes."""
    return {
        each.get("message") if "code" in each else None for each in answer.get("results", [answer])
    }


@pytest.mark.parametrize("may", [(), ("see",), ("see", "collaborate"), ACTIONS], ids=str)
@pytest.mark.parametrize(("tag", "good", "grant"), MESSAGE_ROWS)
def test_a_message_is_refused_that_the_app_does_not_allow(
    server: RunningServer,
    receiver: Receiver,
    allow: Callable[..., None],
    tag: str,
    good: Json,
    grant: str | None,
    may: tuple[str, ...],
) -> None:
    client = server.connect(**claims())
    try:
        client.request({"type": "subscribe", "povIds": POVS, "durable": True})
        if tag == "publish":  # else it is a retry
            good = {"data": {**good["data"], "id": str(may)}}
        allow(*may)
        is_asked = has_pov(tag, good) and tag not in NOT_ASKED
        needed = action_of(HANDLERS[tag].spec.grant or grant)
        expected = NO if is_asked and needed not in may else None
        silent = expected is None and not any(HANDLERS[tag].replies)
        answer = request(server, client, tag, good, silent=silent)
        if is_asked:
            assert receiver.next().json["action"] == needed
    finally:
        client.socket.close()
    assert verdicts(answer) == {expected}


@pytest.mark.parametrize("may", [(), ("see",), ("see", "collaborate"), ACTIONS], ids=str)
@pytest.mark.parametrize(("door", "row"), ROUTE_ROWS)
def test_a_request_is_refused_that_the_app_does_not_allow(
    server: RunningServer,
    receiver: Receiver,
    allow: Callable[..., None],
    door: str,
    row: Row,
    may: tuple[str, ...],
) -> None:
    allow(*may)
    kind = Kind.SERVICE if door in SERVICE_ONLY else Kind.SOCKET
    body = None
    if row.body is not None:
        body = json.dumps(row.body | ({"id": str(may)} if "id" in row.body else {})).encode()
    covers = claims(povs=row.povs)
    case = Case(door, "", "", (None, None), covers, path=row.path, query=row.query)
    status, answer = ask(server, case, body, kind)
    if door in SERVICE_ONLY:
        assert (status, receiver.calls.qsize()) == (row.good, 0)
        return
    named = row.path.keys() | (row.body or {}).keys()
    is_named = named & {"pov_id", "povId"} or row.povs == "*"
    assert is_named, "there is no PoV, so say so in SERVICE_ONLY"
    needed = action_of(row.grant or GRANTS[door])
    if needed in may:
        assert status == row.good
    else:
        error: Any = answer["error"]
        assert (status, error["code"], error["message"]) == (403, "forbidden", NO)


def test_a_service_is_not_asked_about_anywhere(
    server: RunningServer, receiver: Receiver, allow: Callable[..., None]
) -> None:
    allow()
    for door, row in ROUTES.items():
        if row.url.startswith("/api/povs/"):
            body = None if row.body is None else json.dumps(row.body).encode()
            case = Case(door, "", "", (None, None), claims(), path=row.path, query=row.query)
            assert ask(server, case, body)[0] == row.good, door
    assert receiver.calls.empty()


def test_what_is_not_asked_is_there() -> None:
    assert NOT_ASKED.keys() <= MESSAGES.keys()
    assert SERVICE_ONLY <= ROUTES.keys()
