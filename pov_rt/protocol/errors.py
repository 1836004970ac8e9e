"""Every error code and close code, and the exceptions that carry them.

`ClientError` and its subclasses are the only exceptions whose words reach a client. Anything else
that a handler raises becomes `internal` with an incident id; its details stay in the log.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Self


class ClientError(Exception):
    """An error that the caller is told about, over the socket or as HTTP.

    `message` is for people; `code` is stable and for programs; `field` is the wire name (a path
    like `data.povId` where nested) of the field at fault; `retry_after_s` is given where retrying
    helps; `extra` holds further wire fields (camelCase).
    """

    code = "invalid_request"
    status = 400
    message = "Invalid request"

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        **extra: Any,
    ) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)
        self.field = field
        self.retry_after_s = retry_after_s
        self.extra = extra

    def as_fields(self) -> dict[str, Any]:
        """Return the wire fields after `message`: code, field, retryAfter and the extra ones."""
        fields: dict[str, Any] = {"code": self.code}
        if self.field is not None:
            fields["field"] = self.field
        if self.retry_after_s is not None:
            # Rounded up: a client that comes back too early is refused again.
            fields["retryAfter"] = math.ceil(self.retry_after_s * 1000) / 1000
        fields.update(self.extra)
        return fields

    def within(self, path: str) -> Self:
        """Return the same error for who sent the value at fault at `path` of something larger.

        A new object: a plugin may raise the same one again elsewhere.
        """
        moved = type(self).__new__(type(self), *self.args)
        moved.__dict__.update(self.__dict__)
        if self.field is not None:
            moved.field = f"{path}.{self.field}"
        return moved


class InvalidMessage(ClientError):
    """The frame is not JSON, not an object, or has a missing or wrong field."""

    code = "invalid_message"
    message = "Invalid message format"


class UnknownType(ClientError):
    """No plugin has registered the message's `type`."""

    code = "unknown_type"
    message = "Unknown message type"


class InvalidRequest(ClientError):
    """An HTTP request's body, query or path is wrong."""


class InvalidActivity(ClientError):
    """An activity breaks one of the rules for its fields."""

    code = "invalid_activity"
    message = "Invalid activity"


class InvalidId(ClientError):
    """An id is empty, too long or reserved, or has a character that no id may have.

    The same at every door. Over the socket its message is `InvalidMessage`'s, as the contract has
    it for every wrong field, and what is wrong is the `detail`.
    """

    code = "invalid_id"
    message = "Invalid id"


class TokenError(ClientError):
    """A token is missing, malformed, forged, for another purpose, or lacks a claim."""

    code = "token_invalid"
    status = 401
    message = "The token is missing or invalid"
    bearer = ""
    """Whose it is, where a key of ours has signed that; the sender is not told."""


class TokenUnsigned(TokenError):
    """No key of ours has signed it, or it is no token: whoever sends it may be anybody."""


class TokenExpired(TokenError):
    """The token was good once; its `exp` has passed."""

    code = "token_expired"
    message = "The token has expired; fetch a new one"


class TokenRevoked(TokenError):
    """The token was revoked."""

    code = "token_revoked"
    message = "The token was revoked"


class Forbidden(ClientError):
    """The token does not grant this."""

    code = "forbidden"
    status = 403
    message = "The token does not grant this"


class NotFound(ClientError):
    """Nothing is there under that name."""

    code = "not_found"
    status = 404
    message = "Not found"


class MethodNotAllowed(ClientError):
    """The path exists; the method does not."""

    code = "method_not_allowed"
    status = 405
    message = "Method not allowed"


class IdConflict(ClientError):
    """The same publisher used the id before, with another body."""

    code = "id_conflict"
    status = 409
    message = "This id was already used for a different activity"


class Retracted(ClientError):
    """The activity was retracted, and cannot be changed any more."""

    code = "retracted"
    status = 409
    message = "This activity was retracted; it cannot be changed any more"


