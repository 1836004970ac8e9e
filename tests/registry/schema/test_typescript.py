"""The types of the messages are what the documents say, and TypeScript takes them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from pov_rt.config.settings import ActivitySettings, LimitSettings, Settings
from pov_rt.protocol.errors import ERRORS, CloseCode
from pov_rt.registry.build import build_registry
from pov_rt.registry.schema import tag_of
from pov_rt.registry.schema.typescript import typescript
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
    compile_strictly(tmp_path)


def compile_strictly(folder: Path) -> None:
    """Have `use.ts` compiled, which uses the module beside it."""
    compiler = CLIENT / "node_modules/typescript/bin/tsc"
    options = ["--noEmit", "--strict", "--module", "esnext", "--moduleResolution", "bundler"]
    done = subprocess.run(
        [node(), compiler, *options, "use.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


TYPED = '''"""Declares the details of comments."""
from typing import Literal
from pov_rt.plugin import Part, Plugin

plugin = Plugin("typed")

@plugin.activity("comment.*")
class Comment(Part):
    """What somebody wrote."""
    written_by: str
    mood: Literal["good", "bad"] = "good"
'''
TASK: dict[str, Any] = {
    "description": "A task is done.",
    "required": ["items"],
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "owner": {"type": ["string", "null"]},
        "place": {"allOf": [{"$ref": "#/$defs/point"}, {"properties": {"z": {"const": 1}}}]},
        "tree": {"type": "object", "properties": {"inner": {"$ref": "#/properties/tree"}}},
        "sort": {"oneOf": [{"type": "boolean"}, {"$ref": "#/$defs/any/thing~1x"}]},
        "no": False,
    },
    "$defs": {
        "item": {
            "type": "object",
            "required": ["dueAt"],
            "properties": {
                "dueAt": {"type": "string"},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/item"}},
            },
        },
        "point": {"type": "object", "properties": {"x": {"type": "number"}}},
        "any": {"thing/x": {"enum": ["a", "b"]}},
    },
}
USE = """\
import type {Activity, ActivityDetails, ActivityOf, NewActivity, NewActivityOf} from './wire.js'
declare function publish<T extends string, A extends string>(activity: NewActivityOf<T, A>): void
declare function is<T extends string, A extends string>(
  activity: Activity, type: T, action: A): activity is ActivityOf<T, A>
declare const received: Activity
declare const whatever: NewActivity

const task = {type: 'task', action: 'completed', povId: 'acme'} as const
publish({...task, details: {items: [{dueAt: 'now', parts: []}], owner: null, sort: 'a'}})
// @ts-expect-error: it has to have items
publish(task)
// @ts-expect-error: of which each has a time
publish({...task, details: {items: [{}]}})
// @ts-expect-error: and which is a text
publish({...task, details: {items: [{dueAt: 5}]}})
publish({type: 'comment', action: 'written', povId: 'acme', details: {writtenBy: 'ana'}})
// @ts-expect-error: it is one of two
publish({type: 'comment', action: 'written', povId: 'acme', details: {writtenBy: '', mood: 'odd'}})
publish({type: 'other', action: 'completed', povId: 'acme'})
publish({type: 'other', action: 'completed', povId: 'acme', details: {of: {any: 'sort'}}})
publish(whatever)

if (is(received, 'task', 'completed')) {
  const due: string = received.details.items[0]!.dueAt
  const x: number | undefined = received.details.place?.x
  const z: 1 | undefined = received.details.place?.z
  const inner: unknown = received.details.tree?.inner?.inner
  const never: undefined = received.details.no
  console.log(due, x, z, inner, never)
}
if (is(received, 'comment', 'edited')) console.log(received.details.writtenBy.trim())
export const keys: (keyof ActivityDetails)[] = ['comment.*', 'task.completed']
"""


def test_details_have_the_types_that_are_declared(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "task.json").write_text(json.dumps(TASK))
    task = ActivitySettings(details=str(tmp_path / "task.json"))
    module = typescript(build_registry({}, tmp_path, {"task.completed": task}), Settings())
    assert "\n/** What somebody wrote. */\nexport interface Comment {\n" in module
    assert "\n/** A task is done. */\nexport interface TaskCompletedDetails {\n" in module
    assert body(module, "ActivityDetails").split() == [
        "{", "'comment.*':", "Comment", "'task.completed':", "TaskCompletedDetails", "}",
    ]  # fmt: skip
    (tmp_path / "wire.ts").write_text(module)
    (tmp_path / "use.ts").write_text(USE)
    compile_strictly(tmp_path)


def test_without_declarations_details_are_whatever_they_are(tmp_path: Path) -> None:
    module = typescript(REGISTRY, Settings())
    assert "\nexport interface ActivityDetails {}\n" in module
    (tmp_path / "wire.ts").write_text(module)
    (tmp_path / "use.ts").write_text(
        "import type {ActivityOf, NewActivityOf} from './wire.js'\n"
        "export const one: NewActivityOf<'a', 'b'> = {type: 'a', action: 'b', povId: 'c'}\n"
        "export const seen = (other: ActivityOf<'a', 'b'>): unknown => other.details?.['x']\n"
    )
    compile_strictly(tmp_path)
