"""What `pov-rt client` prints is what the server serves, ready to paste."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha384
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from pov_rt.auth.grants import Kind
from pov_rt.cli.main import main
from pov_rt.testing import RunningServer
from pov_rt.web.routes import client as files
from pov_rt.web.routes.client import read_files
from tests.pages import another_origin, chromium
from tests.processes import run
from tests.web.routes.test_activities import call


def test_every_address_has_the_hash_of_what_is_there(server: RunningServer, tmp_path: Path) -> None:
    base = f"http://{server.address}"
    done = run(tmp_path, "client", "--url", f"{base}/")
    assert (done.returncode, done.stderr) == (0, "")
    scripts = re.findall(r'<script .*?src="(.*?)"\s+integrity="(.*?)" crossorigin>', done.stdout)
    listed = re.search(r'<script type="importmap">(.*?)</script>', done.stdout, re.S)
    assert listed
    imports = json.loads(listed[1])
    assert imports["imports"].keys() == {"pov-rt", "pov-rt/core", "pov-rt/widgets"}
    assert set(imports["imports"].values()) <= imports["integrity"].keys()
    assert scripts[0] == (imports["imports"]["pov-rt/widgets"], imports["integrity"][scripts[0][0]])
    hashes = {**imports["integrity"], **dict(scripts)}
    assert len(hashes) == len(read_files())
    for address, integrity in hashes.items():
        answer = call(server, address.removeprefix(base))
        digest = base64.b64encode(sha384(answer.body).digest()).decode()
        assert (answer.code, integrity) == (200, f"sha384-{digest}")
        assert "immutable" in answer.headers["Cache-Control"]
    assert done.stdout.count(f'fetch("{base}/api/auth/ws-token"') == 2
    assert done.stdout.count(f'connect({{url: "{base}", getToken}})') == 2
    assert len(re.findall(r"\d\.\d KB gzipped", done.stdout)) == 4
    (docs,) = re.findall(r"What can be set: (\S+) ", done.stdout)
    assert (ROOT / docs).exists()


def test_the_server_is_that_of_the_settings_or_a_local_one(tmp_path: Path) -> None:
    for more, base in (
        ({}, "http://127.0.0.1:8765"),
        ({"POV_RT_SERVER__PUBLIC_URL": "https://rt.example"}, "https://rt.example"),
    ):
        done = run(tmp_path, "client", **more)
        assert f'<script type="module" src="{base}/client/pov-rt-widgets-' in done.stdout
        assert f'<script src="{base}/client/pov-rt-' in done.stdout


def test_an_odd_address_stays_in_its_place(tmp_path: Path) -> None:
    odd = "https://rt.example/<!--\"'</script>&"
    done = run(tmp_path, "client", "--url", odd)
    assert done.stdout.count("</script>") == done.stdout.count("<script") == 5
    assert done.stdout.count("<!--") == done.stdout.count("-->") == 4
    scripts = re.findall(r'<script .*?src="(.*?)"\s', done.stdout)
    assert len(scripts) == 2
    assert all(unescape(each).startswith(f"{odd}/client/pov-rt-") for each in scripts)
    bad = run(tmp_path, "client", "--url", "ftp://rt.example")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "is no address" in bad.stderr


def test_a_checkout_without_the_bundle_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "read_files", dict)
    done = CliRunner().invoke(main, ["client"])
    assert done.exit_code == 1
    assert "npm run build" in done.output


ROOT = Path(__file__).parents[2]
TASK = {"type": "task", "action": "completed", "details": {"title": "Kick-off notes"}}
IMPORT_ALL = """async () => {
  const map = JSON.parse(document.querySelector('[type=importmap]').textContent)
  const tried = await Promise.allSettled(Object.keys(map.integrity).map(url => import(url)))
  const sdk = await import('pov-rt').catch(() => ({}))
  return [tried.filter(each => each.status === 'rejected').length, typeof sdk.connect,
    typeof globalThis.PovRT?.connect]
}"""


def test_a_browser_takes_it_on_a_page_of_another_origin_if_its_hashes_are_right(
    server: RunningServer, tmp_path: Path
) -> None:
    told = run(tmp_path, "client", "--url", f"http://{server.address}").stdout
    # The first uses need a token; only the tags that load are wanted here.
    tags = re.sub(r"<script(?: type=\"module\")?>.*?</script>", "", told, flags=re.S)
    wrong = re.sub(r"sha384-....", "sha384-AAAA", tags)
    refused = [len(read_files()) - 1, "undefined", "undefined"]
    with chromium() as page:
        for html, expected in ((tags, [0, "function", "function"]), (wrong, refused)):
            with another_origin(html) as origin:
                page.goto(origin)
                assert page.evaluate(IMPORT_ALL) == expected


@pytest.mark.parametrize("variant", [1, 2], ids=["script", "modules"])
def test_what_is_printed_follows_a_pov_as_it_stands(
    server: RunningServer, tmp_path: Path, variant: int
) -> None:
    base = f"http://localhost:{server.web.port}"
    access = server.token("ana", Kind.ACCESS, povs=["demo"])
    service = server.token(kind=Kind.SERVICE)
    published = '{"type": "task", "action": "done", "povId": "demo", "userId": "ben"}'
    html = run(tmp_path, "client", "--url", base).stdout.split("\n\n")[variant]
    with another_origin(html) as origin, chromium() as page:
        server.web.settings.server.allowed_origins.append(origin)
        page.context.add_cookies([{"name": "accessToken", "value": access, "url": base}])
        page.goto(origin)
        while not server.web.server.hub.subscriptions:
            page.wait_for_timeout(20)
        # Of one value: the page says its status, too, in two.
        with page.expect_console_message(lambda said: len(said.args) == 1) as shown:
            done = run(tmp_path, "publish", "--url", base, "--token", service, given=published)
        assert done.returncode == 0, done.stderr
        (activity,) = (each.json_value() for each in shown.value.args)
        assert (activity["povId"], activity["userId"]) == ("demo", "ben")


def test_the_tags_show_what_happens_as_they_are_printed(
    server: RunningServer, tmp_path: Path
) -> None:
    base = f"http://localhost:{server.web.port}"
    access = server.token("ana", Kind.ACCESS, povs=["demo"])
    html = run(tmp_path, "client", "--url", base).stdout.split("\n\n")[0]
    with another_origin(html) as origin, chromium() as page:
        server.web.settings.server.allowed_origins.append(origin)
        page.context.add_cookies([{"name": "accessToken", "value": access, "url": base}])
        page.goto(origin)
        while not server.web.server.hub.subscriptions:
            page.wait_for_timeout(20)
        ben = server.connect("ben")
        ben.request({"type": "publish", "data": {**TASK, "povId": "demo"}})
        page.locator("pov-team-activity").get_by_text("Kick-off notes").wait_for()
