"""What it costs to keep everything on disk, and how fast everybody is back after an outage."""

from __future__ import annotations

import json
import random
import signal
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from typing import Any, NamedTuple

from bench import machine
from bench.centrifugo import Centrifugo, find_centrifugo
from bench.load import Load, LoadError
from bench.ours import Ours, OursBySocket, OursOnDisk
from bench.peers import Answers, HttpPublisher, Nchan, activity, check_published
from bench.report import Check, Result
from bench.run import Flow, Run, flow, median_difference, median_ratio, medians

BATCH = 1000
PUBLISHERS = 4
"""HTTP publishers, each of which waits for its own answers only."""
RATE = 30_000
"""Activities a second at which acknowledgements are timed: well below what is taken at most."""
TIMED = 200
"""How many batches are timed in each round; the median of the rounds' p99 counts, as elsewhere."""
LIVE_READERS, LIVE_PUBLISHERS, LIVE_S = 100, 100, 5000
LIVE_RATE = 100
"""Activities a second beside a storm."""
MANY = 10_000
"""How many clients are back at once."""
MISSED = 10
"""Activities that each of them missed."""
KNOWN = 10
"""How many activities of its PoV a client has seen before it missed some."""
PAGE = 100


def post(
    server: HttpPublisher, requests: Sequence[bytes], publishers: int, per_s: float = 0
) -> tuple[float, list[float], list[bytes]]:
    """Send requests from several publishers; return seconds, ms each took, and the answers.

    At fixed instants, `per_s` of them a second, from which the time is taken then, whatever held
    up the publisher; with 0 each publisher sends its next one after an answer.
    """
    numbered = enumerate(requests)  # shared; taking the next one is atomic
    began = time.monotonic()

    def work(_: int) -> list[tuple[float, bytes]]:
        found = []
        with server.connected() as (sock, answers):
            for index, request in numbered:
                due = began + index / per_s if per_s else time.monotonic()
                time.sleep(max(0.0, due - time.monotonic()))
                sock.sendall(request)
                body = answers.read()
                found.append((1000 * (time.monotonic() - due), body))
        return found

    with ThreadPoolExecutor(publishers) as pool:
        done = [each for found in pool.map(work, range(publishers)) for each in found]
    seconds = time.monotonic() - began
    return seconds, [ms for ms, _ in done], [body for _, body in done]


def batches(
    server: HttpPublisher, number: int, size: int, topics: Sequence[str], seqs: Iterator[int]
) -> list[bytes]:
    """Return requests whose activities go to the topics in turn."""
    at = time.monotonic_ns()
    made = []
    for _ in range(number):
        some = [next(seqs) for _ in range(size)]
        made.append(server.request([activity(topics[n % len(topics)], n, at) for n in some]))
    return made


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that this part of the values is not above."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def durable(run: Run) -> Result:
    """Every activity on disk before it is acknowledged or shown."""
    result = Result("durable", f"sqlite on {_disk(run)}", plots=("per_second", "p99_ms"))
    _throughput(run, result)
    _live(run, result)
    return result


def _disk(run: Run) -> str:
    kind = machine.filesystem(run.folder)
    if kind in machine.IN_MEMORY:
        raise SystemExit(f"{run.folder} is in memory ({kind}); name a folder on a disk with --out")
    flush = statistics.median(machine.flush_s(run.folder) for _ in range(50))
    return f"{kind}, a flush takes {1000 * flush:.2f} ms"


class Posted(NamedTuple):
    """What came of one round's requests."""

    rate: float
    ms: list[float]
    server_us: float
    """Per activity, its threads together."""


POSTS = {
    "most": (100, BATCH, PUBLISHERS, 0.0),
    "single": (1000, 1, 1, 0.0),
    "fixed": (TIMED, BATCH, PUBLISHERS, RATE / BATCH),
}
"""How many requests of how many activities, from how many publishers, how often a second."""


