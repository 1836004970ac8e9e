"""The house's rules: who may import what, and how long a file may get."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "pov_rt").glob("**/*.py")) + sorted((ROOT / "plugins").glob("*.py"))
PLUGINS = [path for path in FILES if path.parent == ROOT / "plugins"]

LAYERS = (
    ("errors", "messages", "answers", "frames", "settings", "clock", "limits", "version", "eager"),
    (
        "auth",
        "digest",
        "durable",
        "filters",
        "context",
        "engine",
        "lookup",
        "outgoing",
        "roster",
        "merging",
        "faults",
        "logs",
        "systemd",
        "topics",
        "containment",
    ),
    ("config", "encoding"),
    ("plugin", "ids", "discovery", "registry", "schema"),
    (
        "connection",
        "fanout",
        "replay",
        "hub",
        "register",
        "publishing",
        "inbox",
        "health",
        "blocked",
    ),
    ("execution", "dispatch", "follower", "hosting", "handling", "plugin_runtime", "requests"),
    ("server",),
    ("web",),
    (
        "cli",
        "client_commands",
        "db_commands",
        "serve_command",
        "welcome",
        "options",
        "testing",
        "scaffold",
        "tracker",
        "suites",
        "client",
    ),
)
"""From the bottom up; a module imports from its own layer and those below. `plugins` may import
`plugin` and nothing else."""

ONLY_IN = {
    "tornado": ("pov_rt/web/", "pov_rt/tracker/tornado.py", "pov_rt/cli.py"),
    "redis": ("pov_rt/engine/redis",),
    "sqlite3": ("pov_rt/engine/sqlite",),
    "jwt": ("pov_rt/auth/",),
    "websockets": ("pov_rt/testing.py", "pov_rt/client.py"),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if module in names:
            return number
    raise AssertionError(f"pov_rt.{module} has no layer; put it where it belongs")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_it_may(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for imported in imports(path):
        top, _, rest = imported.partition(".")
        allowed = ONLY_IN.get(top)
        assert allowed is None or name.startswith(allowed), f"{name} imports {imported}"
        if top != "pov_rt" or not rest:
            continue
        inner = rest.partition(".")[0]
        if path in PLUGINS:
            assert inner == "plugin", f"{name} imports {imported}; plugins import pov_rt.plugin"
        elif name.startswith("pov_rt/plugins/") or inner == "plugins":
            continue
        else:
            own = path.relative_to(ROOT / "pov_rt").parts[0].removesuffix(".py")
            if own != "__init__":
                assert layer(inner) <= layer(own), f"{name} imports {imported}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_needs_few_lines_or_the_api_lacks_something(path: Path) -> None:
    # About 120; `subscribe` says the fields of its answer twice.
    assert len(path.read_text().splitlines()) <= (175 if path.stem == "subscribe" else 140)


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
    assert "_read_buffer" in BaseIOStream._read_to_buffer.__code__.co_names
    assert "_read_buffer_size" in BaseIOStream._read_to_buffer.__code__.co_names
    assert "_read_regex" in BaseIOStream.read_until_regex.__code__.co_names
    assert "_maybe_add_error_listener" in BaseIOStream.set_close_callback.__code__.co_names
