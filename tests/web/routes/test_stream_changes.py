"""Logs over HTTP whose entries change: amended, retracted, erased, deleted with their PoV."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import Settings
from pov_rt.testing import Answer, Http, RunningServer, make_settings
from tests.clients import ENGINES
from tests.events import Events, follow

POV, FEED = "/api/povs/acme/stream", "/api/activities/stream"
NEXT, TOP = "Stream-Next-Offset", "Stream-Up-To-Date"
OPERATOR: dict[str, Any] = {"user": "app", "service": True, "can": ["operate"]}


@pytest.fixture(params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/log.db"
    return make_settings(
        engine={"url": url},
        streams={"poll_s": 30.0, "read_rate": "1000/s"},
        limits={"cost_rate": "1000000/s"},
    )


def publish(http: Http, *ids: str, user: str = "eve", pov: str = "acme") -> None:
    """Publish activities whose details are their id."""
    batch = [
        {
            "id": each,
            "type": "t",
            "action": "a",
            "povId": pov,
            "userId": user,
            "details": {"n": each},
        }
        for each in ids
    ]
    answer = http.post("/api/activities", batch, service=True)
    assert answer.status == 200, answer.body


def change(http: Http, how: str, number: str, **more: Any) -> int:
    """Change an activity; return the offset of what says so."""
    path = f"/api/activities/{number}/{how}"
    answer = http.post(path, {"povId": "acme", **more}, service=True)
    assert answer.status == 200, answer.body
    offset: int = answer.body["offset"]
    return offset


def erase(http: Http, user: str) -> None:
    assert http.request("DELETE", f"/api/users/{user}", **OPERATOR).status == 200


def poll(http: Http, offset: str, path: str = POV) -> Answer:
    return http.get(f"{path}?offset={offset}&live=long-poll")


def offsets(items: list[Any]) -> list[int]:
    return [item["offset"] for item in items]


def again(server: RunningServer, path: str, tag: str) -> tuple[int, bytes]:
    """Ask for a page that one has already."""
    with closing(HTTPConnection(server.address, timeout=10)) as asked:
        headers = {"Authorization": f"Bearer {server.token()}", "If-None-Match": tag}
        asked.request("GET", path, headers=headers)
        answer = asked.getresponse()
        return answer.status, answer.read()


def until(events: Events, offset: int) -> list[Any]:
    """Return all items up to the place of an offset, which has to be said."""
    found: list[Any] = []
    for event in events:
        if event.name == "data":
            found += event.data
        elif event.data["streamNextOffset"].endswith(f"{offset:016d}"):
            return found
    pytest.fail("it ended")


@pytest.mark.parametrize("path", [POV, FEED])
def test_who_follows_gets_a_change_in_its_place(
    server: RunningServer, http: Http, path: str
) -> None:
    publish(http, "a1", "a2")
    with (
        follow(server, f"{path}?offset=now&live=sse", server.token()) as events,
        ThreadPoolExecutor() as threads,
    ):
        assert events.control()
        waits = threads.submit(poll, http, http.get(path).headers[NEXT], path)
        assert change(http, "amend", "a1", details={"offset": 77}) == 3
        assert change(http, "retract", "a2") == 4
        amended, retracted = until(events, 4)
        assert (amended["offset"], retracted["offset"]) == (3, 4)
        assert amended["data"]["original"] == {"id": "a1", "offset": 1}
        assert (amended["data"]["amended"], amended["data"]["details"]) == (True, {"offset": 77})
        assert retracted["data"]["original"] == {"id": "a2", "offset": 2}
        assert retracted["data"]["retracted"] is True
        assert "details" not in retracted["data"]
        found = waits.result()
        assert found.body[0] == amended
        rest = http.get(f"{path}?offset={found.headers[NEXT]}").body
        assert found.body + rest == [amended, retracted]
    for more in ("", "&live=long-poll"):
        page = http.get(f"{path}?offset=-1{more}").body
        assert offsets(page) == [1, 2, 3, 4]
        assert page[0]["data"]["details"] == {"offset": 77}
        assert "details" not in page[1]["data"]
    with follow(server, f"{path}?offset=-1&live=sse", server.token()) as events:
        assert until(events, 4) == page


@pytest.mark.parametrize("query", ["", "&types=t"])
def test_a_page_is_another_one_as_soon_as_anything_in_it_was_changed(
    server: RunningServer, http: Http, query: str
) -> None:
    publish(http, *(f"a{n}" for n in range(1000)))
    path = f"{POV}?offset=-1{query}"
    tags = [http.get(path).headers["Etag"]]

    def changed() -> list[Any]:
        status, body = again(server, path, ", ".join(tags))
        assert status == 200
        tags.append(http.get(path).headers["Etag"])
        assert again(server, path, tags[-1]) == (304, b"")
        found: list[Any] = json.loads(body)
        return found

    change(http, "amend", "a5", details={"n": "other"})
    assert changed()[5]["data"]["details"] == {"n": "other"}
    change(http, "retract", "a999")
    assert "details" not in changed()[999]["data"]
    erase(http, "eve")
    assert changed() == []


def test_what_was_erased_is_no_item_and_the_offset_goes_on(
    server: RunningServer, http: Http
) -> None:
    publish(http, "a1")
    publish(http, "b1", user="ben")
    publish(http, "a2", "a3")
    for path in (POV, FEED):
        with follow(server, f"{path}?offset=-1&live=sse", server.token()) as events:
            assert len(until(events, 4)) == 4
    erase(http, "eve")
    for path in (POV, FEED):
        page = http.get(path)
        assert offsets(page.body) == [2]
        assert page.headers[NEXT].endswith(f"{4:016d}")
        assert page.headers[TOP] == "true"
        behind = page.headers[NEXT].replace(f"{4:016d}", f"{2:016d}")
        empty = http.get(f"{path}?offset={behind}")
        assert (empty.body, empty.headers[NEXT]) == ([], page.headers[NEXT])
        for more in ("", "&types=t") if path == POV else ("",):
            with follow(server, f"{path}?offset=-1{more}&live=sse", server.token()) as events:
                assert offsets(until(events, 4)) == [2]
            with follow(server, f"{path}?offset={behind}{more}&live=sse", server.token()) as events:
                assert until(events, 4) == []


def test_whoever_follows_a_pov_that_is_deleted_ends_and_its_places_are_lost(
    server: RunningServer, http: Http
) -> None:
    publish(http, "a1", "a2")
    old = http.get(POV).headers[NEXT]
    with (
        follow(server, f"{POV}?offset=-1&live=sse", server.token()) as events,
        ThreadPoolExecutor() as threads,
    ):
        until(events, 2)
        waits = threads.submit(poll, http, old)
        for _ in range(10_000):
            if server.call(lambda: len(server.web.server.directory)) == 2:
                break
        answer = http.request("DELETE", "/api/povs/acme", **OPERATOR)
        assert (answer.status, answer.body["ended"]) == (200, 2)
        assert list(events) == []
        assert (waits.result().status, waits.result().headers[NEXT]) == (204, old)
    for path in (f"{POV}?offset={old}", f"{POV}?offset={old}&live=sse"):
        assert http.get(path).status == 410
    assert poll(http, old).status == 410
    assert http.get(POV).body == []
    feed = http.get(FEED)
    assert (feed.body, feed.headers[NEXT][-1]) == ([], "2")
    fresh = http.get(POV).headers[NEXT]
    publish(http, "a1")
    assert http.get(f"{POV}?offset={old}").status == 410
    assert offsets(http.get(f"{POV}?offset={fresh}").body) == [1]
