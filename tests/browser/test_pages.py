"""The pages that README and docs/clients.md show work as they stand, in real browsers.

The tags, and docs/widgets.md, are in tests/test_widgets_page.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import Client, RunningServer, make_settings
from tests.browser.site import Site
from tests.browser.tabs import Profile

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLIENTS = (ROOT / "docs/clients.md").read_text()
# What the console is told stands in the document, for that is what tests can wait for.
CONSOLE = """console.log = rows => {
  const said = ({activity: {userId, action}}) => `${userId} ${action}`
  document.body.dataset.shown = rows.map(said).join()
}
"""
LISTED = "[...document.querySelectorAll('li')].map(item => item.textContent).join()"


def block(text: str, language: str, word: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    (found,) = [each for each in blocks if word in each]
    return found


@pytest.fixture
def settings(site: Site) -> Settings:
    """Let pages of the app's site, which is another origin, use the server."""
    server = ServerSettings(port=0, admin_port=0, drain_s=0.2, allowed_origins=[site.url])
    return make_settings(server=server)


@pytest.fixture
def publisher(server: RunningServer) -> Client:
    return server.connect("ben")


def publish(client: Client, action: str) -> None:
    data = {"type": "task", "action": action, "povId": "acme"}
    assert client.request({"type": "publish", "data": data})["type"] == "published"


def write(site_folder: Path, server: RunningServer, first: str, page: str) -> None:
    text = f"<!doctype html><title>page</title><body>\n<script>\n{first}</script>\n{page}"
    text = text.replace("https://rt.example", f"http://{server.address}")
    (site_folder / "page.html").write_text(text)


def test_the_page_of_the_readme_shows_what_happens(
    server: RunningServer, publisher: Client, profile: Profile, site: Site, tmp_path: Path
) -> None:
    page = block(README, "html", "PovRT.connect")
    (body,) = re.findall(r"<script>\n(.*?)</script>", page, re.S)
    assert len(body.splitlines()) == 3
    token = f"const accessToken = {json.dumps(server.token('ana', Kind.ACCESS))}\n"
    first = CONSOLE + token + block(README, "js", "function getToken")
    write(tmp_path / "site", server, first, page)
    publish(publisher, "opened")
    tab = profile.open(f"{site.url}/page.html")
    shown = "document.body.dataset.shown === argument"
    tab.wait_for(shown, "ben opened")
    publish(publisher, "completed")
    tab.wait_for(shown, "ben completed,ben opened")
    tab.reload()
    tab.wait_for(shown, "ben completed,ben opened")


def test_the_plain_page_of_the_docs_shows_what_happens(
    server: RunningServer, publisher: Client, profile: Profile, site: Site, tmp_path: Path
) -> None:
    token = json.dumps(f"accessToken={server.token('ana', Kind.ACCESS)}")
    page = block(CLIENTS, "html", "createFeed")
    write(tmp_path / "site", server, f"document.cookie = {token}\n", page)
    publish(publisher, "opened")
    tab = profile.open(f"{site.url}/page.html")
    tab.wait_for(f"{LISTED} === argument", "ben opened task")
    publish(publisher, "completed")
    tab.wait_for(f"{LISTED} === argument", "ben completed task,ben opened task")
