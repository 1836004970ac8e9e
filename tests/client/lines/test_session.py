"""A client behind a proxy that lets no WebSocket through."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from pov_rt.client import (
    ConnectionLost,
    Missed,
    NotificationMessage,
    Only,
    Position,
    PovClient,
    Refused,
    SessionEnded,
)
from pov_rt.client.lines import session as sessions
from pov_rt.client.lines.session import Events, OverHttp
from pov_rt.config.settings import Settings
from pov_rt.plugins.presence import PresenceDiff
from pov_rt.plugins.typing import Typists
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import CloseCode
from pov_rt.protocol.messages import Original
from pov_rt.remote.addresses import parse_url
from pov_rt.remote.answers import MAX_ANSWER_BYTES
from pov_rt.testing import Http, RunningServer, TestClock, make_settings
from tests.client.support import cut, kept_server, new, offsets, run, settled, take
from tests.clients import notify, publish, span


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody take a busy machine for a proxy that holds answers back."""
    monkeypatch.setattr(sessions, "HELD_S", 20.0)


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[str]:
    """Run a proxy that drops what asks for an upgrade; yield its address."""
    tasks: set[asyncio.Task[None]] = set()
    serving: set[asyncio.Task[object] | None] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data.replace(b"Upgrade: websocket\r\n", b""))
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        for each in (copy(reader, back), copy(there, writer)):
            task = asyncio.ensure_future(each)
            tasks.add(task)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.wait([each for each in serving if each is not None])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def test_it_follows_over_http(server: RunningServer) -> None:
    async def work() -> None:
        publish(server, 5)
        async with (
            proxy(server.web.port) as address,
            PovClient(address, server.token("ana")) as rt,
        ):
            last, fresh = rt.subscribe("acme", last=2), rt.subscribe("other")
            feed = rt.subscribe("*")
            await settled(rt)
            publish(server, 1)
            publish(server, 1, pov="other")
            assert await offsets(last, 3) == [4, 5, 6]
            assert await offsets(fresh, 1) == [1]
            assert await offsets(feed, 2) == [6, 7]
            page = await rt.history("acme", before=0, limit=2)
            assert [each["offset"] for each in page["activities"]] == [6, 5]
            await fresh.close()
            again = rt.subscribe("other", last=1)
            assert await offsets(again, 1) == [1]

    run(work)


def test_it_does_all_that_a_websocket_does(server: RunningServer) -> None:
    async def work() -> None:
        async with (
            proxy(server.web.port) as address,
            PovClient(address, server.token("ana"), device="laptop") as ana,
            PovClient(address, server.token("bo")) as bo,
        ):
            comings, typing = ana.messages(PresenceDiff), ana.messages(Typists)
            mail = ana.messages(NotificationMessage)
            following = ana.subscribe("acme")
            there = await ana.request({"type": "presence", "povId": "acme"})
            assert [each["devices"] for each in there["users"]] == [["laptop"]]
            async with bo.subscribe("acme"):
                await settled(bo)
                assert [each.user_id for each in (await anext(comings)).joined] == ["bo"]
                await bo.send({"type": "typing", "povId": "acme", "active": True})
                assert [each.user_id for each in (await anext(typing)).users] == ["bo"]
            done = await bo.publish(new(n=1))
            assert done.position.offset == 1
            assert await offsets(following, 1) == [1]
            await asyncio.to_thread(notify, server)
            told = await anext(mail)
            await ana.request({"type": "ack", "inbox": True, "offset": told.offset})
            await following.ack()
            await following.close()
            await bo.publish(new(n=2))
            again = ana.subscribe("acme", since="cursor")
            assert await offsets(again, 1) == [2]

    run(work)


