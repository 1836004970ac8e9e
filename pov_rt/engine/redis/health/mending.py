"""What mends what Redis refuses: by the word that its refusal, or the lack of it, is known by."""

from __future__ import annotations

from typing import Final, NamedTuple

from pov_rt.engine.redis.client.connection import DENIED

RIGHTS = "give this user the rights of docs/operations.md, What a node may do on Redis"
MENDS: Final = {
    "WRONGPASS": "put the user and the password that Redis has into engine.url",
    "NOAUTH": "put the user and the password that Redis has into engine.url",
    "NOPERM": RIGHTS,
    DENIED: RIGHTS,
    "READONLY": "name the primary in engine.url, or make this one a primary: REPLICAOF NO ONE",
    "LOADING": "it reads its data after a start: wait until it has",
    "MASTERDOWN": "name the primary in engine.url",
    "OOM": "raise maxmemory, or keep less (engine.max_entries, engine.max_age_s)",
    "BUSY": (
        "somebody's script does not end, which is not ours to end: SCRIPT KILL or FUNCTION KILL"
    ),
    "MISCONF": "Redis cannot write its files: make room on its disk, and read its log",
    "CLUSTERDOWN": "name a Redis that is no node of a cluster in engine.url",
    "NOREPLICAS": "start its replicas, or lower min-replicas-to-write",
    "CERTIFICATE_VERIFY_FAILED": (
        "renew Redis's certificate, or name in engine.redis.ca_file who signed it"
    ),
    "cannot be reached": "see that it runs, and that engine.url names it",
    "did not answer": "see that it runs, and is not frozen or swapping",
}
"""Refusals, and lacks of an answer. The first that a text has is what it is about."""


class Trouble(NamedTuple):
    """What is wrong, and what mends it: a line to type, or what to look at."""

    what: str
    mend: str

    def __str__(self) -> str:
        """Return both as a line; what is wrong alone, where nobody knows what mends it."""
        return f"{self.what}. To mend it: {self.mend}" if self.mend else self.what


def trouble(what: str) -> Trouble:
    """Return what is wrong with what mends it, if that is known."""
    return Trouble(what, next((mend for word, mend in MENDS.items() if word in what), ""))


def mended(text: str) -> str:
    """Return a line that says what is wrong with what mends it behind it, if that is known."""
    return str(trouble(text))
