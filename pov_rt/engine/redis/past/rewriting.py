"""Other bodies for what is there, and topics that go: functions/40_rewriting.lua does each step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from pov_rt.engine.base import Amended, Amendment, Conflict, Rewrite
from pov_rt.engine.redis.appending import Appending
from pov_rt.engine.redis.client.functions import Functions
from pov_rt.engine.redis.layout import hash_of
from pov_rt.engine.redis.state.marks import RedisMarks
from pov_rt.protocol.topics import team_topic

ANY_FEED = team_topic("")
"""Stands for the feed that a topic's entries are in: all feeds are kept alike."""
STEP_ENTRIES = 50
"""What a step of `drop` removes. What others ask of Redis meanwhile waits for it."""


class Rewriting:
    """Changes entries that are there; see `base.Log`.

    `settle` returns when this node was told of whatever had happened before.
    """

    def __init__(
        self,
        functions: Functions,
        appending: Appending,
        marks: RedisMarks,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._functions = functions
        self._appending = appending
        self._marks = marks
        self._settle = settle

    async def amend(self, amendment: Amendment) -> Amended | Conflict | None:
        rewrite, new, others = amendment
        new = new._replace(topic=rewrite.topic, feed="")
        _, *args = self._appending.args(new)
        rules = self._appending.rules(new.topic, ANY_FEED)
        rewrites = self._args([rewrite, *others])
        reply = await self._functions.call("amend", new.topic, rules, *args, *rewrites)
        if reply[0] == b"n":
            return None
        feed = reply.pop().decode() if reply[0] == b"a" else ""
        done = self._appending.judge(reply, new.publisher)
        await self._settle()
        return done.result if isinstance(done.result, Conflict) else Amended(done.result, feed)

    async def edit(self, rewrites: Sequence[Rewrite]) -> Sequence[bool]:
        # Done once more, it would find the new bodies.
        done = await self._functions.call("edit", "", *self._args(rewrites), repeats=False)
        if any(done):
            await self._settle()
        return [bool(each) for each in done]

    async def drop(self, topic: str, stub: Callable[[bytes], bytes]) -> None:
        call, is_gone = self._functions.call, False
        while not is_gone:
            page = await self._functions.ask("drop_page", topic, STEP_ENTRIES)
            if not page:
                break
            epoch, first, *bodies = page
            stubs = [stub(body) for body in bodies if body is not None]
            ids = hash_of(topic), self._appending.window_us
            # Done once more, it finds another first entry, and the page is read anew.
            is_gone = await call("drop_some", topic, topic, epoch, first, len(bodies), *ids, *stubs)
        await self._marks.drop_topic(topic)
        await self._settle()

    def _args(self, rewrites: Sequence[Rewrite]) -> list[bytes | str | int]:
        args: list[bytes | str | int] = []
        for topic, offset, old, body in rewrites:
            args += (self._functions.partitions.of(topic), topic, offset, old, body)
        return args
