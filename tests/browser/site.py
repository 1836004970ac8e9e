"""An app's site: its pages, built from the SDK's sources, and the tokens of those signed in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.browser.listener import HOST, Listener
from tests.browser.tabs import Loop

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".woff2": "font/woff2",
}

STRICT = "default-src 'self'; require-trusted-types-for 'script'"
"""The strictest policy on which the components have to work."""

TokenOf = Callable[[str], str | None]
"""The socket token of a user; None where nobody is signed in."""


class Site:
    """Serves the files of a folder, and at `/token?user=` what `token_of` says; a context.

    It is another origin than the server, and stays when the server is away.
    """

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.token_of: TokenOf = lambda user: None
        self.asked: list[str] = []
        """For whom tokens were asked, in order."""
        self.policy = ""
        """The `Content-Security-Policy` of what is served from now on."""
        self._failures: list[Exception] = []
        """Of `token_of`."""
        self._loop = loop
        self._folder = folder
        self._listener = Listener(self._serve)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listener.port}"

    def __enter__(self) -> Self:
        self._loop.run(self._listener.open())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._listener.close())
        if self._failures:
            raise self._failures[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        await self._reply(head.split(b" ", 2)[1].decode(), writer)

    async def _reply(self, target: str, writer: asyncio.StreamWriter) -> None:
        status, kind, body = self._answer(target)
        # Going back to a page, Firefox takes what it fetched from the cache. A page that may
        # not be stored, on the other hand, is kept by no browser for going back to it.
        more = "Cache-Control: no-store\r\n" if target.startswith("/token") else ""
        if self.policy:
            more += f"Content-Security-Policy: {self.policy}\r\n"
        writer.write(
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode()
        )
        writer.write(body)
        await writer.drain()

    def _answer(self, target: str) -> tuple[HTTPStatus, str, bytes]:
        url = urlsplit(target)
        if url.path == "/token":
            (user,) = parse_qs(url.query)["user"]
            self.asked.append(user)
            try:
                token = self.token_of(user)
            except Exception as failure:
                self._failures.append(failure)
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"see the test"
            return HTTPStatus.OK, "application/json", json.dumps({"token": token}).encode()
        path = (self._folder / url.path.lstrip("/")).resolve()
        if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
            return HTTPStatus.NOT_FOUND, "text/plain", b"nothing is there"
        kind = TYPES.get(path.suffix, "application/octet-stream")
        return HTTPStatus.OK, kind, path.read_bytes()
