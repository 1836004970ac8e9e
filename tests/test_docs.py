"""The docs have an entry for everything that has a name, and say what the code says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import jwt
import msgspec
import pytest
from websockets.sync.client import connect

from bench.peers import free_port
from pov_rt.cli.main import main
from pov_rt.config.settings import EngineSettings, Settings
from pov_rt.connections import budgets
from pov_rt.dispatch.handlers.execution import FAILURE
from pov_rt.plugin import lookup
from pov_rt.plugins.presence import PER_USER
from pov_rt.plugins.read import PER_MARK
from pov_rt.protocol.errors import ERRORS, CloseCode
from pov_rt.registry.build import build_registry
from pov_rt.registry.schema import tag_of
from pov_rt.server.nodes import sessions
from pov_rt.testing import RunningServer, make_settings
from pov_rt.web.routes.token import EXCHANGE
from tests.clients import publish
from tests.processes import COMMAND, SECRET, environment, read_until, running

THREE = b'{"type": "subscribe", "povIds": ["a", "b", "c"]}'
ROOT = Path(__file__).parent.parent
DOCS = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows below a heading."""
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def defaults(name: str, section: msgspec.Struct) -> dict[str, Any]:
    """Return the settings of a section, and of those in it, with their defaults."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(section)):
        value = getattr(section, field.name)
        full = f"{name}.{field.name}"
        found |= defaults(full, value) if isinstance(value, msgspec.Struct) else {full: value}
    return found


def test_every_setting_has_an_entry_with_its_default() -> None:
    documented = dict(
        re.findall(r"^\| `([a-z_]+(?:\.[a-z_]+)+)` \| `(.*?)` \|", DOCS["configuration"], re.M)
    )
    expected: dict[str, Any] = {}
    settings = Settings()
    for section in msgspec.structs.fields(Settings):
        value = getattr(settings, section.name)
        if isinstance(value, msgspec.Struct):
            expected |= defaults(section.name, value)
    assert set(documented) == set(expected)
    for name, value in expected.items():
        shown = "none" if value is None else msgspec.json.encode(value).decode()
        assert documented[name] == shown, name


def test_every_error_code_has_an_entry_with_its_status() -> None:
    rows = {
        code.strip("`"): int(status) for code, status, _ in table(DOCS["protocol"], "Error codes")
    }
    for error in ERRORS:
        assert rows[error.code] == error.status


def test_every_close_code_has_an_entry() -> None:
    rows = {int(code): reason for code, reason, _ in table(DOCS["protocol"], "Close codes")}
    assert rows == {code.code: code.reason for code in CloseCode}


def test_every_message_type_has_an_entry() -> None:
    registry = build_registry({})
    sent = {row[0].strip("`") for row in table(DOCS["protocol"], "Messages from the client")}
    heard = {row[0].strip("`") for row in table(DOCS["protocol"], "Messages from the server")}
    assert sent == registry.tags
    pushes = {tag_of(push) for push in registry.pushes}
    replies = {tag_of(reply) for each in registry.handlers.values() for reply in each.replies}
    assert pushes <= heard <= pushes | replies


def test_every_message_and_route_and_all_else_that_costs_has_its_price() -> None:
    rows = [row for row in table(DOCS["configuration"], "Prices") if len(row) == 2]
    listed = {what.strip("`"): price.partition(";")[0] for what, price in rows}
    registry = build_registry({})
    for handler in registry.handlers.values():
        price = handler.spec.price
        if callable(price):
            assert price(msgspec.json.decode(THREE, type=handler.spec.message)) == 3
            assert listed[handler.tag] == "1 for each PoV"
        else:
            assert float(listed[handler.tag]) == price
    for route in registry.routes:
        name = f"{route.spec.method} /api{route.spec.path}"
        assert float(listed[name]) == route.spec.price
    assert float(listed["GET /api/auth/ws-token"]) == EXCHANGE
    others = [sessions.PRICE, budgets.RECEIVED_BYTE * 1024, budgets.DELIVERY]
    others += [budgets.CONNECTION, budgets.ACTIVITY, budgets.ROW, budgets.READ_BYTE * 1024]
    others += [budgets.BYTE * 1024, FAILURE, lookup.PRICE]
    assert [float(price) for _, price in rows[-len(others) :]] == others
    assert budgets.ROW == PER_USER == PER_MARK


def test_every_bound_with_a_name_has_a_row_that_names_its_setting(tmp_path: Path) -> None:
    from pov_rt.testing import RunningServer, make_settings

    rows = table(DOCS["configuration"], "Bounds")
    named = {name: row for row in rows for name in re.findall(r'^`bound="(\w+)"`', row[3])}
    found: dict[str, str] = {}
    for url in ("memory://", f"sqlite://{tmp_path}/log.db"):
        settings = make_settings(engine=EngineSettings(url=url))
        receiver = {"url": "http://127.0.0.1:9/", "secret": SECRET}
        settings.plugins.update(webhooks=receiver, authoriser=receiver)
        with RunningServer(settings, None) as server:
            found |= {bound.name: bound.setting for bound in server.web.server.bounds}
    assert set(named) == set(found)
    for name, setting in found.items():
        for each in re.findall(r"[\w.]+\.\w+", setting):
            assert f"`{each}`" in " ".join(named[name]), name


def test_every_bounds_row_names_settings_that_exist() -> None:
    text = " ".join(" ".join(row) for row in table(DOCS["configuration"], "Bounds"))
    settings, entries = Settings(), set(re.findall(r"`((?:auth|limits|engine)\.\w+)`", text))
    for name in entries:
        section, _, field = name.partition(".")
        assert hasattr(getattr(settings, section), field), name
    assert entries >= {f"engine.{name}" for name in ("max_topics", "max_marks", "max_ids")}


def commands(group: click.Group, prefix: str) -> set[str]:
    found: set[str] = set()
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
            if command.invoke_without_command:
                found.add(f"{prefix} {name}")
        else:
            found.add(f"{prefix} {name}")
    return found


def test_every_command_has_an_entry() -> None:
    rows = {row[0].strip("`") for row in table(DOCS["operations"], "Commands")}
    assert rows == commands(main, "pov-rt")


@pytest.mark.parametrize("path", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=str)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s\"]+)\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_the_example_plugin_of_the_docs_works(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", DOCS["plugins"], re.S)[0]
    (tmp_path / "poll.py").write_text(code)
    from pov_rt.testing import RunningServer, make_settings

    with RunningServer(make_settings(), tmp_path) as server:
        ana, ben = server.connect("ana"), server.connect("ben")
        vote = {"type": "poll.vote", "povId": "acme", "choice": "yes"}
        assert ana.request(vote)["code"] == "forbidden"
        for client in (ana, ben):
            client.request({"type": "subscribe", "povId": "acme"})
        assert ana.request(vote) == {
            "type": "poll.tally",
            "povId": "acme",
            "counts": {"yes": 1},
            "id": "test-3",
        }
        # The reply is the caller's copy of the broadcast.
        assert ben.receive() == {"type": "poll.tally", "povId": "acme", "counts": {"yes": 1}}
        assert ana.early == []
        assert ana.request({**vote, "choice": ""})["field"] == "choice"
        assert ana.early == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="the drill asks with curl")
@pytest.mark.parametrize("tenants", ["false", "true"])
def test_the_drill_for_a_leaked_key_works_as_it_is_written(tmp_path: Path, tenants: str) -> None:
    text = DOCS["operations"].split("\n## A leaked key\n")[1]
    rotate, revoke, look = re.findall(r"```bash\n(.*?)```", text.split("\n## ")[0], re.S)
    config, secret, port = tmp_path / "pov-rt.toml", tmp_path / "secret", free_port()
    (tmp_path / "conf.d").mkdir()
    secret.write_text(SECRET)
    secret.chmod(0o600)
    config.write_text(
        f'[auth]\nsecret_files = ["{secret}"]\ndefault_povs = "none"\n'
        f"tenants = {tenants}\n"
        f"[server]\nport = {port}\nadmin_port = 0\n"
    )
    variables = environment(tmp_path)
    del variables["POV_RT_AUTH__DEFAULT_POVS"]
    variables |= {"CONFIG": str(config), "SECRET": str(secret)}
    variables |= {"URL": f"http://127.0.0.1:{port}"}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    command = [*COMMAND, "serve", "--config", str(config)]
    with running(command, env=variables, cwd=tmp_path, stderr=subprocess.PIPE) as server:
        read_until(server.stderr, "listens on")
        variables["SERVER"] = str(server.pid)
        kept = tmp_path / "kept"

        def type_in(block: str) -> str:
            script = f"set -eu; touch {kept}; . {kept}\n{block}\ndeclare -p OLD > {kept}\n"
            done = subprocess.run(
                ["bash", "-c", script],
                env=variables,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        times = {"exp": time.time() + 900, "iat": time.time() - 60}
        claims = {"userId": "ana", "teamId": "blue", **times}
        forged = jwt.encode(claims, SECRET, "HS256")
        with connect(f"ws://127.0.0.1:{port}/ws/?token={forged}", proxy=None):
            type_in(rotate)
            read_until(server.stderr, "reloaded: auth.key_overlap_s, keys")
            done = json.loads(type_in(revoke))
        assert (done["closed"], sorted(done)) == (1, ["closed", "issuedBefore", "missing"])
        assert type_in(look).split() == ["401", "426"]
        read_until(server.stderr, "no key has signed this")


def drill(heading: str) -> list[str]:
    """Return what a drill says to type in."""
    text = DOCS["operations"].split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", text, re.S)


def type_in(script: str, tmp_path: Path, **variables: str) -> str:
    """Run a drill's commands; each of them has to work."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment(tmp_path) | {"PATH": path} | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_full_disk_is_looked_at_with_works_as_it_is_written(tmp_path: Path) -> None:
    (look,) = drill("A full disk")
    url = f"sqlite://{tmp_path}/pov-rt.db"
    with RunningServer(make_settings(engine=EngineSettings(url=url)), None) as server:
        admin = f"http://127.0.0.1:{server.web.admin_port}"
        said = type_in(look, tmp_path, ADMIN=admin, DATA=str(tmp_path))
    assert '"ready"' in said
    assert 'pov_rt_log_bytes{file="journal"}' in said
    assert re.search(r"^write-ahead log +\d", said, re.M)


def test_a_log_moves_to_another_machine_as_it_is_written(tmp_path: Path) -> None:
    take, bring = drill("Another machine")
    folders = {"DATA": str(tmp_path / "old"), "NEW": str(tmp_path / "new")}
    (tmp_path / "old").mkdir()

    def start(folder: str) -> RunningServer:
        url = f"sqlite://{folder}/pov-rt.db"
        return RunningServer(make_settings(engine=EngineSettings(url=url)), None)

    with start(folders["DATA"]) as server:
        publish(server, 3)
        before = history(server)
    before_stats = type_in(take, tmp_path, BACKUP=str(tmp_path / "backup.db"), **folders)
    after_stats = type_in(bring, tmp_path, BACKUP=str(tmp_path / "backup.db"), **folders)
    assert len(set(re.findall(r"^entries .*$", before_stats + after_stats, re.M))) == 1
    with start(folders["NEW"]) as server:
        after = history(server)
        publish(server, 1)
    assert after["activities"] == before["activities"]
    assert after["epoch"] != before["epoch"]


def history(server: RunningServer) -> dict[str, Any]:
    return server.connect("ana").request({"type": "history", "povId": "acme"})
