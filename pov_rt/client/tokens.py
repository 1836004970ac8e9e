"""Where the client's tokens come from: a text, a function, or an exchange with the server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from pov_rt.client.errors import PovError, SessionEnded
from pov_rt.protocol.bodies import SocketToken
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.remote.addresses import Address, parse_url
from pov_rt.remote.answers import read_refusal
from pov_rt.remote.http import Http

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or what returns one that is still good; a function that blocks holds nothing up."""

EXCHANGE_S = 10.0
EXCHANGE_PATH = "/api/auth/ws-token"


class TokenSource(Protocol):
    """Gives a token whenever one is needed."""

    is_fixed: bool
    """Whether it is always the same one: to ask again when it is refused is of no use."""

    async def get(self, address: Address) -> str:
        """Return a token for a server. What it raises says why there is none now.

        `SessionEnded` says that there will be none.
        """


class Given:
    """The app's own tokens."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self.is_fixed = isinstance(token, str)

    async def get(self, address: Address) -> str:
        """Return the token of the moment."""
        if isinstance(self._token, str):
            return self._token
        # In a thread, for it may ask another server; one that is `async` only begins there.
        token = await asyncio.to_thread(self._token)
        return await token if inspect.isawaitable(token) else token


class Exchange:
    """Exchanges the app's access token for a socket token, at the token route of the server.

    `access` is what a user of the app is signed in with, or what returns it. `url` is where the
    route is, if not at the server that is connected to.
    """

    is_fixed = False

    def __init__(self, access: Token, url: str | None = None) -> None:
        self._access = Given(access)
        self._address = None if url is None else parse_url(url)

    async def get(self, address: Address) -> str:
        """Return a new socket token. Raises `SessionEnded` if the access token is refused."""
        there = self._address or address
        return await _exchange(there, await self._access.get(there))


async def _exchange(address: Address, access: str) -> str:
    http = Http(address, EXCHANGE_S)
    try:
        answer = await http.fetch("GET", EXCHANGE_PATH, access)
    finally:
        http.close()
    if answer.status == 401:
        refusal = read_refusal(answer)
        why = refusal.message if refusal else "no reason given"
        raise SessionEnded(f"{address.name} refuses the access token (401): {why}", 401)
    try:
        if answer.status == 200:
            return msgspec.json.decode(answer.body, type=SocketToken).token
    except DECODE_ERRORS:
        pass  # another one's 200, which the words below are for
    raise PovError(
        f"{address.name} gives no token at {EXCHANGE_PATH}: it answers {answer.status}"
        f" {read_refusal(answer) or ''}".rstrip()
    )


def source_of(token: Token | TokenSource) -> TokenSource:
    """Return where tokens come from, whichever way it was said."""
    return Given(token) if isinstance(token, str) or callable(token) else token
