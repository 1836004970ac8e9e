"""An app's access token becomes a socket token, for pages of allowed origins alone."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import Settings
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import SECRET, RunningServer, make_settings
from tests.auth.apps import app_token, signed_raw
from tests.web.routes.test_activities import call


class TestTokenEndpoint:
    def test_an_access_token_becomes_a_socket_token(self, server: RunningServer) -> None:
        access = server.token("ana", Kind.ACCESS, ttl_s=600, povs=["acme"], email="a@x.example")
        for headers in (
            {"Cookie": f"x=y; accessToken={access}"},
            {"Authorization": f"Bearer {access}"},
        ):
            answer = call(server, "/api/auth/ws-token", **headers)
            assert answer.code == 200
            assert answer.headers["Cache-Control"] == "no-store"
            token = json.loads(answer.body)["token"]
            identity = server.web.server.tokens.verify(token, frozenset({Kind.SOCKET}))
            assert (identity.user_id, identity.email) == ("ana", "a@x.example")
            assert identity.grants.povs == ("acme",)
            assert identity.expires_at <= server.web.server.clock.time() + 600

    @pytest.mark.parametrize("cookie", ["", "accessToken=", "accessToken=x", "other=x", "x" * 9000])
    def test_anything_else_is_401(self, server: RunningServer, cookie: str) -> None:
        answer = call(server, "/api/auth/ws-token", Cookie=cookie)
        assert (answer.code, answer.headers["Cache-Control"]) == (401, "no-store")

    def test_a_socket_or_service_token_is_never_exchanged(self, server: RunningServer) -> None:
        for kind in (Kind.SOCKET, Kind.SERVICE):
            token = server.token(kind=kind)
            assert call(server, "/api/auth/ws-token", token=token).code == 401

    def test_other_methods_are_refused(self, server: RunningServer) -> None:
        assert call(server, "/api/auth/ws-token", method="POST", body=b"").code == 405

    def test_an_expired_access_token_is_401_and_says_so(self, server: RunningServer) -> None:
        expired = app_token(SECRET, exp=1_000_000_000)
        for headers in (
            {"Authorization": f"Bearer {expired}"},
            {"Cookie": f"accessToken={expired}"},
        ):
            answer = call(server, "/api/auth/ws-token", **headers)
            assert answer.code == 401
            assert json.loads(answer.body)["error"]["code"] == "token_expired"
            assert answer.headers["Cache-Control"] == "no-store"

    def test_the_cookie_counts_beside_another_schemes_credentials(
        self, server: RunningServer
    ) -> None:
        cookie = f"accessToken={server.token('ana', Kind.ACCESS)}"
        for other in ("Basic YTpi", "Digest username=x", "basic", ""):
            answer = call(server, "/api/auth/ws-token", Cookie=cookie, Authorization=other)
            assert answer.code == 200, other
        for wrong in ("Bearer", "Bearer ", "bearer x", "Bearer  x"):
            answer = call(server, "/api/auth/ws-token", Cookie=cookie, Authorization=wrong)
            assert answer.code == 401, wrong

    @pytest.mark.parametrize(
        ("cookies", "code"),
        [
            (["stale", "good"], None),
            (["good", "stale"], None),
            (["x", "foreign", "good"], None),
            (["", "good"], None),
            (["stale"] * 9 + ["good"], None),
            (["x", "stale", "foreign"], "token_expired"),
            (["x", "foreign"], "token_invalid"),
            (["service", "good"], None),
            (["1.1.1", "2.2.2", "3.3.3", "4.4.4", "good"], "token_invalid"),
        ],
    )
    def test_of_several_cookies_of_the_name_the_first_good_one_counts(
        self, server: RunningServer, cookies: list[str], code: str | None
    ) -> None:
        made = {
            "good": server.token("ana", Kind.ACCESS),
            "stale": app_token(SECRET, exp=1_000_000_000),
            "foreign": app_token("another app's secret, of the parent domain"),
            "service": server.token("app", Kind.SERVICE),
        }
        sent = "; ".join(f"a=b; accessToken={made.get(each, each)}" for each in cookies)
        answer = call(server, "/api/auth/ws-token", Cookie=sent)
        if code is None:
            token = json.loads(answer.body)["token"]
            identity = server.web.server.tokens.verify(token, frozenset({Kind.SOCKET}))
            assert (answer.code, identity.user_id) == (200, "ana")
        else:
            assert answer.code == 401
            assert json.loads(answer.body)["error"]["code"] == code

    @pytest.mark.parametrize(("groups", "code"), [(130, 200), (280, 200), (325, 401), (400, 431)])
    def test_a_large_access_token_becomes_a_small_socket_token(
        self, server: RunningServer, groups: int, code: int
    ) -> None:
        exp = server.web.server.clock.time() + 60
        every = [str(UUID(int=number)) for number in range(groups)]
        access = app_token(SECRET, exp=exp, groups=every)
        assert len(access) > groups * 50
        for headers in (
            {"Cookie": f"accessToken={access}"},
            {"Authorization": f"Bearer {access}"},
        ):
            answer = call(server, "/api/auth/ws-token", **headers)
            assert answer.code == code
            if code == 200:
                assert len(json.loads(answer.body)["token"]) < 1024

    @pytest.mark.parametrize(
        "claims",
        [
            {"teamId": None},
            {"role": 3},
            {"role": ["admin"]},
            {"email": False},
            {"jti": None, "iat": None, "nbf": None, "aud": None, "iss": None},
            {"userId": 42},
            {"povs": [1, 2]},
        ],
    )
    def test_what_serializers_write_is_taken(
        self, server: RunningServer, claims: dict[str, Any]
    ) -> None:
        exp = server.web.server.clock.time() + 60
        access = signed_raw(SECRET, {"kid": None}, exp=exp, **claims)
        assert call(server, "/api/auth/ws-token", token=access).code == 200
        assert call(server, "/ws/", token=access).code == 426, "it is good there, too"

    def test_of_a_list_of_audiences_ours_is_enough_at_each_door(
        self, server: RunningServer
    ) -> None:
        exp = server.web.server.clock.time() + 60
        socket = app_token(SECRET, exp=exp, aud=["x", "pov-rt.socket"])
        assert call(server, "/ws/", token=socket).code == 426
        assert server.connect(token=socket, v1=False).request({"type": "ping"})["type"] == "pong"
        assert server.connect(token=socket).welcome["userId"] == "alice"
        service = app_token(SECRET, exp=exp, aud=["pov-rt.service", "x"], userId=7)
        one = {"type": "t", "action": "a", "povId": "acme", "userId": "u"}
        answer = call(server, "/api/activities", method="POST", token=service, body=one)
        assert answer.code == 201

    def test_a_page_of_another_site_cannot_post(self, server: RunningServer) -> None:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = call(server, "/api/auth/ws-token", method="POST", body=b"", **headers)
            assert answer.code == 403

    def test_the_method_of_a_header_does_not_count(self, server: RunningServer) -> None:
        cookie = f"accessToken={server.token('ana', Kind.ACCESS)}"
        override = {"Cookie": cookie, "X-HTTP-Method-Override": "GET"}
        answer = call(server, "/api/auth/ws-token", method="POST", body=b"", **override)
        assert answer.code == 405

    def test_a_flood_of_one_address_is_429(self) -> None:
        with RunningServer(make_settings(), None, ManualClock()) as server:
            # Each that is refused waits for half a second.
            answers = [call(server, "/api/auth/ws-token") for _ in range(41)]
        assert [answer.code for answer in answers] == [401] * 40 + [429]
        refused = next(answer for answer in answers if answer.code == 429)
        assert int(refused.headers["Retry-After"]) >= 1
        assert json.loads(refused.body)["error"]["retryAfter"] > 0


class TestPages:
    @pytest.fixture
    def settings(self) -> Settings:
        settings = make_settings()
        settings.server.allowed_origins.append("https://app.example")
        return settings

    def test_pages_of_allowed_origins_may_read_with_credentials(
        self, server: RunningServer
    ) -> None:
        origin = "https://app.example"
        for method in ("GET", "OPTIONS"):
            answer = call(server, "/api/auth/ws-token", method=method, Origin=origin)
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"
            assert answer.code == (401 if method == "GET" else 204)

    def test_other_pages_may_not(self, server: RunningServer) -> None:
        answer = call(server, "/api/auth/ws-token", Origin="https://evil.example")
        assert answer.code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
        for method in ("GET", "OPTIONS"):
            without = call(server, "/api/auth/ws-token", method=method)
            assert not any("Access-Control-Allow-Origin" in line for line in without.headers)
        preflight = call(server, "/api/activities", method="OPTIONS", Origin="https://app.example")
        assert preflight.code == 405
