"""What the trace keeps: one event each, of a user or of a PoV."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Literal

import msgspec

from pov_rt.protocol.encoding import DECODE_ERRORS, encode
from pov_rt.protocol.tenants import wire_of
from pov_rt.protocol.topics import pov_of
from pov_rt.runtime.clock import rfc3339

Kind = Literal[
    "started",
    "stopped",
    "opened",
    "closed",
    "joined",
    "replayed",
    "held",
    "lost",
    "left",
    "acked",
    "read",
    "seen",
    "shown",
    "failed",
    "denied",
    "refused",
    "rejected",
    "conflict",
]

MAX_CHARS = 200
"""Of what others wrote: an error's words, a path."""
MAX_FILTER_BYTES = 2000
"""A larger filter is kept without what it says."""


class Event(msgspec.Struct, array_like=True, frozen=True):
    """One thing that happened, as it is kept in memory and in the file.

    `at` is in seconds since 1970. `run` and `number` tell it from all others: which start of the
    server it is of, and its place among those. Where it is not about one, `user`, `device`,
    `connection` and `topic` are "", and `offset` is 0. `more` is what its kind adds.
    """

    at: float
    kind: Kind
    run: str
    number: int
    user: str
    device: str = ""
    connection: str = ""
    topic: str = ""
    offset: int = 0
    more: Mapping[str, Any] = {}

    def shown(self) -> dict[str, Any]:
        """Return it as operators are shown it."""
        fields: dict[str, Any] = {"at": rfc3339(self.at), "event": self.kind}
        if self.user:
            fields["userId"] = wire_of(self.user)
        if self.device:
            fields["device"] = self.device
        if self.connection:
            fields["connectionId"] = self.connection
        if self.topic.startswith("user/"):
            fields["inbox"] = True
        elif self.topic:
            fields["povId"] = wire_of(pov_of(self.topic))
        if self.offset or self.kind in ("joined", "left", "replayed"):
            fields["offset"] = self.offset
        return fields | dict(self.more)


_encode = msgspec.json.Encoder(enc_hook=str).encode
read_line = msgspec.json.Decoder(Event).decode
"""Return the event of a line. Raises what is among `DECODE_ERRORS`."""


def line_of(event: Event) -> bytes:
    """Return an event as the file has it: a line of JSON."""
    return _written(event) + b"\n"


MARK, END, LINE = b"\1", b"\0", b"\n"
"""Before and behind whose a line is, and behind it; a line has them nowhere else."""
LEAST_BYTES = 24
"""Of a line."""


