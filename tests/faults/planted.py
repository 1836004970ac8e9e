"""The nodes under test, with a bug if `bug=NAME` stands before their command.

Each bug changes one step of the engine, as a slip there would; the run has to find it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pov_rt.cli.main import main
from pov_rt.engine.redis import writer
from pov_rt.engine.redis.client import functions
from pov_rt.engine.redis.client.library import Library
from pov_rt.engine.redis.log import RedisLog
from pov_rt.engine.redis.reader import Reader
from tests.checker.planting import find, replace

LAUNCHER = (sys.executable, "-m", "tests.faults.planted")


def rewrite(file: str, *changes: tuple[str, str]) -> None:
    """Have the functions inside Redis say something else; each text must be there once."""
    begin = Library.__init__

    def changed(library: Library, parts: dict[str, str]) -> None:
        text = parts[file]
        for old, new in changes:
            assert text.count(old) == 1, f"{file} has not once: {old}"
            text = text.replace(old, new)
        begin(library, parts | {file: text})

    replace(Library, "__init__", changed)


KEPT = """\
  keep_id(prefix, new.id, rules.window, {
    digest = new.digest, offset = state.offset, at = now, epoch = state.epoch,
    publisher = new.publisher,
  }, before)
"""
TOLD = "  local is_told = tell(prefix, new.topic, state, value)\n"


def tell_first() -> None:
    """Tell of an entry before its id is kept, and let that fail if it is not allowed."""
    rewrite(
        "05_appending.lua",
        (KEPT, ""),
        (TOLD, TOLD + KEPT),
        ("redis.pcall('PUBLISH'", "redis.call('PUBLISH'"),
    )


def share_epoch() -> None:
    """Have a log that another process wrote go on under the epoch that it had."""
    rewrite(
        "02_state.lua",
        ("  table.insert(state.older, 1, {epoch = state.epoch, last = state.offset})\n", ""),
        (
            "state.epoch, state.run = new_epoch(now) .. generation, this_run()",
            "state.run = this_run()",
        ),
    )


def trust_connection() -> None:
    """Listen again after a loss without a look at what was missed."""
    check = find(Reader, "check")

    async def trust(reader: Reader, topics: Sequence[str], *, is_sure: bool) -> None:
        if not is_sure:
            await check(reader, topics, is_sure=is_sure)

    replace(Reader, "check", trust)


def load_once() -> None:
    """Take functions that are gone for an answer like any other."""

    def never(_: object) -> bool:
        return False

    for module in (functions, writer):
        replace(module, "is_missing", never)


def hold_everything() -> None:
    """Take every place of an older epoch for one that the log still has."""

    async def holds(*_: Any) -> bool:
        return True

    replace(RedisLog, "holds", holds)


def mend_nothing() -> None:
    """Leave in a log what half a transaction has brought back."""
    rewrite("02_state.lua", ("    mend_list(prefix .. 's:' .. topic, state.offset)\n", ""))


class Bug(NamedTuple):
    """A bug, and the faults and checks that find it."""

    text: str
    plant: Callable[[], None]
    faults: Sequence[str]
    kinds: frozenset[str]


BUGS = {
    "telling first": Bug(
        "an entry is told of before its id is kept", tell_first, ["a channel denied"],
        frozenset({"twice", "retry"}),
    ),
    "shared epoch": Bug(
        "logs keep their epoch when another process has them", share_epoch,
        ["tail lost", "replaced"], frozenset({"ghost", "hole", "epoch", "stuck", "repeated"}),
    ),
    "no position check": Bug(
        "who listens again does not look for what was missed", trust_connection,
        ["cut off", "cut off, from Redis"], frozenset({"late", "stuck"}),
    ),
    "no reload": Bug(
        "functions that are gone are not loaded again", load_once, ["functions gone"],
        frozenset({"stuck", "refused", "closed"}),
    ),
    "holds all": Bug(
        "a place behind what was lost counts as one in the log", hold_everything,
        ["tail lost, one node away"], frozenset({"ghost", "hole", "stuck", "repeated"}),
    ),
    "no mending": Bug(
        "what half a transaction brought back stays in the log", mend_nothing,
        ["tail lost"], frozenset({"place"}),
    ),
}  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("bug="):
        BUGS[sys.argv.pop(1).partition("=")[2]].plant()
    main()