def posted(run: Run, kinds: Sequence[type[Ours]]) -> dict[str, dict[type[Ours], list[Posted]]]:
    """Return what came of each sort of posts."""
    topics = [f"pov-{index}" for index in range(100)]
    seqs = count()
    found: dict[str, dict[type[Ours], list[Posted]]] = {
        what: {kind: [] for kind in kinds} for what in POSTS
    }
    with ExitStack() as stack:
        started = [stack.enter_context(kind(run.folder / "throughput")) for kind in kinds]
        cases = [(what, ours) for what in POSTS for ours in started]
        for what, ours in run.in_rounds(cases, "HTTP, "):
            requests, size, publishers, per_s = POSTS[what]
            number = run.scaled(requests)
            ready = batches(ours, number, size, topics, seqs)
            before = machine.cpu_s(ours.pids)
            seconds, ms, answers = post(ours, ready, publishers, per_s)
            used_us = 1e6 * (machine.cpu_s(ours.pids) - before)
            check_published(answers, number * size)
            total = number * size
            found[what][type(ours)].append(Posted(total / seconds, ms, used_us / total))
    return found


def _throughput(run: Run, result: Result) -> None:
    most, single, fixed = (each[OursOnDisk] for each in posted(run, (OursOnDisk,)).values())
    rate = statistics.median(each.rate for each in most)
    for case, found, per_second in (
        (f"batches of {BATCH:,}, {PUBLISHERS} publishers", most, rate),
        (f"batches of {BATCH:,}, {PUBLISHERS} publishers at a fixed rate", fixed, RATE),
        (
            "one by one: a commit per activity",
            single,
            statistics.median(each.rate for each in single),
        ),
    ):
        p99, p50 = (
            statistics.median(percentile(each.ms, part) for each in found) for part in (0.99, 0.5)
        )
        result.add(case, OursOnDisk.name, per_second=per_second, p99_ms=p99, p50_ms=p50)
    acknowledged = statistics.median(percentile(each.ms, 0.99) for each in fixed)
    ratio = median_ratio([each.rate for each in most], [each.rate for each in single])
    what = f"acknowledgement p99 at {RATE:,}/s"
    result.checks += [
        Check("batches", rate, 80_000, 100_000, at_most=False, unit="activities/s"),
        Check(what, acknowledged, 50, 25, unit="ms"),
        Check("against one by one", ratio, 8, 16, at_most=False),
    ]


def _live(run: Run, result: Result) -> None:
    flows = live(run, (OursBySocket, OursOnDisk))
    for kind, found_all in flows.items():
        case = f"live, {LIVE_PUBLISHERS} socket publishers to {LIVE_READERS} at a fixed rate"
        result.add(case, kind.name, per_second=LIVE_S, **medians(found_all))
    memory, disk = ([each.delays.p99 / 1000 for each in found] for found in flows.values())
    more = median_difference(disk, memory)
    result.checks.append(Check("live p99, more than in memory by", more, 5, 1, unit="ms"))


def live(run: Run, kinds: Sequence[type[Ours]]) -> dict[type[Ours], list[Flow]]:
    """Fan out, from publishers enough that no one waits for its own commit."""
    flows: dict[type[Ours], list[Flow]] = {kind: [] for kind in kinds}
    seconds = 1.0 if run.quick else 2.0
    with ExitStack() as stack:
        cases = []
        for kind in kinds:
            peer = stack.enter_context(kind(run.folder / "live"))
            load = stack.enter_context(
                run.clients(peer, LIVE_READERS, ["acme"], publishers=LIVE_PUBLISHERS)
            )
            load.open()
            flow(peer, load, LIVE_READERS, 1000, LIVE_S)  # warm
            cases.append((peer, load))
        for peer, load in run.in_rounds(cases, f"live at {LIVE_S:,}/s, "):
            flows[type(peer)].append(flow(peer, load, LIVE_READERS, int(LIVE_S * seconds), LIVE_S))
    return flows


def recover(run: Run) -> Result:
    """Everybody is back at once and wants what was missed; a restart; a long history."""
    result = Result("recover", f"sqlite on {_disk(run)}", plots=("seconds", "p99_ms"))
    _storm(run, result)
    _alone(run, result)
    _restart(run, result)
    return result


