"""Trace contexts: what is one, and what it is part of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from msgspec import UNSET

from pov_rt.protocol.details.traces import (
    current_traceparent,
    read_traceparent,
    traced,
    untraced,
    with_trace,
    without_trace,
)
from pov_rt.protocol.messages import Activity, NewActivity

ONE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
TABLE = Path(__file__).parents[2] / "tracker/conformance.json"
"""The tracker for Node reads them as ours do: it has the same table."""


@pytest.mark.parametrize(("text", "found"), json.loads(TABLE.read_text())["traceparents"])
def test_a_context_is_one_to_the_letter_or_none(text: str, found: str | None) -> None:
    assert read_traceparent(text) == found


def test_what_is_no_text_is_no_context() -> None:
    for each in (None, 7, [ONE], ONE.encode()):
        assert read_traceparent(each) is None


def test_a_trace_is_the_blocks_and_of_what_begins_in_it() -> None:
    seen: list[str | None] = []

    def look() -> None:
        seen.append(current_traceparent())

    async def look_later() -> None:
        look()

    async def work() -> None:
        with traced(ONE):
            task = asyncio.ensure_future(look_later())
            thread = asyncio.ensure_future(asyncio.to_thread(look))
            with traced(OTHER):
                look()
            with traced("nonsense"):
                look()
        await task
        await thread
        look()

    asyncio.run(work())
    assert seen[:2] == [OTHER, ONE]
    assert seen[2:] == [ONE, ONE, None], "what began in the block goes on with its trace"
    with traced(ONE):
        thread = Thread(target=look)
        thread.start()
        thread.join()
    assert seen[-1] is None, "another thread is another context"


@pytest.mark.parametrize(
    ("details", "trace", "found"),
    [
        (UNSET, ONE, {"traceparent": ONE}),
        ({"n": 1}, ONE, {"n": 1, "traceparent": ONE}),
        ({"traceparent": OTHER}, ONE, {"traceparent": OTHER}),
        ({"n": 1}, "nonsense", {"n": 1}),
        (UNSET, None, UNSET),
    ],
)
def test_it_is_a_member_of_the_details(details: Any, trace: str | None, found: Any) -> None:
    activity = NewActivity(type="t", action="a", pov_id="p", details=details)
    assert with_trace(activity, trace).details == found
    assert activity.details == details


def test_what_has_none_is_itself_without_it() -> None:
    for details in ({"n": 1}, {"traceparent": "the app's own"}):
        assert without_trace(details) is details
    assert without_trace({"n": 1, "traceparent": ONE}) == {"n": 1}

    def activity(details: Any) -> Activity:
        return Activity(id="1", type="t", action="a", pov_id="p", user_id="u", details=details)

    assert untraced(activity({"traceparent": ONE})) == activity(UNSET)
    plain = activity(UNSET)
    assert untraced(plain) is plain
