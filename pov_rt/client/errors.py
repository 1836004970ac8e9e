"""What the client raises, with words that say what to do. All of it is a `PovError`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pov_rt.protocol.redaction import redact


class PovError(Exception):
    """Something that the client, or the server, could not do."""


class Refused(PovError):
    """The server refuses. `code` is one of docs/protocol.md, or a plugin's own.

    `field` is what is at fault, `detail` says why, `retry_after_s` when to ask again, `incident` is
    what the operator finds in the log. With `outcome` "unknown" it may have been done.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.code = str(answer.get("code", "unknown"))
        self.message = str(answer.get("message", "no reason given"))
        self.field: str | None = answer.get("field")
        self.detail: str | None = answer.get("detail")
        self.retry_after_s: float | None = answer.get("retryAfter")
        self.incident: str | None = answer.get("incident")
        self.outcome: str | None = answer.get("outcome")
        detail = f": {self.detail}" if self.detail else ""
        about = f"{self.code} {self.field or ''}".strip()
        super().__init__(redact(f"{self.message}{detail} ({about})"))


class ConnectionLost(PovError):
    """There is no connection, and the client comes back: what was asked may have been done or not.

    `retry_after_s` is what the server asked for.
    """

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(redact(why))
        self.retry_after_s = retry_after_s


class SessionEnded(PovError):
    """The client does not come back: what is wrong does not pass by itself.

    The token is refused and there is no other one, the server closed for good, what is there is no
    pov-rt server, or `retry` said no. `status` is that of the HTTP answer, where it was one.
    """

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(redact(why))
        self.status = status


class RequestTimeout(PovError, TimeoutError):
    """No answer came in time: what was asked may be done, or be done yet."""


class Closed(PovError):
    """The client, or this subscription, is closed."""


class Missed(PovError):
    """Activities are missing that the server has no longer; `gap` says which.

    It is raised where neither `get_state` nor `on_gap` was given. The subscription goes on behind
    the gap: iterate again.
    """

    def __init__(self, gap: Any) -> None:
        super().__init__(str(gap))
        self.gap = gap
