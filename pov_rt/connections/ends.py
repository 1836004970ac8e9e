"""Why connections end: the sorts of reasons by which they are counted.

The log has the whole reason, with what varies; a series of the metrics for each of those would be
as many as there are clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pov_rt.connections.http import ENDED
from pov_rt.protocol.errors import CloseCode
from pov_rt.transport.stream import ANSWERED, OVER, UNANSWERED
from pov_rt.transport.wire import ABORTED, CLOSED_BY_CLIENT, LOST, WENT_AWAY

ROUTINE: Final = frozenset({ANSWERED, UNANSWERED, OVER})
"""Ends after which a client comes for what follows, every minute: nothing to tell an operator."""
_VARIES = re.compile(r"[,:]| with \d")


def sort_of(reason: str) -> str:
    """Return what of a reason is the same for all connections that end so."""
    return _VARIES.split(reason, maxsplit=1)[0]


_ANY: Final = (
    *(sort_of(code.reason) for code in CloseCode if code.reason),
    WENT_AWAY,
    ABORTED,
)
_OF_SOCKETS: Final = (*_ANY, LOST)
SORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ws": (*_OF_SOCKETS, CLOSED_BY_CLIENT),
    "sse": (*_OF_SOCKETS, OVER, ENDED),
    "poll": (*_ANY, ANSWERED, UNANSWERED, OVER, ENDED),
}
"""All there are, by transport."""
