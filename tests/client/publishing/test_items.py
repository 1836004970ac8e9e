"""Activities as they are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pov_rt.client import NewActivity, traced
from pov_rt.client.publishing.items import make_item, numbered
from pov_rt.protocol.errors import ClientError


def new(**fields: Any) -> NewActivity:
    given: dict[str, Any] = {"type": "t", "action": "a", "pov_id": "p", "user_id": "u"}
    return NewActivity(**given | fields)


def test_each_gets_an_id_of_its_own_and_keeps_the_one_it_has() -> None:
    assert make_item(new()).id != make_item(new()).id
    assert make_item(new(id="1")).id == "1"


def test_the_trace_of_its_request_travels_with_it_and_a_bad_header_does_no_harm() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    found = json.loads(make_item(new(details={"n": 1}), trace).body)["details"]
    assert found == {"n": 1, "traceparent": trace}
    assert "details" not in json.loads(make_item(new(), f"{trace}\n").body)
    with traced(trace):
        assert json.loads(make_item(new()).body)["details"] == {"traceparent": trace}
        assert "details" not in json.loads(make_item(new(), None).body)


def test_its_number_is_added_to_it() -> None:
    item = make_item(new(id="1", details={"é": [1]}))
    found = json.loads(numbered(item.body, "spool", 7))
    assert found == json.loads(item.body) | {"producer": "spool", "seq": 7}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ""}, "id"),
        ({"pov_id": "*"}, "povId"),
        ({"user_id": "a\n"}, "userId"),
        ({"type": ""}, "type"),
        ({"action": "x" * 65}, "action"),
        ({"details": {"a": object()}}, "details"),
        ({"details": {"a": "\ud800"}}, "details"),
    ],
)
def test_what_the_server_would_refuse_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ClientError) as it:
        make_item(new(**fields))
    assert it.value.field == field
