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

from bench import machine
from bench.load import Client, Load, LoadError, Step
from bench.ours import Ours, OursBySocket, OursOnDisk, check_published
from bench.peers import Answers, activity, encode
from bench.report import Check, Result
from bench.run import Flow, Run, flow, median_difference, median_ratio, medians

BATCH = 1000
PUBLISHERS = 4
"""HTTP publishers, each of which waits for its own answers only."""
RATE = 30_000
"""Activities a second at which acknowledgements are timed: the bar for what is taken at most."""
TIMED = 200
"""How many batches are timed in each round; the median of the rounds' p99 counts, as elsewhere."""
LIVE_RATE = 100
MISSED = 50
KNOWN = 10
"""How many activities of its PoV a client has seen before it missed some."""
PAGE = 100


def post(
    ours: Ours, requests: Sequence[bytes], publishers: int, per_s: float = 0
) -> tuple[float, list[float], list[bytes]]:
    """Send requests from several publishers; return seconds, ms each took, and the answers.

    At fixed instants, `per_s` of them a second, from which the time is taken then, whatever held
    up the publisher; with 0 each publisher sends its next one after an answer.
    """
    numbered = enumerate(requests)  # shared; taking the next one is atomic
    began = time.monotonic()

    def work(_: int) -> list[tuple[float, bytes]]:
        found = []
        with socket.create_connection(("127.0.0.1", ours.port), timeout=60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = Answers(sock)
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
    ours: Ours, number: int, size: int, topics: Sequence[str], seqs: Iterator[int]
) -> list[bytes]:
    """Return requests whose activities go to the topics in turn."""
    at = time.monotonic_ns()
    made = []
    for _ in range(number):
        some = [next(seqs) for _ in range(size)]
        made.append(ours.request([activity(topics[n % len(topics)], n, at) for n in some]))
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


def _throughput(run: Run, result: Result) -> None:
    topics = [f"pov-{index}" for index in range(100)]
    seqs = count()
    fast: list[float] = []
    single: list[float] = []
    took: dict[str, list[list[float]]] = {"most": [], "fixed": [], "single": []}
    with OursOnDisk(run.folder / "throughput") as ours:

        def measure(what: str, number: int, size: int, publishers: int, per_s: float = 0) -> float:
            ready = batches(ours, number, size, topics, seqs)
            seconds, ms, answers = post(ours, ready, publishers, per_s)
            check_published(answers, number * size)
            took[what].append(ms)
            return number * size / seconds

        for index in range(run.rounds):
            run.progress(f"HTTP, round {index + 1} of {run.rounds}")
            fast.append(measure("most", run.scaled(100), BATCH, PUBLISHERS))
            single.append(measure("single", run.scaled(1000), 1, 1))
            measure("fixed", run.scaled(TIMED), BATCH, PUBLISHERS, RATE / BATCH)
    for case, what, rate in (
        (f"batches of {BATCH:,}, {PUBLISHERS} publishers", "most", statistics.median(fast)),
        (f"batches of {BATCH:,}, {PUBLISHERS} publishers at a fixed rate", "fixed", RATE),
        ("one by one: a commit per activity", "single", statistics.median(single)),
    ):
        p99, p50 = (
            statistics.median(percentile(ms, part) for ms in took[what]) for part in (0.99, 0.5)
        )
        result.add(case, ours.name, per_second=rate, p99_ms=p99, p50_ms=p50)
    rate = statistics.median(fast)
    acknowledged = statistics.median(percentile(ms, 0.99) for ms in took["fixed"])
    what = f"acknowledgement p99 at {RATE:,}/s"
    result.checks += [
        Check("batches", rate, 30_000, 50_000, at_most=False, unit="activities/s"),
        Check(what, acknowledged, 50, 25, unit="ms"),
        Check("against one by one", median_ratio(fast, single), 8, 16, at_most=False),
    ]


def _live(run: Run, result: Result) -> None:
    """Fan-out at 5,000 a second: from publishers enough that no one waits for its own commit."""
    readers, publishers, rate, seconds = 100, 100, 5000.0, 1.0 if run.quick else 2.0
    flows: dict[str, list[Flow]] = {}
    with ExitStack() as stack:
        cases = []
        for kind in (OursBySocket, OursOnDisk):
            peer = stack.enter_context(kind(run.folder / "live"))
            load = stack.enter_context(run.clients(peer, readers, ["acme"], publishers=publishers))
            load.open()
            flow(peer, load, readers, 1000, rate)  # warm
            cases.append((peer, load))
        for index in range(run.rounds):
            run.progress(f"live at {rate:,.0f}/s, pair {index + 1} of {run.rounds}")
            for peer, load in cases:
                found = flow(peer, load, readers, int(rate * seconds), rate)
                flows.setdefault(peer.name, []).append(found)
    for name, found_all in flows.items():
        case = f"live, {publishers} socket publishers to {readers} at a fixed rate"
        result.add(case, name, per_second=rate, **medians(found_all))
    memory, disk = ([each.delays.p99 / 1000 for each in found] for found in flows.values())
    more = median_difference(disk, memory)
    result.checks.append(Check("live p99, more than in memory by", more, 5, 1, unit="ms"))


