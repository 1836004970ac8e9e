"""`pov-rt schema`, as a process: what is printed, and the exit codes that a CI goes by."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pov_rt.activities.details.files import read_details
from pov_rt.protocol.errors import InvalidActivity
from tests.processes import run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return the settings of an app that declares its tasks."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/task.json").write_text(
        '{"properties": {"title": {"type": "string"}, "state": {"enum": ["open", "done"]}}}'
    )
    file = tmp_path / "pov-rt.toml"
    file.write_text('[activities."task.completed"]\ndetails = "schemas/task.json"\n')
    return file


def test_the_example_of_the_docs_is_good_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs/configuration.md").read_text().split('## [activities."TYPE.ACTION"]')[1]
    settings, schema = re.findall(r"```(?:toml|json)\n(.*?)```", page, re.S)[:2]
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/task-completed.json").write_text(schema)
    file = tmp_path / "pov-rt.toml"
    file.write_text(settings)
    done = run(tmp_path, "config", "check", "--dev", "--config", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    details = read_details(tmp_path / "schemas/task-completed.json")
    with pytest.raises(InvalidActivity) as raised:
        details.check({"items": [{"dueAt": "2030-01-31T09:00:00Z"}] * 3 + [{"dueAt": "soon"}]})
    said = re.search(r"`(The field 'details\.items\[3\]\.dueAt' must be .*?), \.\.\.`", page)
    assert said is not None
    assert raised.value.message.startswith(said[1])


def printed(app: Path, side: str) -> Path:
    done = run(app.parent, "schema", side, "--config", str(app))
    assert done.returncode == 0, done.stderr
    path = app.with_name(f"{side}.json")
    path.write_text(done.stdout)
    return path


def test_the_descriptions_have_what_the_settings_declare(app: Path) -> None:
    for side in ("asyncapi", "openapi"):
        document = json.loads(printed(app, side).read_text())
        assert "TaskCompletedDetails" in document["components"]["schemas"]
    module = printed(app, "typescript").read_text()
    assert "\n  'task.completed': TaskCompletedDetails\n" in module
    assert "\n  state?: " in module


@pytest.mark.parametrize("side", ["asyncapi", "openapi"])
def test_the_exit_code_says_whether_clients_break(app: Path, side: str) -> None:
    old, schema = printed(app, side), app.parent / "schemas/task.json"
    command = ("schema", "diff", str(old), "--config", str(app))
    done = run(app.parent, *command)
    assert (done.returncode, done.stdout) == (0, "nothing changed\n")
    text = schema.read_text()
    schema.write_text(text.replace('"title"', '"note": {}, "title"'))
    done = run(app.parent, *command)
    assert done.returncode == 0
    assert done.stdout == (
        "additive:\n"
        "  TaskCompletedDetails.note: is new (received by clients)\n"
        "  TaskCompletedDetails.note: is new (sent by clients)\n"
    )
    schema.write_text(text.replace('"open", ', ""))
    done = run(app.parent, *command)
    assert done.returncode == 1
    what = 'TaskCompletedDetails.state: may not be "open" any more'
    assert done.stdout == (
        f"breaking:\n  {what} (sent by clients)\nadditive:\n  {what} (received by clients)\n"
    )
    done = run(app.parent, *command, "--json")
    assert done.returncode == 1
    assert [each["breaking"] for each in json.loads(done.stdout)] == [True, False]
    new = app.with_name("new.json")
    new.write_text(run(app.parent, "schema", side, "--config", str(app)).stdout)
    assert run(app.parent, "schema", "diff", str(old), str(new)).returncode == 1
    assert run(app.parent, "schema", "diff", str(new), str(new)).returncode == 0


def test_what_cannot_be_compared_ends_with_another_code_than_a_break(app: Path) -> None:
    socket, http = printed(app, "asyncapi"), printed(app, "openapi")
    damaged = app.with_name("damaged.json")
    damaged.write_text('{"asyncapi": "3.0.0"}')
    for arguments, words in (
        ((), "Missing argument 'OLD'"),
        (("none.json",), "cannot read none.json: No such file"),
        ((str(app),), "is no JSON"),
        ((str(app.parent / "schemas/task.json"),), "is no document that `pov-rt schema"),
        ((str(damaged), "--config", str(app)), "is damaged"),
        ((str(socket), str(http)), "is of asyncapi"),
        ((str(socket), "--config", "none.toml"), "there is no file none.toml"),
    ):
        done = run(app.parent, "schema", "diff", *arguments)
        assert (done.returncode, words in done.stderr) == (2, True), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    (app.parent / "schemas/task.json").unlink()
    done = run(app.parent, "schema", "diff", str(socket), "--config", str(app))
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)
