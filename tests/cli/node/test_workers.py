"""Several workers on one port: real processes on a real Redis."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
from websockets.sync.client import connect

from bench.storm import Crowd, place_of, sign
from tests.processes import COMMAND, SECRET, environment, read_until, run, running, with_socket
from tests.redis_servers import HOW, RedisServer, find_program, redis_running
from tests.watching import Watcher

WAIT_S = 30.0
PROGRAM = "redis-server"
CLIENTS = 24


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    assert find_program(PROGRAM) is not None, HOW[PROGRAM]
    with redis_running(PROGRAM, tmp_path_factory.mktemp("redis")) as server:
        yield server


def variables(folder: Path, redis: RedisServer) -> dict[str, str]:
    return {
        **environment(folder),
        "POV_RT_ENGINE__URL": redis.url,
        "POV_RT_ENGINE__REDIS__PREFIX": f"test-{uuid4().hex[:12]}",
        "POV_RT_AUTH__SECRETS": SECRET,
        "POV_RT_SERVER__PORT": "0",
        "POV_RT_SERVER__ADMIN_PORT": "0",
        "POV_RT_SERVER__WORKERS": "2",
        "POV_RT_LOG__FORMAT": "json",
    }


class Site:
    """Two workers and their supervisor."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        """The log as far as it was read."""
        line = self.until("with 2 workers; their admin ports: ")
        found = re.search(r":(\d+) with 2 workers; their admin ports: (\d+), (\d+)", line)
        assert found is not None
        self.port, *self.admin_ports = map(int, found.groups())

    def until(self, words: str) -> str:
        """Read the log up to a line with these words, and return that line."""
        self.said += read_until(self.process.stderr, words)
        return self.said.splitlines()[-1]

    def pid(self, number: int) -> int:
        """Return the process of a worker that was started last."""
        return int(re.findall(rf"worker {number} is process (\d+)", self.said)[-1])

    def metric(self, number: int, name: str) -> list[str]:
        """Return the lines of a worker's metrics that begin with a name."""
        with urlopen(f"http://127.0.0.1:{self.admin_ports[number - 1]}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return [line for line in lines if line.startswith(name)]

    def node(self, number: int) -> str:
        """Return the name of the node that a worker is."""
        (line,) = self.metric(number, "pov_rt_build_info{")
        (name,) = re.findall(r'node="(\w+)"', line)
        return str(name)

    def sockets(self, number: int) -> int:
        """Return how many WebSockets a worker has."""
        (line,) = self.metric(number, 'pov_rt_connections{transport="ws"}')
        return int(float(line.split()[-1]))

    def join(self, stack: ExitStack) -> Any:
        """Return a client that follows a PoV."""
        token = sign(SECRET, "ana", povs=["acme"], can=["subscribe", "publish"])
        url = f"ws://127.0.0.1:{self.port}/ws/?token={token}"
        client = stack.enter_context(connect(url, proxy=None, open_timeout=WAIT_S))
        client.send('{"type":"subscribe","povId":"acme"}')
        assert json.loads(client.recv(WAIT_S))["type"] == "subscribed"
        return client


@contextmanager
def site(folder: Path, redis: RedisServer, *flags: str, **more: str) -> Iterator[Site]:
    with running(
        [*COMMAND, "serve", *flags],
        env=variables(folder, redis) | more,
        cwd=folder,
        stderr=subprocess.PIPE,
    ) as process:
        yield Site(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        # One that nobody waited for is dead all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_share_a_port_and_one_that_dies_comes_back_as_the_same_node(
    tmp_path: Path, redis: RedisServer
) -> None:
    with site(tmp_path, redis) as workers, ExitStack() as stack:
        names = [workers.node(number) for number in (1, 2)]
        assert len(set(names)) == 2
        clients = []
        while not (workers.sockets(1) and workers.sockets(2)):  # as the kernel spreads them
            clients.append(workers.join(stack))
        clients[0].send(
            '{"type":"publish","data":{"type":"t","action":"a","povId":"acme","userId":"ana"}}'
        )
        for each in clients:
            while json.loads(each.recv(WAIT_S))["type"] != "activity":
                pass
        os.kill(workers.pid(1), signal.SIGKILL)
        line = json.loads(workers.until("it is started anew in "))
        assert line["message"].startswith("worker 1 was ended by SIGKILL after ")
        for _ in range(8):  # nobody waits for who is not there
            workers.join(stack)
        own = json.loads(workers.until("listens on 127.0.0.1:"))
        assert own["worker"] == 1, "each line says whose it is"
        assert [workers.node(number) for number in (1, 2)] == names
        os.kill(workers.pid(2), signal.SIGTERM)
        workers.until("worker 2 ended with status 0 after ")
        workers.until("listens on 127.0.0.1:")


@pytest.mark.timeout(120)
def test_a_reload_replaces_one_after_the_other_and_nobody_notices(
    tmp_path: Path, redis: RedisServer
) -> None:
    with site(tmp_path, redis) as workers:
        before = [workers.pid(number) for number in (1, 2)]
        place = place_of(f"ws://127.0.0.1:{workers.port}")

        async def play() -> None:
            async with Crowd([place], SECRET, CLIENTS, Watcher) as crowd:
                await crowd.until(acknowledged=5)
                assert workers.sockets(1) + workers.sockets(2) == CLIENTS
                workers.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(workers.until, "all workers were restarted")
                await crowd.until(acknowledged=5)
                behind = await crowd.settle()
                ledger = crowd.ledger
                assert (ledger.lost, ledger.doubled, ledger.gaps, behind) == (0, 0, 0, [])
                assert (ledger.untold, len(ledger.downs) >= CLIENTS) == (0, True)
                assert "ConnectionRefusedError" not in ledger.refused | ledger.failures
                for each in crowd.clients:
                    assert isinstance(each, Watcher)
                    assert each.left == []
                    assert each.present[1:] == [CLIENTS] * (len(each.present) - 1)

        asyncio.run(play())
        after = [workers.pid(number) for number in (1, 2)]
        assert not set(before) & set(after)
        first = workers.said.index("restarting worker 1 of 2")
        ready = workers.said.index("listens on", first)
        assert ready < workers.said.index("restarting worker 2 of 2"), "one after the other"


def test_a_reload_with_a_mistake_replaces_nobody(tmp_path: Path, redis: RedisServer) -> None:
    file = tmp_path / "pov-rt.toml"
    file.write_text("[server]\nhost = '127.0.0.1'\n")
    with site(tmp_path, redis, "--config", str(file)) as workers:
        before = [workers.node(number) for number in (1, 2)]
        file.write_text("[server]\ncolour = 3\n")
        workers.process.send_signal(signal.SIGHUP)
        assert "server.colour" in workers.until("nothing was restarted: ")
        assert [workers.node(number) for number in (1, 2)] == before
        file.write_text("[server]\nhost = '127.0.0.9'\n")
        workers.process.send_signal(signal.SIGHUP)
        workers.until("needs a restart: server.host")
        workers.until("all workers were restarted")
        assert workers.sockets(1) == 0, "where it always was"


def test_a_worker_that_cannot_start_ends_all(tmp_path: Path, redis: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = taken.getsockname()[1]
        given = variables(tmp_path, redis) | {"POV_RT_SERVER__ADMIN_PORT": str(second - 1)}
        done = run(tmp_path, "serve", **given)
    assert done.returncode == 1
    assert "choose another port with --admin-port" in done.stderr
    # The first one's port may be another program's by now, and then it is the one that ends.
    said = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"Error: worker [12] ended with status 1 before it was ready; .*", said)


def test_a_worker_that_hangs_is_ended_and_started_anew(tmp_path: Path, redis: RedisServer) -> None:
    with site(tmp_path, redis, WATCHDOG_USEC="3000000") as workers:
        os.kill(workers.pid(1), signal.SIGSTOP)
        workers.until("worker 1 has not been heard of for 3 s, and is ended")
        workers.until("worker 1 was ended by SIGKILL after ")
        workers.until("listens on 127.0.0.1:")


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    with ExitStack() as stack:
        process = stack.enter_context(
            running(
                [*COMMAND, "serve"],
                env=variables(tmp_path, redis),
                stderr=subprocess.PIPE,
            )
        )
        workers = Site(process)
        pids = [workers.pid(number) for number in (1, 2)]
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not any(map(is_alive, pids)))


