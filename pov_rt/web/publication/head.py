"""The head of a well-formed publication, read in one go; of anything else nothing is said.

What is well-formed here is less than what HTTP allows, as in `upgrade.head`: whatever could be read
in two ways is left to who answers it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pov_rt.web.upgrade.head import Head, read_fields

LINE = b"POST /api/activities HTTP/1.1\r\n"
END = b"\r\n\r\n"
MOST_BYTES = 16 * 1024
"""A whole request. What has come of one waits in memory uncounted, as heads do."""
OTHERS = frozenset(("transfer-encoding", "content-encoding", "expect", "upgrade"))
"""What makes of it something that most are not."""

_LENGTH = re.compile(rb"\r\ncontent-length: ?([1-9][0-9]{0,4})(?=\r\n)", re.IGNORECASE)


class Shape(NamedTuple):
    """A head: as bytes, before and behind the length of its body, and as it is read.

    All that one connection sends have the same one, as a rule: only the length is another.
    """

    before: bytes
    behind: bytes
    head: Head


class Framed(NamedTuple):
    """A request's head, and where its body begins and ends."""

    shape: Shape
    start: int
    end: int


def may_become(data: bytes) -> bool:
    """Tell whether this may be the beginning of a head, the rest of which has not come."""
    return len(data) < MOST_BYTES and END not in data and data.startswith(LINE[: len(data)])


def frame(data: bytes, known: Shape | None, remote_ip: str, *, is_unix: bool) -> Framed | None:
    """Return a publication's head, `known` if it is that one; None of anything else."""
    start = data.find(END) + len(END)
    found = _LENGTH.search(data, len(LINE) - 2, start - 2)
    if found is None or not data.startswith(LINE):
        return None
    end = start + int(found[1])
    if end > MOST_BYTES:
        return None
    before, behind = data[: found.start()], data[found.end() : start]
    if known is None or before != known.before or behind != known.behind:
        head = _read(data[:start], remote_ip, is_unix)
        if head is None:
            return None
        known = Shape(before, behind, head)
    return Framed(known, start, end)


def _read(data: bytes, remote_ip: str, is_unix: bool) -> Head | None:
    if not data.isascii():
        return None
    headers = read_fields(data.decode(), len(LINE))
    if (
        headers is None
        or not OTHERS.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    return Head("/api/activities", "", headers, remote_ip, is_unix)
