"""Whether a digest of what was missed can be true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.checker.records import History

NAMED = 20
"""Of sorts and of users, those that are named at most (docs/protocol.md, Recovery)."""
MAX_COUNTED = 10_000


def find_digest_problem(digest: Mapping[str, Any] | None, history: History) -> str | None:
    """Return what cannot be true in a digest; one may always be left out."""
    if digest is None:
        return None
    counted = digest["counted"]
    sorts, users = digest["activities"], digest["users"]
    if not 0 <= counted <= min(MAX_COUNTED, len(history.names)):
        return f"{counted} activities were counted"
    for parts, number in ((sorts, len(sorts)), (users, digest["people"])):
        total = sum(part["count"] for part in parts)
        if total > counted or (number <= NAMED and total < counted and number == len(parts)):
            return f"its parts have {total} of {counted} activities"
        if [part["count"] for part in parts] != sorted((p["count"] for p in parts), reverse=True):
            return "the most frequent is not the first"
    if len(users) != min(NAMED, digest["people"]):
        return f"of {digest['people']} people {len(users)} are named"
    strangers = {user["userId"] for user in users} - history.authors
    if strangers:
        return f"{strangers} never published"
    return None
