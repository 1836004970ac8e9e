"""Two nodes on one Redis behind each proxy whose shipped file says what several need."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.storm import Crowd, place_of, sign
from tests.node_processes import NodeProcess
from tests.processes import SECRET
from tests.redis_servers import HOW, find_program, redis_running
from tests.test_deploy_proxies import HOST, connected, in_front, make_certificate, talk
from tests.watching import Watcher

PROXIES = ("nginx", "haproxy")
PROGRAM = "redis-server"
CLIENTS = 24
IN_A_ROW = 6
"""So many new sockets that all come to the same node of two are no chance."""
UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


class Site(NamedTuple):
    """A proxy's port, and the nodes behind it."""

    port: int
    nodes: tuple[NodeProcess, NodeProcess]

    def handshake(self, stack: ExitStack, timeout_s: float | None = None) -> int:
        """Ask for a socket, and keep it; return the status of the answer."""
        sock = stack.enter_context(connected(self.port))
        if timeout_s is not None:
            sock.settimeout(timeout_s)
        token = sign(SECRET, "ana", povs=["acme"])
        return talk(sock, self.port, f"GET /ws/?token={token}", *UPGRADE)[0]


@pytest.fixture(params=PROXIES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    assert find_program(PROGRAM) is not None, HOW[PROGRAM]
    with ExitStack() as stack:
        redis = stack.enter_context(redis_running(PROGRAM, tmp_path / "redis"))
        more = {
            "POV_RT_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
            "POV_RT_SERVER__ALLOWED_HOSTS": f'["{HOST}"]',
        }
        nodes = tuple(
            NodeProcess(tmp_path / name, redis.url, **more) for name in ("node-1", "node-2")
        )
        one, two = nodes
        for each in nodes:
            stack.callback(each.kill)
            each.start()
        ports = [each.ports for each in nodes]
        certificate = make_certificate(tmp_path)
        place = stack.enter_context(in_front(request.param, tmp_path, certificate, 0, {404}, ports))
        yield Site(place.port, (one, two))


def test_a_node_that_drains_gets_no_new_sockets_and_nobody_is_refused(site: Site) -> None:
    one, two = site.nodes
    with ExitStack() as stack:
        while not (one.sockets() and two.sockets()):
            assert site.handshake(stack) == 101
        assert one.process is not None
        one.process.send_signal(signal.SIGTERM)
        while one.process.poll() is None:
            assert site.handshake(stack) == 101
        before = two.sockets()
        for _ in range(IN_A_ROW):
            assert site.handshake(stack) == 101
        assert two.sockets() == before + IN_A_ROW
        one.start()
        while not one.sockets():  # and it is asked again
            assert site.handshake(stack) == 101


@pytest.mark.timeout(120)
def test_a_restart_of_both_loses_nothing_and_nobody_is_said_to_have_left(site: Site) -> None:
    place = place_of(f"wss://{HOST}", f"127.0.0.1:{site.port}")

    async def play() -> None:
        async with Crowd([place], SECRET, CLIENTS, Watcher) as crowd:
            await crowd.until(acknowledged=5)
            assert all(each.sockets() for each in site.nodes)
            for each in site.nodes:
                gone = len(crowd.ledger.downs) + each.sockets()
                await asyncio.to_thread(each.stop)
                await crowd.until(acknowledged=5)
                await crowd.until_back(gone)
                await asyncio.to_thread(each.start)
            await crowd.until(acknowledged=5)
            behind = await crowd.settle()
            ledger = crowd.ledger
            assert (ledger.lost, ledger.doubled, ledger.gaps, behind) == (0, 0, 0, [])
            assert (ledger.untold, ledger.failures) == (0, {})
            for watcher in crowd.clients:
                assert isinstance(watcher, Watcher)
                assert watcher.left == []
                assert watcher.present[1:] == [CLIENTS] * (len(watcher.present) - 1)

    asyncio.run(play())


@pytest.mark.parametrize("site", ["haproxy"], indirect=True)
def test_a_node_that_hangs_is_found_by_the_check_of_its_readiness(site: Site) -> None:
    """Its port accepts as ever; of what has no answer at all, nginx alone would find out."""
    one, two = site.nodes
    assert one.process is not None
    os.kill(one.process.pid, signal.SIGSTOP)
    answered = 0
    with ExitStack() as stack:
        while answered < IN_A_ROW:
            found = 0
            with suppress(TimeoutError):
                found = site.handshake(stack, 1.0)
            answered = answered + 1 if found == 101 else 0
        assert two.sockets() >= IN_A_ROW
    os.kill(one.process.pid, signal.SIGCONT)
