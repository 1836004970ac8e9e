"""What a handshake may look like, byte for byte, and that no token gets into any output."""

from __future__ import annotations

import base64
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings

KEY = base64.b64encode(bytes(16)).decode()
UPGRADE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def exchange(server: RunningServer, raw: bytes, port: int | None = None) -> bytes:
    """Send bytes and return all that comes until the server closes or has answered."""
    address = ("127.0.0.1", port or server.web.port)
    with closing(socket.create_connection(address, timeout=10)) as sock:
        sock.sendall(raw)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = sock.recv(65536)
            if not data:
                break
            answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"content-length: " in head.lower():
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(body) < size:
                body += sock.recv(65536)
        return head + b"\r\n\r\n" + body


def request(
    server: RunningServer,
    target: str,
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    drop: str = "",
    lines: tuple[str, ...] = (),
    body: str = "",
    port: int | None = None,
    **headers: str,
) -> tuple[int, str]:
    """Send an upgrade request with changes; return status and everything."""
    given = {**UPGRADE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    given.pop(drop, None)
    text = [f"{method} {target} {version}", *(f"{name}: {given[name]}" for name in given), *lines]
    raw = ("\r\n".join(text) + "\r\n\r\n" + body).encode("latin-1")
    answer = exchange(server, raw, port)
    if not answer.strip():
        return 0, ""
    return int(answer.split(b" ", 2)[1]), answer.decode("latin-1")


PLUGIN = '''"""A plugin with a route."""
from pov_rt.plugin import Message, Plugin, Request

plugin = Plugin("looker")

class Seen(Message, tag="looker.seen"):
    """Seen."""

@plugin.http("GET", "/seen", grant="subscribe")
def seen(request: Request) -> Seen:
    """Answer."""
    return Seen()
'''


def test_a_good_handshake_upgrades(server: RunningServer) -> None:
    status, text = request(server, f"/ws/?token={server.token()}")
    assert status == 101
    # RFC 6455, section 1.3, for a key of 16 zero bytes.
    assert "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=" in text
    assert "Sec-WebSocket-Protocol" not in text


@pytest.mark.parametrize(
    "path",
    [
        *("/ws", "/", "/WS/", "//ws/", "/%2fws%2f", "/%77s/", "/api/activities/x", "http://x/ws"),
        *("/ws/../x", "/ws/%2e%2e/x", "/ws/.%2E/x", "/ws/%2e%2e%2fx", "/ws/\0", "/ws/%00"),
        # What is there without an upgrade is no place for one.
        *("/api/auth/ws-token", "/api/activities", "/api/povs/acme/activities"),
    ],
)
def test_an_upgrade_outside_of_ws_is_400_whatever_the_token(
    server: RunningServer, path: str
) -> None:
    good = f"token={server.token()}"
    service = f"Bearer {server.token(kind=Kind.SERVICE)}"
    assert request(server, f"{path}?{good}")[0] == 400
    assert request(server, path)[0] == 400
    assert request(server, path, Authorization=service)[0] == 400
    assert request(server, f"{path}?{good}", Host="evil.example")[0] == 400


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/ws/"])
def test_an_upgrade_on_the_operators_port_is_400(server: RunningServer, path: str) -> None:
    status, text = request(server, path, port=server.web.admin_port)
    assert (status, '"invalid_request"' in text) == (400, True)


class TestPluginRoutes:
    @pytest.fixture
    def plugins_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "looker.py").write_text(PLUGIN)
        return tmp_path

    def test_an_upgrade_on_a_plugins_route_is_400(self, server: RunningServer) -> None:
        token = f"Bearer {server.token()}"
        assert request(server, "/api/seen", Authorization=token)[0] == 400
        assert request(server, "/api/seen", drop="Upgrade", Authorization=token)[0] == 200
        status, text = request(server, "/api/seen", drop="Upgrade", method="PUT")
        assert (status, "\r\nAllow: GET, HEAD, OPTIONS\r\n" in text) == (405, True)


