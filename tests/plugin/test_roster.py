"""A roster tells of each coming and going once, and of nobody who is back in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from pov_rt.engine.base import Follower, Lease
from pov_rt.engine.local import LEASE_S, MemoryLeases
from pov_rt.plugin import Diff, Host, Part, Roster
from pov_rt.plugin.roster import LATE_S
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.clock import ManualClock
from pov_rt.runtime.turns import MEMBERS

GRACE_S = 10.0


class Seat(Part):
    """A member of the tests."""

    name: str
    tabs: int
    mood: str = "calm"


class Node:
    """A node's side of the leases, which all nodes of a test share."""

    def __init__(self, clock: ManualClock, leases: MemoryLeases) -> None:
        self.told: list[str] = []
        self.hear: Callable[[Sequence[str]], None] = self.told.extend
        """Called with those of whose end this node's listeners are told."""
        self.clock = clock
        self.leases: Any = leases
        self.tabs: dict[str, int] = {}
        host = cast("Host[Any]", self)
        self.roster = Roster(host, Seat, self.describe, grace_s=GRACE_S)

    def channel(self, pov_id: str) -> str:
        return f"seats/{pov_id}"

    def describe(self, pov_id: str, name: str, known: Seat | None) -> Seat | None:
        tabs = self.tabs.get(name, 0)
        return Seat(name=name, tabs=tabs, mood=known.mood if known else "calm") if tabs else None

    async def set(self, name: str, tabs: int) -> Diff[Seat]:
        self.tabs[name] = tabs
        self.roster.touch("acme", name)
        return await self.look()

    async def look(self) -> Diff[Seat]:
        diff = (await self.roster.look()).get("acme", Diff())
        diff.left[:0], self.told[:] = self.told, []
        return diff

    async def expire(self) -> None:
        await self.leases.expire()


