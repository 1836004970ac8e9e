"""What a line to a server is: texts in both directions, over whatever carries them."""

from __future__ import annotations

from typing import Protocol

from pov_rt.client.errors import ConnectionLost, SessionEnded
from pov_rt.protocol.errors import CloseCode, TokenError, reconnects
from pov_rt.remote.addresses import Address
from pov_rt.remote.answers import HttpAnswer, read_refusal

PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be another one next time."""
REFUSES = (
    "refuses the token (401): it has expired, or is signed with another secret than the server's"
)
_REASONS = {each.code: each.reason for each in CloseCode}


class TokenRefused(Exception):
    """The server does not take the token; another one may do. `why` says what is wrong."""


class Line(Protocol):
    """One connection, from its opening to its end."""

    async def send(self, text: str) -> None:
        """Send a message; waits while much is unsent. Raises `ConnectionLost`."""

    async def receive(self) -> str | bytes:
        """Return the next message; may be cancelled, and then nothing is lost.

        At the end it raises `ConnectionLost`, `TokenRefused`, or `SessionEnded` for one after which
        nobody need come back.
        """

    async def close(self) -> None:
        """Close it, within a second."""


class Opener(Protocol):
    """Opens lines of one kind."""

    async def __call__(self, address: Address, token: str, device: str | None) -> Line:
        """Return an open line. Raises what `Line.receive` does."""


def explain(address: Address, error: Exception) -> str:
    """Say in words why a server cannot be reached, and what to do."""
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return f"nobody listens at {address.name}; start the server with: pov-rt serve --dev"
    if isinstance(error, EOFError):
        return f"cannot connect to {address.name}: it hung up"
    what = "no answer in time" if isinstance(error, TimeoutError) else str(error)
    return f"cannot connect to {address.name}: {what or type(error).__name__}"


def end_of(code: int | None, reason: str | None) -> Exception:
    """Return what the end of a line says: whether to come back, and with what.

    `code` is the close code, None where the connection ended without one; `reason` None is that of
    the code.
    """
    if code is None:
        return ConnectionLost("without a word")
    why = f"{code} {_REASONS.get(code, '') if reason is None else reason}".strip()
    if code == CloseCode.TOKEN.code:
        return TokenRefused(why)
    if not reconnects(code):
        return SessionEnded(f"the server closed the connection: {why}")
    return ConnectionLost(why)


def refusal_of(address: Address, answer: HttpAnswer) -> Exception:
    """Return what an answer that refuses a line says: whether to come back, and with what."""
    status, refusal = answer.status, read_refusal(answer)
    message = refusal.message if refusal else ""
    if status == 401:
        if refusal is None or refusal.code == TokenError.code:
            return TokenRefused(f"{address.name} {REFUSES}")
        return TokenRefused(f"{address.name} refuses the token (401): {message}")
    if status in PASSING:
        why = f"{address.name} answers {status}: {message}".rstrip(": ")
        return ConnectionLost(why, answer.retry_after_s)
    if status == 200:
        return SessionEnded(f"{address.name} is no pov-rt server: it has no WebSocket", status)
    return SessionEnded(
        f"cannot connect to {address.name}: HTTP {status} {message}".rstrip(), status
    )
