"""The house's rules: who may import whom, and how long a file may get.

The rooms and their order are the table in docs/architecture.md, so that the page cannot say
anything else than what holds.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pov_rt"
PLUGINS = sorted((ROOT / "plugins").glob("*.py"))
FILES = [
    path
    for path in sorted(PACKAGE.glob("**/*.py"))
    if "plugins" not in path.relative_to(PACKAGE).parts
]
FILES_BY_NAME = {str(path): path for path in FILES}
TESTS = [
    path
    for room in sorted({path.relative_to(PACKAGE).parts[0] for path in FILES} | {"plugins"})
    for path in sorted(ROOT.glob(f"tests/{room}/**/test_*.py"))
]

PAGE = (ROOT / "docs/architecture.md").read_text()
ROOMS = tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
"""From the top down: a file imports from its own room and those below."""

MOST_FILES = 10
MOST_CODE = 500
PLUGIN_CODE = 128

ONLY_IN = {
    "tornado": (
        "pov_rt/web/",
        "pov_rt/transport/wire.py",
        "pov_rt/tracker/tornado.py",
        "pov_rt/cli/",
    ),
    "django": ("pov_rt/tracker/django.py",),
    "asgiref": ("pov_rt/tracker/django.py",),
    "hiredis": ("pov_rt/engine/redis/",),
    "sqlite3": ("pov_rt/engine/sqlite/", "pov_rt/client/publishing/", "pov_rt/cli/publisher.py"),
    "jwt": ("pov_rt/auth/",),
    "websockets": ("pov_rt/testing.py", "pov_rt/client/"),
}


UNTESTED_BY_NAME = {
    "plugins/ping.py": "tests/test_contract.py has its bytes",
    "plugins/unsubscribe.py": "tests/test_contract.py has its bytes",
    "pov_rt/cli/options.py": "the commands use every option of it",
    "pov_rt/client/lines/base.py": "declarations; tests/client/lines/test_socket.py has its words",
    "pov_rt/client/errors.py": "declarations; the tests of the client raise each",
    "pov_rt/dispatch/host.py": "tests/plugins: the built-in plugins have no other way in",
    "pov_rt/engine/base.py": "declarations; pov_rt/suites tests every engine by them",
    "pov_rt/engine/local.py": "EngineSuite tests leases and signals in every engine",
    "pov_rt/engine/memory/copying.py": "EngineSuite copies every engine",
    "pov_rt/engine/memory/log.py": "EngineSuite tests logs in every engine",
    "pov_rt/engine/sqlite/backups.py": "tests/cli/test_db.py, for only the commands use it",
    "pov_rt/engine/sqlite/jobs.py": "declarations; what writes them has the tests",
    "pov_rt/engine/sqlite/members.py": "tests/cli/test_db.py, for only the command uses it",
    "pov_rt/engine/sqlite/moving.py": "tests/cli/test_db_copy.py, for only the command uses it",
    "pov_rt/engine/sqlite/pages.py": "EngineSuite reads pages in every way",
    "pov_rt/engine/state.py": "EngineSuite tests marks, sets and the store in every engine",
    "pov_rt/engine/producers.py": "EngineSuite tests producers in every engine",
    "pov_rt/engine/sqlite/producers.py": "EngineSuite tests producers in every engine",
    "pov_rt/engine/sqlite/stats.py": "tests/cli/test_db.py, for only the command uses it",
    "pov_rt/plugin/interfaces.py": "declarations",
    "pov_rt/protocol/bodies.py": "declarations",
    "pov_rt/suites/copying.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/keeping.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/losing.py": "it is tests, which tests/engine runs on an engine that loses",
    "pov_rt/suites/logs.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/past.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/producers.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/state.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/store.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/suites/support.py": "it is tests, which tests/engine runs on each engine",
    "pov_rt/server/trace/case.py": "declarations; tests/server/trace/test_judge.py fills them",
    "pov_rt/server/trace/causes.py": "a table; tests/server/trace/test_judge.py plants each",
    "pov_rt/server/trace/events.py": "declarations; tests/server/trace/test_history.py has them",
    "pov_rt/transport/bounds.py": "declarations; tests/transport/test_wire.py is at each bound",
    "pov_rt/version.py": "a constant",
}
"""Why a module has no test file of its name. Every other one has, in the folder of its room."""

NO_CODE = frozenset(
    getattr(tokenize, name)
    for name in ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENCODING", "ENDMARKER")
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def nodes(path: Path) -> Sequence[ast.AST]:
    """Return all that a file's text is made of, the whole first."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> Sequence[str]:
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            found += [node.module or ""]
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def modules_imported(path: Path) -> set[Path]:
    """Return the files of this package that a file imports."""
    found = set()
    for imported in imports(path):
        place = str(ROOT.joinpath(*imported.split(".")))
        found |= {FILES_BY_NAME.get(f"{place}.py"), FILES_BY_NAME.get(f"{place}/__init__.py")}
    return {each for each in found if each is not None}


def code_lines(path: Path) -> int:
    """Count the lines that have code: no docstring, comment or blank line."""
    with path.open("rb") as file:
        lines = {
            line
            for token in tokenize.tokenize(file.readline)
            if token.type not in NO_CODE
            for line in range(token.start[0], token.end[0] + 1)
        }
    for node in nodes(path):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                lines -= {*range(child.lineno, (child.end_lineno or 0) + 1)}
    return len(lines)


