"""What a page of another origin may do and read, in a browser: what the SDK needs to know why."""

from __future__ import annotations

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.pages import another_origin, chromium

WHY = """async ([url, token]) => {
  const answer = await fetch(url, {headers: {Authorization: `Bearer ${token}`}})
  const {error} = await answer.json()
  return [answer.status, error.code, Number(answer.headers.get('Retry-After')) > 0]
}"""

CONNECT = """async ([base, device]) => {
  const answer = await fetch(`${base}/api/auth/ws-token`, {credentials: 'include'})
  if (!answer.ok) return (await answer.json()).error.code
  const {token} = await answer.json()
  const url = `${base.replace('http', 'ws')}/ws/?device=${device}`
  const socket = new WebSocket(url, ['pov-rt.v1', `bearer.${token}`])
  return new Promise((resolve, reject) => {
    socket.onmessage = ({data}) => resolve(JSON.parse(data).userId)
    socket.onerror = () => reject(new Error('refused'))
  })
}"""


@pytest.fixture
def settings() -> Settings:
    return make_settings(limits=LimitSettings(connections_per_user=1))


def test_a_page_of_an_allowed_origin_connects_and_can_read_why_it_is_refused(
    server: RunningServer,
) -> None:
    base = f"http://localhost:{server.web.port}"
    token = server.token("ana")
    with another_origin() as origin, chromium() as page:
        server.web.settings.server.allowed_origins.append(origin)
        page.goto(origin)
        assert page.evaluate(WHY, [f"{base}/ws/", "x"]) == [401, "token_invalid", False]
        assert page.evaluate(WHY, [f"{base}/ws/", token]) == [426, "upgrade_required", False]
        assert page.evaluate(CONNECT, [base, "page"]) == "token_invalid", "there is no cookie"
        access = server.token("ana", Kind.ACCESS)
        page.context.add_cookies([{"name": "accessToken", "value": access, "url": base}])
        assert page.evaluate(CONNECT, [base, "page"]) == "ana"
        assert page.evaluate(WHY, [f"{base}/ws/", token]) == [429, "limit_exceeded", True]
        server.call(server.web.server.leaving.set)
        assert page.evaluate(WHY, [f"{base}/ws/", token]) == [503, "unavailable", True]


def test_a_page_of_another_origin_reads_that_it_is_refused_and_nothing_else(
    server: RunningServer,
) -> None:
    # A name that is no loopback name, and leads here all the same.
    base, token = f"http://rt.test:{server.web.port}", server.token("ana")
    server.web.settings.server.allowed_hosts.append("rt.test")
    reads = f"(given) => ({WHY})(given).catch(error => error.name)"
    with another_origin() as origin, chromium() as page:
        page.goto(origin)
        for each in (token, "x"):
            assert page.evaluate(reads, [f"{base}/ws/", each]) == [403, "forbidden", False]
            assert page.evaluate(reads, [f"{base}/api/auth/ws-token", each]) == "TypeError"
        server.web.settings.server.allowed_hosts[:] = ["rt.example"]
        assert page.evaluate(reads, [f"{base}/ws/", token]) == [421, "host_unknown", False]
