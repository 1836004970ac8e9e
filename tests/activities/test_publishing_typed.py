"""Activities whose details are declared, at every door that they come in by."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClient, HTTPRequest

from pov_rt.auth.grants import Kind
from pov_rt.client import NewActivity, Publisher
from pov_rt.config.settings import Settings
from pov_rt.registry.activities import declare
from pov_rt.testing import Connect, Http, RunningServer, make_settings
from pov_rt.tracker.sender import ActivitySender

SCHEMA = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {
            "type": "array",
            "items": {"required": ["dueAt"], "properties": {"dueAt": {"type": "string"}}},
        }
    },
}
FIELD = "details.items[1].dueAt"
GOOD = {"items": [{"dueAt": "today"}]}
BAD: dict[str, Any] = {"items": [{"dueAt": "today"}, {"dueAt": 5}]}

PLUGIN = '''"""Declares comments, spoils some tasks before they are stored, publishes by itself."""
from typing import Any
import msgspec
from pov_rt.plugin import Activity, Host, NewActivity, Part, Plugin, Request

plugin = Plugin("typed")

@plugin.activity("comment.*")
class Comment(Part):
    written_by: str

class Wish(Part):
    type: str
    action: str
    details: dict[str, Any]

@plugin.before_publish
def before(activity: Activity, host: Host) -> Activity | None:
    if activity.id == "spoilt":
        return msgspec.structs.replace(activity, details={"items": [{"dueAt": ""}, {}]})
    return None

@plugin.http("POST", "/wish", grant="publish", body=Wish)
async def wish(request: Request) -> None:
    body = request.body(Wish)
    await request.host.publish(
        NewActivity(type=body.type, action=body.action, pov_id="acme", details=body.details),
        user_id="ana",
    )
'''


@pytest.fixture
def pov_rt_plugins(tmp_path: Path) -> Path:
    (tmp_path / "typed.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture
def pov_rt_settings(tmp_path: Path) -> Settings:
    (tmp_path / "task.json").write_text(json.dumps(SCHEMA))
    return make_settings(activities={"task.completed": {"details": str(tmp_path / "task.json")}})


def activity(details: Any = None, **fields: Any) -> dict[str, Any]:
    one = {"type": "task", "action": "completed", "povId": "acme"}
    return {**one, **({} if details is None else {"details": details}), **fields}


def post(http: Http, *bodies: dict[str, Any]) -> Any:
    given: Any = [{**each, "userId": "eve"} for each in bodies]
    body = given[0] if len(given) == 1 else given
    return http.post("/api/activities", body, service=True).body


def test_over_http_the_field_is_named_and_of_a_batch_only_what_is_bad_is_refused(
    http: Http,
) -> None:
    error = post(http, activity(BAD))["error"]
    assert (error["code"], error["field"]) == ("invalid_activity", FIELD)
    assert error["message"] == f"The field '{FIELD}' must be a string"
    assert post(http, activity())["error"]["field"] == "details.items"
    assert post(http, activity(GOOD))["offset"] == 1
    first, second, third, other = post(
        http, activity(GOOD), activity(BAD), activity(GOOD), activity(BAD, action="begun")
    )["results"]
    assert [first["offset"], third["offset"], other["offset"]] == [2, 3, 4]
    assert (second["error"]["field"], second["error"]["index"]) == (FIELD, 1)


def test_lines_of_ndjson_are_checked_each(server: RunningServer) -> None:
    lines = [{**activity(each), "userId": "eve"} for each in (BAD, GOOD)]
    client = HTTPClient()
    answer = client.fetch(
        HTTPRequest(
            f"http://{server.address}/api/activities",
            method="POST",
            headers={
                "Authorization": f"Bearer {server.token('app', Kind.SERVICE)}",
                "Content-Type": "application/x-ndjson",
            },
            body="\n".join(map(json.dumps, lines)),
        )
    )
    client.close()
    bad, good = json.loads(answer.body)["results"]
    assert (bad["error"]["field"], good["offset"]) == (FIELD, 1)


def test_over_a_socket_the_path_is_that_in_the_message(connect: Connect) -> None:
    ana = connect("ana")
    error = ana.request({"type": "publish", "data": activity(BAD)})
    assert (error["code"], error["field"]) == ("invalid_activity", f"data.{FIELD}")
    assert f"'{FIELD}' must be a string" in error["message"]
    assert ana.request({"type": "publish", "data": activity(GOOD)})["offset"] == 1


def test_what_a_plugin_publishes_is_checked_and_so_is_what_a_hook_makes_of_an_activity(
    http: Http,
) -> None:
    wish = {"type": "task", "action": "completed", "details": BAD}
    assert http.post("/api/wish", wish).body["error"]["field"] == FIELD
    assert http.post("/api/wish", {**wish, "details": GOOD}).status == 204
    error = post(http, activity(GOOD, id="spoilt"))["error"]
    assert (error["code"], error["field"]) == ("invalid_activity", FIELD)


def test_a_plugins_struct_counts_for_every_action_of_its_type(http: Http) -> None:
    for action in ("created", "edited"):
        comment = {**activity(type="comment", action=action)}
        error = post(http, comment)["error"]
        assert error["field"] == "details.writtenBy"
        assert error["message"] == "The field 'details.writtenBy' is missing"
        assert "offset" in post(http, {**comment, "details": {"writtenBy": "ana", "more": 1}})


def test_sizes_and_what_json_readers_disagree_on_come_before_the_schema(http: Http) -> None:
    assert post(http, activity({"items": "x" * 20_000}))["error"]["code"] == "too_large"
    error = post(http, activity({"items": 2**60}))["error"]
    assert error["field"] == "details.items"
    assert "beyond 2^53" in error["message"]


def test_what_was_declared_anew_counts_from_the_next_activity_on(
    server: RunningServer, http: Http, tmp_path: Path
) -> None:
    assert "error" in post(http, activity())
    (tmp_path / "task.json").write_text("{}")
    node = server.web.server
    declared = declare(node.registry.found, node.settings.activities)
    assert declared.changed_from(node.registry.activities) == ["task.completed"]
    server.call(lambda: node.reload(node.settings.auth, declared))
    assert post(http, activity())["offset"] == 1
    assert node.registry.activities is declared


def test_an_amendment_is_checked_as_well_and_a_retraction_never_refused(
    server: RunningServer, connect: Connect, http: Http, tmp_path: Path
) -> None:
    ana = connect("ana")
    assert ana.request({"type": "publish", "data": activity(GOOD, id="t1")})["offset"] == 1
    change = {"povId": "acme", "activityId": "t1"}
    refused = ana.request({"type": "amend", **change, "details": BAD})
    assert (refused["code"], refused["field"]) == ("invalid_activity", FIELD)
    body, app = {"povId": "acme", "details": BAD}, {"can": ["publish", "operate"]}
    answer = http.post("/api/activities/t1/amend", body, service=True, **app)
    assert (answer.status, answer.body["error"]["field"]) == (400, FIELD)
    assert ana.request({"type": "amend", **change, "details": GOOD})["offset"] == 2
    (tmp_path / "task.json").write_text('{"required": ["other"]}')
    node = server.web.server
    declared = declare(node.registry.found, node.settings.activities)
    server.call(lambda: node.reload(node.settings.auth, declared))
    refused = ana.request({"type": "amend", **change, "details": GOOD})
    assert (refused["code"], refused["field"]) == ("invalid_activity", "details.other")
    assert ana.request({"type": "retract", **change})["offset"] == 3


def test_what_is_refused_holds_up_nothing_that_a_program_sends_behind_it(
    server: RunningServer, http: Http, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, url = server.token("app", Kind.SERVICE), f"http://{server.address}"
    batch = [
        NewActivity(type="task", action="completed", pov_id="acme", user_id="eve", details=details)
        for details in (GOOD, BAD, GOOD)
    ]
    sender = ActivitySender(url, token)
    for each in batch:
        assert sender.put(each)
    assert sender.flush(10)
    sender.close()
    assert (sender.sent, sender.rejected, sender.queued) == (2, 1, 0)
    assert FIELD in caplog.text
    caplog.clear()
    with closing(Publisher(url, token, tmp_path / "spool")) as publisher:
        for each in batch:
            publisher.publish(each)
        assert publisher.flush(10)
        counts = publisher.counts()
    assert (counts.waiting, counts.refused) == (0, 1)
    assert FIELD in caplog.text
    found = http.get("/api/povs/acme/activities").body["activities"]
    assert [each["data"]["details"] for each in found] == [GOOD] * 4