class Storm(NamedTuple):
    """What one storm did: how long until all had everything, and to those who are served live."""

    seconds: float
    before: Flow
    beside: Flow


def _storm(run: Run, result: Result) -> None:
    storms = back_at_once(run, (OursOnDisk,))[OursOnDisk]
    seconds = statistics.median(each.seconds for each in storms)
    many = run.scaled(MANY)
    case = f"{many} back at once, {MISSED} missed by each"
    cpu_s = statistics.median(each.seconds * each.beside.server_percent / 100 for each in storms)
    result.add(case, OursOnDisk.name, seconds=seconds, server_cpu_s=cpu_s)
    for case, flows in (
        ("without a storm", [each.before for each in storms]),
        ("beside it", [each.beside for each in storms]),
    ):
        result.add(f"live, {LIVE_RATE}/s to 100, {case}", OursOnDisk.name, **medians(flows))
    result.checks.append(Check(f"{many} recovered in", seconds, 5, 2.5, unit="s"))


def back_at_once(run: Run, kinds: Sequence[type[Ours]]) -> dict[type[Ours], list[Storm]]:
    """Let everybody reconnect and recover, while others are served live."""
    storms: dict[type[Ours], list[Storm]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        cases = [_before_storm(run, kind, stack) for kind in kinds]
        for ours, load, live in run.in_rounds(cases, f"storm of {run.scaled(MANY)}, "):
            calm = flow(ours, live, 100, LIVE_RATE * 2, LIVE_RATE)
            load.ask("close")
            load.reset()
            live.reset()
            since = machine.busy(ours.pids, load.pids)
            live.publish(10**6, LIVE_RATE)
            load.open(window=load.clients)
            load.expect(load.clients * MISSED, timeout_s=120)
            seconds, (server, generator) = since()
            number = live.stop()
            live.expect(number * 100)
            stormy = Flow(number / seconds, server, generator, live.delays())
            storms[type(ours)].append(Storm(seconds, calm, stormy))
    return storms


def _before_storm(run: Run, kind: type[Ours], stack: ExitStack) -> tuple[Ours, Load, Load]:
    """Start a server that has what will be missed; return it, the many, and who is served live."""
    ours = stack.enter_context(kind(run.folder / "storm"))
    load = returning(run, ours, stack)
    live_folder = ours.folder / "live"
    live_folder.mkdir()
    given = [ours.client(f"r-{index}", "live") for index in range(100)]
    given.insert(0, ours.client("p", "none"))
    live = stack.enter_context(Load(live_folder, ours.port, given, ours.speech("live"), 1))
    live.open()
    return ours, load, live


class Return(NamedTuple):
    """What it took until all had everything, where nobody else was served."""

    seconds: float
    server_cpu_s: float


def back_alone(
    run: Run, kinds: Sequence[type[HttpPublisher]]
) -> dict[type[HttpPublisher], list[Return]]:
    """Let everybody reconnect and recover from one server after the other."""
    found: dict[type[HttpPublisher], list[Return]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        cases = []
        for kind in kinds:
            server = stack.enter_context(kind(run.folder / "alone"))
            cases.append((server, returning(run, server, stack)))
        for server, load in run.in_rounds(cases, f"{run.scaled(MANY)} alone, "):
            load.ask("close")
            load.reset()
            machine.rest(server.pids)
            before, began = machine.cpu_s(server.pids), time.monotonic()
            load.open(window=load.clients)
            load.expect(load.clients * MISSED, timeout_s=120)
            seconds = time.monotonic() - began
            used = machine.cpu_s(server.pids) - before
            found[type(server)].append(Return(seconds, used))
    return found


def _alone(run: Run, result: Result) -> None:
    kinds: list[type[HttpPublisher]] = [OursOnDisk, Ours, Nchan]
    if find_centrifugo():
        kinds.append(Centrifugo)
    found = back_alone(run, kinds)
    for kind, returns in found.items():
        seconds, used = (statistics.median(each) for each in zip(*returns, strict=True))
        case = f"{run.scaled(MANY)} back at once, nobody else served"
        result.add(case, kind.name, seconds=seconds, server_cpu_s=used)
    if Centrifugo in found:
        ours, theirs = ([each.server_cpu_s for each in found[kind]] for kind in (Ours, Centrifugo))
        ratio = median_ratio(ours, theirs)
        result.checks.append(Check("CPU to recover, of centrifugo, both in memory", ratio, 1, 0.8))


def missed(server: HttpPublisher, topics: Sequence[str]) -> dict[str, Any]:
    """Publish on each topic what clients know and what they missed; return the places between."""
    places = {}
    with server.connected() as over:
        for topic in topics:
            at = time.monotonic_ns()
            known = [activity(topic, 1 + number, at) for number in range(KNOWN + MISSED)]
            places[topic] = server.place(server.post(known[:KNOWN], *over))
            server.post(known[KNOWN:], *over)
    return places


def returning(run: Run, server: HttpPublisher, stack: ExitStack) -> Load:
    """Publish what will be missed; return those who miss it, ten on each topic."""
    many = run.scaled(MANY)
    topics = [f"pov-{index}" for index in range(many // 10)]
    places = missed(server, topics)
    clients = []
    for index in range(many):
        topic = topics[index % len(topics)]
        clients.append(server.recovering(f"u-{index}", topic, places[topic], KNOWN))
    given = Load(server.folder, server.port, clients, server.speech("none"), 0)
    return stack.enter_context(given)


def _restart(run: Run, result: Result) -> None:
    """Killed and started again with many activities stored; then pages of their history."""
    each = run.scaled(10_000)
    topics = [f"pov-{index}" for index in range(100)]
    total = each * len(topics)
    with OursOnDisk(run.folder / "restart") as ours:
        seqs = count()
        for done in range(0, total, 50 * BATCH):
            run.progress(f"{done:,} of {total:,} stored")
            _, _, answers = post(ours, batches(ours, 50, BATCH, topics, seqs), PUBLISHERS)
            check_published(answers, 50 * BATCH)
        starts = []
        for index in range(run.rounds):
            run.progress(f"restart {index + 1} of {run.rounds}")
            ours.stop(signal.SIGKILL)
            began = time.monotonic()
            ours.start()
            pages(ours, [(topics[0], each - PAGE)], PAGE)
            starts.append(time.monotonic() - began)
        dice = random.Random(1)  # noqa: S311
        places = [(dice.choice(topics), dice.randrange(each - PAGE)) for _ in range(5000)]
        took = pages(ours, places[: run.scaled(5000)], PAGE)
    seconds = max(starts)  # the first one finds the longest write-ahead log
    p99 = percentile(took, 0.99)
    what = f"slowest of {run.rounds} restarts after a kill, {total:,} stored"
    result.add(what, ours.name, seconds=seconds)
    result.add(
        f"a page of {PAGE} of {total:,}", ours.name, p99_ms=p99, p50_ms=percentile(took, 0.5)
    )
    result.checks += [
        Check(f"restart with {total:,} stored", seconds, 2, 1, unit="s"),
        Check("page of history, p99", p99, 5, 2.5, unit="ms"),
    ]


def pages(ours: Ours, places: Sequence[tuple[str, int]], size: int) -> list[float]:
    """Return the ms that each page of a history takes, asked for one after the other."""
    took = []
    with socket.create_connection(("127.0.0.1", ours.port), timeout=60) as sock:
        answers = Answers(sock)
        for topic, after in places:
            began = time.monotonic()
            sock.sendall(
                f"GET /api/povs/{topic}/activities?after={after}&limit={size} HTTP/1.1\r\n"
                f"Host: x\r\nAuthorization: Bearer {ours.service_token}\r\n\r\n".encode()
            )
            body = answers.read()
            took.append(1000 * (time.monotonic() - began))
            if (found := len(json.loads(body)["activities"])) != size:
                raise LoadError(f"a page after {after} has {found} of {size} activities")
    return took
