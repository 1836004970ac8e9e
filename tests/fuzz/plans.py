"""Connections that are nearly right: seeded mutations of handshakes, frames, messages and manners.

A plan depends on its seed and number alone, so that each can be made again by itself.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from itertools import accumulate
from typing import NamedTuple

from pov_rt.transport.frames import Opcode
from tests.frames import masked_frame

MESSAGES = (
    '{"type":"ping"}',
    '{"type":"pong"}',
    '{"type":"ping","id":7}',
    '{"type":"subscribe","povId":"acme"}',
    '{"type":"subscribe","povId":"acme","since":{"epoch":"e","offset":1}}',
    '{"type":"subscribe","povId":"acme","since":{"last":100}}',
    '{"type":"subscribe","povId":"acme","since":"cursor","durable":true}',
    '{"type":"subscribe","povIds":["acme","a"],"id":"x","positions":{"a":{"epoch":"","offset":0}}}',
    '{"type":"resume"}',
    '{"type":"ack","povId":"acme","offset":1}',
    '{"type":"read","inbox":true,"offset":1}',
    '{"type":"seen","povId":"acme","offset":1,"epoch":"e"}',
    '{"type":"unread","povId":"acme","offset":1}',
    '{"type":"mute","povId":"*","level":"feed","until":"2999-01-01T00:00:00Z"}',
    '{"type":"subscribe","povId":"*"}',
    '{"type":"unsubscribe","povId":"acme"}',
    '{"type":"publish","data":{"type":"t","action":"a","povId":"acme","details":{"n":[1,2.5]}}}',
    '{"type":"nothing","povId":"\U0001f600\\u0000"}',
)
WORDS = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"',
    b"{" * 50,
    b"[" * 3000,
    b"1e999",
    b"-0",
    b"NaN",
    b"9" * 400,
    b"\\ud800",
    b"\r\n",
    b"null",
    b"\xef\xbb\xbf",
    b"__class__",
)
TOO_LONG = 65_537
"""One byte above what a message may have."""
LISTEN_S = 0.1
SETTLE_S = 0.03
"""Longer than the server takes from one answer to the next; what waits at the end is dropped."""


class End(Enum):
    """How a client ends its connection."""

    HALF_CLOSE = auto()
    """Says that it has nothing more to send, and reads to the end."""
    RESET = auto()
    CLOSE = auto()
    """Lets go of the socket, answers unread."""
    WAIT = auto()
    """Lets the server end it."""


class Send(NamedTuple):
    """Send a piece."""

    data: bytes


class Listen(NamedTuple):
    """Wait for bytes, for so long at most."""

    seconds: float


class Settle(NamedTuple):
    """Wait until nothing came for so long."""

    seconds: float


class Deafen(NamedTuple):
    """Read nothing for so many turns, while the next actions go on."""

    turns: int


Action = Send | Listen | Settle | Deafen


class Plan(NamedTuple):
    """What one client does. `frame_ends` is where each of its frames ends in what it sends."""

    number: int
    actions: Sequence[Action]
    end: End
    frame_ends: Sequence[int]
    small_buffer: bool
    """Its kernel holds little, so that the server has to."""


class Planner:
    """Makes plans of one seed for clients with this token."""

    def __init__(self, seed: int, token: str) -> None:
        self._seed = seed
        self._handshake = (
            f"GET /ws/?token={token}&device=fuzz HTTP/1.1\r\nHost: localhost\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://localhost\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    def plan(self, number: int) -> Plan:
        """Return the plan of this number."""
        dice = random.Random(f"{self._seed}/{number}")
        head, frames = self._stream(dice)
        end = dice.choice(tuple(End))
        if end is End.WAIT:
            frames.append(masked_frame(Opcode.CLOSE, dice.choice((b"", b"\x03\xe8", b"\x03\xe8x"))))
        data = b"".join((head, *frames))
        frame_ends = list(accumulate(map(len, frames), initial=len(head)))[1:]
        if frames and dice.random() < 0.2:
            data = head + mutate(dice, data[len(head) :])
        if dice.random() < 0.3:
            data = data[: dice.randrange(1, len(data) + 1)]  # so it ends in any state
        small_buffer = dice.random() < 0.1
        return Plan(number, list(_acts(dice, data, len(head))), end, frame_ends, small_buffer)

    def _stream(self, dice: random.Random) -> tuple[bytes, list[bytes]]:
        """Return a handshake and frames, or what is none."""
        what = dice.random()
        if what < 0.15:
            return mutate(dice, self._handshake), _frames(dice, dice.randrange(1, 6))
        if what < 0.18:
            return dice.randbytes(dice.randrange(1, 3000)), []
        if what < 0.75:
            return self._handshake, _frames(dice, dice.randrange(1, 30))
        # Long ones break the protocol seldom: most frames have to come as far as the dispatch.
        return self._handshake, [_message(dice) for _ in range(dice.randrange(100, 600))]


def mutate(dice: random.Random, data: bytes) -> bytes:
    """Change a few places: bits, bytes, words, cuts, repetitions."""
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(changed) + 1)
        what = dice.randrange(6)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif what == 1 and at < len(changed):
            changed[at] = dice.randrange(256)
        elif what == 2:
            changed[at:at] = dice.choice(WORDS)
        elif what == 3:
            del changed[at : at + dice.randrange(1, 20)]
        elif what == 4:
            changed[at:at] = changed[max(0, at - dice.randrange(1, 40)) : at]
        else:
            changed[at:at] = dice.randbytes(dice.randrange(1, 30))
    return bytes(changed)


def _message(dice: random.Random) -> bytes:
    """Return a text frame whose message is right, or nearly so but for UTF-8."""
    body = dice.choice(MESSAGES)
    if dice.random() < 0.5:
        body = mutate(dice, body.encode()).decode("utf-8", "replace")
    return masked_frame(Opcode.TEXT, body.encode(), mask=dice.randbytes(4))


def _frames(dice: random.Random, number: int) -> list[bytes]:
    """Return some frames: whole or in fragments, good or not."""
    found: list[bytes] = []
    while len(found) < number:
        what = dice.random()
        if what < 0.6:
            found.append(_message(dice))
        elif what < 0.8:
            found += _fragments(dice, mutate(dice, dice.choice(MESSAGES).encode()))
        elif what < 0.95:
            opcode = dice.choice((Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG))
            found.append(masked_frame(opcode, dice.randbytes(dice.choice((0, 1, 125, 126, 300)))))
        elif what < 0.97:
            code = dice.randrange(0x10000).to_bytes(2)
            found.append(masked_frame(Opcode.CLOSE, code + dice.randbytes(dice.randrange(4))))
        elif what < 0.98:
            found.append(masked_frame(Opcode.TEXT, b"x" * TOO_LONG))
        else:
            head = bytes((dice.randrange(256), dice.randrange(256)))
            found.append(head + struct.pack("!Q", dice.getrandbits(64)) + dice.randbytes(20))
    return found


def _fragments(dice: random.Random, body: bytes) -> Iterator[bytes]:
    """Yield a message in fragments, now and then with a ping between them."""
    cuts = sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(1, 6)))
    opcode = Opcode.TEXT
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        final = end == len(body) and dice.random() < 0.95
        yield masked_frame(opcode, body[start:end], fin=final)
        opcode = Opcode.CONTINUATION
        if dice.random() < 0.3:
            yield masked_frame(Opcode.PING, dice.randbytes(dice.randrange(126)))


def _acts(dice: random.Random, data: bytes, head: int) -> Iterator[Action]:
    """Yield the pieces in which data is sent, and what the client does between them."""
    average = dice.choice((5, 50, 500, 5000, 100_000))
    at = 0
    while at < len(data):
        # Few pieces of a byte or so: each costs a turn.
        size = dice.randrange(1, 2 * average)
        if at < head and dice.random() < 0.5:
            size = head - at
        if dice.random() < 0.1:
            yield Listen(LISTEN_S)
        if dice.random() < 0.03:
            yield Deafen(dice.randrange(1, 100))
        yield Send(data[at : at + size])
        at += size
        average = min(average * 2, 100_000)
    if dice.random() < 0.7:
        yield Settle(SETTLE_S)