def tokens(server: RunningServer) -> Iterator[tuple[str, str]]:
    good = server.token()
    yield "absent", "/ws/"
    yield "empty", "/ws/?token="
    yield "repeated", f"/ws/?token={good}&token={good}"
    yield "undecodable", "/ws/?token=%ff"
    yield "nonsense", "/ws/?token=x"
    yield "space around", f"/ws/?token=%20{good}"
    yield "long", f"/ws/?token={'x' * 5000}"
    yield "dots", f"/ws/?token={'.' * 5000}"
    yield "cut", f"/ws/?token={good[:-2]}"
    yield "for services", f"/ws/?token={server.token(kind=Kind.SERVICE)}"
    yield "nul", "/ws/?token=%00"
    yield "an encoded surrogate", "/ws/?token=%ED%A0%80"
    yield "a surrogate behind", f"/ws/?token={good}%ED%A0%80"
    yield "space behind", f"/ws/?token={good}%20"
    yield "plus behind", f"/ws/?token={good}+"
    yield "newline behind", f"/ws/?token={good}%0A"
    yield "CRLF before", f"/ws/?token=%0D%0A{good}"
    yield "in a fragment", f"/ws/#token={good}"
    yield "behind a fragment", f"/ws/?token=#{good}"
    yield "in other letters", f"/ws/?Token={good}"
    yield "an access token for another service", f"/ws/?token={server.token(kind=Kind.SERVICE)}"


def test_every_bad_token_is_401_before_the_upgrade_without_a_reason(
    server: RunningServer,
) -> None:
    for name, target in tokens(server):
        status, text = request(server, target)
        assert status == 401, name
        assert '"token_invalid"' in text, name
        assert "Connection: close" in text, name


def test_an_expired_token_is_401(server: RunningServer) -> None:
    token = server.token(ttl_s=0.05)
    deadline = server.web.server.clock.time() + 0.06
    while server.web.server.clock.time() < deadline:
        os.sched_yield()
    status, text = request(server, f"/ws/?token={token}")
    assert (status, "token_expired" in text) == (401, True)


def test_a_token_in_both_places_is_401(server: RunningServer) -> None:
    token = server.token()
    protocol = f"pov-rt.v1, bearer.{token}"
    assert request(server, "/ws/", Sec_WebSocket_Protocol=protocol)[0] == 101
    assert request(server, f"/ws/?token={token}", Sec_WebSocket_Protocol=protocol)[0] == 401


