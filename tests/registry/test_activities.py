"""What plugins and settings declare of activities: mistakes are said at start, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pov_rt.activities.details.files import FileDetails
from pov_rt.activities.details.structs import StructDetails
from pov_rt.config.settings import ActivitySettings, SettingsError
from pov_rt.registry.activities import declare
from pov_rt.registry.build import Registry, build_registry
from pov_rt.registry.discovery import PluginError

HEAD = """from typing import Any
import msgspec
from pov_rt.plugin import Part, Plugin
plugin = Plugin("{name}")
"""
BAD = "# <- here"
FINE = '@plugin.activity("task.completed")\nclass Done(Part):\n    title: str\n'


def build(
    folder: Path, text: str = "", activities: dict[str, Any] | None = None, **more: str
) -> Registry:
    for name, body in {"mine": text, **more}.items():
        (folder / f"{name}.py").write_text(HEAD.format(name=name) + body)
    given = {key: ActivitySettings(details=path) for key, path in (activities or {}).items()}
    return build_registry({}, folder, given)


def schema_in(folder: Path, schema: Any = True) -> str:
    path = folder / "task.json"
    path.write_text(json.dumps({} if schema is True else schema))
    return str(path)


def test_declarations_of_plugins_and_settings_stand_beside_each_other(tmp_path: Path) -> None:
    registry = build(tmp_path, FINE, {"task.*": schema_in(tmp_path)})
    types = registry.activities.types
    assert {key: type(each) for key, each in types.items()} == {
        "task.completed": StructDetails,
        "task.*": FileDetails,
    }
    assert types["task.completed"].source.__name__ == "Done"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'@plugin.activity("task")  {BAD}\nclass Done(Part):\n    a: int\n', "name the action"),
        (f'@plugin.activity("a b.c")  {BAD}\nclass Done(Part):\n    a: int\n', "letters, digits"),
        (f"@plugin.activity(5)  {BAD}\nclass Done(Part):\n    a: int\n", "must be a text"),
        (f'plugin.activity("task.completed")  {BAD}\n', "is above no class"),
        (f'@plugin.activity("a.b")  {BAD}\nclass Done:\n    a: int\n', "no class derived"),
        (f'plugin.activity("task.completed")(dict)  {BAD}\n', "no class derived"),
        (
            '@plugin.activity("task.completed")\nclass Done(Part):\n'
            f"    a = 5  {BAD}\n",
            "without an annotation this is no field",
        ),
        (
            f'@plugin.activity("task.completed")\nclass Done(Part):\n    a: object  {BAD}\n',
            "nothing can be decoded into object",
        ),
        (
            f'@plugin.activity("task.completed")  {BAD}\n'
            "class Done(Part, array_like=True):\n    a: int\n",
            "details are always an object",
        ),
        (f'{FINE}@plugin.activity("task.completed")  {BAD}\nclass Other(Part):\n    a: int\n',
         "the details of 'task.completed' are already declared at"),
    ],
)  # fmt: skip
def test_a_mistake_of_a_plugin_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PluginError) as raised:
        build(tmp_path, text)
    lines = (HEAD + text).splitlines()
    (marked,) = [number for number, line in enumerate(lines, 1) if line.endswith(BAD)]
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'mine.py'}:{marked}: "), said
    assert words in said
    assert "Traceback" not in said


def test_a_class_above_which_the_parentheses_are_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r'needs its parentheses: @plugin.activity\("task'):
        build(tmp_path, "@plugin.activity\nclass Done(Part):\n    a: int\n")


def test_two_plugins_that_declare_the_same_are_both_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as raised:
        build(tmp_path, FINE, other=FINE)
    assert f"{tmp_path / 'other.py'}:5: " in str(raised.value)
    assert f"already declared at {tmp_path / 'mine.py'}:5" in str(raised.value)


def test_every_mistake_in_the_settings_is_said_with_setting_and_file(tmp_path: Path) -> None:
    path = schema_in(tmp_path, {"type": "objekt"})
    given = {"task.completed": path, "task": path, "a.b": None, "a.c": "/none.json", "a.d": path}
    with pytest.raises(SettingsError) as raised:
        build(tmp_path, FINE, given)
    said = str(raised.value).splitlines()
    assert said == [
        'activities."task.completed": a plugin declares its details, too, at '
        f"{tmp_path / 'mine.py'}:5",
        'activities.task: name the action, too: "task.completed", or "task.*" for every action',
        'activities."a.b".details: is not set; write the path of a file with a JSON Schema',
        'activities."a.c".details: /none.json: cannot be read: No such file or directory',
        f"activities.\"a.d\".details: {path}: type is 'objekt', and details are always an object: "
        '"type": "object"',
    ]


def test_of_a_plugin_that_is_off_nothing_is_declared(tmp_path: Path) -> None:
    build(tmp_path, FINE)
    registry = build_registry({"mine": {"enabled": False}}, tmp_path)
    assert not registry.activities.types
    given = {"task.completed": ActivitySettings(details=schema_in(tmp_path))}
    assert declare(registry.found, given).types.keys() == {"task.completed"}
