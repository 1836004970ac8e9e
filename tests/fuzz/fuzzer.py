"""Connections that are nearly right: seeded mutations of handshakes, frames and messages."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress

from pov_rt.frames import Opcode, masked_frame

MESSAGES = (
    '{"type":"ping"}',
    '{"type":"pong"}',
    '{"type":"ping","id":7}',
    '{"type":"subscribe","povId":"acme"}',
    '{"type":"subscribe","povIds":["a","b","c"],"id":"x"}',
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


class Failure(Exception):
    """The server did what it must not; the text says what and how to see it again."""


class Fuzzer:
    """Makes connections of one seed; the same seed makes the same ones."""

    def __init__(self, seed: int, token: str) -> None:
        self.random = random.Random(seed)
        self._token = token

    def handshake(self) -> bytes:
        """Return a good upgrade request."""
        return (
            f"GET /ws/?token={self._token}&device=fuzz HTTP/1.1\r\nHost: localhost\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://localhost\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    def mutate(self, data: bytes) -> bytes:
        """Change a few places: bits, bytes, words, cuts, repetitions."""
        dice = self.random
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

    def frames(self) -> bytes:
        """Return some frames: whole or in fragments, good or not."""
        dice = self.random
        parts = []
        for _ in range(dice.randrange(1, 12)):
            body = dice.choice(MESSAGES).encode()
            if dice.random() < 0.5:
                body = self.mutate(body)
            if dice.random() < 0.2:
                cut = dice.randrange(len(body) + 1)
                parts.append(masked_frame(Opcode.TEXT, body[:cut], fin=False))
                if dice.random() < 0.5:
                    parts.append(masked_frame(Opcode.PING, dice.randbytes(dice.randrange(126))))
                parts.append(masked_frame(Opcode.CONTINUATION, body[cut:]))
            elif dice.random() < 0.1:
                head = bytes((dice.randrange(256), dice.randrange(256)))
                parts.append(head + struct.pack("!Q", dice.getrandbits(64)) + body)
            else:
                parts.append(masked_frame(dice.choice((1, 1, 1, 2, 8, 9, 10)), body))
        data = b"".join(parts)
        return self.mutate(data) if dice.random() < 0.3 else data

    def connection(self) -> bytes:
        """Return all that a client sends."""
        what = self.random.random()
        if what < 0.2:
            return self.mutate(self.handshake()) + self.frames()
        if what < 0.25:
            return self.random.randbytes(self.random.randrange(1, 3000))
        return self.handshake() + self.frames()


def exchange(port: int, data: bytes, *, reset: bool) -> bytes:
    """Send everything, hang up, and return what the server says (nothing after a reset)."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as sock:
        answer = b""
        with suppress(ConnectionError):
            sock.sendall(data)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65536):
                answer += chunk
        return answer


def run(
    port: int, token: str, seed: int, connections: int, *, between: Callable[[int], None]
) -> Counter[str]:
    """Open so many connections; count how they were answered. `between` is called after each 100.

    Raises `Failure` for an answer of 500 or above.
    """
    fuzzer = Fuzzer(seed, token)
    answers: Counter[str] = Counter()
    for number in range(connections):
        data = fuzzer.connection()
        answer = exchange(port, data, reset=fuzzer.random.random() < 0.1)
        status = answer[9:12].decode("ascii", "replace") if answer.startswith(b"HTTP/") else "none"
        answers[status] += 1
        if status.startswith("5"):
            raise Failure(f"seed {seed}, connection {number}: {answer[:300]!r} to {data[:300]!r}")
        if number % 100 == 99:
            between(number + 1)
    return answers
