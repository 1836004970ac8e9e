"""Where a server is: for HTTP and for its socket, over TCP or a Unix socket."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit


class Address(NamedTuple):
    """Where a server is: for HTTP, without a '/' at the end, and for sockets.

    `unix` is the Unix socket, or `place` the host and port, that these names lead to if not where
    their host is; `shown` is for people then.
    """

    http: str
    socket: str
    unix: str | None = None
    place: tuple[str, int] | None = None
    shown: str = ""

    @property
    def name(self) -> str:
        """What people know it by, without a query or a user: a token, or a password, is in them."""
        return re.sub(r"//[^/]*@", "//", (self.shown or self.http).partition("?")[0])


def parse_url(url: str) -> Address:
    """Return where the server is: `HOST:PORT`, `unix:/PATH`, or a URL of its HTTP side or socket.

    Raises ValueError for anything else.
    """
    wrong = f"{url!r} is no address; write it like http://127.0.0.1:8765 or unix:/run/pov-rt.sock"
    if url.startswith("unix:/"):
        return at_unix(url.removeprefix("unix:"), "localhost")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(wrong) from error
    secure = {"http": "", "ws": "", "https": "s", "wss": "s"}.get(parts.scheme)
    if secure is None or not host or port == 0:
        raise ValueError(wrong)
    found = re.fullmatch(r"(.*?)(/ws(?:/.*)?)?/?", parts.path)
    base, path = found.groups() if found else (parts.path, None)
    query = f"?{parts.query}" if parts.query else ""
    path = "/ws/" if path in (None, "/ws") else path
    return Address(
        f"http{secure}://{parts.netloc}{base}", f"ws{secure}://{parts.netloc}{base}{path}{query}"
    )


def at_unix(path: str, name: str) -> Address:
    """Return the address of a server at a Unix socket that answers to a name."""
    return parse_url(name)._replace(unix=os.path.abspath(path), shown=f"unix:{path}")
