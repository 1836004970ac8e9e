"""What Python and msgspec would take in silence is refused at start, at the line to mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pov_rt.auth.grants import GRANTS
from pov_rt.config.settings import AuthSettings, RoleSettings, SettingsError
from pov_rt.plugin.declare import HOOKS
from pov_rt.registry.build import Registry, build_registry, check_roles
from pov_rt.registry.discovery import PluginError
from pov_rt.registry.mistakes import ARGUMENTS

HEAD = '''from __future__ import annotations
from typing import Annotated, Any, ClassVar
import msgspec
from pov_rt.plugin import (
    Activity, Context, Event, Forbidden, Host, Length, Message, Part, Plugin, PovId, Published,
    Rejected, Request,
)
plugin = Plugin("mine", grants=["mine.own"])
class Do(Message, tag="mine.do"):
    """Do it."""
    what: str
class Done(Message, tag="mine.done"):
    """It is done."""
'''

BAD = "# <- here"
"""Marks the line that has to be named."""


def build(folder: Path, text: str) -> Registry:
    (folder / "mine.py").write_text(HEAD + text)
    return build_registry({}, folder)


def refusal(folder: Path, text: str) -> str:
    """Return what is said, having seen that it names the marked line, and shows it."""
    with pytest.raises(PluginError) as raised:
        build(folder, text)
    said = str(raised.value)
    lines = (HEAD + text).splitlines()
    (marked,) = [number for number, line in enumerate(lines, 1) if line.endswith(BAD)]
    assert said.startswith(f"{folder / 'mine.py'}:{marked}: "), said
    assert lines[marked - 1].strip() in said
    assert "Traceback" not in said
    return said


ON = "@plugin.on(Do, {})\n" + "def do(message: Do, context: Context) -> Done | None: ...\n"

FUNCTIONS = [
    (f"@plugin.on  {BAD}\ndef do(message, context): ...\n", r"@plugin.on\(Vote\)"),
    (f"@plugin.every  {BAD}\nasync def tick(host): ...\n", r"@plugin.every\(60\)"),
    (f"@plugin.hears  {BAD}\ndef heard(event, host): ...\n", r"@plugin.hears\(Closed\)"),
    (f"@plugin.http  {BAD}\ndef route(request): ...\n", "missing 1 required"),
    (f"@plugin.connected()  {BAD}\ndef come(context): ...\n", "missing 1 required"),
    (f"plugin.on(Do)  {BAD}\ndef do(message, context): ...\n", "above no function"),
    (f"plugin.every(60)  {BAD}\n", "above no function"),
    (f"@plugin.every('60')  {BAD}\ndef tick(host): ...\n", "a number above 0, not '60'"),
    (f"@plugin.every(float('nan'))  {BAD}\ndef tick(host): ...\n", "a number above 0"),
    (f"@plugin.every(True)  {BAD}\ndef tick(host): ...\n", "a number above 0"),
    (
        f"@plugin.on(Do, grant='colaborate')  {BAD}\ndef do(message, context): ...\n",
        r"no grant 'colaborate' \(did you mean 'collaborate'\?\); there are .*publish.*declared",
    ),
    (
        f"@plugin.http('GET', '/x', grant='subscrib')  {BAD}\ndef do(request): ...\n",
        r"did you mean 'subscribe'\?",
    ),
    (
        f"@plugin.http('GET', '/x', grant=None)  {BAD}\ndef do(request): ...\n",
        "there is no grant None",
    ),
    (
        f"@plugin.on(Do)  {BAD}\ndef do(context: Context, message: Do): ...\n",
        r"argument 1, 'context', is the message, and is declared as Context",
    ),
    (f"@plugin.on(Do)  {BAD}\ndef do(message: Do, host: Host): ...\n", "argument 2, 'host', is"),
    (
        f"@plugin.on(Do)  {BAD}\ndef do(message, context, more): ...\n",
        "takes .message, context, mo",
    ),
    (
        f"@plugin.on(Do)  {BAD}\ndef do(message, *, context): ...\n",
        r"takes \(message, \*, context\)",
    ),
    (f"@plugin.on(Do)  {BAD}\ndef do(message, context):\n    yield\n", "must not `yield`"),
    (f"@plugin.every(5)  {BAD}\nasync def tick(host):\n    yield\n", "must not `yield`"),
    (
        f"@plugin.published  {BAD}\ndef out(published: Published, activity: Activity, host): ...\n",
        "argument 1, 'published', is the activity",
    ),
    (f"@plugin.subscribed  {BAD}\ndef come(context: Context, pov: str): ...\n", "is the pov_id"),
    (f"@plugin.every(5)  {BAD}\ndef tick(context: Context): ...\n", "is the host"),
    (f"@plugin.on(Do)  {BAD}\ndef do(message, context) -> str: ...\n", "must return a Message"),
    (f"@plugin.on(Do)  {BAD}\ndef do(message, context) -> dict[str, int]: ...\n", "returns dict"),
    (
        f"@plugin.on(Do)  {BAD}\nasync def do(message, context) -> Done | Forbidden: ...\n",
        "write `raise Forbidden",
    ),
    (
        f"@plugin.http('GET', '/x', grant='publish')  {BAD}\ndef do(request) -> list[int]: ...\n",
        "must return a Struct",
    ),
    (
        f"@plugin.on(Do)\ndef do(message, context):\n    return Forbidden('no')  {BAD}\n",
        "Forbidden is returned and not raised",
    ),
    (
        "import pov_rt.plugin as api\n@plugin.on(Do)\nasync def do(message, context):\n"
        f"    if message.what:\n        return Done() if 1 else api.Rejected('a', 'b')  {BAD}\n",
        "write `raise Rejected",
    ),
    (
        "@plugin.http('GET', '/x', grant='publish')\ndef do(request):\n"
        f"    return ValueError('no')  {BAD}\n",
        "write `raise ValueError",
    ),
    (
        f"@plugin.before_publish\ndef do(activity, host):\n    return Forbidden()  {BAD}\n",
        "write `raise Forbidden",
    ),
]


@pytest.mark.parametrize(("text", "words"), FUNCTIONS)
def test_a_function_that_would_not_do_its_work_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    assert re.search(words, refusal(tmp_path, text))


def test_what_a_handler_returns_inside_of_another_function_is_its_own(tmp_path: Path) -> None:
    build(
        tmp_path,
        "@plugin.on(Do)\ndef do(message, context):\n"
        "    def why():\n        return Forbidden('no')\n    raise why()\n",
    )


DOORS = {
    "message": (
        "class X(Message, tag='mine.x'):\n    {}\n@plugin.on(X)\ndef x(m: X, c: Context): ...\n"
    ),
    "base": (
        "class Base(Message, tag='mine.base'):\n    {}\nclass X(Base, tag='mine.x'): ...\n"
        "@plugin.on(X)\ndef x(message, context): ...\n"
    ),
    "part of a message": (
        "class Inner(Part):\n    {}\nclass X(Message, tag='mine.x'):\n"
        "    some: dict[str, list[Inner | None]]\n@plugin.on(X)\ndef x(message, context): ...\n"
    ),
    "body": (
        "class X(Part):\n    {}\n"
        "@plugin.http('POST', '/x', grant='publish', body=X)\ndef x(request): ...\n"
    ),
    "options": "class X(msgspec.Struct):\n    {}\nplugin.options = X\n",
    "event": "class X(Event, tag='mine.x'):\n    {}\nplugin.announces = [X]\n",
}
SENT = {
    "answer": (
        "class X(Message, tag='mine.x'):\n    {}\n@plugin.on(Do)\ndef x(m, context) -> X: ...\n"
    ),
    "push": "class X(Message, tag='mine.x'):\n    {}\nplugin.pushes = [X]\n",
    "answer of a route": (
        "class X(msgspec.Struct):\n    {}\n"
        "@plugin.http('GET', '/x', grant='publish')\ndef x(request) -> X: ...\n"
    ),
}
UNANNOTATED = ["text = 'x'", "text = str", "pov = PovId", "count = 3", "many = list[str]"]
UNDECODABLE = ["x: complex", "x: type", "x: list[Rejected]", "x: dict[str, Host] | None = None"]
UNKNOWN = ["x: Nope", "x: list[msgspec.Nope]", "x: Annotated[int, Nope(1)]", "x: 1 / 0"]


@pytest.mark.parametrize("door", [*DOORS, *SENT])
@pytest.mark.parametrize("field", UNANNOTATED)
def test_a_field_without_an_annotation_is_refused(tmp_path: Path, door: str, field: str) -> None:
    said = refusal(tmp_path, {**DOORS, **SENT}[door].format(f"{field}  {BAD}"))
    assert "without an annotation this is no field" in said


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("field", UNDECODABLE)
def test_a_field_that_nothing_can_be_decoded_into_is_refused(
    tmp_path: Path, door: str, field: str
) -> None:
    assert "nothing can be decoded into" in refusal(tmp_path, DOORS[door].format(f"{field}  {BAD}"))


@pytest.mark.parametrize("door", [*DOORS, *SENT])
@pytest.mark.parametrize("field", UNKNOWN)
def test_an_annotation_that_means_nothing_is_refused(tmp_path: Path, door: str, field: str) -> None:
    refusal(tmp_path, {**DOORS, **SENT}[door].format(f"{field}  {BAD}"))


@pytest.mark.parametrize("door", ["message", "base", "answer", "push"])
def test_the_name_of_the_correlation_id_is_taken(tmp_path: Path, door: str) -> None:
    said = refusal(tmp_path, {**DOORS, **SENT}[door].format(f"id: str  {BAD}"))
    assert "the field 'id': every message has one" in said


def test_an_option_cannot_be_called_as_what_turns_a_plugin_off(tmp_path: Path) -> None:
    said = refusal(tmp_path, DOORS["options"].format(f"enabled: bool = True  {BAD}"))
    assert "false turns it off" in said


def test_what_a_class_may_have_beside_its_fields(tmp_path: Path) -> None:
    build(
        tmp_path,
        "class X(Message, tag='mine.x'):\n"
        "    LIMIT = 3\n    most: ClassVar[int] = 5\n    _hidden = 1\n    anything: Any = None\n"
        "    text: Annotated[str, Length(1, 2)] = 'x'\n    more: list[X] | None = None\n"
        "    class Inner(Part): ...\n"
        "    def twice(self): return self.text * 2\n"
        "    @property\n    def first(self): return self.text[0]\n"
        "    @staticmethod\n    def make(): ...\n"
        "class Other(Message, tag='mine.other'):\n    x: int\n"
        "@plugin.on(Other)\ndef x(message, context) -> X: ...\n",
    )


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import nothing_there\n")
    with pytest.raises(PluginError) as raised:
        build(tmp_path, "def broken(:\n")
    assert "mine.py:14: syntax error" in str(raised.value)
    assert "other.py:1: ModuleNotFoundError" in str(raised.value)
    (tmp_path / "other.py").unlink()
    with pytest.raises(PluginError) as raised:
        build(
            tmp_path,
            "@plugin.every(0)\ndef tick(host): ...\n"
            "@plugin.connected\ndef come(): ...\n"
            "@plugin.on(Do, rate='x')\ndef do(message, context): ...\n",
        )
    assert [error.source.line for error in (raised.value, *raised.value.others)] == [18, 16, 14]


def test_a_grant_of_a_plugin_is_declared_and_then_known_everywhere(tmp_path: Path) -> None:
    registry = build(tmp_path, ON.format("grant='mine.own'"))
    assert registry.grants == GRANTS | {"mine.own"}
    check_roles(AuthSettings(roles={"lead": RoleSettings(can=["publish", "mine.own"])}), registry)
    with pytest.raises(
        SettingsError, match=r"auth\.roles\.lead\.can: .* 'subscrib' .*mean 'subscribe'.*mine\.own"
    ):
        check_roles(AuthSettings(roles={"lead": RoleSettings(can=["subscrib"])}), registry)


@pytest.mark.parametrize("grants", ["'vote'", "['Vote']", "['a b']", "[3]", "['subscribee']"])
def test_a_grant_that_no_token_would_be_written_with_is_refused(
    tmp_path: Path, grants: str
) -> None:
    (tmp_path / "mine.py").write_text(
        f"from pov_rt.plugin import Plugin\nplugin = Plugin('mine', grants={grants})\n"
    )
    with pytest.raises(PluginError, match="grant"):
        build_registry({}, tmp_path)


def test_every_hook_says_what_it_is_called_with() -> None:
    assert set(ARGUMENTS) == set(HOOKS)
    assert {name: len(each) for name, each in ARGUMENTS.items()} == {
        name: rule.arguments for name, rule in HOOKS.items()
    }


def test_an_import_that_fails_is_at_the_innermost_line_of_the_plugin(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        f"import json\ndef parse(text):\n    return json.loads(text)  {BAD}\nparse('no json')\n",
    )
    assert "JSONDecodeError" in said
