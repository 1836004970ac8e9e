"""What the log looks like: JSON lines for machines, coloured text on a terminal; never a secret.

Lines are escaped and redacted as a whole, after formatting. So it does not matter by which part of
a record a client's words or a token came in: the ones cannot break a line, the other does not show.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, TextIO

import msgspec

from pov_rt.protocol.characters import escape, escape_json
from pov_rt.protocol.redaction import TOKEN, redact
from pov_rt.protocol.tenants import SEPARATOR
from pov_rt.runtime.clock import Clock, SystemClock, rfc3339
from pov_rt.runtime.limits import Bucket, Rate

MAX_CHARS = 16 * 1024
"""Of a message, field or traceback; the middle of a longer one is left out. journald cuts a line at
48 KiB (LineMax= in journald.conf), and half a JSON line is none."""

Style = Literal["auto", "json", "text"]
"""`auto` is text on a terminal and JSON elsewhere."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

_SECRET_FIELDS = ("token", "authorization", "cookie", "secret", "password")
REQUESTS = "tornado.general"
"""Where Tornado tells what is no HTTP, which anybody can send, and the access log tells of once."""


def configure(
    style: Style, level: str, *, stream: TextIO, environ: Mapping[str, str] = os.environ
) -> None:
    """Send all logging of the process to the stream; may be called again with other settings."""
    terminal = stream.isatty()
    journal = _is_journal(stream, environ)
    formatter: LineFormatter
    if style == "text" or (style == "auto" and terminal):
        colours = terminal and not environ.get("NO_COLOR")
        formatter = TextFormatter(priorities=journal, colours=colours)
    else:
        formatter = JsonFormatter(priorities=journal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    of_requests = logging.DEBUG if level == "debug" else logging.WARNING
    logging.getLogger(REQUESTS).setLevel(max(of_requests, root.level))


def name_worker(number: int) -> None:
    """Have each line of this process say which of several workers it is."""
    make = logging.getLogRecordFactory()

    def named(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = make(*arguments, **more)
        record.worker = number
        return record

    logging.setLogRecordFactory(named)


class LineFormatter(logging.Formatter):
    """What both formats share. `priorities`: start each line with its own, as sd-daemon(3) says."""

    def __init__(self, *, priorities: bool) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line or lines."""
        text = redact(self.render(record))
        if not self._priorities:
            return text
        prefix = f"<{_PRIORITIES.get(record.levelname, 6)}>"
        return prefix + text.replace("\n", f"\n{prefix}")

    def render(self, record: logging.LogRecord) -> str:
        """Return the text, not yet redacted."""
        raise NotImplementedError

    def trace(self, record: logging.LogRecord) -> str:
        """Return the record's traceback and stack, or an empty string."""
        parts = [record.stack_info] if record.stack_info else []
        if record.exc_info and record.exc_info[0] is not None:
            parts.insert(0, self.formatException(record.exc_info))
        return _clip("\n".join(parts))


class JsonFormatter(LineFormatter):
    """One JSON object a line."""

    def render(self, record: logging.LogRecord) -> str:
        """Return the object: time, level, logger, message, the record's fields, exception."""
        fields: dict[str, object] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for key, value in _extra_fields(record):
            fields.setdefault(key, value)
        if trace := self.trace(record):
            fields["exception"] = trace
        try:
            line = msgspec.json.encode(fields).decode()
        except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot hold
            return json.dumps(fields)
        return escape_json(line)


class TextFormatter(LineFormatter):
    """For people: a line, and below it the traceback, indented."""

    def __init__(self, *, priorities: bool, colours: bool) -> None:
        super().__init__(priorities=priorities)
        self._colours = colours

    def render(self, record: logging.LogRecord) -> str:
        """Return `14:07:03.125 warning pov_rt.delivery.hub: message key=value`."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = self._paint(f"{record.levelname.lower():<7}", _COLOURS.get(record.levelname, "0"))
        origin = self._paint(f"{record.name}:", "2")
        line = f"{clock}.{int(record.msecs):03d} {level} {origin} {escape(_message(record))}"
        for key, value in _extra_fields(record):
            line += f" {self._paint(f'{key}=', '2')}{_quote(value)}"
        # The bar tells a traceback's lines, which hold others' words, from lines of the log.
        return "".join(
            [line, *(f"\n  | {escape(part)}" for part in self.trace(record).splitlines())]
        )

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


class Throttle:
    """Logs at most `per_s` lines a second, for what a crowd of clients can cause.

    The next line that gets through says how many were left out, as `suppressed`.
    """

    def __init__(
        self,
        logger: logging.Logger,
        per_s: float = 1.0,
        clock: Clock | None = None,
        *,
        burst: float = 1.0,
    ) -> None:
        self._logger = logger
        self._clock = clock or SystemClock()
        self._rate = Rate(per_s, burst=max(burst, per_s))
        self._bucket = Bucket(self._rate, self._clock.monotonic())
        self._suppressed = 0

    def log(self, level: int, message: str, *args: object, **fields: object) -> None:
        """Log the message with its fields, or count it."""
        if self._bucket.take(self._rate, self._clock.monotonic()):
            self._suppressed += 1
            return
        more = {"suppressed": self._suppressed} if self._suppressed else {}
        self._suppressed = 0
        self._logger.log(level, message, *args, extra=fields | more)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether the stream is the one that systemd connected to the journal.

    The variable alone does not say so: children with other outputs inherit it (systemd.exec(5)).
    """
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # io.UnsupportedOperation is one: a stream in memory
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _message(record: logging.LogRecord) -> str:
    try:
        return _clip(record.getMessage().replace(SEPARATOR, "/"))
    except Exception:  # logging would print the arguments to stderr, tokens and all
        return _clip(f"{record.msg!r} with wrong arguments {record.args!r}")


def _extra_fields(record: logging.LogRecord) -> Iterator[tuple[str, str | int | float | None]]:
    """Yield the fields of `extra=`, as scalars."""
    for key, value in record.__dict__.items():
        if key in _STANDARD:
            continue
        if _is_secret(key):
            yield key, TOKEN
        elif value is None or type(value) in (bool, int, float):
            yield key, value
        else:
            yield key, _clip(str(value).replace(SEPARATOR, "/"))


@lru_cache(256)
def _is_secret(key: str) -> bool:
    return key.lower().endswith(_SECRET_FIELDS)


def _clip(text: str) -> str:
    if len(text) > MAX_CHARS:
        text = redact(text)  # before a cut leaves half a token, which nothing recognises
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]} [...] {text[-half:]}"


def _quote(value: object) -> str:
    text = escape(str(value))
    return text if re.fullmatch(r"[^\s\"=]+", text) else json.dumps(text, ensure_ascii=False)
