"""What docs/widgets.md shows works as it stands, in Chromium, with a server and real frameworks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from bench.peers import free_port
from pov_rt.auth.grants import Kind
from pov_rt.testing import SECRET, Client, RunningServer
from tests import js
from tests.js import CLIENT
from tests.pages import another_origin, chromium
from tests.processes import read_until, running
from tests.test_clients_page import DOCS, PACKAGES, ROOT, run

# Compilers take seconds, and on a busy machine a minute.
pytestmark = pytest.mark.timeout(300)

TEXT = (DOCS / "widgets.md").read_text()
RECIPES = dict(
    re.findall(
        r"```(?:js|tsx|python|django|vue)\n(?:#|//|<!--|\{#) (\S+)(?: -->| #\})?\n(.*?)```",
        TEXT,
        re.S,
    )
)
"""The snippets by their file names, which their first lines say."""
FENCES = re.findall(r"^```(\w+)$", TEXT, re.M)
TAGS, PAGE = re.findall(r"```html\n(.*?)```", TEXT, re.S)
(STYLE,) = re.findall(r"```css\n(.*?)```", TEXT, re.S)
EXAMPLE = "https://rt.example"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("package"))


def install(folder: Path) -> Path:
    """Return the folder, where programs may import the package, React and Vue, as npm has them."""
    shutil.copytree(js.package(), folder / "node_modules/pov-rt")
    for each in (PACKAGES / "node_modules").iterdir():
        if not each.name.startswith("."):
            (folder / "node_modules" / each.name).symlink_to(each)
    return folder


@pytest.fixture
def ben(server: RunningServer) -> Client:
    return server.connect("ben")


def publish(client: Client, title: str, kind: str = "task", action: str = "completed") -> None:
    data = {"type": kind, "action": action, "povId": "acme", "details": {"title": title}}
    assert client.request({"type": "publish", "data": data})["type"] == "published"


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as opened:
        yield opened


def follow(page: Page, publisher: Client, first: str, second: str) -> None:
    """See what was published before, then what is published now, as a row of its own."""
    feed = page.locator("pov-team-activity")
    expect(feed).to_contain_text(first)
    publish(publisher, "Live from the app", action="reopened")
    expect(feed).to_contain_text(second)


def test_readme_begins_with_the_same_tags() -> None:
    assert re.findall(r"```html\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0] == TAGS


def test_no_snippet_is_left_out() -> None:
    assert len(FENCES) == len(RECIPES) + len(["html", "html", "css"])
    assert set(RECIPES) == {
        "names.js",
        "spanish.js",
        "rows.js",
        "activity/views.py",
        "activity/urls.py",
        "activity/templates/activity/pov.html",
        "activity/static/activity/people.js",
        "TeamActivity.tsx",
        "TeamActivity.vue",
    }


def test_the_plain_page_shows_names_and_what_happens_in_the_look_that_is_set(
    server: RunningServer, ben: Client, page: Page
) -> None:
    publish(ben, "Kick-off notes")
    base = f"http://localhost:{server.web.port}"
    files = {
        "/names.js": RECIPES["names.js"],
        "/acme.css": STYLE,
        "/api/people": json.dumps({"ben": {"name": "Ben Okafor"}}),
    }
    with another_origin(PAGE.replace(EXAMPLE, base), files) as origin:
        server.web.settings.server.allowed_origins.append(origin)
        access = server.token("ana", Kind.ACCESS, povs=["acme"])
        page.context.add_cookies([{"name": "accessToken", "value": access, "url": base}])
        page.goto(origin)
        follow(
            page,
            ben,
            "Ben Okafor completed Kick-off notes",
            "Ben Okafor reopened Live from the app",
        )
        feed = page.locator("pov-team-activity")
        expect(feed).to_contain_text("What happened")
        looks = feed.evaluate(
            """feed => {
              const row = getComputedStyle(feed.shadowRoot.querySelector('[part~=row]'))
              return [row.borderRadius, getComputedStyle(feed).getPropertyValue('--pov-accent')]
            }"""
        )
        assert looks == ["8px", "light-dark(#7a3e9d, #d3a6ee)"]
        expect(page).to_have_title(re.compile(r"^(\(\d+\) )?Acme$"))


def test_the_tags_speak_spanish_and_rows_may_be_drawn_by_the_page(
    server: RunningServer, ben: Client, page: Page
) -> None:
    publish(ben, "Acta inicial")
    publish(ben, "Brindle", "deal", "won")
    base = f"http://localhost:{server.web.port}"
    html = f"{TAGS}<script type=module src=spanish.js></script>".replace(EXAMPLE, base)
    with another_origin(html, {"/spanish.js": RECIPES["spanish.js"]}) as origin:
        server.web.settings.server.allowed_origins.append(origin)
        access = server.token("ana", Kind.ACCESS, povs=["acme"])
        page.context.add_cookies([{"name": "accessToken", "value": access, "url": base}])
        page.goto(origin)
        follow(page, ben, "ben completó Acta inicial", "ben reopened Live from the app")
        feed = page.locator("pov-team-activity")
        for text in ("Actividad del equipo", "En directo", "ben ganó Brindle"):
            expect(feed).to_contain_text(text)
        page.evaluate(f"() => {{{RECIPES['rows.js']}}}")
        expect(feed.locator("strong")).to_have_text("undefined €")
        expect(feed).not_to_contain_text("ben ganó Brindle")
        # A sentence that nothing says is a name that is wrong.
        said = {name for name, _ in re.findall(r"^\| `([\w.-]+)` \| `(.*)` \|$", TEXT, re.M)}
        names = re.findall(r"^  '?([\w.-]+)'?: ['{]", RECIPES["spanish.js"], re.M)
        assert {*names} - said == {"you.task.completed", "deal.won"}


DJANGO = """\
import os, sys
from pathlib import Path
from django.conf import settings
from django.core.management import call_command
import django