class Nodes:
    """The nodes that share the leases: each hears of those that end."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def __contains__(self, _: object) -> bool:
        return True

    def left(self, topic: str, leases: Sequence[Lease]) -> None:
        for node in self.nodes:
            pov_id = topic.partition("/")[2]
            members = [lease.member for lease in leases]
            node.hear(members)
            node.roster.ended(pov_id, members)

    def share(self, clock: ManualClock) -> MemoryLeases:
        leases = MemoryLeases(clock, "n", self)
        leases.follower = cast("Follower", self)
        return leases

    def add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node


def names(diff: Diff[Seat]) -> tuple[list[str], list[str], list[str]]:
    return [s.name for s in diff.joined], diff.left, [s.name for s in diff.changed]


NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])

Test = Callable[[ManualClock, Callable[[], Node]], Awaitable[None]]


def on_nodes(test: Test) -> Callable[[], None]:
    def run() -> None:
        clock, nodes = ManualClock(), Nodes()
        leases = nodes.share(clock)
        asyncio.run(cast("Any", test(clock, lambda: nodes.add(Node(clock, leases)))))

    run.__name__ = getattr(test, "__name__", "test")
    return run


@on_nodes
async def test_a_member_joins_once_changes_and_leaves_after_the_grace(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    assert names(await one.set("ana", 1)) == (["ana"], [], [])
    assert names(await one.set("ana", 2)) == ([], [], ["ana"])
    assert names(await one.set("ana", 2)) == NOTHING
    one.roster.touch("acme", "ana", mood="merry")
    assert [seat.mood for seat in (await one.look()).changed] == ["merry"]
    assert [(s.tabs, s.mood) for s in (await one.roster.members("acme", 9))[0]] == [(2, "merry")]
    assert names(await one.set("ana", 0)) == NOTHING
    clock.advance(GRACE_S - 0.1)
    await one.expire()
    assert names(await one.look()) == NOTHING
    clock.advance(0.2)
    await one.expire()
    assert names(await one.look()) == ([], ["ana"], [])
    assert names(await one.set("ana", 1)) == (["ana"], [], [])
    assert (await one.roster.members("acme", 9))[0][0].mood == "calm"


@on_nodes
async def test_who_is_back_within_the_grace_never_left(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    await one.set("ana", 1)
    for _ in range(3):
        assert names(await one.set("ana", 0)) == NOTHING
        clock.advance(GRACE_S - 0.1)
        await one.expire()
        assert names(await one.set("ana", 1)) == NOTHING
    clock.advance(10 * GRACE_S)
    assert names(await one.look()) == NOTHING


@on_nodes
async def test_who_is_back_after_the_end_has_left_and_joined(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    await one.set("ana", 1)
    await one.set("ana", 0)
    clock.advance(GRACE_S + 0.1)
    await one.expire()
    assert (await one.roster.members("acme", 9))[0] == []
    assert one.told == ["ana"]
    assert names(await one.set("ana", 1)) == (["ana"], ["ana"], [])
    assert [seat.name for seat in (await one.roster.members("acme", 9))[0]] == ["ana"]


@on_nodes
async def test_who_is_here_when_the_lease_has_ended_is_entered_again_and_has_joined(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one, two = node(), node()
    await one.set("ana", 1)
    clock.advance(LEASE_S + 1)
    await one.expire()
    assert (one.told, two.told) == (["ana"], ["ana"])
    assert names(await one.look()) == (["ana"], ["ana"], [])


@on_nodes
async def test_who_was_entered_again_before_the_end_was_heard_is_told_of_once_more(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    await one.set("ana", 1)
    one.roster.ended("acme", ["ana"])
    assert names(await one.look()) == (["ana"], [], [])
    one.roster.ended("acme", ["ana"])
    assert names(await one.set("ana", 0)) == NOTHING
    assert names(await one.set("ana", 1)) == NOTHING, "nothing of it is left"


@on_nodes
async def test_after_its_lease_ran_out_a_node_enters_everybody_again(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    for name in ("ana", "ben"):
        await one.set(name, 1)
    clock.advance(LEASE_S + 1)
    assert (await one.roster.members("acme"))[0] == []
    assert not await one.leases.renew()
    one.roster.enter_again()
    assert names(await one.look()) == ([], [], ["ana", "ben"]), "whoever asked was told of nobody"
    await one.expire()
    assert [seat.name for seat in (await one.roster.members("acme"))[0]] == ["ana", "ben"]
    assert names(await one.look()) == NOTHING


@on_nodes
async def test_who_came_and_went_unseen_is_not_told_of(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    assert names(await one.set("ana", 0)) == NOTHING
    clock.advance(10 * GRACE_S)
    await one.expire()
    assert names(await one.look()) == NOTHING


@on_nodes
async def test_every_node_tells_of_those_who_leave_and_nothing_is_kept_of_them(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one, two = node(), node()
    assert names(await one.set("ana", 1)) == (["ana"], [], [])
    assert names(await one.set("ana", 0)) == NOTHING
    assert names(await two.set("ana", 1)) == ([], [], ["ana"])
    await two.set("ana", 0)
    clock.advance(GRACE_S + 0.1)
    await two.expire()
    assert names(await two.look()) == ([], ["ana"], [])
    assert names(await one.look()) == ([], ["ana"], [])
    clock.advance(LATE_S)
    assert names(await one.look()) == NOTHING
    assert one.roster.remembered == 0
    assert names(await one.set("ana", 1)) == (["ana"], [], [])


@on_nodes
async def test_what_could_not_be_entered_is_entered_later(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    put = one.leases.put

    async def fail(*_: Any) -> bool:
        raise Unavailable

    one.leases.put = fail
    one.tabs = {"ana": 1, "ben": 1}
    one.roster.touch("acme", "ana", mood="merry")
    one.roster.touch("acme", "ben")
    with pytest.raises(Unavailable):
        await one.look()
    one.leases.put = put
    diff = await one.look()
    assert sorted((seat.name, seat.mood) for seat in diff.joined) == [
        ("ana", "merry"),
        ("ben", "calm"),
    ]


@on_nodes
async def test_who_is_back_after_an_answer_without_them_has_changed(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    await one.set("ana", 1)
    await one.set("ana", 0)
    clock.advance(GRACE_S)
    assert (await one.roster.members("acme"))[0] == [], "nobody has looked for expired ones yet"
    assert names(await one.set("ana", 1)) == ([], [], ["ana"])
    assert names(await one.set("ana", 1)) == NOTHING


@on_nodes
async def test_who_left_while_nothing_can_be_entered_joins_again(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    put = one.leases.put
    for name in ("ana", "ben"):
        await one.set(name, 1)
    await one.set("ana", 0)
    clock.advance(GRACE_S)
    await one.expire()

    async def fail(*_: Any) -> bool:
        raise Unavailable

    one.leases.put = fail
    with pytest.raises(Unavailable):
        await one.set("ben", 2)
    one.leases.put = put
    assert names(await one.set("ana", 1)) == (["ana"], ["ana"], ["ben"])


@on_nodes
async def test_one_that_cannot_be_described_keeps_nobody_else_back(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    one.tabs = cast("Any", {"ana": object(), "ben": 1})
    for name in one.tabs:
        one.roster.touch("acme", name, tabs=one.tabs[name])
    assert names(await one.look()) == (["ben"], [], [])
    assert names(await one.look()) == NOTHING
    assert names(await one.set("ana", 1)) == (["ana"], [], [])


@on_nodes
async def test_one_that_could_not_be_read_again_is_not_entered_and_still_leaves(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    await one.set("ana", 1)
    one.roster.touch("acme", "ana", tabs="many")
    assert names(await one.look()) == NOTHING
    assert names(await one.set("ana", 0)) == NOTHING
    clock.advance(GRACE_S + 1)
    await one.expire()
    assert names(await one.look()) == ([], ["ana"], [])


@on_nodes
async def test_a_crowd_leaves_others_their_turns(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    people = [f"u{number}" for number in range(10 * MEMBERS)]
    one.tabs = dict.fromkeys(people, 1)
    for name in people:
        one.roster.touch("acme", name)
    look = asyncio.create_task(one.look())
    turns = 0
    while not look.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10
    assert names(await look) == (people, [], [])


@on_nodes
async def test_what_an_engine_did_and_failed_to_answer_is_told_though_it_is_undone(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    put = one.leases.put
    await one.set("ana", 1)

    async def fail(*arguments: Any) -> bool:
        await put(*arguments)
        raise Unavailable

    one.leases.put = fail
    with pytest.raises(Unavailable):
        await one.set("ana", 2)
    one.leases.put = put
    assert [seat.tabs for seat in (await one.roster.members("acme"))[0]] == [2]
    assert [seat.tabs for seat in (await one.set("ana", 1)).changed] == [1]
    assert names(await one.set("ana", 1)) == NOTHING


class Watcher:
    """Has an answer, and keeps it true by the diffs, as a client does."""

    def __init__(self, seats: list[Seat]) -> None:
        self.seats = {seat.name: seat for seat in seats}

    def apply(self, diff: Diff[Seat]) -> None:
        for seat in diff.joined + diff.changed:
            self.seats[seat.name] = seat
        for name in diff.left:
            self.seats.pop(name, None)


class Faults:
    """Fails now and then, before or after what was asked for is done."""

    def __init__(self, leases: MemoryLeases, chance: random.Random) -> None:
        self._leases = leases
        self._chance = chance
        self.rate = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._leases, name)
        if name not in ("put", "leave"):
            return method

        async def call(*arguments: Any) -> Any:
            dice = self._chance.random()
            if dice < self.rate / 2:
                raise Unavailable
            result = await method(*arguments)
            if dice < self.rate:
                raise Unavailable
            return result

        return call


class World:
    """A node on which anything may happen, and those who watch it."""

    def __init__(self, clock: ManualClock, node: Node, chance: random.Random) -> None:
        self.clock, self.node, self.chance = clock, node, chance
        self.faults = node.leases = Faults(node.leases, chance)
        self.watchers: list[Watcher] = []
        node.hear = self.hear

    def hear(self, gone: Sequence[str]) -> None:
        for watcher in self.watchers:
            watcher.apply(Diff(left=[*gone]))

    async def look(self) -> bool:
        try:
            diff = await self.node.look()
        except Unavailable:
            return False
        for watcher in self.watchers:
            watcher.apply(diff)
        return True

    async def come_or_go(self) -> None:
        name = self.chance.choice("abcd")
        self.node.tabs[name] = self.chance.choice([0, 0, 1, 2])
        self.node.roster.touch("acme", name)

    async def change(self) -> None:
        name = self.chance.choice("abcd")
        if self.node.tabs.get(name):
            self.node.roster.touch("acme", name, mood=self.chance.choice(["calm", "merry"]))

    async def wait(self) -> None:
        self.clock.advance(self.chance.choice([0.1, GRACE_S / 2, GRACE_S]))
        await self.node.leases.renew()

    async def ask(self) -> None:
        self.watchers.append(Watcher(await self.answer()))

    async def answer(self) -> list[Seat]:
        return (await self.node.roster.members("acme"))[0]


@pytest.mark.parametrize("rate", [0.0, 0.15])
@pytest.mark.parametrize("seed", range(100))
def test_every_answer_and_its_diffs_make_every_later_answer(seed: int, rate: float) -> None:
    chance = random.Random(seed)

    async def test() -> None:
        clock = ManualClock()
        nodes = Nodes()
        node = nodes.add(Node(clock, nodes.share(clock)))
        world = World(clock, node, chance)
        world.faults.rate = rate
        for _ in range(chance.randrange(120)):
            await chance.choice(
                [world.come_or_go] * 3
                + [world.change, world.look, world.wait, world.ask]
                + [node.expire]
            )()
        world.faults.rate = 0
        if rate:
            # What an engine did and failed to answer is told by the time that its member has left.
            await world.look()
            clock.advance(GRACE_S)
            await node.leases.renew()
        await node.expire()
        await world.look()
        later = {seat.name: seat for seat in await world.answer()}
        assert {name for name, tabs in node.tabs.items() if tabs} <= set(later)
        for watcher in world.watchers:
            assert watcher.seats == later

    asyncio.run(test())


@on_nodes
async def test_an_answer_is_bounded(clock: ManualClock, node: Callable[[], Node]) -> None:
    one = node()
    for name in "abc":
        await one.set(name, 1)
    seats, more = await one.roster.members("acme", 2)
    assert ([seat.name for seat in seats], more) == (["a", "b"], 1)


@on_nodes
async def test_who_is_dropped_leaves_at_once_and_may_be_back(
    clock: ManualClock, node: Callable[[], Node]
) -> None:
    one = node()
    await one.set("ana", 1)
    await one.set("ben", 1)
    await one.roster.drop("ana")
    assert [seat.name for seat in (await one.roster.members("acme", 9))[0]] == ["ben"]
    assert names(await one.look()) == ([], ["ana"], [])
    await one.roster.drop("ana")
    assert names(await one.set("ana", 0)) == NOTHING
    assert one.roster.remembered == 1
    assert names(await one.set("ana", 1)) == (["ana"], [], [])