def test_systemd_gives_the_port_and_hears_of_all_as_of_one(
    tmp_path: Path, redis: RedisServer
) -> None:
    path = str(tmp_path / "notify")
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(path)
        manager.settimeout(WAIT_S)
        number, port = listening.fileno(), listening.getsockname()[1]
        process = stack.enter_context(
            running(
                with_socket(number, [*COMMAND, "serve"]),
                env=variables(tmp_path, redis)
                | {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000000"},
                pass_fds=(number,),
                stderr=subprocess.PIPE,
            )
        )

        def told(words: str) -> str:
            """Return the next that is told which begins so."""
            while not (said := manager.recv(1000).decode()).startswith(words):
                pass
            return said

        ready = f"READY=1\nSTATUS=Listening on port {port}, 2 workers"
        told("WATCHDOG=1")
        assert told("READY=1") == ready
        workers = Site(process)
        assert workers.port == port
        workers.join(stack)
        process.send_signal(signal.SIGHUP)
        told("RELOADING=1")
        told("STATUS=Restarting worker 2")
        assert told("READY=1") == ready
        process.send_signal(signal.SIGTERM)
        stopping = told("STOPPING=1")
        (patience,) = re.findall(r"EXTEND_TIMEOUT_USEC=(\d+)", stopping)
        assert int(patience) >= 50e6, "the drain, and who hangs"
        assert process.wait(WAIT_S) == 0
        workers.until("closing 1 connections: they come back after 0.3")
