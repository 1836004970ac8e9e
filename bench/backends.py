"""What an app's backend pays: CPU of a tracked request, activities a second by way of a spool."""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.load import LoadError
from bench.ours import Ours
from bench.peers import PAD, Peer, free_port
from bench.report import Check, Result
from bench.run import Run, median_difference
from pov_rt.client import NewActivity, Publisher
from pov_rt.tracker import Track
from pov_rt.tracker.asgi import ActivityTracker, App, Message, Receive, Scope, Send

REQUESTS = 50_000
TURN = 2_000
"""Requests until the tracker is let to send them; its queue has room for five times as many."""
SERVED = 4_000
"""Requests to each app over a socket, in turns of `SERVED_TURN`."""
SERVED_TURN = 200
SPOOLED = 5_000
PUBLISHERS = (1, 16)
FLUSH_S = 120.0
PATH = "/povs/acme/tasks/7/done"
REQUEST = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
HEADERS = [(b"content-length", b"4")]
CASES = ("no tracker", "server up", "server down")
RULES = [Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="done")]


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing but answer, so that what is measured is the tracker."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"done"})


async def receive() -> Message:
    """Be a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Be a client that takes all at once."""


async def requests(app: App, number: int) -> None:
    """Make so many requests, one after the other, as an ASGI server does but for its sockets."""
    for _ in range(number):
        scope: dict[str, Any] = {"type": "http", "method": "POST", "headers": [], "path": PATH}
        await app({**scope, "raw_path": PATH.encode(), "query_string": b""}, receive, send)


def tracker(run: Run) -> Result:
    """CPU of the app for a request that becomes an activity, the thread that sends included."""
    result = Result("tracker", "CPU of the app per request, µs")
    used: dict[str, list[float]] = {case: [] for case in CASES}
    number = run.scaled(REQUESTS)
    for case in run.in_rounds(list(used), "tracker, "):
        with Ours(run.folder) as server:
            port = free_port() if case == "server down" else server.port
            tracked = ActivityTracker(
                answer, f"http://127.0.0.1:{port}", server.service_token, RULES, anonymous="bench"
            )
            before = time.process_time()
            for _ in range(0, number, TURN):
                asyncio.run(requests(answer if case == "no tracker" else tracked, TURN))
                if case == "server up" and not tracked.outbox.flush(FLUSH_S):
                    raise LoadError("the tracker has not sent its activities")
            turns = -(-number // TURN)
            used[case].append(1e6 * (time.process_time() - before) / (turns * TURN))
            if case == "server up" and tracked.outbox.sent != turns * TURN:
                raise LoadError(f"of {turns * TURN} activities {tracked.outbox.sent} were sent")
            tracked.outbox.close()
    for case, each in used.items():
        result.add(f"{number:,} requests, {case}", "pov-rt", cpu_us=statistics.median(each))
    for case in CASES[1:]:
        more = median_difference(used[case], used[CASES[0]])
        result.checks.append(Check(f"CPU of a request, {case}", more, 15.0, 12.0, unit="µs more"))
    serve(run, result)
    return result


class Tracked(Peer):
    """An app behind Uvicorn, whose requests become activities if `url` says where to send them."""

    def __init__(self, run: Run, case: str, url: str, token: str) -> None:
        self.name = case
        self._given = [f"TRACKED_URL={url}", f"TRACKED_TOKEN={token}"] if url else []
        self.delays_ms: list[float] = []
        super().__init__(run.folder)

    def command(self) -> list[str]:
        """Return what to run."""
        uvicorn = ["-m", "uvicorn", "bench.servers.tracked:app", "--port", str(self.port)]
        return ["env", *self._given, sys.executable, *uvicorn, "--log-level", "warning"]

    def ask(self, sock: socket.socket, number: int) -> None:
        """Make so many requests, one after the other, and note how long each took."""
        for _ in range(number):
            began = time.perf_counter()
            sock.sendall(REQUEST)
            head = b""
            while not head.endswith(b"done"):
                if not (more := sock.recv(4096)):
                    raise LoadError(f"the app has hung up: {head!r}")
                head += more
            self.delays_ms.append(1000 * (time.perf_counter() - began))


def serve(run: Run, result: Result) -> None:
    """Measure how long an app's answers take: all three run at a time, and are asked in turns."""
    number = run.scaled(SERVED)
    percentiles: dict[str, list[Sequence[float]]] = {case: [] for case in CASES}
    for _ in run.in_rounds([0], "answers, "):
        with Ours(run.folder) as server, ExitStack() as stack:
            urls = ["", f"http://127.0.0.1:{server.port}", f"http://127.0.0.1:{free_port()}"]
            apps = [
                stack.enter_context(Tracked(run, case, url, server.service_token))
                for case, url in zip(CASES, urls, strict=True)
            ]
            socks = [
                stack.enter_context(socket.create_connection(("127.0.0.1", app.port), timeout=20))
                for app in apps
            ]
            for _ in range(0, number, SERVED_TURN):
                for app, sock in zip(apps, socks, strict=True):
                    app.ask(sock, SERVED_TURN)
            for app in apps:
                cuts = statistics.quantiles(app.delays_ms, n=100)
                percentiles[app.name].append((cuts[49], cuts[98]))
    for case, found in percentiles.items():
        p50, p99 = (statistics.median(each) for each in zip(*found, strict=True))
        result.add(f"{number:,} answers, {case}", "Uvicorn", p50_ms=p50, p99_ms=p99)


@contextmanager
def publisher(run: Run, server: Ours, name: str) -> Iterator[Publisher]:
    """Open a spool of its own, on the disk that the run has."""
    made = Publisher(f"http://127.0.0.1:{server.port}", server.service_token, run.folder / name)
    try:
        yield made
    finally:
        made.close(0)


def spool(run: Run) -> Result:
    """Activities that are taken (each flushed to the disk), and brought to the server, a second."""
    result = Result("spool", "activities a second", ("taken", "sent"))
    rates: dict[int, list[Sequence[float]]] = {threads: [] for threads in PUBLISHERS}
    number = run.scaled(SPOOLED)
    for threads in run.in_rounds(PUBLISHERS, "spool, "):
        name = f"spool-{threads}-{len(rates[threads])}"
        with Ours(run.folder) as server, publisher(run, server, name) as made:

            def publish(index: int, to: Publisher = made) -> str:
                return to.publish(
                    NewActivity(
                        type="task",
                        action="completed",
                        pov_id=f"pov-{index % 10}",
                        user_id="ana",
                        details={"seq": index, "title": PAD},
                    )
                )

            with ThreadPoolExecutor(threads) as pool:
                began = time.monotonic()
                list(pool.map(publish, range(number)))
                taken_s = time.monotonic() - began
            if not made.flush(FLUSH_S):
                raise LoadError("the spool was not sent")
            rates[threads].append((number / taken_s, number / (time.monotonic() - began)))
    for threads, found in rates.items():
        taken, sent = (statistics.median(each) for each in zip(*found, strict=True))
        result.add(f"{number:,} activities, {threads} threads", "pov-rt", taken=taken, sent=sent)
        if threads == PUBLISHERS[-1]:
            rate = Check("activities taken", taken, 5000, 8000, at_most=False, unit="/s")
            result.checks.append(rate)
    return result