@pytest.mark.parametrize(
    ("offers", "status"),
    [
        (["pov-rt.v1, bearer.TOKEN"], 101),
        (["bearer.TOKEN,pov-rt.v1"], 101),
        (["chat, pov-rt.v1, bearer.TOKEN"], 101),
        (["pov-rt.v1", "bearer.TOKEN"], 101),
        # A browser drops a connection whose server takes none of what was offered.
        (["bearer.TOKEN"], 400),
        (["chat, bearer.TOKEN"], 400),
        (["pov-rt.v2, bearer.TOKEN"], 400),
        (["POV-RT.V1, bearer.TOKEN"], 400),
        (["pov-rt.v1"], 401),
        (["pov-rt.v1, bearer."], 401),
        (["pov-rt.v1, Bearer.TOKEN"], 401),
        (["pov-rt.v1, bearer.TOKEN, bearer.TOKEN"], 401),
    ],
)
def test_a_token_is_offered_beside_the_subprotocol_that_is_taken(
    server: RunningServer, offers: list[str], status: int
) -> None:
    token = server.token()
    lines = (f"Sec-WebSocket-Protocol: {offer.replace('TOKEN', token)}" for offer in offers)
    got, text = request(server, "/ws/", lines=tuple(lines))
    assert got == status, text
    assert ("Sec-WebSocket-Protocol: pov-rt.v1\r\n" in text) == (status == 101)
    assert ("Offer the subprotocol 'pov-rt.v1'" in text) == (status == 400)
    assert token not in text


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"drop": "Connection"}, 426),
        ({"drop": "Upgrade"}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "h2c, WebSocket"}, 101),
        ({"Upgrade": "h2c", "lines": ("Upgrade: websocket",)}, 101),
        ({"Upgrade": "websocket/13"}, 426),
        ({"Connection": "keep-alive, Upgrade"}, 101),
        ({"Connection": "keep-alive", "lines": ("Connection: upgrade",)}, 101),
        ({"Connection": "keep-alive"}, 426),
        ({"Sec_WebSocket_Key": "x"}, 400),
        ({"Sec_WebSocket_Key": base64.b64encode(bytes(15)).decode()}, 400),
        ({"drop": "Sec-WebSocket-Key"}, 400),
        ({"Sec_WebSocket_Version": "12"}, 426),
        ({"drop": "Sec-WebSocket-Version"}, 426),
        ({"method": "POST"}, 405),
        ({"version": "HTTP/1.0"}, 426),
        ({"version": "HTTP/1.2"}, 101),
        ({"drop": "Host"}, 400),
        ({"lines": ("Host: other",)}, 400),
        ({"Host": "a b"}, 400),
        ({"Content_Length": "3", "body": "abc"}, 400),
        ({"Content_Length": "0"}, 101),
        ({"Content_Length": "x"}, 400),
        ({"Transfer_Encoding": "chunked", "body": "3\r\nabc\r\n0\r\n\r\n"}, 400),
        ({"Transfer_Encoding": "chunked", "Content_Length": "3", "body": "0\r\n\r\n"}, 400),
        ({"Transfer_Encoding": "gzip"}, 400),
        ({"method": "POST", "drop": "Upgrade", "Content_Length": "3", "body": "abc"}, 405),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://evil-localhost"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://localhost/"}, 403),
        ({"Origin": "http://LOCALHOST"}, 403),
        ({"Origin": "http://[", "Host": "localhost"}, 403),
        ({"Origin": "http://localhost", "lines": ("Origin: http://localhost",)}, 400),
        ({"Origin": "http://localhost"}, 101),
        ({"Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"}, 403),
        ({"Origin": "http://evil.example", "Sec_Fetch_Site": "none"}, 403),
        ({"Origin": "http://evil.example", "Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 101),
        # Both say the same, and a name's owner can make it lead here.
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=8"}, 101),
        ({"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=abc"}, 101),
        ({"Sec_WebSocket_Extensions": ";;,=,permessage-deflate;x=\x22"}, 101),
        ({"Sec_WebSocket_Extensions": "x, " * 3000}, 101),
        ({"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=99"}, 101),
        ({"Sec_WebSocket_Extensions": "permessage-deflate, permessage-deflate"}, 101),
        (
            {
                "Sec_WebSocket_Extensions": "permessage-deflate",
                "lines": ("Sec-WebSocket-Extensions: permessage-deflate; a; a; b=1; b=2",),
            },
            101,
        ),
    ],
)
def test_a_handshake_is_checked_to_the_letter(
    server: RunningServer, changes: dict[str, str], status: int
) -> None:
    got, text = request(server, f"/ws/?token={server.token()}", **changes)  # type: ignore[arg-type]
    assert got == status, text
    assert "Sec-WebSocket-Extensions" not in text
    if status == 426:
        head = text.lower()
        for line in (
            "sec-websocket-version: 13",
            "upgrade: websocket",
            "connection: upgrade, close",
        ):
            assert f"\r\n{line}\r\n" in head
    elif status != 101 and text.startswith("HTTP/1.1"):
        assert '{"error":{"code":"' in text


class TestWithAListOfHosts:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(
            server=ServerSettings(
                port=0,
                admin_port=0,
                allowed_hosts=["rt.example"],
                allowed_origins=["https://app.example"],
            )
        )

    @pytest.mark.parametrize(
        ("host", "origin", "status"),
        [
            ("rt.example", None, 101),
            ("rt.example:8765", "https://app.example", 101),
            ("rt.example", "https://app.example:444", 403),
            # A name that its owner points here: both headers agree, and both are wrong.
            ("evil.example", "http://evil.example", 421),
        ],
    )
    def test_a_rebound_name_does_not_pass(
        self, server: RunningServer, host: str, origin: str | None, status: int
    ) -> None:
        headers = {"Host": host, **({"Origin": origin} if origin else {})}
        assert request(server, f"/ws/?token={server.token()}", **headers)[0] == status  # type: ignore[arg-type]


