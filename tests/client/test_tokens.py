"""Where tokens come from; tests/client/test_connection.py has when they are asked for."""

from __future__ import annotations

import threading

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.client import Exchange, PovClient, PovError, SessionEnded
from pov_rt.client.tokens import Given, source_of
from pov_rt.remote.addresses import parse_url
from pov_rt.testing import RunningServer
from tests.client.support import offsets, run, settled
from tests.clients import publish

HERE = parse_url("127.0.0.1:1")


def test_an_access_token_is_exchanged(server: RunningServer) -> None:
    access = server.token("ana", Kind.ACCESS)

    async def work() -> None:
        async with PovClient(server.address, Exchange(lambda: access)) as rt:
            following = rt.subscribe("acme")
            await settled(rt)
            publish(server, 1)
            assert await offsets(following, 1) == [1]

    run(work)


def test_one_that_is_refused_ends_the_session(server: RunningServer) -> None:
    async def work() -> None:
        async with PovClient(server.address, Exchange("nonsense")) as rt:
            with pytest.raises(SessionEnded, match=r"refuses the access token \(401\)"):
                await rt.request({"type": "ping"})

    run(work)


def test_another_answer_says_where_it_came_from(server: RunningServer) -> None:
    async def work() -> None:
        elsewhere = Exchange("x", f"http://{server.address}/nothing")
        with pytest.raises(PovError, match=r"gives no token at .* answers 404 not_found"):
            await elsewhere.get(HERE)

    run(work)


def test_a_function_that_blocks_holds_nothing_up_and_one_may_be_async() -> None:
    async def later() -> str:
        return "later"

    def blocking() -> str:
        return threading.current_thread().name

    async def work() -> None:
        assert await Given(blocking).get(HERE) != threading.current_thread().name
        assert await source_of(later).get(HERE) == "later"
        assert await source_of("text").get(HERE) == "text"

    run(work)
