"""Logs over HTTP in real browsers, for a page of another origin: every header can be read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pov_rt.config.settings import Settings
from pov_rt.testing import Http, RunningServer, make_settings
from tests.browser.site import Site
from tests.browser.tabs import Profile
from tests.js import CLIENT, node

DURABLE = Path(__file__).parents[1] / "node/node_modules/@durable-streams/client"
PAGE = """<!doctype html><title>page</title><body><script type="module">
import { stream } from "./durable.js"
const { url, token } = %s
const headers = { Authorization: `Bearer ${token}` }
const shown = document.body.dataset
const add = (name, items) => {
  shown[name] = (shown[name] ?? '') + items.map(item => item.offset).join('')
}

const answer = await fetch(url, { headers })
shown.headers = ['Stream-Next-Offset', 'Stream-Up-To-Date', 'ETag']
  .map(name => answer.headers.get(name)).join(' ')

for (const live of ['sse', 'long-poll']) {
  const res = await stream({ url, headers, live, warnOnHttp: false })
  res.subscribeJson(({ items }) => add(live === 'sse' ? 'events' : 'polls', items))
}
const source = new EventSource(`${url}?offset=-1&live=sse&token=${token}`)
source.addEventListener('data', event => add('source', JSON.parse(event.data)))

const api = url.replace(/povs.*/, '')
const session = await fetch(`${api}session`, { headers })
const reader = session.body.pipeThrough(new TextDecoderStream()).getReader()
const next = async () => JSON.parse((await reader.read()).value.slice('data:'.length))
const { connectionId } = await next()
const posted = await fetch(`${api}messages`, {
  method: 'POST',
  headers: { ...headers, 'Content-Type': 'application/json', 'Pov-Rt-Connection': connectionId },
  body: '{"type":"ping","id":"p"}',
})
const { type, id } = await next()
shown.session = [posted.status, type, id].join(' ')
</script>"""


@pytest.fixture
def settings(site: Site) -> Settings:
    """Let pages of the app's site, which is another origin, use the server."""
    return make_settings(server={"allowed_origins": [site.url]})


def publish(http: Http) -> None:
    body = {"type": "t", "action": "a", "povId": "acme", "userId": "eve"}
    assert http.post("/api/activities", body, service=True).status == 201


def test_a_page_elsewhere_follows_a_pov(
    server: RunningServer, http: Http, profile: Profile, site: Site, pages: Path
) -> None:
    if not DURABLE.exists():
        pytest.skip("tests/node has no node_modules: run scripts/test, which installs them")
    node()  # or there is no esbuild either
    subprocess.run(
        [
            *(str(CLIENT / "node_modules/.bin/esbuild"), "--bundle"),
            *("--format=esm", str(DURABLE / "dist/index.js"), f"--outfile={pages}/durable.js"),
        ],
        check=True,
        capture_output=True,
    )
    given = {"url": f"http://{server.address}/api/povs/acme/stream", "token": server.token()}
    (pages / "page.html").write_text(PAGE % json.dumps(given))
    publish(http)
    tab = profile.open(f"{site.url}/page.html")
    tab.wait_for('(/^\\w+_0{15}1 true "0:1:\\w+"$/).test(document.body.dataset.headers)', None)
    read = "['events', 'polls', 'source'].every(each => document.body.dataset[each] === argument)"
    tab.wait_for(read, "1")
    publish(http)
    tab.wait_for(read, "12")
    tab.wait_for("document.body.dataset.session === argument", "204 pong p")