def test_ws_without_upgrade_tells_a_browser_why_it_was_refused(server: RunningServer) -> None:
    def ask(*headers: str) -> tuple[int, str]:
        text = "\r\n".join(["GET /ws/ HTTP/1.1", "Host: localhost", *headers]) + "\r\n\r\n"
        answer = exchange(server, text.encode())
        return int(answer.split(b" ", 2)[1]), answer.decode()

    status, text = ask()
    assert (status, '"code":"token_invalid"' in text) == (401, True)
    assert ask("Authorization: Bearer x")[0] == 401
    assert ask("Authorization: Basic x")[0] == 401
    assert ask("Authorization: Bearer")[0] == 401
    status, text = ask(f"Authorization: Bearer {server.token()}")
    assert (status, "sec-websocket-version: 13" in text.lower()) == (426, True)
    assert "\r\nConnection: Upgrade, close\r\n" in text


def test_an_answer_that_offers_an_upgrade_ends_its_connection(server: RunningServer) -> None:
    bearer = f"Authorization: Bearer {server.token()}"
    question = f"GET /ws/ HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n".encode()
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        sock.sendall(question + question)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: Upgrade, close\r\n" in answer


class TestWithASmallBudget:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(cost_rate="1/s"))

    def test_who_asks_why_an_upgrade_was_refused_pays(self, server: RunningServer) -> None:
        bearer = f"Bearer {server.token()}"
        got = (request(server, "/ws/", drop="Upgrade", Authorization=bearer)[0] for _ in range(20))
        assert next(got) == 426
        assert 429 in got, "and no more is asked then, for it takes half a second to be refused"


def test_a_cookie_alone_never_opens_a_socket(server: RunningServer) -> None:
    for kind in (Kind.ACCESS, Kind.SOCKET):
        token = server.token("ana", kind)
        cookie = f"accessToken={token}; token={token}"
        for changes in ({"Origin": "http://localhost"}, {}, {"drop": "Upgrade"}):
            status, text = request(server, "/ws/", Cookie=cookie, **changes)  # type: ignore[arg-type]
            assert (status, '"token_invalid"' in text) == (401, True)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("device=phone", 101),
        ("device=" + "x" * 64, 101),
        ("device=" + "x" * 65, 400),
        ("device=", 400),
        ("device=a&device=b", 400),
        ("device=a%0ab", 400),
    ],
)
def test_a_device_is_one_name(server: RunningServer, query: str, status: int) -> None:
    assert request(server, f"/ws/?token={server.token()}&{query}")[0] == status


@pytest.mark.parametrize(
    ("query", "device"),
    [
        ("device=my+phone", "my phone"),
        ("device=my%20phone", "my phone"),
        ("device=my%2Bphone", "my+phone"),
        ("device=a%26b%3Dc", "a&b=c"),
        ("dev%69ce=%F0%9F%93%B1", "📱"),
    ],
)
def test_a_device_is_named_as_forms_write_it(
    server: RunningServer, query: str, device: str
) -> None:
    offered = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{server.token()}")]
    url = f"ws://{server.address}/ws/?{query}"
    with connect(url, subprotocols=offered, proxy=None) as client:
        assert json.loads(client.recv(timeout=10))["device"] == device


class TestWithFewConnections:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(connections_per_user=2, devices_per_user=1))

    def test_a_user_has_a_bounded_number_of_connections_and_devices(
        self, server: RunningServer
    ) -> None:
        server.connect("ana")
        target = f"/ws/?token={server.token('ana')}"
        assert request(server, f"{target}&device=other")[0] == 429
        server.connect("ana")
        status, text = request(server, target)
        assert (status, "Retry-After: 5" in text) == (429, True)
        # What a browser cannot see of that, it is told when it asks.
        bearer = f"Bearer {server.token('ana')}"
        status, text = request(server, "/ws/", drop="Upgrade", Authorization=bearer)
        assert (status, '"limit_exceeded"' in text) == (429, True)
        server.connect("ben")


def test_bytes_sent_behind_the_request_are_the_first_frames(server: RunningServer) -> None:
    from pov_rt.transport.frames import Opcode
    from tests.frames import masked_frame

    head = "\r\n".join(
        [f"GET /ws/?token={server.token()} HTTP/1.1", *(f"{k}: {v}" for k, v in UPGRADE.items())]
    )
    frame = masked_frame(Opcode.TEXT, b'{"type":"ping"}')
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        sock.sendall(head.encode() + b"\r\n\r\n" + frame)
        answer = b""
        while b'{"type":"pong"}' not in answer:
            data = sock.recv(4096)
            assert data
            answer += data
        assert answer.startswith(b"HTTP/1.1 101")


