"""The head of a well-formed upgrade, read in one go; of anything else nothing is said.

What is well-formed here is less than what HTTP allows: a plain path below `/ws/`, printable ASCII,
each header once. So whatever could be read in two ways is left to who answers it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from tornado.httputil import HTTPServerRequest

NO_IP = "0.0.0.0"  # noqa: S104  (nobody listens there)
"""Who comes by a Unix socket, as Tornado has it."""

ECHO = "/ws/_echo"
"""Another route, if there is one."""
OTHERS = frozenset(("content-length", "transfer-encoding", "expect"))
"""What an upgrade has no use for."""

MAX_NAME_CHARS = 64
"""No header's name that anybody knows is as long."""

_LINE = re.compile(r'GET (/ws/[A-Za-z0-9/_-]*)(?:\?([!"$-~]*))? HTTP/1\.1\r\n')
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONNECTION = frozenset(("upgrade", "keep-alive, upgrade"))
"""As everybody writes it, but for the case."""
_END = b"\r\n\r\n"


class Fields(dict[str, str]):
    """Headers by their names in lower case, each of which came once; asked as Tornado's are."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and dict.__contains__(self, name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a header."""
        return dict.get(self, name.lower(), default)

    def get_list(self, name: str) -> list[str]:
        """Return all values of a header."""
        value = dict.get(self, name.lower())
        return [] if value is None else [value]


class Head(NamedTuple):
    """The head of a request, and who is connected, as `peer_ip` writes it."""

    path: str
    query: str
    headers: Fields
    remote_ip: str
    is_unix: bool
    version: str = "HTTP/1.1"


Asked = HTTPServerRequest | Head
"""A request's head, whoever has read it."""


@lru_cache(256)
def _read_name(name: str) -> str | None:
    """Return a header's name in lower case; None of what is no name."""
    return name.lower() if _NAME.fullmatch(name) else None


def read_fields(text: str, start: int) -> Fields | None:
    """Return the headers of a whole head, from where its first line ends; None unless all are good.

    That is, each is one, in ASCII, and came once.
    """
    if not text.isascii():
        return None
    headers, lines = Fields(), text[start : -len(_END)].split("\r\n")
    for line in lines:
        name, colon, value = line.partition(":")
        known = _read_name(name) if len(name) <= MAX_NAME_CHARS else None
        value = value.strip(" \t")
        if not colon or known is None or not (value.isprintable() or _has_but_tabs(value)):
            return None
        headers[known] = value
    return headers if len(headers) == len(lines) else None


def _has_but_tabs(value: str) -> bool:
    """Tell whether tabs are all that is not printable."""
    return value.replace("\t", "").isprintable()


def read_head(data: bytes, remote_ip: str, *, is_unix: bool) -> tuple[Head, bytes] | None:
    """Return the head of an upgrade, and what comes behind it; None of anything else."""
    end = data.find(_END) + len(_END)
    head = data[:end]
    if end < len(_END) or not head.isascii():
        return None
    text = head.decode()
    line = _LINE.match(text)
    if line is None or line[1] == ECHO:
        return None
    headers = read_fields(text, line.end())
    if (
        headers is None
        or not OTHERS.isdisjoint(headers)
        or headers.get("upgrade", "").lower() != "websocket"
        or headers.get("connection", "").lower() not in _CONNECTION
    ):
        return None
    return Head(line[1], line[2] or "", headers, remote_ip, is_unix), data[end:]
