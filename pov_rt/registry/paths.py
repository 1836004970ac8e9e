"""Paths below /api: which are the server's own, and which request would never get to a route.

Of all paths that fit a request the first has it, whatever the method; the server's own come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

OWN: Final = (
    "/auth/ws-token",
    "/activities",
    "/activities/stream",
    "/activities/{activity_id}",
    "/activities/{activity_id}/explain",
    "/connections",
    "/inbox/stream",
    "/messages",
    "/plugins",
    "/povs",
    "/povs/{pov_id}",
    "/povs/{pov_id}/activities",
    "/povs/{pov_id}/audit",
    "/povs/{pov_id}/stream",
    "/session",
    "/trace",
    "/users",
    "/users/{user_id}",
    "/users/{user_id}/block",
    "/users/{user_id}/export",
)
"""Those of the server, also where a setting leaves some out: what one can be called is no setting's
matter. A test compares them with the routes of `web/app`."""
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


def pattern_of(path: str) -> str:
    """Return the regular expression of a path with named parts."""
    return _PARAMETER.sub(r"(?P<\1>[^/]+)", path)


def find_cover(path: str, before: Iterable[str]) -> str | None:
    """Return the first of the paths that takes every request for `path`; None: it gets some."""
    # A part that is no id of anything else: only another named part takes it.
    request = _PARAMETER.sub("\0", path)
    return next((each for each in before if re.fullmatch(pattern_of(each), request)), None)