def test_a_refreshed_token_is_the_requests_too(server: RunningServer, clock: TestClock) -> None:
    async def work() -> None:
        first, second = server.token("ana", ttl_s=600), server.token("ana")
        async with proxy(server.web.port) as address, PovClient(address, first) as rt:
            with pytest.raises(Refused):
                await rt.request({"type": "refresh", "token": server.token("bo")})
            await rt.request({"type": "refresh", "token": second})
            await asyncio.to_thread(clock.advance, 700)
            assert (await rt.publish(new())).position.offset == 1
            assert rt.status.failures == 0

    run(work)


def test_the_servers_last_word_says_whether_to_come_back(server: RunningServer) -> None:
    async def work() -> None:
        async with proxy(server.web.port) as address:
            tokens: list[str] = []

            def token() -> str:
                tokens.append(server.token("ana"))
                return tokens[-1]

            async with PovClient(address, token) as rt:
                following = rt.subscribe("acme")
                for code in (CloseCode.TOKEN, CloseCode.GAP):
                    await settled(rt)
                    await asyncio.to_thread(cut, server, code=code)
                    publish(server, 1)
                    assert len(await offsets(following, 1)) == 1
                assert len(tokens) == 3
                await settled(rt)
                await asyncio.to_thread(cut, server, code=CloseCode.DISCONNECTED)
                with pytest.raises(SessionEnded, match="4500 disconnected by an operator"):
                    await anext(following)

    run(work)


def test_nothing_is_left_of_a_client_that_is_closed(server: RunningServer) -> None:
    async def work() -> None:
        async with (
            proxy(server.web.port) as address,
            PovClient(address, server.token("ana"), max_waiting=1) as rt,
        ):
            following = rt.subscribe("acme")
            await settled(rt)
            publish(server, 500)  # of which one is taken
            assert await offsets(following, 1) == [1]

    run(work)
    for thread in threading.enumerate():
        if thread.name.startswith("pov-rt session"):
            thread.join(20)
            assert not thread.is_alive()


FORGETFUL = """
import sys
from pov_rt.client import SyncPovClient
from pov_rt.client.lines.session import OverHttp
client = SyncPovClient(*sys.argv[1:], opener=OverHttp())
client.__enter__()
client.request({"type": "ping"})
"""
"""A process that ends without closing its client."""