sys.path.insert(0, str(Path.cwd()))
settings.configure(
    ALLOWED_HOSTS=["localhost"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "app.sqlite3"}},
    DEBUG=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes",
        "django.contrib.sessions", "django.contrib.staticfiles", "activity"],
    LOGIN_URL="/login",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware"],
    POV_RT_SECRET=os.environ["SECRET"],
    ROOT_URLCONF="activity.urls",
    SECRET_KEY="of this test alone, and long enough for it",
    STATIC_URL="/static/",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.test import Client

ana = User.objects.create_user("ana", first_name="Ana", last_name="Ruiz")
client = Client()
client.force_login(ana)
print("session", client.cookies["sessionid"].value, flush=True)
call_command("runserver", f"localhost:{os.environ['PORT']}", use_reloader=False)
"""


def test_the_django_app_signs_tokens_for_who_is_signed_in(
    server: RunningServer, ben: Client, page: Page, tmp_path: Path
) -> None:
    publish(ben, "Kick-off notes")
    base = f"http://localhost:{server.web.port}"
    for name, code in RECIPES.items():
        if name.startswith("activity/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(code.replace(EXAMPLE, base))
    (tmp_path / "activity/__init__.py").touch()
    (tmp_path / "manage.py").write_text(DJANGO)
    port = free_port()
    origin = f"http://localhost:{port}"
    server.web.settings.server.allowed_origins.append(origin)
    environment = {"PORT": str(port), "SECRET": SECRET, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-u", "manage.py"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment}
    with running(command, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as app:
        session = read_until(app.stdout, "session").split()[-1]
        read_until(app.stdout, "Quit the server")
        page.context.add_cookies([{"name": "sessionid", "value": session, "url": origin}])
        page.goto(f"{origin}/povs/acme")
        follow(page, ben, "ben completed Kick-off notes", "ben reopened Live from the app")
        ana = server.connect("ana")
        publish(ana, "By hand")
        expect(page.locator("pov-team-activity")).to_contain_text("You completed By hand")
        page.context.clear_cookies()
        page.reload()
        assert page.url.startswith(f"{origin}/login")
        assert page.request.get(f"{origin}/ws-token").status == 401


REACT = """\
import {createRoot} from 'react-dom/client'
import {TeamActivity} from './TeamActivity'
const signIn = () => { document.title = 'sign in' }
createRoot(document.getElementById('root')!).render(<TeamActivity povId="acme" onSignIn={signIn} />)
"""
VUE = """\
import {createApp} from 'vue'
import TeamActivity from './TeamActivity.vue'
createApp(TeamActivity, {povId: 'acme'}).mount('#root')
"""
# What a bundler's plugin for Vue does, in little.
BUNDLE = """\
import {readFileSync} from 'node:fs'
import {compileScript, parse} from '@vue/compiler-sfc'
import {build} from 'ESBUILD'

