"""One node asks another: what is answered, refused, or not answered in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from pov_rt.engine.base import Peer
from pov_rt.protocol.errors import Internal, NotFound, RateLimited, TooLarge
from pov_rt.protocol.tenants import TenantId
from pov_rt.server.nodes.asking import MOST_BYTES, NO_ROOM, SILENT_S, Question, Silent
from pov_rt.testing import RunningServer
from tests.nodes.conftest import Nodes

ECHO = Question("echo", str, str)


async def echo(text: str) -> str:
    if text == "refuse":
        raise RateLimited("not now", field="text", retry_after_s=2.5)
    if text == "fail":
        raise RuntimeError("a bug")
    sizes = {"much": MOST_BYTES + 1, "large": MOST_BYTES - 5}
    return "x" * sizes[text] if text in sizes else text * 2


def peer_of(node: RunningServer) -> Peer:
    (peer,) = node.call(lambda: node.web.server.asking.peers)
    return peer


def ask(node: RunningServer, body: str, question: Any = ECHO, **more: Any) -> Any:
    asking, peer = node.web.server.asking, peer_of(node)
    return node.run(lambda: asking.ask(peer, question, body, **more))


@pytest.fixture
def asker(nodes: Nodes) -> RunningServer:
    """Return a node whose peer echoes."""
    one, two = nodes
    two.call(lambda: two.web.server.asking.on(ECHO, echo))
    return one


def test_a_node_answers_what_it_is_asked(nodes: Nodes, asker: RunningServer) -> None:
    other = nodes[1].web.server
    peer = peer_of(asker)
    assert (peer.run, peer.name, peer.silent_s < SILENT_S) == (other.run, other.node, True)
    assert ask(asker, "ab") == "abab"
    assert ask(asker, TenantId.of("red", "ana")) == "red\x1fanared\x1fana"


def test_what_it_refuses_with_is_raised_as_it_was(asker: RunningServer) -> None:
    with pytest.raises(RateLimited, match="not now") as refused:
        ask(asker, "refuse")
    assert (refused.value.field, refused.value.retry_after_s) == ("text", 2.5)


def test_a_bug_there_is_told_at_once_and_logged_there(
    asker: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Internal):
        ask(asker, "fail")
    assert "answering another node's question failed: echo" in caplog.text


def test_what_a_version_does_not_know_is_refused(asker: RunningServer) -> None:
    unknown = Question("something new", str, str)
    with pytest.raises(NotFound, match="does not know what is asked"):
        ask(asker, "", unknown)
    told = asker.run(lambda: asker.web.server.asking.ask_all(unknown, ""))
    assert told.answers == []
    assert [each.why for each in told.missing] == [
        "answered: This version does not know what is asked"
    ]


def test_more_than_others_should_wait_for_is_refused_on_both_sides(asker: RunningServer) -> None:
    with pytest.raises(TooLarge, match="To another node"):
        ask(asker, "x" * (MOST_BYTES + 1))
    with pytest.raises(TooLarge, match="From another node"):
        ask(asker, "much")


def test_an_answer_that_comes_too_late_is_nobodys(asker: RunningServer) -> None:
    with pytest.raises(Silent, match="did not answer within 0 s"):
        ask(asker, "ab", wait_s=0.0)
    assert ask(asker, "cd") == "cdcd"


def test_more_than_may_be_on_its_way_is_refused_at_once_both_ways(asker: RunningServer) -> None:
    asking, peer = asker.web.server.asking, peer_of(asker)
    many = 9

    async def ask_many(text: str) -> Sequence[object]:
        asked = [asking.ask(peer, ECHO, text, wait_s=60.0) for _ in range(many)]
        return await asyncio.gather(*asked, return_exceptions=True)

    def told(found: Sequence[object]) -> dict[str, int]:
        return Counter(str(each) if isinstance(each, Exception) else "ok" for each in found)

    large = "x" * (MOST_BYTES - 5)
    there = told(asker.run(lambda: ask_many(large)))
    assert there[f"The node {peer.name} on {peer.host} was not asked: {NO_ROOM}"] > 0
    back = told(asker.run(lambda: ask_many("large")))
    assert back["ok"] > 0
    assert back["Too much is on its way from it"] > 0
    assert sum(back.values()) == back["ok"] + back["Too much is on its way from it"] == many
    assert ask(asker, "ab") == "abab"


def test_an_answer_of_another_version_names_its_node(asker: RunningServer) -> None:
    other = Question(ECHO.name, str, int)
    with pytest.raises(Silent, match="answered what this version cannot read"):
        ask(asker, "ab", other)
    told = asker.run(lambda: asker.web.server.asking.ask_all(other, "ab"))
    assert [each.why for each in told.missing] == ["answered what this version cannot read"]


def test_a_node_that_was_not_heard_of_for_long_is_not_waited_for(asker: RunningServer) -> None:
    peer = peer_of(asker)._replace(silent_s=41.0)
    asking = asker.web.server.asking
    told = asker.run(lambda: asking.ask_all(ECHO, "ab", [peer]))
    assert [each.why for each in told.missing] == ["was not heard of for 41 s"]
    assert asker.run(lambda: asking.ask_all(ECHO, "ab")).answers[0][1] == "abab"


def test_what_is_no_question_is_logged(
    asker: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    hear = asker.web.server.asking.hear
    for body in (b"\xff", b"\x80", b"{}"):
        asker.call(partial(hear, body))
    assert caplog.text.count("another node asked something unknown") == 3


def test_a_node_that_is_alone_asks_nobody(server: RunningServer) -> None:
    asking = server.web.server.asking
    assert list(asking.peers) == []
    assert server.run(lambda: asking.ask_all(ECHO, "ab")) == ([], [])
