"""What one plugin announces, others hear; what they do wrong stays theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.registry.build import build_registry
from pov_rt.registry.discovery import PluginError
from pov_rt.testing import RunningServer, make_settings

POLL = """
from pov_rt.plugin import Context, Event, Message, Plugin, PovId

class Closed(Event, tag="poll.closed"):
    pov_id: str
    votes: int

class Never(Event, tag="poll.never"):
    pass

plugin = Plugin("poll", announces=[Closed])

class Close(Message, tag="poll.close"):
    pov_id: PovId
    never: bool = False

class Done(Message, tag="poll.done"):
    pass

@plugin.on(Close)
def close(message: Close, context: Context) -> Done:
    context.host.announce(Never() if message.never else Closed(pov_id=message.pov_id, votes=3))
    return Done()
"""

HEAD = """
from pov_rt.plugin import Event, Host, Message, Plugin

class Closed(Event, tag="poll.closed"):
    pov_id: str

plugin = Plugin("{name}")
"""

TELLER = (
    HEAD
    + """
class Over(Message, tag="{name}.over"):
    text: str

@plugin.hears(Closed)
def closed(event: Closed, host: Host) -> None:
    host.broadcast(event.pov_id, Over(text=repr(event)))
    if event.pov_id == "{broken}":
        raise SystemExit(3)
"""
)


def write(folder: Path, **plugins: str) -> Path:
    for name, text in plugins.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_every_plugin_hears_it_though_one_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (TELLER.format(name=name, broken=broken) for name, broken in (("a", "x"), ("b", "")))
    folder = write(tmp_path, poll=POLL, one=one, two=two)
    with RunningServer(make_settings(), folder) as server:
        ana = server.connect("ana")
        for pov in ("x", "y"):
            ana.request({"type": "subscribe", "povId": pov})
            assert ana.request({"type": "poll.close", "povId": pov})["type"] == "poll.done"
            told = [ana.receive() for _ in range(2)]
            assert [each["type"] for each in told] == ["a.over", "b.over"]
            assert {each["text"] for each in told} == {f"Closed(pov_id={pov!r})"}
        server.incidents.clear()
    assert caplog.text.count("a plugin's hook failed") == 1


def test_an_event_that_was_not_declared_is_not_announced(tmp_path: Path) -> None:
    with RunningServer(make_settings(), write(tmp_path, poll=POLL)) as server:
        ana = server.connect("ana")
        assert ana.request({"type": "poll.close", "povId": "x"})["type"] == "poll.done"
        refused = ana.request({"type": "poll.close", "povId": "x", "never": True})
        assert refused["code"] == "internal"
        server.incidents.clear()


def test_a_plugin_that_is_off_is_not_heard_and_does_not_hear(tmp_path: Path) -> None:
    folder = write(tmp_path, poll=POLL, one=TELLER.format(name="a", broken=""))
    assert build_registry({"poll": {"enabled": False}}, folder)
    settings = make_settings()
    settings.plugins["a"] = {"enabled": False}
    with RunningServer(settings, folder) as server:
        ana = server.connect("ana")
        ana.request({"type": "subscribe", "povId": "x"})
        assert ana.request({"type": "poll.close", "povId": "x"})["type"] == "poll.done"
        assert not ana.early


HEARS = "\n@plugin.hears(Closed)\ndef closed(event, host): ...\n"
WRONG = [
    (HEARS.replace("def", "async def"), 9, "plain function"),
    (HEARS.replace("event, host", "event"), 9, "must take (event, host)"),
    (HEARS.replace("Closed", "Message"), 9, "no subclass of Event"),
    (
        "class X(Event, tag='poll.opened'): ..." + HEARS.replace("Closed", "X"),
        9,
        "no plugin announces",
    ),
    (
        "class X(Event, tag='pool.closed'): ..." + HEARS.replace("Closed", "X"),
        9,
        "no plugin announces",
    ),
    ("class X(Event): ..." + HEARS.replace("Closed", "X"), 9, "needs a tag"),
    ("class X(Closed, tag='poll.closed'):\n    by: str" + HEARS.replace("Closed", "X"), 10, "'by'"),
    (
        "class X(Event, tag='poll.closed'):\n    votes: str" + HEARS.replace("Closed", "X"),
        10,
        "'votes'",
    ),
    ("plugin.announces = [Closed]\n", 1, "must begin with 'mine.'"),
    ("class X(Event): ...\nplugin.announces = [X]\n", 1, "needs a tag"),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    write(tmp_path, poll=POLL, mine=HEAD.format(name="mine") + text)
    with pytest.raises(PluginError) as raised:
        build_registry({}, tmp_path)
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'mine.py'}:{line}: "), said
    assert words in said
