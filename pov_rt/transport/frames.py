"""The bytes of WebSocket frames (RFC 6455): a strict parser for what clients send, and builders.

Nothing here touches a socket. The parser is the hottest inbound code of the server, so a short
masked text frame, which is what nearly every message is, has a branch of its own, which is cheaper
(docs/measurements.md, short frames).
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Final

from pov_rt.protocol.errors import CloseCode

FIN: Final = 0x80
RESERVED: Final = 0x70
MASKED: Final = 0x80
LENGTH_16: Final = 126  # the length is in the next 2 bytes
LENGTH_64: Final = 127  # the length is in the next 8 bytes
MAX_CONTROL_BYTES: Final = 125
"""The longest payload of a control frame (section 5.5)."""
SMALL_FRAGMENT: Final = 32
"""A fragment below this many bytes costs more to take apart than its message is worth."""
MAX_REASON_BYTES: Final = MAX_CONTROL_BYTES - 2


class Opcode:
    """What a frame is (section 5.2). Plain integers: an enum's members are slower to compare."""

    CONTINUATION: Final = 0
    TEXT: Final = 1
    BINARY: Final = 2
    CLOSE: Final = 8
    PING: Final = 9
    PONG: Final = 10


FINAL_TEXT: Final = FIN | Opcode.TEXT
OPCODES: Final = frozenset(
    (Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG)
)


class FrameError(Exception):
    """The client broke the protocol; `close` is what to close with, the text is for the log."""

    def __init__(self, close: CloseCode, problem: str) -> None:
        super().__init__(problem)
        self.close = close


Unmask = Callable[[bytes, bytes], bytes]
"""XORs a payload (the second argument) with a mask of 4 bytes (the first)."""


