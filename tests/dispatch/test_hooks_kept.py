"""What a plugin keeps and what it does beside, on a real server."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import EngineSettings, ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.cli.test_db import succeed

PLUGIN = """
import asyncio
from collections.abc import AsyncIterator
from pov_rt.plugin import Context, Host, Message, Plugin, PovId
Said = list[str]
plugin = Plugin[Said]("kept")
ended: list[str] = []

class Do(Message, tag="kept.do"):
    what: str
    key: str = "k"

class Done(Message, tag="kept.done"):
    text: str

@plugin.lifespan
async def life(host: Host) -> AsyncIterator[Said]:
    yield []
    ended.append("lifespan")

async def forever(host: Host[Said]) -> None:
    try:
        host.state.append("begun")
        await asyncio.sleep(3600)
    finally:
        ended.append("task")

async def fail(host: Host[Said]) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("broken beside")

@plugin.on(Do)
async def do(message: Do, context: Context[Said]) -> Done:
    host, user = context.host, context.user.user_id
    if message.what == "add":
        count = await host.store.update(message.key, int, lambda old: (old or 0) + 1, user_id=user)
        return Done(text=str(count))
    if message.what == "folder":
        (host.data_dir / "file").write_text("x")
        return Done(text=str(host.data_dir))
    if message.what == "begin":
        host.spawn(forever(host))
    if message.what == "fail":
        host.spawn(fail(host))
    if message.what == "wrong":
        host.spawn(forever)
    return Done(text=",".join(host.state))
"""


def settings(data: Path | None, url: str = "sqlite://") -> Settings:
    server = ServerSettings(port=0, admin_port=0, drain_s=0.2, data=str(data) if data else None)
    return make_settings(server=server, engine=EngineSettings(url=url))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "kept.py").write_text(PLUGIN)
    return folder


def do(what: str, key: str = "k") -> dict[str, Any]:
    return {"type": "kept.do", "what": what, "key": key}


def test_values_outlive_the_server_are_in_its_backup_and_go_with_their_user(
    tmp_path: Path, folder: Path
) -> None:
    data = tmp_path / "data"
    for count in ("1", "2"):
        with RunningServer(settings(data), folder) as server:
            assert server.connect("ana").request(do("add"))["text"] == count
            assert server.connect("ben").request(do("add", "b"))["text"] == count
            if count == "2":
                succeed(data, "backup", tmp_path / "copy.db")
            for _ in range(3):
                server.connect("ana").request(do("add", "later"))
    succeed(data, "restore", tmp_path / "copy.db")
    with RunningServer(settings(data), folder) as server:
        ana = server.connect("ana")
        assert ana.request(do("add"))["text"] == "3"
        assert ana.request(do("add", "later"))["text"] == "4", "of the first run, and no more"
        assert server.run(lambda: server.web.server.engine.store.erase("ana")) == 2
        assert ana.request(do("add"))["text"] == "1"
        assert ana.request(do("add", "b"))["text"] == "3"


def test_a_plugin_has_a_folder_of_its_own(tmp_path: Path, folder: Path) -> None:
    with RunningServer(settings(tmp_path / "data"), folder) as server:
        named = Path(server.connect().request(do("folder"))["text"])
    assert named == tmp_path / "data/plugins/kept"
    assert (named / "file").read_text() == "x"
    assert stat.S_IMODE(named.stat().st_mode) == 0o700
    with RunningServer(settings(None, "memory://"), folder) as server:
        answer = server.connect().request(do("folder"))
        assert (answer["code"], "server.data" in answer["message"]) == ("unavailable", True)


def test_work_of_its_own_ends_before_the_plugin_and_its_failure_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunningServer(settings(None, "memory://"), folder) as server:
        ana = server.connect()
        ana.request(do("begin"))
        ana.request(do("fail"))
        while not server.web.server.hooks.conduct.counts:
            pass
        assert ana.request(do(""))["text"] == "begun"
        (found,) = [each for each in server.web.server.registry.found if each.plugin.name == "kept"]
        assert ana.request(do("wrong"))["code"] == "internal"
        assert "spawn takes what an `async` function returns" in caplog.text
    assert found.module.ended == ["task", "lifespan"]
    assert "a plugin's task failed at" in caplog.text
    assert "RuntimeError: broken beside" in caplog.text


def test_there_is_a_bound_on_what_a_plugin_does_beside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pov_rt.dispatch.host.MAX_TASKS", 3)
    with RunningServer(settings(None, "memory://"), folder) as server:
        ana = server.connect()
        for _ in range(3):
            ana.request(do("begin"))
        answer = ana.request(do("begin"))
        assert (answer["code"], "3 things at a time" in answer["message"]) == ("unavailable", True)
