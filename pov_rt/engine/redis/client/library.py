"""The functions that run inside Redis: one library, named by what it contains.

The files of `functions/` are put together in the order of their names, each in a block of its own,
but those that begin with `0`, whose locals all later ones see. Names of libraries and functions are
global in a Redis, so they carry the hash of the code: each version of this package brings its own,
and old and new nodes live side by side.

A file declares functions so:

    define('name', {'no-writes'}, function(prefix, args, now) ... end)

`prefix` is the first of the keys (of one partition), `args` are those of the call behind the clock,
and `now` is in microseconds since 1970.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Final

from pov_rt.engine.redis.client.connection import Connection, ServerError

PREFIX = "povrt1_"
COMMON = "0"
MISSING = "Function not found"


class Library:
    """A library's code and names."""

    def __init__(self, parts: dict[str, str]) -> None:
        body = "\n".join(
            text if name.startswith(COMMON) else f"do\n{text}\nend\n"
            for name, text in sorted(parts.items())
        )
        self.name: Final = PREFIX + blake2b(body.encode(), digest_size=4).hexdigest()
        head = f"#!lua name={self.name}\nlocal LIBRARY = '{self.name}_'\n"
        self.code: Final = (head + body).encode()

    def function(self, name: str) -> bytes:
        """Return a function's name in Redis."""
        return f"{self.name}_{name}".encode()

    async def load(self, connection: Connection) -> None:
        """Have Redis know the functions. Raises `ServerError`, `Away`."""
        try:
            await connection.call("FUNCTION", "LOAD", self.code)
        except ServerError as error:
            if "already exists" not in str(error):
                raise


@cache
def library() -> Library:
    """Return the library of this package."""
    folder = files("pov_rt.engine.redis") / "functions"
    return Library(
        {each.name: each.read_text() for each in folder.iterdir() if each.name.endswith(".lua")}
    )


def is_missing(reply: object) -> bool:
    """Tell whether Redis refused because it does not know the library."""
    return isinstance(reply, ServerError) and MISSING in str(reply)
