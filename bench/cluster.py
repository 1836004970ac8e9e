"""Two nodes on one Redis: what a publication costs each of them, and how long it takes across."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, cycle
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.centrifugo import find_centrifugo
from bench.durability import (
    KNOWN,
    MANY,
    MISSED,
    PUBLISHERS,
    batches,
    missed,
    percentile,
    post,
)
from bench.load import Delays, Load, LoadError
from bench.nodes import DEADLINE_S, SHARED, CentrifugoOnRedis, OursOnRedis, Redis, Site
from bench.ours import Ours
from bench.peers import activity, check_published
from bench.report import Check, Result
from bench.run import Run, delays_ms, median_ratio
from pov_rt.config.settings import EngineSettings, RedisSettings
from pov_rt.engine.base import Entry, NewEntry
from pov_rt.engine.redis.client.address import parse_address
from pov_rt.engine.redis.engine import RedisEngine
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.topics import pov_topic
from pov_rt.runtime.clock import SystemClock
from pov_rt.suites import Recorder

OURS, ALONE, CENTRIFUGO = "pov-rt, two nodes", "pov-rt, one node in memory", "centrifugo, two nodes"
TOPICS = [f"pov-{index}" for index in range(100)]
POSTS = {1000: (50, PUBLISHERS), 50: (400, PUBLISHERS), 1: (1000, 1)}
"""Per size of a batch: how many of them, from how many publishers."""
RATE = 5000
"""Activities a second at which delays are taken."""
BATCH = 25
"""Activities of a request at that rate."""
TICK_S = 0.0005
"""How exact their instants are where nothing waits for an answer."""
SUBSCRIBERS, TURN = 500, 8
ELSEWHERE = 100_000
FOLLOWERS = (1, 10, 100, 1000)
"""Nodes that follow one topic."""


def cluster(run: Run) -> Result:
    """Publish to one node, and follow on another one."""
    result = Result("cluster", "two nodes on one Redis", plots=("per_second", "all_us"))
    folder = run.folder / "cluster"
    for case, measure in (
        ("publish", _publish),
        ("delay", _delay),
        ("engine", _between_engines),
        ("split", _split),
        ("elsewhere", _elsewhere),
        ("followers", _followers),
        ("back", _back),
    ):
        if run.wants(case):
            measure(run, result, folder / case)
    return result


def two_nodes(
    stack: ExitStack, folder: Path, kind: type[OursOnRedis | CentrifugoOnRedis], number: int = 2
) -> Site:
    """Start a Redis and so many nodes on it."""
    redis = stack.enter_context(Redis(folder))
    nodes = [stack.enter_context(kind(folder, redis, index + 1)) for index in range(number)]
    return Site(OURS if kind is OursOnRedis else CENTRIFUGO, nodes, redis)


class Posted(NamedTuple):
    """What came of one round."""

    rate: float
    """Publications a second, until the clients had all."""
    ms: list[float]
    """Of each request."""
    us: dict[str, float]
    """Of each server for a publication."""

    @property
    def all_us(self) -> float:
        """What all servers took together."""
        return sum(self.us.values())


def posted(site: Site, load: Load, size: int, number: int, seqs: Iterator[int]) -> Posted:
    """Publish so many batches, and wait until the clients have all that is in them."""
    _, publishers = POSTS[size]
    ready = batches(site.first, number, size, TOPICS, seqs)
    load.reset()
    before, began = site.cpu_us(), time.monotonic()
    _, ms, answers = post(site.first, ready, publishers)
    load.expect(number * size)
    seconds = time.monotonic() - began
    used = {name: us - before[name] for name, us in site.cpu_us().items()}
    check_published(answers, number * size)
    total = number * size
    return Posted(total / seconds, ms, {name: us / total for name, us in used.items()})


def _publish(run: Run, result: Result, folder: Path) -> None:
    found: dict[tuple[int, str], list[Posted]] = {}
    seqs = count(1)
    with ExitStack() as stack:
        alone = Ours(folder / "alone")
        alone.cores = SHARED
        sites = [
            Site(ALONE, [stack.enter_context(alone)], None),
            two_nodes(stack, folder / "ours", OursOnRedis),
        ]
        if find_centrifugo():
            sites.append(two_nodes(stack, folder / "centrifugo", CentrifugoOnRedis))
        cases = []
        for site in sites:
            load = stack.enter_context(run.clients(site.last, len(TOPICS), TOPICS))
            load.open()
            posted(site, load, 50, 20, seqs)  # warm
            cases += [(site, load, size) for size in POSTS]
        for site, load, size in run.in_rounds(cases, "publish, "):
            number = max(4, run.scaled(POSTS[size][0]))
            each = posted(site, load, size, number, seqs)
            found.setdefault((size, site.name), []).append(each)
    for (size, name), rounds in found.items():
        result.add(f"HTTP, batches of {size:,}" if size > 1 else "one by one", name, **_row(rounds))
    for size, bar, aim in ((1000, 20_000, 28_000), (50, 15_000, 20_000)):
        rate = statistics.median(each.rate for each in found[size, OURS])
        what = f"batches of {size:,} to the other node"
        result.checks.append(Check(what, rate, bar, aim, at_most=False, unit="activities/s"))
    p99 = statistics.median(percentile(each.ms, 0.99) for each in found[1, OURS])
    result.checks.append(Check("acknowledgement of a lone publisher, p99", p99, 2, 1, unit="ms"))


def _row(rounds: Sequence[Posted]) -> dict[str, float | str]:
    middle = statistics.median
    return {
        "per_second": middle(each.rate for each in rounds),
        "all_us": middle(each.all_us for each in rounds),
        **{f"{name}_us": middle(each.us[name] for each in rounds) for name in rounds[0].us},
        "p50_ms": middle(percentile(each.ms, 0.5) for each in rounds),
        "p99_ms": middle(percentile(each.ms, 0.99) for each in rounds),
    }


def _delay(run: Run, result: Result, folder: Path) -> None:
    seconds = 1.0 if run.quick else 4.0
    found = []
    with ExitStack() as stack:
        site = two_nodes(stack, folder, OursOnRedis)
        load = stack.enter_context(run.clients(site.last, len(TOPICS), TOPICS))
        load.open()
        at_a_rate(site, load, 0.5)  # warm
        for _ in run.in_rounds([site], f"delay at {RATE:,}/s, "):
            found.append(at_a_rate(site, load, seconds))
    result.add(f"{RATE:,}/s into sockets of the other node", OURS, **delays_ms(found))
    p99 = statistics.median(each.p99 / 1000 for each in found)
    result.checks.append(Check("into a socket of the other node, p99", p99, 10, 5, unit="ms"))


def at_a_rate(site: Site, load: Load, seconds: float) -> Delays:
    """Publish at fixed instants, from which the delays count, whatever held up a publisher."""
    requests = int(RATE / BATCH * seconds)
    places, seqs = iter(range(requests)), count(1)
    load.reset()
    began = time.monotonic_ns() + 10_000_000

    def work(_: int) -> None:
        with site.first.connected() as (sock, answers):
            for place in places:
                due = began + int(place * 1e9 * BATCH / RATE)
                some = [activity(TOPICS[n % len(TOPICS)], n, due) for n in _next(seqs, BATCH)]
                request = site.first.request(some)
                time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
                sock.sendall(request)
                check_published([answers.read()], BATCH)

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        list(pool.map(work, range(PUBLISHERS)))
    load.expect(requests * BATCH)
    return load.delays()


def _next(numbers: Iterator[int], number: int) -> list[int]:
    return [next(numbers) for _ in range(number)]


class Hearing(Recorder):
    """A follower that notes when it was told of entries, whose bodies say when they were due."""

    def __init__(self) -> None:
        super().__init__()
        self.ms: list[float] = []
        self.wanted = 0
        self.has_all = asyncio.Event()

    def entries(self, topic: str, epoch: str, entries: Sequence[Entry]) -> None:
        """Note the delay of each."""
        now = time.monotonic_ns()
        self.ms += [(now - int(entry.body[:20])) / 1e6 for entry in entries]
        if len(self.ms) >= self.wanted:
            self.has_all.set()


def _between_engines(run: Run, result: Result, folder: Path) -> None:
    seconds = 1.0 if run.quick else 4.0
    with Redis(folder) as redis:
        found = [
            asyncio.run(_between(redis.url, int(RATE * seconds)))
            for _ in run.in_rounds([redis], f"engine to engine at {RATE:,}/s, ")
        ]
    p99, p50 = (statistics.median(percentile(ms, part) for ms in found) for part in (0.99, 0.5))
    result.add(f"{RATE:,}/s, engine to engine, no server", OURS, p99_ms=p99, p50_ms=p50)
    result.checks.append(Check("node to node, p99", p99, 5, 2, unit="ms"))


async def _between(url: str, number: int) -> list[float]:
    """Append one by one to one engine; return the ms until another one's follower was told."""
    address, clock = parse_address(url), SystemClock()
    settings = EngineSettings(redis=RedisSettings(deadline_s=DEADLINE_S))
    heard = Hearing()
    heard.wanted = number
    first, second = (RedisEngine(address, settings, clock, f"bench-{n}") for n in (1, 2))
    await first.start(Recorder())
    await second.start(heard)
    try:
        for topic in TOPICS:
            await second.watch(topic)
        await _append(first, number)
        async with asyncio.timeout(30):
            await heard.has_all.wait()
    except* Unavailable as refused:
        raise LoadError(f"{len(refused.exceptions)} refused: {refused.exceptions[0]}") from refused
    finally:
        await first.close()
        await second.close()
    return heard.ms