class Rings:
    """The newest lines of one run by key, each key's in one text. Owner: the trace.

    A line has not whose it is where the one before says so, and none has the run: nearly all users
    have two lines, of the same connection, and objects around them would take as much again
    (docs/measurements.md, rings of the trace). Of more than `most` lines those go whose key was
    added to longest ago.
    """

    def __init__(self, run: str, each: int, most: int) -> None:
        self._run = b'"%b",' % run.encode()
        self._each = each
        self._most = most
        self._texts: dict[str, bytes] = {}  # the key that was added to last is the last
        self._numbers: dict[str, int] = {}
        """How many lines the long texts have: to count them takes longer than all else."""
        self.count = 0
        """Of how many lines."""

    def add(self, key: str, event: Event) -> bytes:
        """Add an event, and return its line; the oldest makes room if the key has too many."""
        line = line_of(event)
        own = _written((event.user, event.device, event.connection))[1:-1]
        text = self._with(self._texts.pop(key, b""), line, own)
        self.count += 1
        if len(text) > self._each * LEAST_BYTES:
            known = self._numbers.get(key)
            number = text.count(LINE) if known is None else known + 1
            if number > self._each:
                text = _without_first(text)
                number, self.count = number - 1, self.count - 1
            self._numbers[key] = number
        self._texts[key] = text
        if self.count > self._most:
            self._make_room()
        return line

    def lines(self, key: str) -> Sequence[bytes]:
        """Return a key's lines, the oldest first."""
        return [line for line, _ in self._lines_in(self._texts.get(key, b""))]

    def having(self, needle: bytes) -> Iterator[tuple[str, Sequence[bytes]]]:
        """Yield the keys that have this in their lines, but for the run, with all of those."""
        for key, text in list(self._texts.items()):
            if needle in text:
                yield key, self.lines(key)

    def keep(self, key: str, lines: Collection[bytes] = ()) -> None:
        """Forget those of a key's lines that are not among these."""
        text = b""
        for line, own in self._lines_in(self._texts.get(key, b"")):
            if line in lines:
                text = self._with(text, line, own)
            else:
                self.count -= 1
        self._numbers.pop(key, None)
        if text:
            self._texts[key] = text
        else:
            self._texts.pop(key, None)

    def _with(self, text: bytes, line: bytes, own: bytes) -> bytes:
        """Return a text with one line more."""
        short = line.replace(self._run, b"", 1)
        begin = short.index(own)
        end = begin + len(own)
        if text.startswith(own + END, text.rfind(MARK) + 1):
            return b"".join((text, short[:begin], END, short[end:]))
        return b"".join((text, short[:begin], MARK, own, END, short[end:]))

    def _lines_in(self, text: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield a text's lines, with whose they are."""
        own = b""
        for line in text.splitlines(keepends=True):
            begin, rest = line.split(END)
            begin, _, mark = begin.partition(MARK)
            own = mark or own
            at, kind, number = begin.split(b",", 2)
            yield b"%b,%b,%b%b%b%b" % (at, kind, self._run, number, own, rest), own

    def _make_room(self) -> None:
        # Many at once: a dict is slow at losing its first entry again and again.
        gone = []
        for key, text in islice(self._texts.items(), len(self._texts) - 1):
            if self.count <= self._most - self._most // 16:
                break
            self.count -= self._numbers.pop(key, 0) or text.count(LINE)
            gone.append(key)
        for key in gone:
            del self._texts[key]


def _without_first(text: bytes) -> bytes:
    """Return a text without its first line."""
    after = text.index(LINE) + 1
    mark, end = text.find(MARK, after), text.index(END, after)
    if after <= mark < end:
        return text[after:]
    own = text[text.index(MARK) : text.index(END)]
    return b"".join((text[after:end], own, text[end:]))


def _written(value: Any) -> bytes:
    """Return something as JSON."""
    try:
        return _encode(value)
    except UnicodeEncodeError:  # a lone surrogate, in what was refused
        return _encode(_readable(msgspec.to_builtins(value, enc_hook=str)))


def _readable(value: Any) -> Any:
    """Return what `to_builtins` does, with a question mark for what no encoder takes."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case list() | tuple():
            return [_readable(each) for each in value]
        case dict():
            return {_readable(name): _readable(each) for name, each in value.items()}
    return value


def needles_of(user_id: str) -> Sequence[bytes]:
    """Return what to look for in lines about a user, or about the node itself."""
    return encode(user_id), b'"started"', b'"stopped"'


def read_those(lines: Iterable[bytes], needles: Sequence[bytes]) -> Iterator[Event]:
    """Yield the events whose lines have one of these in them, but what a crash cut short."""
    for line in lines:
        if any(needle in line for needle in needles):
            with suppress(*DECODE_ERRORS):
                yield read_line(line)


def without(lines: Iterable[bytes], user_id: str) -> Iterator[bytes]:
    """Yield the lines that do not concern a user."""
    needle = encode(user_id)[1:-1]
    for line in lines:
        if needle not in line:
            yield line
        else:
            yield from (
                line for event in read_those((line,), (needle,)) if not concerns(event, user_id)
            )


def concerns(event: Event, user_id: str) -> bool:
    """Tell whether an event is a user's, or names them as a publisher."""
    publisher = str(event.more.get("publisher", ""))
    return event.user == user_id or publisher.partition(":")[2] == user_id


def cut(text: str) -> str:
    """Return what others wrote, as much of it as is kept."""
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."


def filter_of(only: Any) -> Any:
    """Return a filter as it is kept; True for one that is too large for that."""
    if not only:
        return None
    body = encode(only)
    return msgspec.json.decode(body) if len(body) <= MAX_FILTER_BYTES else True
