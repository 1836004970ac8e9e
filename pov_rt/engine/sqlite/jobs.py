"""What the writer is given: batches to append, and any other operation on the database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pov_rt.engine.base import Appended, Conflict, NewEntry
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import payer

ResultT = TypeVar("ResultT")
Operation = Callable[[sqlite3.Connection], ResultT]

ENTRY_BYTES = 400
"""What an entry that waits costs beside its body: names, and the objects around them."""


class Outcome(NamedTuple):
    """What became of a batch: of its entries, or of those before the one that `error` stopped.

    `feed` has each entry's offset in its feed (0: it is in none), `at` is when all were appended,
    `epochs` has those of their topics.
    """

    results: list[Appended | Conflict]
    feed: list[int]
    at: float
    epochs: Mapping[str, str]
    error: Unavailable | None = None


class Job(Generic[ResultT]):
    """Something to be written. `size` is how many bytes it holds in memory while it waits.

    `owner` is for whom: who may have a part of what waits.
    """

    def __init__(self, size: int, owner: str) -> None:
        self.size = size
        self.owner = owner
        self.future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()

    def finish(self, result: Any) -> ResultT | Exception:
        """Take over what was written on the loop; return what the future gets, when all are."""
        raise NotImplementedError


class Append(Job[list[Appended | Conflict]]):
    """A batch to append."""

    def __init__(
        self, batch: Sequence[NewEntry], tell: Callable[[Sequence[NewEntry], Outcome], None]
    ) -> None:
        size = sum(len(new.body) for new in batch) + ENTRY_BYTES * len(batch)
        super().__init__(size, batch[0].publisher if batch else "")
        self.batch = batch
        self._tell = tell

    def finish(self, result: Outcome) -> list[Appended | Conflict] | Unavailable:
        """Tell what is on disk now."""
        self._tell(self.batch, result)
        return result.results if result.error is None else result.error


class Change(Job[ResultT]):
    """Any other operation, which holds `size` bytes. A refusal it raises is its caller's alone.

    `tell` takes over the result on the loop, in the order of the jobs.
    """

    def __init__(
        self,
        operation: Operation[ResultT],
        size: int = 0,
        tell: Callable[[ResultT], None] | None = None,
    ) -> None:
        super().__init__(ENTRY_BYTES + size, payer.get())
        self._operation = operation
        self._tell = tell

    def apply(self, connection: sqlite3.Connection) -> ResultT | Exception:
        """Run the operation in the open transaction; return its result or its refusal."""
        try:
            return self._operation(connection)
        except (Unavailable, UnicodeError) as error:
            return error

    def finish(self, result: ResultT) -> ResultT:
        """Tell what was done."""
        if self._tell is not None:
            self._tell(result)
        return result


class Scrub(Job[None]):
    """To have the files rebuilt, between two commits."""

    def __init__(self) -> None:
        super().__init__(ENTRY_BYTES, payer.get())

    def finish(self, result: None) -> None:
        """They are rebuilt."""