const vue = {name: 'vue', setup({onLoad}) {
  onLoad({filter: /\\.vue$/}, ({path}) => {
    const {descriptor, errors} = parse(readFileSync(path, 'utf8'), {filename: path})
    if (errors.length) throw errors[0]
    const compilerOptions = {isCustomElement: tag => tag.startsWith('pov-')}
    const {content} = compileScript(descriptor, {
      id: 'one', inlineTemplate: true, templateOptions: {compilerOptions}})
    return {contents: content, loader: 'ts'}
  })
}}
await build({
  entryPoints: [process.argv[2]], bundle: true, format: 'esm', jsx: 'automatic', outdir: 'built',
  plugins: [vue], splitting: true, preserveSymlinks: true,
  define: {'process.env.NODE_ENV': '"production"', __VUE_OPTIONS_API__: 'true',
    __VUE_PROD_DEVTOOLS__: 'false', __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: 'false'},
})
"""


@pytest.mark.parametrize(
    ("recipe", "entry", "code"),
    [("TeamActivity.tsx", "react.tsx", REACT), ("TeamActivity.vue", "vue.ts", VUE)],
    ids=["react", "vue"],
)
def test_a_component_of_a_framework_sets_properties_and_hears_events(
    server: RunningServer,
    page: Page,
    package: Path,
    recipe: str,
    entry: str,
    code: str,
) -> None:
    ana = server.connect("ana")
    publish(ana, "Kick-off notes")
    base = f"http://localhost:{server.web.port}"
    (package / recipe).write_text(RECIPES[recipe].replace(EXAMPLE, base))
    (package / entry).write_text(code)
    bundle = BUNDLE.replace("ESBUILD", f"{CLIENT}/node_modules/esbuild/lib/main.js")
    (package / "bundle.mjs").write_text(bundle)
    shutil.rmtree(package / "built", ignore_errors=True)
    run("bundle.mjs", entry, folder=package)
    files = {f"/{path.name}": path.read_text() for path in (package / "built").iterdir()}
    files["/ws-token"] = json.dumps({"token": server.token("cara")})
    main = f"{Path(entry).stem}.js"
    html = f'<div id="root"></div><script type="module" src="{main}"></script>'
    with another_origin(html, files) as origin:
        server.web.settings.server.allowed_origins.append(origin)
        page.goto(origin)
        heading = page.locator("#root h2").first
        expect(heading).to_have_text("1 unread")
        follow(
            page, ana, "Ana Ruiz completed Kick-off notes", "Ana Ruiz reopened Live from the app"
        )
        expect(heading).to_have_text("2 unread")


def test_the_manifest_of_the_package_tells_all_of_a_tag_and_nothing_of_its_inside(
    package: Path,
) -> None:
    folder = package / "node_modules/pov-rt"
    named = json.loads((folder / "package.json").read_text())["customElements"]
    manifest = json.loads((folder / named).read_text())
    (module,) = manifest["modules"]
    assert (folder / module["path"]).exists()
    tags = {each["tagName"]: each for each in module["declarations"]}
    assert set(tags) == {"pov-team-activity", "pov-activity-notification"}
    assert "inheritedFrom" not in json.dumps(manifest)
    for tag in tags.values():
        members = {each["name"] for each in tag["members"]}
        assert members >= {"pov", "client", "strings", "reconnect"}
        inside = {"source", "snapshot", "internals", "render", "requestUpdate", "updated"}
        assert not {each for each in members if each.startswith("#")} | members & inside
        attributes = {each["name"]: each for each in tag["attributes"]}
        assert attributes["token-url"]["fieldName"] == "tokenUrl"
        assert attributes["theme"]["type"]["text"] == "'auto' | 'light' | 'dark'"
        values = {each["name"]: each["default"] for each in tag["cssProperties"]}
        assert values["--pov-surface"] == "light-dark(#fff, #191816)"
    assert manifest["strings"]["told.new"]["one"] == "{n} new activity"


USE = """\
import {type TeamActivity, type Sentence, connect} from 'pov-rt/widgets'