def test_no_process_waits_for_a_client_that_it_did_not_close(server: RunningServer) -> None:
    command = [sys.executable, "-c", FORGETFUL, server.address, server.token("ana")]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Holding:
    """A server behind a proxy that shows no answer before its end: of fetched ones it has these.

    What it is asked goes into `asked`; then it says nothing more.
    """

    def __init__(self, *answers: bytes) -> None:
        self.asked: list[str] = []
        self.serving: set[asyncio.Task[object] | None] = set()
        self._answers = list(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        with closing(writer):
            while head := await self._head(reader):
                self.asked.append(head)
                if "live=long-poll" in head and self._answers:
                    writer.write(self._answers.pop(0))

    async def _head(self, reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return ""


def fetched(place: int, *messages: dict[str, Any]) -> bytes:
    body = "".join(f"data:{encode(each).decode()}\n\n" for each in messages) + f"id:c_{place}\n\n"
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
WELCOME = {"type": "welcome", "connectionId": "c"}


def open_held(
    holding: Holding,
    monkeypatch: pytest.MonkeyPatch,
    opener: OverHttp | None = None,
    *,
    within_s: float = 20.0,
) -> list[Any]:
    """Open a session there; return what it brings to its end, and what that is."""
    opened = opener or OverHttp()

    async def work() -> list[Any]:
        monkeypatch.setattr(sessions, "HELD_S", 0.05)
        monkeypatch.setattr(sessions, "OPEN_S", within_s)
        async with await asyncio.start_server(holding.serve, "127.0.0.1", 0) as server:
            address = parse_url(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            found: list[Any] = []
            try:
                line = await opened(address, "token", "phone")
                try:
                    while True:
                        found.append(json.loads(await line.receive()))
                finally:
                    await line.close()
            except (ConnectionLost, SessionEnded) as error:
                return [*found, error]
            finally:
                await asyncio.wait([each for each in holding.serving if each is not None])

    return run(work)


def test_where_an_answer_is_held_back_its_events_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {"type": "pong", "id": "1"}
    closing_ = {"type": "closing", "code": 4500}
    holding = Holding(fetched(1, WELCOME), fetched(2, said), BUSY, fetched(3, closing_), GONE)
    *found, end = open_held(holding, monkeypatch)
    assert found == [WELCOME, said, closing_]
    assert isinstance(end, SessionEnded)
    first, *then = [each for each in holding.asked if "live=long-poll" in each]
    assert "device=phone" in first
    places = [each.partition("Last-Event-ID: ")[2].partition("\r\n")[0] for each in then]
    assert places == ["c_1", "c_2", "c_2", "c_3"]


def test_that_answers_are_held_back_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = OverHttp()
    for tried in (1, 0):
        holding = Holding(fetched(1, WELCOME), GONE)
        assert open_held(holding, monkeypatch, opener)[0] == WELCOME
        endless = [
            each
            for each in holding.asked
            if each.startswith("GET") and "live=long-poll" not in each
        ]
        assert len(endless) == tried


def test_what_was_known_of_a_way_is_forgotten_when_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opener = OverHttp()
    assert open_held(Holding(fetched(1, WELCOME), GONE), monkeypatch, opener)[0] == WELCOME
    (error,) = open_held(Holding(), monkeypatch, opener, within_s=0.05)
    assert isinstance(error, ConnectionLost)
    holding = Holding(fetched(1, WELCOME), GONE)
    assert open_held(holding, monkeypatch, opener)[0] == WELCOME
    assert any("live=long-poll" not in each for each in holding.asked)


def test_where_nothing_comes_at_all_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    (error,) = open_held(Holding(), monkeypatch, within_s=0.05)
    assert "no word came over HTTP, of events or of answers that end" in str(error)


def test_events_are_found_wherever_they_are_cut() -> None:
    whole = b':\n\ndata:{"n":1}\n\nevent: x\ndata: {"n":2}\r\n\n'
    for size in range(1, len(whole)):
        events = Events()
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        found = [message for piece in pieces for message in events.feed(piece)]
        assert found == [b'{"n":1}', b'{"n":2}']
    with pytest.raises(OSError, match="above"):
        Events().feed(b"data:" + b"x" * MAX_ANSWER_BYTES)


def test_it_comes_back_to_where_it_was(tmp_path: Path) -> None:
    async def work(servers: ExitStack) -> None:
        first = servers.enter_context(kept_server(tmp_path))
        port = first.web.port
        async with (
            proxy(port) as address,
            PovClient(address, first.token("ana")) as rt,
        ):
            following = rt.subscribe("acme")
            await settled(rt)
            publish(first, 2)
            assert await offsets(following, 2) == [1, 2]
            await asyncio.to_thread(servers.close)
            second = servers.enter_context(kept_server(tmp_path, port))
            for _ in range(3):
                publish(second, 500)
            assert await offsets(following, 1500) == span(3, 1502)

    with ExitStack() as servers:
        run(lambda: work(servers))


def test_a_filter_leaves_out_the_rest_and_goes_on(server: RunningServer) -> None:
    async def work() -> None:
        async with (
            proxy(server.web.port) as address,
            PovClient(address, server.token("ana")) as rt,
        ):
            following = rt.subscribe("acme", only=Only(users=["cy"]))
            await settled(rt)
            publish(server, 3, user="bo")
            publish(server, 1, user="cy")
            assert await offsets(following, 1) == [4]

    run(work)


@pytest.mark.parametrize("is_behind_proxy", [False, True])
def test_what_was_changed_and_erased_is_the_same_on_either_line(
    server: RunningServer, *, is_behind_proxy: bool
) -> None:
    app = Http(server)

    def change(how: str, **more: Any) -> None:
        body = {"povId": "acme", **more}
        assert app.post(f"/api/activities/a1/{how}", body, service=True).status == 200

    async def work() -> None:
        async with AsyncExitStack() as stack:
            address = server.address
            if is_behind_proxy:
                address = await stack.enter_async_context(proxy(server.web.port))
            rt = await stack.enter_async_context(PovClient(address, server.token("ana")))
            following = rt.subscribe("acme")
            await settled(rt)
            activity = {"type": "t", "action": "a", "povId": "acme", "userId": "eve"}
            body = {"id": "a1", **activity, "details": {"n": 1}}
            assert (await asyncio.to_thread(app.post, "/api/activities", body, service=True)).body
            publish(server, 2, user="bo")
            await asyncio.to_thread(change, "amend", details={"n": 2})
            await asyncio.to_thread(change, "retract", reason="wrong")
            *_, amended, retracted = await take(following, 5)
            for told in (amended, retracted):
                assert told.original == Original(id="a1", offset=1)
            assert (amended.amended, amended.details) == (True, {"n": 2})
            assert (retracted.retracted, retracted.details) == (True, UNSET)
            assert retracted.reason == "wrong"

            top = following.position
            assert top is not None
            publish(server, 1, user="cy")
            erase = partial(app.request, "DELETE", user="app", service=True, can=["operate"])
            assert (await asyncio.to_thread(erase, "/api/users/bo")).status == 200
            assert (await asyncio.to_thread(erase, "/api/users/eve")).status == 200
            publish(server, 1, user="bo")
            assert await offsets(following, 2) == [6, 7]
            assert (await asyncio.to_thread(erase, "/api/users/bo")).status == 200
            publish(server, 1, user="cy")
            assert await offsets(following, 1) == [8]
            # Nobody raised `Missed`: where nothing is left is no gap.
            await following.close()
            anew = rt.subscribe("acme", since=Position(top.epoch, 0))
            assert await offsets(anew, 2) == [6, 8]

    run(work)


class TestRefusals:
    @pytest.fixture
    def settings(self) -> Settings:
        """A server that keeps ten activities."""
        return make_settings(engine={"max_entries": 10})

    def test_a_gap_is_one_here_too(self, server: RunningServer) -> None:
        async def work() -> None:
            publish(server, 30)
            top = server.run(lambda: server.web.server.engine.log.top("pov/acme"))
            async with (
                proxy(server.web.port) as address,
                PovClient(address, server.token("ana")) as rt,
            ):
                following = rt.subscribe("acme", since=Position(top.epoch, 3))
                with pytest.raises(Missed):
                    await anext(following)
                publish(server, 1)
                assert await offsets(following, 1) == [31]

        run(work)

    def test_a_pov_that_is_not_covered_is_refused(self, server: RunningServer) -> None:
        async def work() -> None:
            async with (
                proxy(server.web.port) as address,
                PovClient(address, server.token("ana", povs=["acme"])) as rt,
            ):
                with pytest.raises(Refused, match="forbidden"):
                    await anext(rt.subscribe("other"))

        run(work)

    def test_a_token_that_is_none_ends_the_session(self, server: RunningServer) -> None:
        async def work() -> None:
            async with proxy(server.web.port) as address, PovClient(address, "nonsense") as rt:
                with pytest.raises(SessionEnded, match=r"refuses the token \(401\)"):
                    await anext(rt.subscribe("acme"))

        run(work)


class TestManyAtOnce:
    @pytest.fixture(params=[3, 64])
    def settings(self, request: pytest.FixtureRequest) -> Settings:
        """A server that takes so many messages of a request."""
        return make_settings(limits={"inbox_messages": request.param, "message_rate": "500/s"})

    def test_what_is_sent_keeps_its_order_and_is_sent_once(self, server: RunningServer) -> None:
        async def work() -> None:
            async with (
                proxy(server.web.port) as address,
                PovClient(address, server.token("ana")) as rt,
            ):
                done = await asyncio.gather(*[rt.publish(new(n=number)) for number in range(150)])
                assert [each.position.offset for each in done] == span(1, 150)
                assert not any(each.duplicate for each in done)

        run(work)