def recover(run: Run) -> Result:
    """Everybody is back at once and wants what was missed; a restart; a long history."""
    result = Result("recover", f"sqlite on {_disk(run)}", plots=("seconds", "p99_ms"))
    _storm(run, result)
    _restart(run, result)
    return result


def _storm(run: Run, result: Result) -> None:
    """Everybody reconnects and recovers, while others are served live."""
    many = run.scaled(10_000)
    topics = [f"pov-{index}" for index in range(many // 10)]
    with ExitStack() as stack:
        ours = stack.enter_context(OursOnDisk(run.folder / "storm"))
        number = len(topics) * (KNOWN + MISSED) // BATCH
        _, _, answers = post(ours, batches(ours, number, BATCH, topics, count()), PUBLISHERS)
        check_published(answers, number * BATCH)
        epochs = {
            each["povId"]: each["epoch"] for body in answers for each in json.loads(body)["results"]
        }
        clients = []
        for index in range(many):
            topic = topics[index % len(topics)]
            clients.append(_recovering(ours, f"u-{index}", topic, epochs[topic]))
        speech = ours.speech("none")
        load = stack.enter_context(Load(ours.folder, ours.port, clients, speech, 0))
        live_folder = ours.folder / "live"
        live_folder.mkdir()
        given = [ours.client(f"r-{index}", "live") for index in range(100)]
        given.insert(0, ours.client("p", "none"))
        live = stack.enter_context(Load(live_folder, ours.port, given, ours.speech("live"), 1))
        live.open()
        calm = [flow(ours, live, 100, LIVE_RATE * 2, LIVE_RATE) for _ in range(run.rounds)]
        stormy: list[Flow] = []
        took: list[float] = []
        for index in range(run.rounds):
            run.progress(f"storm of {many}, round {index + 1} of {run.rounds}")
            load.ask("close")
            load.reset()
            live.reset()
            since = machine.busy(ours.pids, load.pids)
            live.publish(10**6, LIVE_RATE)
            load.open(window=many)
            load.expect(many * MISSED, timeout_s=120)
            seconds, (server, generator) = since()
            live_number = live.stop()
            live.expect(live_number * 100)
            took.append(seconds)
            stormy.append(Flow(live_number / seconds, server, generator, live.delays()))
    seconds = statistics.median(took)
    result.add(f"{many} back at once, {MISSED} missed by each", ours.name, seconds=seconds)
    for case, flows in (("without a storm", calm), ("beside it", stormy)):
        result.add(f"live, {LIVE_RATE}/s to 100, {case}", ours.name, **medians(flows))
    result.checks.append(Check(f"{many} recovered in", seconds, 20, 10, unit="s"))


def _recovering(ours: Ours, user: str, topic: str, epoch: str) -> Client:
    since = {"epoch": epoch, "offset": KNOWN}
    subscribe = encode({"type": "subscribe", "povId": topic, "since": since})
    steps = [Step(0, subscribe), Step(1, "", ours.subscribed)]
    return ours.client(user, topic)._replace(steps=steps, seen=KNOWN)


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
            _pages(ours, [(topics[0], each - PAGE)])
            starts.append(time.monotonic() - began)
        dice = random.Random(1)  # noqa: S311
        places = [(dice.choice(topics), dice.randrange(each - PAGE)) for _ in range(5000)]
        took = _pages(ours, places[: run.scaled(5000)])
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


def _pages(ours: Ours, places: Sequence[tuple[str, int]]) -> list[float]:
    """Return the ms that each page of a history takes, asked for one after the other."""
    took = []
    with socket.create_connection(("127.0.0.1", ours.port), timeout=60) as sock:
        answers = Answers(sock)
        for topic, after in places:
            began = time.monotonic()
            sock.sendall(
                f"GET /api/povs/{topic}/activities?after={after}&limit={PAGE} HTTP/1.1\r\n"
                f"Host: x\r\nAuthorization: Bearer {ours.service_token}\r\n\r\n".encode()
            )
            body = answers.read()
            took.append(1000 * (time.monotonic() - began))
            if (found := len(json.loads(body)["activities"])) != PAGE:
                raise LoadError(f"a page after {after} has {found} of {PAGE} activities")
    return took