const feed: TeamActivity = document.querySelector('pov-team-activity')!
const toasts = document.createElement('pov-activity-notification')
feed.client = connect({getToken: () => null})
feed.theme = 'dark'
feed.people = {ana: {name: 'Ana Ruiz'}}
feed.renderItem = row => row.activity.details?.title
feed.addEventListener('pov-count', ({detail}) => { const n: number = detail.unread; return n })
feed.addEventListener('click', ({clientX}) => clientX)
feed.reconnect()
export const strings: Record<string, Sentence> = {new: {one: '{n} nueva', other: '{n} nuevas'}}
feed.strings = toasts.strings = strings
// @ts-expect-error: there is no such theme
feed.theme = 'pink'
// @ts-expect-error: a name is missing
toasts.people = {ana: {}}
// @ts-expect-error: nothing of the inside is told
feed.requestUpdate()
"""
VUE_USE = """\
import type {GlobalComponents} from 'vue'
import type {} from 'pov-rt/vue'

type Props = InstanceType<GlobalComponents['pov-team-activity']>['$props']
export const props: Props = {
  pov: 'acme', 'token-url': '/ws-token', onPovCount: ({detail}) => detail.unread, class: 'feed'}
// @ts-expect-error: there is no such theme
export const wrong: Props = {theme: 'pink'}
"""
REACT_USE = """\
import type {} from 'pov-rt/react'

export const right = <pov-team-activity pov="acme" className="feed" ref={tag => tag?.reconnect()} />
// @ts-expect-error: there is no such theme
export const wrong = <pov-activity-notification theme="pink" />
"""


def test_the_package_has_types_for_programs_react_and_vue_without_lit(package: Path) -> None:
    assert not (package / "node_modules/lit").exists()
    for name, code in (
        ("use.ts", USE),
        ("vue-use.ts", VUE_USE),
        ("react-use.tsx", REACT_USE),
        ("TeamActivity.tsx", RECIPES["TeamActivity.tsx"]),
    ):
        (package / name).write_text(code)
    options = {
        "jsx": "react-jsx",
        "lib": ["ES2023", "DOM", "DOM.Iterable"],
        "module": "esnext",
        "moduleResolution": "bundler",
        "noEmit": True,
        # Types that are wrong themselves are told, too, not taken for `any`.
        "skipLibCheck": False,
        "strict": True,
        "target": "es2023",
        "types": [],
    }
    files = ["use.ts", "vue-use.ts", "react-use.tsx", "TeamActivity.tsx"]
    config = package / "tsconfig.json"
    config.write_text(json.dumps({"compilerOptions": options, "files": files}))
    run(CLIENT / "node_modules/typescript/bin/tsc", "-p", config, folder=package)