def has_code(path: Path) -> bool:
    """Tell whether a package's own page does more than gather names; any other file does."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return path.name != "__init__.py" or any(isinstance(node, kinds) for node in nodes(path))


def place_of_tests(path: Path) -> Path:
    """Return where the tests of a module are: `pov_rt` has no folder there, its rooms have."""
    place = path.parent if path.name == "__init__.py" else path
    place = place.relative_to(PACKAGE if place.is_relative_to(PACKAGE) else ROOT)
    return ROOT / "tests" / place.parent / f"test_{place.stem}.py"


def test_every_room_stands_in_the_documentation() -> None:
    here = {room_of(path) for path in FILES} - {"__init__"}
    assert sorted(ROOMS) == sorted(here), "one row a room in docs/architecture.md"


def test_every_file_stands_in_the_documentation_below_its_folder() -> None:
    listed = PAGE.split("## Every file")[1].split("\n## ")[0]
    parts = re.split(r"\*\*([\w/]+)\*\*", listed)
    named = {
        f"{folder}/{name}"
        for folder, text in zip(parts[1::2], parts[2::2], strict=True)
        for name in re.findall(r"`(\w+)`", text)
    }
    files = {path.relative_to(PACKAGE).with_suffix("") for path in FILES}
    inside = {str(path) for path in files if len(path.parts) > 1 and not path.stem.startswith("__")}
    assert inside <= named, "say in docs/architecture.md what each file is for"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_from_its_own_room_and_those_below(path: Path) -> None:
    own = room_of(path)
    for imported in imports(path):
        top, _, rest = imported.partition(".")
        room = rest.partition(".")[0]
        if top == "pov_rt" and room in ROOMS and own != "__init__":
            assert ROOMS.index(own) <= ROOMS.index(room), (
                f"{name_of(path)} imports {imported}, and {room} is above {own}"
            )


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_a_plugin_imports_nothing_of_ours_but_the_plugin_api(path: Path) -> None:
    for imported in imports(path):
        if imported.partition(".")[0] == "pov_rt":
            assert imported.startswith("pov_rt.plugin"), f"{name_of(path)} imports {imported}"
            assert not imported.startswith("pov_rt.plugins")


@pytest.mark.parametrize("path", [*FILES, *PLUGINS], ids=name_of)
def test_a_library_is_known_in_its_own_place_only(path: Path) -> None:
    for imported in imports(path):
        allowed = ONLY_IN.get(imported.partition(".")[0])
        assert allowed is None or name_of(path).startswith(allowed), (
            f"{name_of(path)} imports {imported}"
        )


def test_no_file_imports_itself_by_way_of_others() -> None:
    left = {path: modules_imported(path) - {path} for path in FILES}
    while free := [path for path, wanted in left.items() if not wanted & left.keys()]:
        for path in free:
            del left[path]
    # A package's own page gathers what its modules have, and they may import each other by name.
    assert not left, f"a circle of imports: {sorted(map(name_of, left))}"


def test_no_room_is_overcrowded() -> None:
    for folder in {path.parent for path in FILES} - {PACKAGE / "engine/sqlite"}:
        files = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
        assert len(files) <= MOST_FILES, f"{name_of(folder)} has {len(files)} files"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_stays_small(path: Path) -> None:
    assert code_lines(path) <= MOST_CODE


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_a_plugin_needs_few_lines_or_the_api_lacks_something(path: Path) -> None:
    assert code_lines(path) <= PLUGIN_CODE


@pytest.mark.parametrize("path", [*FILES, *PLUGINS], ids=name_of)
def test_a_module_has_tests_of_its_name_or_a_reason(path: Path) -> None:
    if has_code(path) and path.name != "__main__.py":
        found = place_of_tests(path)
        assert found.exists() or name_of(path) in UNTESTED_BY_NAME, f"no {name_of(found)}"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_are_where_what_they_test_is(path: Path) -> None:
    folder = path.parent.relative_to(ROOT / "tests")
    stems = {file.stem for file in (PACKAGE / folder).iterdir()}
    # A second file about one module says after its name what of it.
    parts = path.stem.split("_")[1:]
    named = {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}
    assert stems & named, f"{folder} has none of {named}"


@pytest.mark.parametrize("name", UNTESTED_BY_NAME)
def test_a_reason_is_needed_and_names_what_is_there(name: str) -> None:
    assert (ROOT / name).exists()
    assert not place_of_tests(ROOT / name).exists(), "it has tests, so strike the reason"
    for file in re.findall(r"[\w/]+\.py", UNTESTED_BY_NAME[name]):
        assert (ROOT / file).exists()


def test_the_private_parts_of_tornado_that_are_used_are_known() -> None:
    """Which is why the dependency is pinned to 6.6; look at these when it moves."""
    from tornado.httpserver import HTTPServer
    from tornado.iostream import BaseIOStream
    from tornado.util import _websocket_mask
    from tornado.websocket import WebSocketProtocol13, _WebSocketParams

    assert _websocket_mask(b"\1\0\0\0", b"ab") == b"`b"
    assert hasattr(WebSocketProtocol13, "accept_connection")
    assert _WebSocketParams().max_message_size > 0
    assert "_connections" in HTTPServer.initialize.__code__.co_names
    assert "_read_buffer" in BaseIOStream._read_to_buffer.__code__.co_names  # noqa: SLF001
    assert "_read_buffer_size" in BaseIOStream._read_to_buffer.__code__.co_names  # noqa: SLF001
    assert "_read_regex" in BaseIOStream.read_until_regex.__code__.co_names
    assert "_maybe_add_error_listener" in BaseIOStream.set_close_callback.__code__.co_names
