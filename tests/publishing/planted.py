"""Bugs to plant into apps, relays and server, each of which the check has to find.

Each changes what one function does, as a slip there would; one whose place is gone is noticed
(`tests/publishing/test_publishing.py`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from pov_rt.client.publishing import outbox, relay
from pov_rt.client.publishing.items import numbered
from pov_rt.client.publishing.outbox import Claim, Claimed, Outbox, Table
from pov_rt.client.publishing.relay import Relay, Step
from pov_rt.client.publishing.spool import Publisher, Waiting
from pov_rt.runtime.clock import new_id
from tests.checker.planted_engine import acknowledge_early
from tests.checker.planting import find, replace

LATE_S = 0.3


class Bug(NamedTuple):
    """A bug, which ways of publishing have to find it, and by which check."""

    text: str
    plant: Callable[[], None]
    kinds: Collection[str]
    ways: Sequence[str] = ("spool", "sqlite")
    kills: int = 12
    """Some are bugs only where somebody is killed."""


def leave_out() -> None:
    """Count some as sent that were not."""
    send, turns = find(Relay, "_send"), count()

    def skip(self: Relay, claim: Claim) -> Step:
        if next(turns) % 3:  # the first is left out, so that it is found
            return send(self, claim)  # type: ignore[no-any-return]
        claim.done.extend(row.id for row in claim.rows)
        return Step(len(claim.rows), full=True)

    replace(Relay, "_send", skip)


def send_anew() -> None:
    """Give an activity its id when it is sent, and no number: what is sent again is another one."""

    def anew(body: str, producer: str, seq: int) -> bytes:
        return json.dumps({**json.loads(body), "id": new_id()}).encode()

    find(relay, "numbered")
    replace(relay, "numbered", anew)


def keep_some() -> None:
    """Leave some of what was sent, which is sent again, as new."""
    send_anew()
    finish, turns = find(Table, "_finish"), count()

    def keep(self: Table, claim: Claim) -> None:
        if next(turns) % 3 == 0:
            claim.done.clear()
        finish(self, claim)

    replace(Table, "_finish", keep)


def remove_early() -> None:
    """Remove what is sent before the server has it."""
    claim_rows = find(Table, "claim")

    @contextmanager
    def early(self: Table, *given: Any) -> Iterator[Claim]:
        with claim_rows(self, *given) as claim:
            claim.done.extend(row.id for row in claim.rows)
        claim.done.clear()
        yield claim

    replace(Table, "claim", early)


def keep_late() -> None:
    """Return from `publish`, and commit a while later."""
    put = find(Publisher, "_put")

    def late(self: Publisher, together: Sequence[Waiting]) -> None:
        def put_now() -> None:
            with self._lock:
                put(self, together)

        threading.Timer(LATE_S, put_now).start()

    replace(Publisher, "_put", late)


def commit_at_once() -> None:
    """Commit what is added to a transaction."""
    add = Outbox.add

    def committed(target: Any, *given: Any, **named: Any) -> str:
        name = add(target, *given, **named)
        target.commit()
        return name

    replace(Outbox, "add", staticmethod(committed))


def send_backwards() -> None:
    """Send the newest of a claim first."""
    select = find(Table, "_select")

    def backwards(self: Table, *given: Any) -> list[Claimed]:
        return list(reversed(select(self, *given)))

    replace(Table, "_select", backwards)


def send_without_numbers() -> None:
    """Send backwards, and without the numbers by which the server would notice."""
    send_backwards()
    find(outbox, "Table")

    def plain(body: str, producer: str, seq: int) -> bytes:
        assert numbered(body, producer, seq)
        return body.encode()

    replace(relay, "numbered", plain)


BUGS = {
    "left out": Bug("some are never sent", leave_out, {"lost"}, ("sqlite",), kills=0),
    "twice": Bug("some are sent twice, as new ones", keep_some, {"doubled"}, ("sqlite",), kills=0),
    "sent anew": Bug("what is sent again is a new one", send_anew, {"doubled"}, kills=40),
    "early": Bug("rows are removed before the server has them", remove_early, {"lost"}),
    "unsafe": Bug("publish returns before it is committed", keep_late, {"lost"}, ("spool",)),
    "committed": Bug(
        "what is added to a transaction is committed at once", commit_at_once, {"unwanted"},
        ("sqlite", "postgresql"), kills=0,
    ),
    "backwards": Bug("the newest is sent first", send_backwards, {"lost", "order"}, kills=0),
    "no order": Bug("the same, without numbers", send_without_numbers, {"order"}, kills=0),
    "server": Bug(
        "the server acknowledges before it has committed", acknowledge_early, {"lost"},
    ),
}  # fmt: skip
