"""With `auth.tenants` two teams share nothing: one does all there is to do, the other looks.

The doors and their good requests are those of `test_doors`. `red` and `blue` have a PoV and users
of the same names; what belongs to red bears a mark by which any of it would be found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import AUDIENCE_OF, Identity
from pov_rt.config.settings import AuthSettings, EngineSettings, LimitSettings
from pov_rt.protocol.errors import TokenError
from pov_rt.protocol.tenants import wire_of
from pov_rt.runtime.clock import rfc3339
from pov_rt.testing import Client, RunningServer, make_settings
from tests.processes import SECRET
from tests.test_doors import EVERYTHING, MESSAGES, PLUGIN, ROUTES, TOKEN, Case, Json, ask

MARK = "of-red-alone"
RED_ONLY, RED_POV = f"user-{MARK}", f"pov-{MARK}"


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    settings = make_settings(
        auth=AuthSettings(secrets=[SECRET], default_povs="*", tenants=True),
        engine=EngineSettings(url=url),
        limits=LimitSettings(message_rate="10000/s", token_rate="10000/s"),
    )
    with RunningServer(settings, PLUGIN) as running:
        yield running


def connect(server: RunningServer, team: str, user: str = "ana", **more: Any) -> Client:
    return server.connect(user, team_id=team, **more)


def call(
    server: RunningServer, door: str, team: str, can: Any = EVERYTHING, **more: Any
) -> tuple[int, Any]:
    """Make a row's request as a team's app; `more` replaces parts of it."""
    row = ROUTES[door]
    fields: Json = {"path": row.path, "query": row.query, "message": row.body or {}} | more
    case = Case(door, "", "", (None, None), {"team_id": team, "can": can}, **fields)
    body = json.dumps(case.message).encode() if row.body is not None else None
    return ask(server, case, body)


def settle(client: Client) -> list[Json]:
    """Return what a client was sent by now."""
    client.send({"type": "ping", "id": "settled"})
    found = []
    while (message := client.receive()).get("id") != "settled":
        found.append(message)
    return found


def live(server: RunningServer, team: str, user: str = "ana") -> Client:
    """Return a client of a team that is told all that it can be told of `acme`."""
    client = connect(server, team, user)
    for message in (
        {"type": "subscribe", "povIds": ["acme", "beta"], "durable": True},
        {"type": "subscribe", "povId": "*"},
        {"type": "presence", "povId": "acme"},
    ):
        client.request(message)
    return client


def fill(server: RunningServer) -> None:
    """Have red do all that leaves something."""
    red = live(server, "red", RED_ONLY)
    activity = ROUTES["POST /api/activities"].body or {}
    for number in range(5):
        one = {**activity, "id": f"{number}-{MARK}", "details": {"secret": MARK}}
        assert call(server, "POST /api/activities", "red", message=one)[0] == 201
    assert call(server, "POST /api/activities", "red", message={**one, "povId": RED_POV})[0] == 201
    note = {"type": "mention", "povId": "acme", "details": {"secret": MARK}}
    for user in ("ana", RED_ONLY):
        path = {"user_id": user}
        assert call(server, "POST /api/users/{}/notifications", "red", path=path, message=note)[0]
    settle(red)
    assert red.request({"type": "read", "povId": "acme", "offset": 5})["type"] == "receipts"
    assert red.request({"type": "ack", "povId": "acme", "offset": 5})["type"] == "acked"
    settle(red)


def assert_clean(found: object) -> None:
    text = json.dumps(found)
    assert MARK not in text
    assert "\\u001f" not in text, "ids are the client's own on the wire"


def do_all(server: RunningServer, client: Client, team: str) -> Iterator[tuple[str, list[Json]]]:
    """Send every good message; yield each with what came back."""
    for tag, rows in MESSAGES.items():
        for row in rows:
            good = {
                name: server.token(team_id=team) if value is TOKEN else value
                for name, value in row.good.items()
            }
            client.send({"type": tag, **good, "id": tag})
            yield tag, settle(client)
            if tag == "unsubscribe":
                client.request({"type": "subscribe", "povId": "acme"})


def test_who_asks_at_any_door_finds_nothing_of_another_team(server: RunningServer) -> None:
    fill(server)
    blue = live(server, "blue")
    assert_clean(settle(blue))
    for tag, answers in do_all(server, blue, "blue"):
        assert_clean(answers)
        for each in answers:
            assert each.get("code") in (None, "invalid_message", "not_found"), (tag, each)
            if each["type"] == "subscribed" and "offset" in each:
                assert each["offset"] == 0
    for door, row in ROUTES.items():
        if row.url.startswith("/api/"):
            assert_clean(call(server, door, "blue"))
    for path in ("activities", "presence", "receipts"):
        status, found = call(server, f"GET /api/povs/{{}}/{path}", "blue", path={"pov_id": RED_POV})
        assert status == 200
        assert_clean([each for name, each in found.items() if name != "povId"])
    connect(server, "blue")
    _, found = call(server, "GET /api/connections", "blue", query={})
    assert {each["userId"] for each in found["connections"]} == {"ana"}
    _, found = call(server, "GET /api/connections", "blue", query={"userId": RED_ONLY})
    assert found["connections"] == []


def test_who_listens_hears_nothing_of_what_another_team_does(server: RunningServer) -> None:
    blue = live(server, "blue")
    settle(blue)
    server.run(lambda: server.web.server.hooks.hosts["presence"].state.look())
    fill(server)
    red = live(server, "red")
    assert [tag for tag, _ in do_all(server, red, "red")]
    for door, row in ROUTES.items():
        if row.url.startswith("/api/"):
            call(server, door, "red")
    own = {"presence_diff"}
    for message in settle(blue):
        assert_clean(message)
        assert message["type"] in own, message
        users = [each["userId"] for each in message["joined"] + message["changed"]]
        assert {*users, *message["left"]} <= {"ana"}
    assert blue.request({"type": "ping"})["type"] == "pong", "nobody closed it"


def test_each_team_gets_its_own(server: RunningServer) -> None:
    red, blue = live(server, "red"), live(server, "blue")
    for team, client in (("red", red), ("blue", blue)):
        settle(client)
        one = {**(ROUTES["POST /api/activities"].body or {}), "id": team}
        status, placed = call(server, "POST /api/activities", team, message=one)
        assert (status, placed["povId"], placed["offset"]) == (201, "acme", 1)
        told = [each for each in settle(client) if each["type"] == "activity"]
        told.sort(key=lambda each: "feed" in each)
        assert [(each["data"]["id"], each["offset"], each.get("feed")) for each in told] == [
            (team, 1, None), (team, 1, "*"),
        ]  # fmt: skip
        assert {each["data"]["povId"] for each in told} == {"acme"}
        client.request({"type": "read", "povId": "acme", "offset": 1})
        _, found = call(server, "GET /api/povs/{}/receipts", team)
        assert (found["users"], found["followers"]) == (["ana"], 1)
        _, there = call(server, "GET /api/povs/{}/presence", team)
        assert [each["userId"] for each in there["users"]] == ["ana"]
        again = connect(server, team)
        resumed = again.request({"type": "resume"})
        assert resumed["povIds"] == ["acme", "beta"]
        assert [each.get("code") for each in resumed["results"]] == [None, None]


@pytest.mark.parametrize(
    "which", [{"userId": "ana"}, {"issuedBefore": "2020-01-01T00:00:00Z"}, {"tokenId": "one"}]
)
def test_a_team_ends_its_own_tokens_and_connections(server: RunningServer, which: Json) -> None:
    red, blue = live(server, "red"), live(server, "blue")
    if "issuedBefore" in which:
        which = {"issuedBefore": rfc3339(server.web.server.clock.time() + 2)}
    if "tokenId" in which:
        token_ids = {}
        for team, client in (("red", red), ("blue", blue)):
            found = server.web.server.directory.get(client.connection_id)
            assert found is not None
            token_ids[team] = wire_of(found.identity.token_id or "")
        others = {"tokenId": token_ids["blue"]}
        _, done = call(server, "POST /api/tokens/revoke", "red", message=others)
        assert done.get("closed") == 0, done
        which = {"tokenId": token_ids["red"]}
    eve = {"user_id": "eve"}
    connect(server, "blue", "eve")
    status, done = call(server, "POST /api/users/{}/disconnect", "red", path=eve)
    assert (status, done) == (200, {"closed": 0, "missing": []})
    status, done = call(server, "POST /api/tokens/revoke", "red", message=which)
    assert (status, done.get("closed")) == (200, 1), done
    assert blue.request({"type": "ping"})["type"] == "pong"
    _, found = call(server, "GET /api/connections", "blue", query={"userId": "eve"})
    assert len(found["connections"]) == 1
    status, done = call(server, "POST /api/users/{}/disconnect", "blue")
    assert (status, done) == (200, {"closed": 1, "missing": []})
    while blue.receive()["type"] != "closing":
        pass


def test_who_may_operate_on_all_teams_means_everybody_of_all(server: RunningServer) -> None:
    red, blue = live(server, "red"), live(server, "blue")
    operator = ["operate", "operate_all"]

    def as_main(can: list[str], door: str, **more: Any) -> Any:
        status, answer = call(server, door, "main", can=can, **more)
        assert status == 200, answer
        return answer

    for can, count in ((["operate"], 0), (operator, 2)):
        listed = as_main(can, "GET /api/connections", query={})
        assert len(listed["connections"]) == count
    # An id is one of the token's own team, whoever asks.
    assert as_main(operator, "GET /api/connections", query={"userId": "ana"})["connections"] == []
    assert as_main(operator, "POST /api/tokens/revoke", message={"userId": "ana"})["closed"] == 0
    now = {"issuedBefore": rfc3339(server.web.server.clock.time())}
    assert as_main(operator, "POST /api/tokens/revoke", message=now)["closed"] == 2
    for client in (red, blue):
        while client.receive()["type"] != "closing":
            pass


def test_a_token_of_another_team_is_no_newer_one(server: RunningServer) -> None:
    red = connect(server, "red")
    answer = red.request({"type": "refresh", "token": server.token(team_id="blue")})
    assert answer["code"] == "token_invalid"


def test_a_team_that_revokes_too_much_leaves_room_for_others(server: RunningServer) -> None:
    revocations = server.web.server.revocations
    auth = msgspec.structs.replace(server.web.server.settings.auth, max_revocations=4)
    server.call(lambda: revocations.reload(auth))

    def revoke(team: str, token_id: str) -> int:
        body = {"tokenId": token_id}
        return call(server, "POST /api/tokens/revoke", team, message=body)[0]

    assert [revoke("red", f"t{number}") for number in range(3)] == [200, 200, 503]
    assert [revoke("blue", f"t{number}") for number in range(3)] == [200, 200, 503]
    assert revoke("red", "t0") == 200
    instant = {"issuedBefore": "2020-01-01T00:00:00Z"}
    assert call(server, "POST /api/tokens/revoke", "red", message=instant)[0] == 200


def test_a_token_must_say_its_team_but_those_of_the_server_say_main(server: RunningServer) -> None:
    tokens = server.web.server.tokens
    claims = {"userId": "ana", "exp": server.web.server.clock.time() + 60}

    def verify(token: str, accept: frozenset[Kind]) -> Identity:
        return server.call(lambda: tokens.verify(token, accept))

    for kind in Kind:
        accept = frozenset({kind})
        payload = claims | ({"aud": AUDIENCE_OF[kind]} if kind in AUDIENCE_OF else {})
        with pytest.raises(TokenError) as refused:
            verify(jwt.encode(payload, SECRET, "HS256"), accept)
        assert "teamId" in str(refused.value.__cause__)
        text = jwt.encode(payload | {"teamId": "red"}, SECRET, "HS256")
        assert verify(text, accept).grants.tenant == "red"
        made = server.call(partial(tokens.issue, kind, "ana", ttl_s=60))
        assert verify(made, accept).grants.tenant == "main"


def test_an_exchanged_token_stays_in_its_team(server: RunningServer) -> None:
    tokens = server.web.server.tokens
    access = server.token(kind=Kind.ACCESS, team_id="red", povs=["acme", "beta"])
    ana = server.call(lambda: tokens.verify(access, frozenset({Kind.ACCESS})))
    token = server.call(lambda: tokens.exchange(ana))
    again = server.call(lambda: tokens.verify(token, frozenset({Kind.SOCKET})))
    assert (again.user_id, again.grants) == (ana.user_id, ana.grants)
    assert again.parent_id == ana.token_id
    other = server.token(team_id="blue")
    bens = server.call(lambda: tokens.verify(other, frozenset({Kind.SOCKET})))
    assert again.owner != bens.owner
