"""To publish from a handler: the future, what it has, and what errors say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.settings import LimitSettings
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.server.server import Server
from pov_rt.testing import make_settings
from tests.server.test_server import connect, nothing

PLUGIN = '''
"""Publishes in each way that there is."""
from asyncio import Future
from pov_rt.plugin import Context, Message, NewActivity, Plugin

plugin = Plugin("ways")

class Note(Message, tag="ways.note"):
    note: NewActivity

class Place(Message, tag="ways.place"):
    offset: int

class Plain(Note, tag="ways.plain"):
    """The future is returned."""

class Waits(Note, tag="ways.waits"):
    """The place is awaited."""

class Bad(Note, tag="ways.bad"):
    """What makes an answer of the place raises."""

def place(done):
    return Place(offset=done.offset)

@plugin.on(Plain)
def plain(message: Plain, context: Context) -> Future[Place]:
    return context.publish(message.note, answer=place, field="note")

@plugin.on(Waits)
async def waits(message: Waits, context: Context) -> Place:
    return place(await context.publish(message.note, field="note"))

@plugin.on(Bad)
def bad(message: Bad, context: Context) -> Future[Place]:
    return context.publish(message.note, answer=lambda done: 1 / 0)
'''
HOOK = '''
"""Is asked before anything is published."""
import asyncio
from pov_rt.plugin import Activity, Host, Plugin, Rejected

plugin = Plugin("hook")

@plugin.before_publish
async def ask(activity: Activity, host: Host) -> Activity:
    await asyncio.sleep(0)
    if activity.type == "no":
        raise Rejected("no", "Not that")
    return activity
'''


def answers(folder: Path, kind: str, notes: list[dict[str, Any]], **claims: Any) -> list[Any]:
    """Return what a connection is answered for messages of a kind, one after the other."""

    async def work() -> list[Any]:
        registry = build_registry({}, folder)
        settings = make_settings(limits=LimitSettings(details_bytes=100))
        server = Server(settings, registry, fetch=nothing, clock=ManualClock())
        await server.start()
        try:
            connection, out = connect(server, "ana", **claims)
            out.sends.clear()
            for note in notes:
                body = json.dumps({"type": f"ways.{kind}", "note": note}).encode()
                server.dispatcher.receive(connection, body, True)
                for _ in range(20):
                    await asyncio.sleep(0)
            return out.messages
        finally:
            await server.stop()

    (folder / "ways.py").write_text(PLUGIN)
    return asyncio.run(work())


def note(**changed: Any) -> dict[str, Any]:
    return {"type": "t", "action": "a", "povId": "acme", **changed}


@pytest.mark.parametrize("kind", ["plain", "waits"])
@pytest.mark.parametrize("asked", [False, True])
def test_whichever_way_a_handler_publishes_the_answers_are_the_same(
    kind: str, asked: bool, tmp_path: Path
) -> None:
    if asked:
        (tmp_path / "hook.py").write_text(HOOK)
    found = answers(
        tmp_path,
        kind,
        [
            note(id="a"),
            note(id="a"),
            note(id="a", action="b"),
            note(details={"x": "y" * 100}),
            note(type="no way"),
            note(details={"x": 10**17}),
            note(),
        ],
    )
    said = [each.get("offset") or (each["code"], each["field"]) for each in found]
    assert said == [
        1,
        1,
        ("id_conflict", "note.id"),
        ("too_large", "note.details"),
        ("invalid_activity", "note.type"),
        ("invalid_activity", "note.details.x"),
        2,
    ]


@pytest.mark.parametrize("kind", ["plain", "waits"])
def test_what_a_plugin_refuses_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    assert [each["code"] for each in answers(tmp_path, kind, [note(type="no")])] == ["no"]


@pytest.mark.parametrize("kind", ["plain", "waits"])
def test_who_may_not_publish_is_told_so(kind: str, tmp_path: Path) -> None:
    (found,) = answers(tmp_path, kind, [note()], can=("subscribe",))
    assert found["code"] == "forbidden"


def test_what_fails_to_answer_has_published_all_the_same(tmp_path: Path) -> None:
    failed, *later = answers(tmp_path, "bad", [note(id="a")])
    assert (failed["code"], later) == ("internal", [])


PAYER = '''
"""Tells who pays for what publications cause."""
from pov_rt.plugin import Message, Plugin
from pov_rt.runtime.bounds import payer

plugin = Plugin("payer")

class Pays(Message, tag="payer.pays"):
    owner: str

@plugin.published
def tell(activity, published, host):
    host.send_user(activity.user_id, Pays(owner=payer.get()))
'''


@pytest.mark.parametrize("kind", ["plain", "waits"])
def test_who_publishes_pays_for_what_comes_of_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / "payer.py").write_text(PAYER)
    pays, _ = answers(tmp_path, kind, [note()])
    assert pays["owner"].endswith("ana")