class EpochChanged(ClientError):
    """The topic's log was replaced; offsets of the old one mean nothing."""

    code = "epoch_changed"
    status = 409
    message = "The log of this PoV has a new epoch; subscribe again"


class PositionLost(ClientError):
    """A log over HTTP cannot be followed from there; `extra` says where it begins and ends.

    `missed` is there where that is known: how many entries are gone.
    """

    code = "position_lost"
    status = 410
    message = "The position is lost"


class TooLarge(ClientError):
    """A body, a batch or a field is above its bound."""

    code = "too_large"
    status = 413
    message = "Too large"


class LimitExceeded(ClientError):
    """A bound per connection or user is reached (subscriptions, connections, devices)."""

    code = "limit_exceeded"
    status = 429
    message = "A limit is reached"


class RateLimited(ClientError):
    """Too many messages or requests; `retry_after_s` says when there is room again."""

    code = "rate_limited"
    status = 429
    message = "Too many messages; slow down"


class HandlerTimeout(ClientError):
    """The handler did not finish in time; `outcome: unknown` is in `extra` if it was publishing."""

    code = "timeout"
    status = 504
    message = "The server did not finish this in time"


class Unavailable(ClientError):
    """The server cannot do this now: it is draining, or its engine is not ready or full."""

    code = "unavailable"
    status = 503
    message = "Temporarily unavailable; try again"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class Internal(ClientError):
    """A handler failed. `incident` (in `extra`) is in the log beside the traceback."""

    code = "internal"
    status = 500
    message = "Internal error"


class Rejected(ClientError):
    """A refusal with the plugin's own stable `code`, such as `poll_closed`."""

    code = "rejected"

    def __init__(self, code: str, message: str, *, field: str | None = None, **extra: Any) -> None:
        super().__init__(message, field=field, **extra)
        self.code = code


ERRORS: tuple[type[ClientError], ...] = (
    InvalidMessage,
    UnknownType,
    InvalidRequest,
    InvalidActivity,
    InvalidId,
    TokenError,
    TokenExpired,
    TokenRevoked,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    IdConflict,
    Retracted,
    EpochChanged,
    PositionLost,
    TooLarge,
    LimitExceeded,
    RateLimited,
    HandlerTimeout,
    Unavailable,
    Internal,
)
"""Every built-in error; docs/protocol.md has an entry for each code, and a test compares them."""
_BY_CODE = {each.code: each for each in ERRORS}


def rebuild(code: str, message: str, field: str | None, retry_after_s: float | None) -> ClientError:
    """Return the error that another node refused with; one of an unknown code is `Internal`."""
    kind = _BY_CODE.get(code, Internal)
    error = kind.__new__(kind)
    ClientError.__init__(error, message, field=field, retry_after_s=retry_after_s)
    return error


class CloseCode(Enum):
    """Why the server closes a socket: (code, reason). 4000-4499 reconnect, 4500-4999 do not.

    Codes below 4000 are those of RFC 6455, section 7.4.1.
    """

    NORMAL = (1000, "")
    PROTOCOL_ERROR = (1002, "protocol error")
    INVALID_UTF8 = (1007, "invalid utf-8")
    TOO_BIG = (1009, "message too big")
    INTERNAL = (1011, "internal error")
    RESTARTING = (4000, "restarting")
    TOKEN = (4001, "token expired or revoked")
    SLOW_CONSUMER = (4002, "slow consumer")
    PING_TIMEOUT = (4003, "ping timeout")
    GAP = (4004, "gap, reconnect to recover")
    OVERLOADED = (4005, "overloaded")
    DISCONNECTED = (4500, "disconnected by an operator")
    FLOODING = (4501, "too many messages")

    @property
    def code(self) -> int:
        """The number in the close frame."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The short, stable text in the close frame."""
        return self.value[1]

    @property
    def reconnect(self) -> bool:
        """Tell whether a client should come back by itself."""
        return reconnects(self.code)


def reconnects(code: int) -> bool:
    """Tell whether a client should come back by itself after a close code, known or not."""
    return code < 4500 and code not in (1000, 1002, 1007, 1009)
