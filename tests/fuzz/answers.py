"""What a server may say to anybody, taken apart byte by byte: HTTP answers, then frames."""

from __future__ import annotations

import json

from pov_rt.transport.frames import FIN, MASKED, RESERVED, Opcode

KNOWN = (Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG)
HTTP = b"HTTP/1.1 "
MAX_HEAD_BYTES = 8192


class Failure(Exception):
    """The server did what it must not; the text says what, and how to see it again."""


class Answers:
    """Checks all that one connection is sent. Raises `Failure` for what no client should see.

    `status` is the first answer's, `frames` counts those that came, `cut` tells whether the last
    answer is incomplete.
    """

    def __init__(self) -> None:
        self.status = "none"
        self.frames = 0
        self._upgraded = False
        self._closed = False
        self._rest = b""

    @property
    def cut(self) -> bool:
        """Tell whether something began and has not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> None:
        """Take what came."""
        data = self._rest + data
        at = 0
        while at < len(data):
            if self._closed:
                raise Failure(f"bytes after a close frame: {data[at : at + 50]!r}")
            end = self._frame(data, at) if self._upgraded else self._response(data, at)
            if end is None:
                break
            at = end
        self._rest = data[at:]

    def _response(self, data: bytes, at: int) -> int | None:
        if not HTTP.startswith(data[at : at + len(HTTP)]):
            raise Failure(f"neither HTTP nor a frame: {data[at : at + 50]!r}")
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            if len(data) - at > MAX_HEAD_BYTES:
                raise Failure("the head of an answer does not end")
            return None
        head = data[at:end].decode("latin-1")
        status = head[len(HTTP) : len(HTTP) + 3]
        # A mutated method or coding is none that a server has to know (RFC 9110, 9.1).
        if not status.isdigit() or (status >= "500" and status not in ("501", "505")):
            raise Failure(f"answered {head!r}")
        size = 0
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                size = int(value)
        end += 4 + size
        if end > len(data):
            return None
        if self.status == "none":
            self.status = status
        self._upgraded = status == "101"
        return end

    def _frame(self, data: bytes, at: int) -> int | None:
        if len(data) - at < 2:
            return None
        first, size = data[at], data[at + 1]
        opcode = first & 0x0F
        if not first & FIN or first & RESERVED or opcode not in KNOWN or size >= MASKED:
            raise Failure(f"a frame that begins with {first:#x} {size:#x}")
        start = at + 2
        if size >= 126:
            if opcode >= Opcode.CLOSE:
                raise Failure(f"a control frame {opcode} of more than 125 bytes")
            start += 2 if size == 126 else 8
            if start > len(data):
                return None
            least = 126 if size == 126 else 1 << 16
            size = int.from_bytes(data[at + 2 : start])
            if size < least:
                raise Failure(f"{size} bytes in a frame with a longer header than that takes")
        end = start + size
        if end > len(data):
            return None
        self.frames += 1
        self._check(opcode, data[start:end])
        return end

    def _check(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.TEXT:
            try:
                message = json.loads(payload.decode())
            except ValueError as error:
                raise Failure(f"not JSON ({error}): {payload[:200]!r}") from error
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                raise Failure(f"not a message: {payload[:200]!r}")
            if message.get("code") == "internal":
                raise Failure(f"a handler failed: {payload[:200]!r}")
        elif opcode == Opcode.BINARY:
            raise Failure(f"binary: {payload[:50]!r}")
        elif opcode == Opcode.CLOSE:
            self._closed = True
            if payload:
                code = int.from_bytes(payload[:2])
                good = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
                if len(payload) < 2 or not (good or 3000 <= code <= 4999):
                    raise Failure(f"closed with {payload!r}")
                if code == 1011:
                    raise Failure("closed with 1011, an internal error")
                try:
                    payload[2:].decode()
                except UnicodeDecodeError as error:
                    raise Failure(f"closed with a reason that is not UTF-8: {payload!r}") from error
