"""What is wrong with a plugin is said at start, with file and line, and the line itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.config.settings import SettingsError
from pov_rt.registry.build import Registry, build_registry
from pov_rt.registry.discovery import PluginError

HEAD = """from pov_rt.plugin import Context, Host, Message, Plugin, Request, Part
import msgspec
plugin = Plugin("mine")
class Do(Message, tag="mine.do"):
    what: str
"""


def build(folder: Path, text: str, **settings: object) -> Registry:
    (folder / "mine.py").write_text(HEAD + text)
    return build_registry({name: dict(value) for name, value in settings.items()}, folder)  # type: ignore[call-overload]


WRONG = [
    ("@plugin.on(Do)\ndef do(message): ...\n", 6, "must take (message, context)"),
    ("@plugin.on(int)\ndef do(message, context): ...\n", 6, "subclass of Message"),
    ("class No(Message):\n    x: int\n@plugin.on(No)\ndef no(m, c): ...\n", 8, "No has no tag"),
    ("class Sub(Do):\n    x: int\n@plugin.on(Sub)\ndef no(m, c): ...\n", 8, "inherits the tag"),
    (
        "class X(Message, tag='Bad Tag'): ...\n@plugin.on(X)\ndef no(m, c): ...\n",
        7,
        "must look like",
    ),
    ("class X(Message, tag='error'): ...\n@plugin.on(X)\ndef no(m, c): ...\n", 7, "to the server"),
    ("class X(Message, tag='ping'): ...\n@plugin.on(X)\ndef no(m, c): ...\n", 7, "already handled"),
    ("@plugin.on(Do, rate='5')\ndef do(message, context): ...\n", 6, "is no rate"),
    ("class X(Message, tag='x'): ...\n@plugin.on(Do)\ndef do(m: X, c): ...\n", 7, "declared as X"),
    (
        "@plugin.http('FETCH', '/x', grant='subscribe')\ndef r(request): ...\n",
        6,
        "the method must be",
    ),
    ("@plugin.http('GET', 'x', grant='subscribe')\ndef r(request): ...\n", 6, "the path must look"),
    ("@plugin.http('GET', '/x', grant='subscribe')\ndef r(): ...\n", 6, "must take (request)"),
    (
        "@plugin.http('GET', '/{a}', grant='subscribe')\ndef r(request): ...\n"
        "@plugin.http('GET', '/{a}', grant='subscribe')\ndef s(request): ...\n",
        8,
        "already served",
    ),
    (
        "@plugin.http('GET', '/a/{b}', grant='subscribe')\ndef r(request): ...\n"
        "@plugin.http('POST', '/a/c', grant='subscribe')\ndef s(request): ...\n",
        8,
        "POST /a/c would never be asked: /api/a/{b} takes its requests, at ",
    ),
    (
        "@plugin.http('GET', '/povs/{pov_id}/stream', grant='subscribe')\ndef r(request): ...\n",
        6,
        "/api/povs/{pov_id}/stream is the server's own",
    ),
    ("@plugin.lifespan\ndef life(host): ...\n", 6, "one `yield`"),
    ("@plugin.exported\nasync def a(user_id, host): ...\n", 6, "a `yield` for each value"),
    ("@plugin.exported\ndef a(user_id, host): yield\n", 6, "must be `async def` with a `yield`"),
    ("@plugin.erased\nasync def a(user_id, host): yield\n", 6, "must not `yield`"),
    (
        "@plugin.lifespan\nasync def a(host): yield\n@plugin.lifespan\nasync def b(host): yield\n",
        6,
        "only one",
    ),
    ("@plugin.connected\nasync def c(context): ...\n", 6, "plain function"),
    ("@plugin.subscribed\ndef c(context): ...\n", 6, "must take"),
    ("@plugin.every(0)\ndef tick(host): ...\n", 6, "above 0"),
    ("def broken(:\n", 6, "syntax error"),
    ("import nothing_there\n", 6, "ModuleNotFoundError"),
    ("1 / 0\n", 6, "ZeroDivisionError"),
    ("plugin = None\n", 1, "there is no `plugin"),
    ("plugin = Plugin('Bad Name')\n", 1, "is not"),
    ("plugin = Plugin('ping')\n", 1, "is taken by"),
    ("plugin = Plugin('user')\n", 1, "is the server's own"),
    ("plugin = Plugin('team')\n", 1, "is the server's own"),
    ("plugin = Plugin('pov')\n", 1, "is the server's own"),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(PluginError) as raised:
        build(tmp_path, text)
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'mine.py'}:{line}: "), said
    assert words in said
    shown = (HEAD + text).splitlines()[line - 1].strip()
    assert shown in said


def test_a_good_plugin_is_described(tmp_path: Path) -> None:
    registry = build(
        tmp_path,
        "class Done(Message, tag='mine.done'): ...\n"
        "@plugin.on(Do, grant='publish', rate='5/s')\n"
        "async def do(message: Do, context: Context) -> Done | None: ...\n",
    )
    (handler,) = [each for each in registry.handlers.values() if each.tag == "mine.do"]
    assert (handler.is_async, handler.rate, handler.spec.grant) == (True, (5.0, 10.0), "publish")
    assert [reply.__name__ for reply in handler.replies] == ["Done"]
    assert registry.found[-1].origin == "plugins-dir"
    assert {"ping", "pong", "subscribe", "unsubscribe"} < registry.tags


def test_options_are_typed_and_unknown_ones_named(tmp_path: Path) -> None:
    text = "class Options(msgspec.Struct):\n    size: int = 3\nplugin.options = Options\n"
    registry = build(tmp_path, text, mine={"size": "7"})
    assert getattr(registry.options["mine"], "size") == 7  # noqa: B009
    with pytest.raises(SettingsError, match=r"plugins\.mine\.sise: no such option.*size"):
        build(tmp_path, text, mine={"sise": 7})
    with pytest.raises(SettingsError, match=r"plugins\.mine\.size: must be a whole number$"):
        build(tmp_path, text, mine={"size": "x"})
    two = text.replace("size: int = 3", "size: int = 3\n    on: bool = True")
    with pytest.raises(SettingsError) as caught:
        build(tmp_path, two, mine={"size": "2677279x", "on": "2677279"})
    assert str(caught.value).splitlines() == [
        "plugins.mine.size: must be a whole number",
        "plugins.mine.on: must be true or false",
    ]
    with pytest.raises(SettingsError, match=r"plugins\.mine\.size: this plugin has no options"):
        build(tmp_path, "", mine={"size": 7})
    with pytest.raises(SettingsError, match=r"plugins\.other: there is no plugin"):
        build(tmp_path, "", other={})


def test_a_plugin_can_be_turned_off(tmp_path: Path) -> None:
    registry = build(tmp_path, "@plugin.on(Do)\ndef do(m, c): ...\n", mine={"enabled": False})
    assert "mine.do" not in registry.tags


NEEDY = """class Options(msgspec.Struct):
    url: str = ""
    size: int = 1