class TestGarbage:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(handshake_s=0.5))

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GARBAGE\r\n\r\n",
            b"GET /ws/ HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
            b"POST /api/activities HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b'a="\\' * 16_384 + b"\r\n\r\n",
            b"GET /api/auth/ws-token HTTP/1.1\r\nHost: x\r\nCookie: "
            + b'a="\\001' * 2200
            + b"\r\n\r\n",
            b"GET /ws/ HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 2500 + b"\r\n",
            b"GET /ws/?" + b"token=x&" * 1900 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    )
    def test_garbage_is_refused_or_dropped_and_the_next_client_served(
        self, server: RunningServer, raw: bytes
    ) -> None:
        before = server.call(time.thread_time)
        try:
            answer = exchange(server, raw)
        except ConnectionResetError:
            answer = b""
        # CPU of the server's thread, not time: a quadratic parser would need seconds.
        assert server.call(time.thread_time) - before < 0.5
        assert answer.strip() == b"" or answer.startswith(b"HTTP/1.1 4")
        assert request(server, f"/ws/?token={server.token()}")[0] == 101


class TestSlowHandshakes:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(handshake_s=1.0))

    def test_a_thousand_of_them_keep_nobody_out_and_all_are_cut(
        self, server: RunningServer
    ) -> None:
        def quickest_s() -> float:
            found = []
            target = f"/ws/?token={server.token()}"
            for _ in range(10):
                began = time.monotonic()
                assert request(server, target)[0] == 101
                found.append(time.monotonic() - began)
            return min(found)

        alone_s = quickest_s()
        waiting = []
        with ExitStack() as stack:
            for _ in range(1000):
                address = ("127.0.0.1", server.web.port)
                sock = stack.enter_context(socket.create_connection(address, timeout=10))
                sock.sendall(b"GET /ws/ HTTP/1.1\r\nHost:")
                waiting.append(sock)
            assert quickest_s() < 10 * alone_s + 0.2
            # A byte now and then buys no more time: the limit is for the whole handshake.
            poll = stack.enter_context(selectors.DefaultSelector())
            for sock in waiting:
                poll.register(sock, selectors.EVENT_READ, sock)
            while poll.get_map():
                for key, _ in poll.select(0.2):
                    if not received(key.data):
                        poll.unregister(key.data)
                for key in poll.get_map().values():
                    with suppress(ConnectionError):
                        key.data.send(b"x")


def received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except ConnectionResetError:
        return b""


def test_no_output_ever_has_a_token_in_it(
    server: RunningServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    good, cut = server.token(), server.token()[:-3]
    request(server, f"/ws/?token={good}")
    request(server, f"/ws/?token={cut}")
    request(server, f"/elsewhere?token={good}")
    request(server, "/ws/", Sec_WebSocket_Protocol=f"pov-rt.v1, bearer.{cut}")
    request(server, "/api/auth/ws-token", drop="Upgrade", Authorization=f"Bearer {cut}")
    out, err = capfd.readouterr()
    texts = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert any("no key has signed this" in text for text in texts)
    signature = good.rpartition(".")[2][:20]
    for text in (out, err, caplog.text, *texts):
        assert signature not in text
        assert cut.rpartition(".")[2] not in text


class TestReuse:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(limits=LimitSettings(handshake_s=0.1, keepalive_s=30.0))

    def test_a_connection_may_be_silent_between_requests_but_not_within_one(
        self, server: RunningServer
    ) -> None:
        with (
            closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as kept,
            closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as half,
            closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as mute,
        ):
            for sock in (kept, half):
                sock.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 404")
            half.sendall(b"GET /now")
            assert half.recv(65536) == b""
            assert mute.recv(65536) == b""
            kept.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(65536).startswith(b"HTTP/1.1 404")

    class TestLimit:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(limits=LimitSettings(handshake_s=30.0, keepalive_s=0.1))

        def test_it_is_closed_if_no_other_request_comes(self, server: RunningServer) -> None:
            address = ("127.0.0.1", server.web.port)
            with closing(socket.create_connection(address, timeout=10)) as kept:
                kept.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
                assert kept.recv(65536).startswith(b"HTTP/1.1 404")
                assert kept.recv(65536) == b""
