"""Writes the beginning of a plugin, with a test that passes as it stands."""

from __future__ import annotations

import keyword
from pathlib import Path

from pov_rt.registry.build import NAME, TAKEN
from pov_rt.registry.discovery import built_in

PLUGIN = '''"""Say here what {name} is for."""

from typing import Annotated

from pov_rt.plugin import Context, Length, Message, Plugin, PovId

plugin = Plugin("{name}")


class Say(Message, tag="{name}.say"):
    """Say something to everybody who is subscribed to a PoV."""

    pov_id: PovId
    text: Annotated[str, Length(1, 200)]


class Said(Message, tag="{name}.said"):
    """Somebody said something."""

    pov_id: PovId
    text: str
    user_id: str


@plugin.on(Say, grant="collaborate", rate="5/s")
def say(message: Say, context: Context) -> Said:
    """Tell every subscriber; the sender's copy is the reply."""
    said = Said(pov_id=message.pov_id, text=message.text, user_id=context.user.user_id)
    context.broadcast(message.pov_id, said)
    return said
'''

TEST = '''"""Tests of {name}, on a real server with this folder's plugins."""

from pov_rt.testing import Connect


def test_every_subscriber_hears_what_is_said(connect: Connect) -> None:
    ana, ben = connect("ana"), connect("ben")
    ben.request({{"type": "subscribe", "povId": "acme"}})

    reply = ana.request({{"type": "{name}.say", "povId": "acme", "text": "hello"}})

    assert reply["userId"] == "ana"
    assert ben.receive()["text"] == "hello"
'''


def write_plugin(name: str, folder: Path) -> tuple[Path, Path]:
    """Write the plugin and its test; return their paths. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no plugin name; begin with a small letter, then small letters, digits "
            "and '_', 64 at most"
        )
    if keyword.iskeyword(name) or name.startswith("test_"):
        raise ValueError(f"a plugin cannot be called {name!r}: choose another name")
    if name in TAKEN or name in built_in():
        raise ValueError(f"the plugin name {name!r} is the server's own: choose another")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; make it first")
    paths = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in paths:
        if path.exists():
            raise ValueError(f"{path} is there already")
    for path, text in zip(paths, (PLUGIN, TEST), strict=True):
        path.write_text(text.format(name=name))
    return paths