plugin = Plugin("mine", options=Options, needs="url")
@plugin.on(Do)
def do(message, context): ...
@plugin.lifespan
async def life(host):
    1 / 0
    yield
@plugin.authorise
def ask(access, host): 1 / 0
@plugin.every(0.001)
def tick(host): 1 / 0
@plugin.http("GET", "/mine", grant="subscribe")
def route(request): ...
"""


def test_a_plugin_is_off_while_what_it_needs_is_not_set(tmp_path: Path) -> None:
    registry = build(tmp_path, NEEDY)
    assert "mine" not in [found.plugin.name for found in registry.found]
    assert "mine" in [found.plugin.name for found in registry.idle]
    assert "mine.do" not in registry.tags
    assert "/mine" not in [route.spec.path for route in registry.routes]
    with pytest.raises(SettingsError, match=r"plugins\.mine\.size: must be a whole number$"):
        build(tmp_path, NEEDY, mine={"size": "x"})
    registry = build(tmp_path, NEEDY, mine={"url": "http://x"})
    assert "mine.do" in registry.tags
    assert "/mine" in [route.spec.path for route in registry.routes]
    assert "mine" not in [found.plugin.name for found in registry.idle]


@pytest.mark.parametrize(
    "text", ["plugin = Plugin('mine', needs='url')\n", NEEDY + "plugin.needs = 'uri'\n"]
)
def test_what_a_plugin_needs_must_be_one_of_its_options(tmp_path: Path, text: str) -> None:
    with pytest.raises(PluginError, match=r"needs '.*', which is none of its options"):
        build(tmp_path, text)


SENT = """
class Inner(Part):
    source_pov: str = ""