def xor_mask(mask: bytes, payload: bytes) -> bytes:
    """XOR the payload with its 4-byte mask, which is also how to mask it (section 5.3).

    For parsers that are not given a faster one.
    """
    # As two integers. Four slices and `bytes.translate` win only where the payload is large, which
    # is too rare for a second way (docs/measurements.md, masks).
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class FrameParser:
    """Turns the bytes of one client into messages and control frames. Owner: its connection.

    `error` says what the client did wrong, None while all is well. After an error or a close frame
    it has `ended`: everything further is ignored, and nothing is kept. An idle parser keeps no
    buffer. `controls` counts the control frames and small fragments, for the owner to charge and
    set back.
    """

    __slots__ = (
        "_max_message_bytes",
        "_message",
        "_tail",
        "_unmask",
        "controls",
        "ended",
        "error",
    )

    def __init__(self, max_message_bytes: int, unmask: Unmask = xor_mask) -> None:
        self.error: FrameError | None = None
        self.controls = 0
        self._max_message_bytes = max_message_bytes
        self._unmask = unmask
        self.ended = False
        # The start of a header or of a control frame: what is too short to act upon.
        self._tail = b""
        self._message: _Message | None = None

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return (opcode, payload) of each message and control frame that `data` completes.

        Text is valid UTF-8; a close payload is empty, or a legal code and a UTF-8 reason. Never
        raises: when `data` breaks the protocol, what was complete before is returned and `error`
        is set, so look at it after handling the events.
        """
        events: list[tuple[int, bytes]] = []
        if self.ended:
            return events
        if self._tail:
            data = self._tail + data
            self._tail = b""
        position = 0
        size = len(data)
        unmask = self._unmask
        try:
            if self._message is not None:
                position = self._continue(self._message, data, 0, events)
            while position < size:
                start = position + 6
                if (
                    start <= size
                    and data[position] == FINAL_TEXT
                    and MASKED <= (second := data[position + 1]) <= MASKED | LENGTH_16
                    and self._message is None
                ):
                    length = second - MASKED
                    if length == LENGTH_16:
                        # What has no such length by right, or is cut, goes the other way.
                        length = data[position + 2] << 8 | data[position + 3]
                        start += 2 if length >= LENGTH_16 else size
                    end = start + length
                    if end <= size and length <= self._max_message_bytes:
                        payload = unmask(data[start - 4 : start], data[start:end])
                        if not payload.isascii():
                            payload.decode()
                        events.append((Opcode.TEXT, payload))
                        position = end
                        continue
                position = self._take(data, position, events)
        except FrameError as error:
            # The traceback would keep this chunk alive as long as the error.
            self._end(error.with_traceback(None))
        except UnicodeDecodeError as error:
            self._end(FrameError(CloseCode.INVALID_UTF8, f"text is not UTF-8: {error.reason}"))
        return events

    def _take(self, data: bytes, position: int, events: list[tuple[int, bytes]]) -> int:
        """Take the frame of any kind at `position`, or what is there of it; return its end."""
        header = self._read_header(data, position)
        if header is None:
            return self._keep(data, position)
        first, length, start = header
        opcode = first & 0x0F
        size = len(data)
        end = start + length
        mask = data[start - 4 : start]
        if opcode >= Opcode.CLOSE:
            if end > size:
                return self._keep(data, position)
            payload = self._unmask(mask, data[start:end])
            self.controls += 1
            if opcode == Opcode.CLOSE:
                _check_close(payload)
                self._end()
                end = size
            events.append((opcode, payload))
            return end
        message = self._message
        if length + (len(message.payload) if message else 0) > self._max_message_bytes:
            raise FrameError(CloseCode.TOO_BIG, f"message above {self._max_message_bytes} bytes")
        final = first >= FIN
        if message is None:
            if final and end <= size:
                payload = self._unmask(mask, data[start:end])
                if opcode == Opcode.TEXT:
                    payload.decode()
                events.append((opcode, payload))
                return end
            message = self._message = _Message(opcode, self._unmask)
        if not final and length < SMALL_FRAGMENT:
            self.controls += 1
        message.begin_frame(final, length, mask)
        return self._continue(message, data, start, events)

    def _read_header(self, data: bytes, position: int) -> tuple[int, int, int] | None:
        """Return a frame's first byte, its length, and where its payload starts; None if cut."""
        size = len(data)
        if size - position < 2:
            return None
        first, second = data[position], data[position + 1]
        self._check(first, second)
        length = second & 0x7F
        start = position + 6
        if length < LENGTH_16:
            return (first, length, start) if start <= size else None
        width = 2 if length == LENGTH_16 else 8
        start += width
        if start > size:
            return None
        return first, _long_length(data[position + 2 : position + 2 + width]), start

    def _continue(
        self, message: _Message, data: bytes, position: int, events: list[tuple[int, bytes]]
    ) -> int:
        """Add what `data` has of the message's current frame; return where that ends."""
        end = min(len(data), position + message.missing)
        message.add(data[position:end])
        if message.final and not message.missing:
            events.append((message.opcode, bytes(message.payload)))
            self._message = None
        return end

    def _check(self, first: int, second: int) -> None:
        """Refuse what the first two bytes of a frame may not say (section 5.2)."""
        opcode = first & 0x0F
        if first & RESERVED:
            problem = "reserved bit set"
        elif opcode not in OPCODES:
            problem = f"unknown opcode {opcode}"
        elif second < MASKED:
            problem = "frame without a mask"
        elif opcode >= Opcode.CLOSE:
            if first >= FIN and second <= MASKED | MAX_CONTROL_BYTES:
                return
            problem = "control frame too long" if first >= FIN else "control frame in fragments"
        elif (opcode == Opcode.CONTINUATION) == (self._message is not None):
            return
        elif self._message is None:
            problem = "continuation of nothing"
        else:
            problem = "new message inside a fragmented one"
        raise FrameError(CloseCode.PROTOCOL_ERROR, problem)

    def _keep(self, data: bytes, position: int) -> int:
        """Keep the rest of `data`, at most an incomplete control frame, for the next chunk."""
        self._tail = data[position:]
        return len(data)

    def _end(self, error: FrameError | None = None) -> None:
        """Ignore all that follows, and release what was kept."""
        self.error = error
        self.ended = True
        self._message = None


