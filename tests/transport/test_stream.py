"""Logs as events and lines: places as tokens, pairs, and the answer to a request that waits."""

from __future__ import annotations

import asyncio

import pytest

from pov_rt.engine.base import Top
from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.stream import (
    LINE_FRAMING,
    MESSAGE_FRAMING,
    EventFraming,
    PollTransport,
    offset_of,
    read_token,
    write_token,
)

ONE = b'{"type":"activity","data":{"details":{"offset":9}},"offset":1}'
TWO = b'{"type":"activity","data":{},"offset":2,"feed":"*"}'
THERE = b'{"type":"position","povId":"acme","offset":7}'


def test_a_token_is_read_as_it_was_written_and_sorts() -> None:
    tokens = [write_token("e-1", offset) for offset in (0, 9, 10, 2**53 - 1)]
    assert tokens == sorted(tokens)
    assert [read_token(token) for token in tokens] == [
        ("e-1", 0),
        ("e-1", 9),
        ("e-1", 10),
        ("e-1", 2**53 - 1),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "now",
        "e_1",
        "_0000000000000001",
        "e_9999999999999999",
        "a,b",
    ],
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert read_token(text) is None


def test_the_offset_of_a_message_is_its_last_one() -> None:
    assert [offset_of(body) for body in (ONE, TWO, THERE)] == [1, 2, 7]


def events(framing: EventFraming, *bodies: bytes, up_to_date: bool = True) -> str:
    return framing.join(bodies, up_to_date=up_to_date).decode()


def test_messages_are_a_pair_of_events() -> None:
    framing = EventFraming(Top("e", 7, 1), lambda: 5)
    control = 'event: control\ndata:{"streamNextOffset":"e_0000000000000002","streamCursor":"5"'
    data = f"event: data\nid: e_0000000000000002\ndata:[{ONE.decode()},{TWO.decode()}]\n\n"
    assert events(framing, ONE, TWO) == f'{data}{control},"upToDate":true}}\n\n'
    assert events(framing, ONE, TWO, up_to_date=False) == f"{data}{control}}}\n\n"
    assert framing.frame(ONE).decode() == events(framing, ONE)


def test_a_position_is_no_item_but_the_place_behind_them() -> None:
    framing = EventFraming(Top("e", 7, 1), lambda: 5)
    assert events(framing, THERE).startswith('event: control\ndata:{"streamNextOffset":"e_')
    text = events(framing, ONE, THERE)
    assert "id: e_0000000000000001\n" in text
    assert '"streamNextOffset":"e_0000000000000007"' in text


def test_a_session_has_an_event_for_each_message() -> None:
    assert MESSAGE_FRAMING.frame(THERE) == b"data:" + THERE + b"\n\n"
    both = MESSAGE_FRAMING.frame(ONE) + MESSAGE_FRAMING.frame(TWO)
    assert MESSAGE_FRAMING.join((ONE, TWO)) == both


class Peer:
    """Hears of the end."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def receive(self, payload: bytes, is_text: bool) -> None: ...

    def lagging(self) -> None: ...

    def lost(self, reason: str) -> None:
        self.ends.append(reason)


def test_what_comes_first_is_the_answer_and_replay_waits_for_its_end() -> None:
    async def run() -> None:
        poll, peer = PollTransport(), Peer()
        poll.start(peer)
        await poll.drained()
        assert not poll.woken.done()
        poll.send(LINE_FRAMING.join((ONE, TWO)))
        await poll.woken
        poll.send_soon(LINE_FRAMING.frame(THERE))
        assert poll.take() == [ONE, TWO, THERE]
        assert poll.heard()
        waits = asyncio.ensure_future(poll.drained())
        done, _ = await asyncio.wait([waits], timeout=0)
        assert not done
        poll.end("answered")
        poll.end("once more")
        await waits
        assert peer.ends == ["answered"]
        poll.send(ONE)
        assert poll.traffic == (0, len(ONE + TWO + THERE) + 3)

    asyncio.run(run())


def test_a_connection_that_is_closed_wakes_its_request() -> None:
    async def run() -> None:
        for how in (lambda poll: poll.close(CloseCode.RESTARTING), PollTransport.abort):
            poll = PollTransport()
            poll.start(Peer())
            how(poll)
            await poll.woken
            assert poll.take() == []

    asyncio.run(run())