class Vote(Message, tag="mine.vote"):
    text: str
    pov_id: str
class Deep(Message, tag="mine.deep"):
    inner: list[Inner]
class Fine(Message, tag="mine.fine"):
    pov_id: UncheckedId
class Answer(Message, tag="mine.answer"):
    pov_id: str
class Body(Part):
    pov_ids: list[str]
"""
PREFACE = (
    "from pov_rt.plugin import Message, Part, Plugin, PovId, UncheckedId\nplugin = Plugin('mine')"
)


@pytest.mark.parametrize(
    ("use", "field", "line", "mended"),
    [
        ("@plugin.on(Vote)\ndef f(m, c): ...", "pov_id", 7, "pov_id: PovId"),
        ("@plugin.on(Deep)\ndef f(m, c): ...", "inner.sourcePov", 4, 'source_pov: PovId = ""'),
        (
            "@plugin.http('POST', '/x', grant='subscribe', body=Body)\ndef f(r): ...",
            "pov_ids",
            15,
            "pov_ids: list[PovId]",
        ),
    ],
)
def test_what_is_named_like_a_pov_and_is_none_is_refused_with_what_mends_it(
    tmp_path: Path, use: str, field: str, line: int, mended: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PREFACE + SENT + use)
    with pytest.raises(PluginError) as refused:
        build_registry({}, tmp_path)
    said = str(refused.value)
    assert f"mine.py:{line}" in said
    assert repr(field if "." in field else words(field)) in said
    assert f"`{mended}`" in said
    assert "`UncheckedId`" in said
    text = file.read_text().splitlines()
    text[line - 1] = f"    {mended}"
    file.write_text("\n".join(text))
    build_registry({}, tmp_path)


def words(name: str) -> str:
    """Return a name as it is on the wire."""
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def test_whoever_says_that_it_is_not_checked_may(tmp_path: Path) -> None:
    use = "@plugin.on(Fine)\ndef f(m, c) -> Answer: ..."
    (tmp_path / "mine.py").write_text(PREFACE + SENT + use)
    assert "mine.fine" in build_registry({}, tmp_path).tags


@pytest.mark.parametrize("path", ["/x/{pov}", "/povs/{id}/x", "/{from_pov_id}", "/pov/{name}"])
def test_a_parameter_that_looks_like_a_pov_is_called_so(tmp_path: Path, path: str) -> None:
    use = f"@plugin.http('GET', '{path}', grant='subscribe')\ndef f(r): ..."
    (tmp_path / "mine.py").write_text(PREFACE + SENT + use)
    with pytest.raises(PluginError, match=r"looks like a PoV.*call it \{pov_id\}"):
        build_registry({}, tmp_path)


def test_a_body_comes_with_a_method_that_has_one(tmp_path: Path) -> None:
    use = "@plugin.http('GET', '/x', grant='subscribe', body=Inner)\ndef f(r): ..."
    (tmp_path / "mine.py").write_text(PREFACE + SENT + use)
    with pytest.raises(PluginError, match="only POST, PUT, PATCH have a body"):
        build_registry({}, tmp_path)