class _Message:
    """A message of which not all has arrived: its payload so far, and its current frame."""

    __slots__ = ("_decoder", "_mask", "_unmask", "final", "missing", "opcode", "payload")

    def __init__(self, opcode: int, unmask: Unmask) -> None:
        self._unmask = unmask
        self.opcode = opcode
        self.payload = bytearray()
        # Bad text is refused at its first bad byte, not after megabytes more of it.
        is_text = opcode == Opcode.TEXT
        self._decoder = codecs.getincrementaldecoder("utf-8")() if is_text else None
        self.begin_frame(False, 0, b"")

    def begin_frame(self, final: bool, length: int, mask: bytes) -> None:
        """Expect `length` more bytes, masked with `mask`."""
        self.final = final
        self.missing = length
        self._mask = mask

    def add(self, masked: bytes) -> None:
        """Add the next bytes of the current frame. Raises UnicodeDecodeError for bad text."""
        chunk = self._unmask(self._mask, masked)
        self.missing -= len(chunk)
        turn = len(chunk) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        self.payload += chunk
        if self._decoder is not None:
            self._decoder.decode(chunk, self.final and not self.missing)


def _long_length(field: bytes) -> int:
    """Return the length in an extended field; it must need one, and be positive (section 5.2)."""
    length = int.from_bytes(field)
    least = LENGTH_16 if len(field) == 2 else 1 << 16
    if not least <= length < 1 << 63:
        problem = "length not in its shortest form" if length < least else "length above 2^63"
        raise FrameError(CloseCode.PROTOCOL_ERROR, problem)
    return length


def _is_close_code(code: int) -> bool:
    """Tell whether a close frame may carry `code` (section 7.4, and IANA's registry: 1012-1014)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def _check_close(payload: bytes) -> None:
    """Refuse a close payload that is not empty and has no legal code or no UTF-8 reason."""
    if payload:
        code = int.from_bytes(payload[:2])  # of one byte: below 256, so illegal too
        if not _is_close_code(code):
            raise FrameError(CloseCode.PROTOCOL_ERROR, f"illegal close code {code}")
        payload[2:].decode()


def _header(first: int, length: int) -> bytes:
    """Return the bytes before the payload; the length is encoded as short as can be."""
    if length < LENGTH_16:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, LENGTH_16)) + length.to_bytes(2)
    return bytes((first, LENGTH_64)) + length.to_bytes(8)


# Nearly every message is as short: looking its header up costs next to nothing, making
# it as much as a copy of the message (docs/measurements.md, headers).
_HEADERS: Final = tuple(_header(FINAL_TEXT, length) for length in range(1024))


class TextFraming:
    """How messages travel over a WebSocket: each in a text frame of its own.

    A body is UTF-8. What comes out needs nothing beside it: pieces may be joined.
    """

    __slots__ = ()

    transport = "ws"

    def frame(self, body: bytes) -> bytes:
        """Return one message as it is sent."""
        length = len(body)
        return (_HEADERS[length] if length < 1024 else _header(FINAL_TEXT, length)) + body

    def join(self, bodies: Sequence[bytes], *, up_to_date: bool = True) -> bytes:
        """Return several messages in one piece; headers and bodies are copied once."""
        parts: list[bytes] = []
        for body in bodies:
            length = len(body)
            parts += (_HEADERS[length] if length < 1024 else _header(FINAL_TEXT, length), body)
        return b"".join(parts)


TEXT_FRAMING: Final = TextFraming()


def binary_frame(payload: bytes) -> bytes:
    """Return a whole binary message."""
    return _header(FIN | Opcode.BINARY, len(payload)) + payload


def control_frame(opcode: int, payload: bytes) -> bytes:
    """Return a ping, a pong or a close frame; raise ValueError above 125 bytes."""
    if len(payload) > MAX_CONTROL_BYTES:
        raise ValueError(f"a control frame carries at most {MAX_CONTROL_BYTES} bytes")
    return _header(FIN | opcode, len(payload)) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame, its reason cut at 123 bytes between two characters.

    Raises ValueError for a code that RFC 6455 keeps off the wire. A lone surrogate becomes `?`.
    """
    if not _is_close_code(code):
        raise ValueError(f"{code} is no close code to send")
    text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
    return control_frame(Opcode.CLOSE, code.to_bytes(2) + text.encode())


EMPTY_CLOSE: Final = _header(FIN | Opcode.CLOSE, 0)
EMPTY_PING: Final = _header(FIN | Opcode.PING, 0)
