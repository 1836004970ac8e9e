"""What plugins keep of users they erase and export themselves; a failure is nobody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.dispatch.hooks import Exported
from pov_rt.testing import RunningServer, make_settings

PLUGIN = """
from pov_rt.plugin import Part, Plugin
plugin = Plugin("{name}", options=None)
kept = dict.fromkeys(("ana", "ben", "{name}"))

class Thing(Part):
    user_id: str

@plugin.erased
{is_async}def erased(user_id, host):
    if user_id == "{name}":
        raise SystemExit("no")
    kept.pop(user_id, None)

@plugin.exported
async def exported(user_id, host):
    if user_id in kept:
        yield Thing(user_id=user_id)
        yield ["of {name}"]
    if user_id == "{name}":
        raise RuntimeError("broken")
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    for name, is_async in (("one", ""), ("two", "async ")):
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name, is_async=is_async))
    with RunningServer(make_settings(limits=LimitSettings(plugin_failures=1)), tmp_path) as running:
        yield running


def export(server: RunningServer, user_id: str) -> list[Exported]:
    async def work() -> list[Exported]:
        return [each async for each in server.web.server.hooks.export(user_id)]

    return server.run(work)


def erase(server: RunningServer, user_id: str) -> list[str]:
    return server.run(lambda: server.web.server.hooks.erase(user_id))


def test_each_plugin_yields_what_it_keeps_and_removes_it(server: RunningServer) -> None:
    values = [b'{"userId":"ana"}', b'["of one"]', b'{"userId":"ana"}', b'["of two"]']
    found = export(server, "ana")
    assert [each.plugin for each in found] == ["one", "one", "two", "two"]
    assert [each.value for each in found] == values
    assert export(server, "nobody") == []
    assert erase(server, "ana") == erase(server, "ana") == []
    assert export(server, "ana") == []
    assert len(export(server, "ben")) == 4


def test_one_that_fails_is_named_and_the_others_do_theirs(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        found = export(server, name)
        assert [each.plugin for each in found if each.value is None] == [name]
        assert next(json.loads(each.value) for each in found if each.value) == {"userId": name}
        for _ in range(3):  # it is not taken off for that: the operator has to repeat it
            assert erase(server, name) == [name]
    assert any("incident" in record.__dict__ for record in caplog.records)


def test_one_that_is_off_has_done_nothing_and_that_is_said(server: RunningServer) -> None:
    conduct = server.web.server.hooks.conduct

    def take_off() -> None:
        conduct.off["one"] = "for the test"
        conduct.take_off("one")

    server.call(take_off)
    assert erase(server, "ana") == ["one"]
    assert [each for each in export(server, "ben") if each.plugin == "one"] == [
        Exported("one", None)
    ]
    assert len(export(server, "ben")) == 3
