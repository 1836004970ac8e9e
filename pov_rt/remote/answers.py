"""What a server's answers say, and what it is sent: no I/O.

Anything may stand at an address: what cannot be read is no answer of a server's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import responses
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.protocol.characters import escape
from pov_rt.protocol.encoding import DECODE_ERRORS

PATH = "/api/activities"
JSON, LINES = "application/json", "application/x-ndjson"
TOKEN = re.compile(r"[A-Za-z0-9_.~+/=-]+", re.ASCII)
"""What a bearer token may be (RFC 6750, section 2.1): another one must not get into an error."""
NO_TOKEN = "the token is none: it has characters that no token has"  # noqa: S105  (words)
FIXED_TOKEN = "; the token is always the same: give a ServiceToken, or a function"  # noqa: S105
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of one answer or message: a page of history has a quarter of a megabyte and one activity more."""
MAX_RETRY_AFTER_S = 3600.0
MAX_TEXT = 200
"""Of what the server says a log has at most so many characters."""


class HttpAnswer(NamedTuple):
    """What the server answered: the status, Retry-After in seconds if given, the body.

    Names of headers are in small letters.
    """

    status: int
    retry_after_s: float | None
    body: bytes
    headers: Mapping[str, str] = {}


class Refusal(msgspec.Struct):
    """Why an activity was refused."""

    code: str
    message: str = ""

    def __str__(self) -> str:
        """Return both, for a log."""
        return f"{_cut(self.code)}: {_cut(self.message)}" if self.message else _cut(self.code)


class Refused(msgspec.Struct):
    """The body of an answer that refuses all."""

    error: Refusal


class ItemOutcome(msgspec.Struct):
    """What became of an activity."""

    error: Refusal | UnsetType = UNSET
    duplicate: bool = False


class Outcomes(msgspec.Struct):
    """The body of an answer to a batch."""

    results: list[ItemOutcome]


_read_batch_answer = msgspec.json.Decoder(Outcomes).decode
_read_refusal = msgspec.json.Decoder(Refused).decode


def read_refusal(answer: HttpAnswer) -> Refusal | None:
    """Return what the server says is wrong; None where something else answers than a server."""
    try:
        refusal = _read_refusal(answer.body).error
    except DECODE_ERRORS:
        return None
    return Refusal(_cut(refusal.code), _cut(refusal.message))


def read_results(answer: HttpAnswer, count: int) -> list[ItemOutcome] | None:
    """Return what became of each of `count` activities; None if the answer does not say so.

    Anything may stand at that address, such as a proxy's page, and answer 200.
    """
    if answer.status == 400:  # the batch as a whole
        return [ItemOutcome(read_refusal(answer) or Refusal("400"))] * count
    if answer.status != 200:
        return None
    try:
        results = _read_batch_answer(answer.body).results
    except DECODE_ERRORS:
        return None
    return results if len(results) == count else None


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds that a header Retry-After asks for, an hour at most; None for a date."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return min(float(value), MAX_RETRY_AFTER_S)


def summarise(answer: HttpAnswer) -> str:
    """Say in few words why an answer to a batch is no success."""
    if answer.status == 200:
        return "200, but is no pov-rt server: the body is no answer to a batch"
    refusal = read_refusal(answer)
    return f"{answer.status} {refusal or responses.get(answer.status, '')}".rstrip()


def _cut(text: str) -> str:
    """Return a text that a stranger may have written, as a log can have it."""
    return escape(text[:MAX_TEXT])
