"""Publishers that number what they publish, which has no id that would tell a retry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tests.checker.activities import Activity
from tests.checker.clients import LOST, Http, make_token
from tests.checker.producers import PATIENCE_S, Producer
from tests.checker.records import History, Place

BATCH = 50
REPEATED = 0.2
"""How often what the server has is sent again; it is whenever a connection was lost."""
UNKNOWN_FOR_NOW = ("unavailable", "timeout", "rate_limited", "internal")


class Numbered(NamedTuple):
    """An activity and its number; it has a name, for the server makes its id."""

    activity: Activity
    seq: int

    def encode(self, producer: str) -> bytes:
        """Return it as it is sent."""
        data = msgspec.to_builtins(self.activity)
        del data["id"]
        return msgspec.json.encode({**data, "producer": producer, "seq": self.seq})


class NumberedProducer(Producer):
    """Posts batches with numbers, each until it knows of all; and at times an old one again."""

    def __init__(
        self, history: History, port: int, name: str, team: str, rate: float, seed: int
    ) -> None:
        super().__init__(history, port, name, team, rate, seed)
        self._http = Http(port, make_token(name, team, service=True))
        self._done: Sequence[Numbered] = []

    async def run(self) -> None:
        """Publish to the end."""
        while not self.stopped:
            batch = [self._make() for _ in range(self.random.randrange(1, BATCH))]
            await self._publish(batch)
            self._done = batch
            if self.random.random() < REPEATED:
                await self._repeat()
            await self.pace(len(batch))

    def reset(self) -> None:
        """Cut the connection."""
        self._http.reset()

    async def _repeat(self) -> None:
        """Publish again what the server has, as a relay that did not hear of it."""
        if self._done and self.history.durable:
            await self._publish(self._done, is_old=True)
            self.history.counts["numbers repeated"] += 1

    def _make(self) -> Numbered:
        activity = self.source.make(is_named=True)
        made = Numbered(activity, self.source.made)
        self.history.numbered[self.history.numbers[activity.id]] = made.seq
        return made

    async def _publish(self, batch: Sequence[Numbered], *, is_old: bool = False) -> None:
        """Publish in the order of the numbers, until it is known what became of each.

        `is_old`: it is there already, as the server said.
        """
        may_be_there = is_old
        while batch:
            body = b"\n".join(each.encode(self.name) for each in batch)
            try:
                status, answer, _ = await self._http.request(
                    "/api/activities", body, lines=True, patience_s=PATIENCE_S
                )
            except LOST as error:
                is_away = isinstance(error, ConnectionRefusedError)
                may_be_there = may_be_there or not is_away
                await self.hold("refused connections" if is_away else "unknown")
                if not is_old:  # the server may be another one by now
                    await self._repeat()
                continue
            found = json.loads(answer)
            if status != 200:
                await self.hold("refused", self.refuse(found["error"]))
                continue
            left = []
            for each, result in zip(batch, found["results"], strict=True):
                if result.get("error", {}).get("code") in UNKNOWN_FOR_NOW:
                    left.append(each)
                else:
                    self._take(each, result, may_be_there=may_be_there, is_old=is_old)
            if left:
                may_be_there = True  # a commit may have failed at its very end
                await self.hold("refused")
            batch = left

    def _take(
        self, each: Numbered, result: dict[str, Any], *, may_be_there: bool, is_old: bool
    ) -> None:
        name, notes = each.activity.id, self.history.notes
        if "error" in result:
            self.refuse(result["error"])
        elif result.get("duplicate"):
            if not may_be_there:
                text = f"{name}, number {each.seq} of {self.name}, was taken for a retry: {result}"
                notes.add("number", text)
            place = Place(result["epoch"], result["offset"])
            self.history.kept.setdefault(self.history.numbers[name], place)
        elif is_old:
            notes.add("number", f"{name} is there already, and was published anew: {result}")
        else:
            self.history.acknowledge(name, result["epoch"], result["offset"])
