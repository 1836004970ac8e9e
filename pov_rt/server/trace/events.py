"""What the trace keeps: one event each, of a user or of a PoV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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
    """Return an event as it is kept, in memory and in the file: a line of JSON."""
    # A copy that is as large as it looks: what the encoder returns keeps a third more behind its
    # end (docs/measurements.md, idle parts).
    try:
        return _encode(event) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, in what was refused
        return _encode(_readable(msgspec.to_builtins(event, enc_hook=str))) + b"\n"


def _readable(value: Any) -> Any:
    """Return what `to_builtins` does, with a question mark for what no encoder takes."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case list():
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
