"""The types of the messages are what the documents say, and TypeScript takes them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pov_rt.config.settings import LimitSettings, Settings
from pov_rt.protocol.errors import ERRORS, CloseCode
from pov_rt.registry.build import build_registry
from pov_rt.registry.schema import tag_of
from pov_rt.registry.typescript import typescript
from tests.js import CLIENT, node

REGISTRY = build_registry({})

PLUGIN = '''"""A plugin with whatever is odd in names and words."""
from typing import Annotated, Literal
from msgspec import Meta
from pov_rt.plugin import Context, Message, Part, Plugin

plugin = Plugin("{name}")

class Place(Part, rename="kebab"):
    """Ends a comment: */ throw 1 /*"""
    the_place: Annotated[str, Meta(description="And so does */ this")]

class Ask(Message, tag="{name}.ask"):
    """Ask with `some_words`, of `which_many` are none."""
    some_words: list[int | str]
    place: dict[str, Place] | None
    shade: Literal["it's", "\\"so\\"", "{name}"] = "it's"
    state: Literal["on", 5]
    nested: list[list[Place]] = []

class Record(Part):
    """A name that TypeScript has."""

class Answer(Message, tag="{name}.answer"):
    """Answer."""
    record: Record | None = None

class Error(Message, tag="{name}.error"):
    """Also the name of something else."""

@plugin.on(Ask)
def ask(message: Ask, context: Context) -> Answer | Error:
    """Answer."""
    return Answer()
'''


def test_the_clients_types_are_those_of_this_server() -> None:
    committed = (CLIENT / "src/wire.ts").read_text()
    made = typescript(REGISTRY, Settings())
    assert committed == made, "pov-rt schema typescript >clients/js/src/wire.ts"


def body(module: str, name: str) -> str:
    found = re.search(rf"^export (?:interface|type) {name} (.*?)\n\n", f"{module}\n", re.M | re.S)
    assert found, name
    return found[1]


def test_every_message_has_a_type_and_stands_with_its_answer() -> None:
    module = typescript(REGISTRY, Settings())
    requests, answers = body(module, "Requests"), body(module, "Answers")
    for handler in REGISTRY.handlers.values():
        tag = handler.tag
        assert f"  type: '{tag}'\n" in module
        assert (f"\n  {tag}: " in requests) == bool(handler.replies)
        assert (f"\n  {tag}: " in answers) == bool(handler.replies)
    for push in REGISTRY.pushes:
        assert f"  type: '{tag_of(push)}'\n" in module
    assert "  read: InboxRead | Receipts\n" in answers
    for name in re.findall(r"\w+", body(module, "ServerMessage").partition("=")[2]):
        assert f"\nexport interface {name} {{\n" in module


def test_every_error_and_close_code_is_there() -> None:
    module = typescript(REGISTRY, Settings())
    codes = re.findall(r"'(\w+)'", body(module, "ErrorCode"))
    assert codes == [*dict.fromkeys(error.code for error in ERRORS)]
    numbers = re.findall(r"\d+", body(module, "CloseCode"))
    assert list(map(int, numbers)) == [each.code for each in CloseCode]


def test_names_are_those_of_the_wire_in_the_words_too_and_bounds_are_said() -> None:
    module = typescript(REGISTRY, Settings(limits=LimitSettings(details_bytes=1000)))
    assert not re.search(r"`[a-z]+_at`", module)
    assert " * `expiresAt` is the token's expiry" in module
    assert "At most 1000 bytes of JSON" in module
    assert "  /** 1 to 128 characters. */\n  povId: string\n" in body(module, "NewActivity")
    assert all(len(line) <= 110 for line in module.splitlines())


def test_messages_of_plugins_are_there_however_odd_and_told_apart(tmp_path: Path) -> None:
    for name in ("anton", "berta"):
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name))
    module = typescript(build_registry({}, tmp_path), Settings())
    ask = body(module, "AntonAsk")
    assert "  someWords: (number | string)[]\n" in ask
    assert "  shade?: Shade\n" in ask
    assert "  shade?: '\"so\"' | 'berta' | 'it\\'s'\n" in body(module, "BertaAsk")
    assert "  nested?: AntonPlace[][]\n" in ask
    assert "'cursor' | Place\n" in body(module, "Subscribe"), "the server's own keep their names"
    assert "Record<string, unknown>" in body(module, "Activity")
    assert "\nexport interface AntonRecord {" in module
    assert "  state: 5 | 'on'\n" in ask  # others than in presence
    assert "Ask with `someWords`, of `which_many`" in module
    assert "  'the-place': string\n" in module
    assert "  'anton.ask': AntonAnswer | AntonError\n" in body(module, "Answers")
    (tmp_path / "wire.ts").write_text(module)
    (tmp_path / "use.ts").write_text(
        "import type {BertaAsk, Requests, ServerMessage, State} from './wire.js'\n"
        "const ask: Requests['berta.ask'] = {type: 'berta.ask', someWords: [1], place: null,"
        " state: 5}\n"
        "export const same: BertaAsk = ask\n"
        "export const state: State = 'away'\n"
        "export function first(message: ServerMessage): string {\n"
        "  return message.type === 'presence_diff' ? message.joined[0]!.userId : message.type\n"
        "}\n"
    )
    compiler = CLIENT / "node_modules/typescript/bin/tsc"
    options = ["--noEmit", "--strict", "--module", "esnext", "--moduleResolution", "bundler"]
    done = subprocess.run(
        [node(), compiler, *options, "use.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
