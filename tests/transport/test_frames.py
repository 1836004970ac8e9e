"""RFC 6455 in bytes: whatever a client sends, in whatever pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.frames import Opcode as Theirs

from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.frames import (
    TEXT_FRAMING,
    FrameParser,
    Opcode,
    binary_frame,
    close_frame,
    control_frame,
)
from tests.frames import masked_frame

LIMIT = 70_000
SIZES = (0, 1, 3, 4, 125, 126, 127, 65_535, 65_536, LIMIT)


def feed(
    data: bytes, sizes: list[int] | None = None, limit: int = LIMIT
) -> tuple[list[tuple[int, bytes]], FrameParser]:
    parser, events, at = FrameParser(limit), [], 0
    for size in sizes or [len(data)]:
        events += parser.feed(data[at : at + size])
        at += size
    events += parser.feed(data[at:])
    return events, parser


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_message_of_any_size_arrives(size: int, opcode: int) -> None:
    payload = b"x" * size
    theirs = Frame(Theirs(opcode), payload).serialize(mask=True)
    assert feed(theirs)[0] == [(opcode, payload)]
    assert feed(masked_frame(opcode, payload))[0] == [(opcode, payload)]


@pytest.mark.parametrize("size", SIZES)
def test_what_we_send_is_what_another_library_sends(size: int) -> None:
    payload = b"x" * size
    assert TEXT_FRAMING.frame(payload) == Frame(Theirs.TEXT, payload).serialize(mask=False)
    assert binary_frame(payload) == Frame(Theirs.BINARY, payload).serialize(mask=False)
    if size <= 125:
        theirs = Frame(Theirs.PONG, payload).serialize(mask=False)
        assert control_frame(Opcode.PONG, payload) == theirs
    else:
        with pytest.raises(ValueError, match="at most 125"):
            control_frame(Opcode.PONG, payload)


def test_a_long_reason_is_cut_between_characters() -> None:
    frame = close_frame(4000, "é" * 100)
    assert len(frame) == 2 + 2 + 122
    assert frame[4:].decode() == "é" * 61
    assert close_frame(4000, "\ud800").endswith(b"?")
    for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_536):
        with pytest.raises(ValueError, match="no close code"):
            close_frame(code, "")


messages = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.text(max_size=300), st.integers(1, 4)),
        st.tuples(st.just("binary"), st.binary(max_size=300), st.integers(1, 4)),
        st.tuples(st.just("ping"), st.binary(max_size=125), st.just(1)),
        st.tuples(st.just("pong"), st.binary(max_size=125), st.just(1)),
    ),
    max_size=8,
)


@given(messages, st.lists(st.integers(0, 50), max_size=60), st.randoms(use_true_random=False))
def test_the_pieces_in_which_bytes_arrive_do_not_matter(
    sent: list[tuple[str, str | bytes, int]], sizes: list[int], chance: random.Random
) -> None:
    data, expected = b"", []
    for kind, content, parts in sent:
        payload = content.encode("utf-8", "replace") if isinstance(content, str) else content
        opcode = {"text": 1, "binary": 2, "ping": 9, "pong": 10}[kind]
        cuts = sorted(chance.randint(0, len(payload)) for _ in range(parts - 1))
        pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for index, piece in enumerate(pieces):
            mask = chance.randbytes(4)
            first = opcode if index == 0 else Opcode.CONTINUATION
            data += masked_frame(first, piece, fin=index == len(pieces) - 1, mask=mask)
            if index < len(pieces) - 1:
                data += masked_frame(Opcode.PING, b"between")
                expected.append((Opcode.PING, b"between"))
        expected.append((opcode, payload))
    events, parser = feed(data, sizes)
    assert events == expected
    assert parser.error is None


@given(st.binary(max_size=300), st.lists(st.integers(0, 40), max_size=20))
def test_no_bytes_at_all_make_it_raise(data: bytes, sizes: list[int]) -> None:
    feed(data, sizes)


@given(messages, st.data())
def test_flipped_bits_do_not_make_it_raise(
    sent: list[tuple[str, str | bytes, int]], data: st.DataObject
) -> None:
    stream = bytearray(
        b"".join(
            masked_frame(1, c.encode("utf-8", "replace") if isinstance(c, str) else c)
            for _, c, _ in sent
        )
        or b"x"
    )
    for _ in range(data.draw(st.integers(1, 6))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    feed(bytes(stream), data.draw(st.lists(st.integers(0, 40), max_size=10)))


BAD = [
    (b"\x81\x01x", CloseCode.PROTOCOL_ERROR, "without a mask"),
    (b"\x91\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR, "reserved bit"),
    (b"\x83\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR, "unknown opcode 3"),
    (b"\x8b\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR, "unknown opcode 11"),
    (b"\x09\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR, "in fragments"),
    (b"\x89\xfe\x00\x7e", CloseCode.PROTOCOL_ERROR, "too long"),
    (b"\x80\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR, "continuation of nothing"),
    (masked_frame(1, b"a", fin=False) + masked_frame(1, b"b"), CloseCode.PROTOCOL_ERROR, "inside"),
    (masked_frame(8, b"x"), CloseCode.PROTOCOL_ERROR, "illegal close code"),
    (masked_frame(8, b"\x03\xed"), CloseCode.PROTOCOL_ERROR, "1005"),
    (masked_frame(8, b"\x03\xe8\xff"), CloseCode.INVALID_UTF8, "UTF-8"),
    (masked_frame(1, b"\xff"), CloseCode.INVALID_UTF8, "UTF-8"),
    (masked_frame(1, b"\xce\xba\xe1", fin=False)[:-1] + b"", None, ""),
    (masked_frame(1, b"ok\xf4\x90", fin=False), CloseCode.INVALID_UTF8, "UTF-8"),
    (masked_frame(1, b"\xed\xa0\x80"), CloseCode.INVALID_UTF8, "UTF-8"),
    (masked_frame(1, b"\xc3"), CloseCode.INVALID_UTF8, "UTF-8"),
    (masked_frame(2, b"x" * (LIMIT + 1))[:14], CloseCode.TOO_BIG, "above"),
    (b"\x82\xff" + (2**62).to_bytes(8) + b"\0\0\0\0", CloseCode.TOO_BIG, "above"),
    (b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0", CloseCode.PROTOCOL_ERROR, "above 2^63"),
    (b"\x81\xfe\0\x7d" + b"\0" * 129, CloseCode.PROTOCOL_ERROR, "shortest form"),
    (b"\x81\xff\0\0\0\0\0\0\xff\xff" + b"\0" * 4, CloseCode.PROTOCOL_ERROR, "shortest form"),
]


@pytest.mark.parametrize(("data", "close", "words"), BAD)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_is_wrong_has_its_close_code_and_what_was_complete_counts(
    data: bytes, close: CloseCode | None, words: str, one_by_one: bool
) -> None:
    good = masked_frame(1, b"good")
    stream = good + data
    events, parser = feed(stream, [1] * len(stream) if one_by_one else None)
    assert events == [(1, b"good")]
    if close is None:
        assert parser.error is None
        return
    assert parser.error is not None
    assert parser.error.close is close
    assert words in str(parser.error)
    assert parser.feed(good) == []


def test_fragments_together_are_bounded() -> None:
    part = masked_frame(2, b"x" * 40_000, fin=False)
    more = masked_frame(0, b"x" * 40_000)
    events, parser = feed(part + more)
    assert events == []
    assert parser.error is not None
    assert parser.error.close is CloseCode.TOO_BIG


def test_empty_fragments_cost_nothing() -> None:
    parser = FrameParser(LIMIT)
    assert parser.feed(masked_frame(1, b"a", fin=False)) == []
    assert parser.feed(masked_frame(0, b"", fin=False) * 20_000) == []
    assert parser.feed(masked_frame(0, b"b")) == [(1, b"ab")]


def test_after_a_close_nothing_counts() -> None:
    events, parser = feed(masked_frame(8, b"\x03\xe8bye") + masked_frame(1, b"late"))
    assert events == [(8, b"\x03\xe8bye")]
    assert parser.error is None
    assert parser.feed(masked_frame(1, b"later")) == []