async def _append(engine: RedisEngine, number: int) -> None:
    """Append entries, each a task of its own, at fixed instants."""
    began, place = time.monotonic_ns(), 0
    async with asyncio.TaskGroup() as group:
        while place < number:
            while (
                place < number and (due := began + int(place * 1e9 / RATE)) <= time.monotonic_ns()
            ):
                body = b"%020d %b" % (due, b"x" * 280)
                new = NewEntry(TOPICS[place % len(TOPICS)], "bench", f"{began}-{place}", body)
                group.create_task(engine.log.append([new]))
                place += 1
            await asyncio.sleep(TICK_S)


def _split(run: Run, result: Result, folder: Path) -> None:
    """Do the same work with one node, and with two of which each has half of the clients."""
    publications = max(2 * TURN, run.scaled(480))
    used: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        cases = []
        for number in used:
            site = two_nodes(stack, folder / str(number), OursOnRedis, number)
            loads = []
            for node in site.nodes:
                load = stack.enter_context(run.clients(node, SUBSCRIBERS // number, TOPICS[:1]))
                load.open()
                loads.append(load)
            cases.append((site, loads))
        seqs = count(1)
        for site, loads in cases:
            _fan_out(site, loads, 8 * TURN, seqs)  # warm
        for site, loads in run.in_rounds(cases, "one node and two, "):
            used[len(loads)].append(_fan_out(site, loads, publications, seqs))
    for number, values in used.items():
        case = f"CPU per delivery, {number} with {SUBSCRIBERS} subscribers in all, {TURN} per turn"
        result.add(case, "pov-rt", all_us=statistics.median(values))
    ratio = median_ratio(used[2], used[1])
    result.checks.append(Check("CPU per delivery, two nodes against one", ratio, 1.1, 1.0))


def _fan_out(site: Site, loads: Sequence[Load], publications: int, seqs: Iterator[int]) -> float:
    """Publish to the nodes in turn; return what all servers took for a delivery, in us."""
    for load in loads:
        load.reset()
    before = sum(site.cpu_us().values())
    for turn in range(publications // TURN):
        at = time.monotonic_ns()
        node = site.nodes[turn % len(site.nodes)]
        node.publish([activity(TOPICS[0], n, at) for n in _next(seqs, TURN)])
        for load in loads:
            load.expect((turn + 1) * TURN * SUBSCRIBERS // len(loads))
    deliveries = publications // TURN * TURN * SUBSCRIBERS
    return (sum(site.cpu_us().values()) - before) / deliveries


def _elsewhere(run: Run, result: Result, folder: Path) -> None:
    """Measure what topics that others follow add to a publication."""
    number = run.scaled(ELSEWHERE)
    size, (requests, _) = 50, POSTS[50]
    rounds: dict[int, list[Posted]] = {0: [], number: []}
    with ExitStack() as stack:
        site = two_nodes(stack, folder, OursOnRedis)
        load = stack.enter_context(run.clients(site.last, len(TOPICS), TOPICS))
        load.open()
        seqs = count(1)
        posted(site, load, size, 20, seqs)  # warm
        assert site.redis is not None
        # In short turns: the difference is smaller than what else a machine does in a second.
        for others in run.in_rounds([*rounds] * 4, "topics followed elsewhere, "):
            with site.redis.followed(others):
                each = posted(site, load, size, max(20, run.scaled(requests) // 4), seqs)
            machine.rest(site.redis.pids)  # it forgets them, which is nobody's publication
            rounds[others].append(each)
    for others, found in rounds.items():
        case = f"batches of {size}, {others:,} topics followed elsewhere"
        result.add(case, OURS, **_row(found))
    without, beside = ([each.all_us for each in found] for found in rounds.values())
    ratio = median_ratio(beside, without)
    what = f"CPU of a publication beside {number:,} topics followed elsewhere"
    result.checks.append(Check(what, ratio, 1.02, 1.0))


def _followers(run: Run, result: Result, folder: Path) -> None:
    """Measure what each node that follows a topic adds to a publication on it, in Redis."""
    size, (requests, publishers) = 50, POSTS[50]
    used: dict[int, list[float]] = {number: [] for number in FOLLOWERS}
    with ExitStack() as stack:
        site = two_nodes(stack, folder, OursOnRedis, 1)
        assert site.redis is not None
        seqs = count(1)
        for number in run.in_rounds(FOLLOWERS, "nodes that follow, "):
            ready = batches(site.first, max(10, run.scaled(requests) // 4), size, TOPICS[:1], seqs)
            with site.redis.followers(pov_topic(TOPICS[0]), number):
                before = machine.cpu_s(site.redis.pids)
                _, _, answers = post(site.first, ready, publishers)
                took = machine.cpu_s(site.redis.pids) - before
            check_published(answers, len(ready) * size)
            used[number].append(1e6 * took / (len(ready) * size))
    for number, values in used.items():
        case = f"a topic that {number:,} nodes follow"
        result.add(case, "redis", redis_us=statistics.median(values))
    few, most = FOLLOWERS[0], FOLLOWERS[-1]
    each = (statistics.median(used[most]) - statistics.median(used[few])) / (most - few)
    result.add("each node more that follows", "redis", redis_us=each)


def _back(run: Run, result: Result, folder: Path) -> None:
    """Let everybody come back at once, half to each of two nodes, to what they missed."""
    many = run.scaled(MANY)
    topics = [f"pov-{index}" for index in range(many // 10)]
    seconds, reads = list[float](), list[float]()
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(folder))
        nodes = [stack.enter_context(OursOnRedis(folder, redis, number)) for number in (1, 2)]
        places = missed(nodes[0], topics)
        loads = []
        for node in nodes:
            clients = [
                node.recovering(f"{node.name[-1]}-{index}", topic, place, KNOWN)
                for index, (topic, place) in zip(
                    range(many // len(nodes)), cycle(places.items()), strict=False
                )
            ]
            load = Load(node.folder, node.port, clients, node.speech("none"), 0)
            loads.append(stack.enter_context(load))
        pool = stack.enter_context(ThreadPoolExecutor(len(loads)))
        for _ in run.in_rounds(["back"], f"{many:,} back at once, "):
            for load in loads:
                load.ask("close")
                load.reset()
            before, began = redis.reads(), time.monotonic()
            list(pool.map(_come_back, loads))
            seconds.append(time.monotonic() - began)
            reads.append((redis.reads() - before) / len(topics) / len(nodes))
    took, read = statistics.median(seconds), max(reads)
    result.add(f"{many:,} back at once, {MISSED} missed by each", OURS, seconds=took)
    result.checks += [
        Check(f"{many:,} have what they missed", took, 5, 2.5, unit="s"),
        Check("reads of a topic by a node, at most", read, 1, 1),
    ]


def _come_back(load: Load) -> None:
    load.open(window=load.clients)
    load.expect(load.clients * MISSED, timeout_s=120)
