"""No secret of the settings is in anything that is printed, logged, answered or measured.

Canaries stand in every setting, made from the settings' own classes, wherever a secret can be in
one: in `auth.secrets`, in each part of a URL, in options of plugins that are called like secrets.
A setting that is new has them, too.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin
from urllib.request import urlopen

import msgspec
import pytest
from click.testing import CliRunner

from pov_rt.cli.main import main
from pov_rt.config.settings import Settings
from pov_rt.protocol.characters import find_unsafe
from tests.processes import COMMAND, environment, read_until, running

CANARY = "canary"
SECRET = f"{CANARY}-hs256-of-thirty-two-bytes-and-more"
URL = f"http://{CANARY}:{CANARY}/p@127.0.0.1:1/hook/{CANARY}0123456789Ab?key={CANARY}&{CANARY}#{CANARY}"
OPTIONS = {
    "secret": CANARY,
    "api_key": CANARY,
    "password": CANARY,
    "access_token": CANARY,
    "pin": 2677279,
    "secrets": {"main": CANARY, "more": [CANARY]},
    "headers": {"X-App": CANARY, "Authorization": f"Bearer {CANARY}"},
    "hooks": [{"url": URL, "token": CANARY}],
    "url": URL,
    "text": f"see {URL}, or {URL}",
}
PLUGIN = '''
"""A plugin that says all it knows."""
import logging
from collections.abc import AsyncIterator
import msgspec
from pov_rt.plugin import Context, Host, Message, Plugin

class Options(msgspec.Struct, frozen=True):
    """All of them."""
    url: str = ""

class Ask(Message, tag="loose.ask"):
    """Ask."""

plugin = Plugin("loose", options=Options)
log = logging.getLogger(__name__)

@plugin.lifespan
async def life(host: Host) -> AsyncIterator[None]:
    """Say where it goes to."""
    log.debug("connecting to %s", host.options(Options).url)
    log.warning("cannot connect", extra={"url": host.options(Options).url})
    yield None

@plugin.on(Ask)
def ask(message: Ask, context: Context) -> None:
    """Fail."""
    raise ValueError(f"no answer of {context.host.options(Options).url!r}")
'''


def leaves(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each setting's keys with its type."""
    for field in msgspec.structs.fields(kind):
        where = (*path, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, where)
        else:
            yield where, field.type


LEAVES = dict(leaves(Settings))
"""Each setting by its keys."""


def planted(kind: Any, text: str) -> Any:
    """Return a value of a type with the text wherever text can be, None if it can be nowhere."""
    if kind is str:
        return text
    if get_origin(kind) in (Union, UnionType):
        return next((each for each in (planted(k, text) for k in get_args(kind)) if each), None)
    if get_origin(kind) is list:
        inner = planted(get_args(kind)[0], text)
        return None if inner is None else [inner, inner]
    return None


def tree(keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def write(file: Path, *trees: dict[str, Any]) -> Path:
    merged: dict[str, Any] = {}
    for each in trees:
        for section, table in each.items():
            if isinstance(table, dict):
                merged.setdefault(section, {}).update(table)
            else:
                merged[section] = table
    file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in merged.items()))
    file.chmod(0o600)
    return file


def toml(value: Any) -> str:
    """Return a value as TOML has it in one line."""
    if isinstance(value, dict):
        inside = (f"{json.dumps(name)} = {toml(each)}" for name, each in value.items())
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


def command(*arguments: str, **environ: str) -> str:
    """Return all that a command prints, and see that it is fit for a terminal."""
    result = CliRunner().invoke(main, list(arguments), env=environ)
    assert result.exit_code in (0, 1, 2), arguments
    text = result.output + ("" if result.exception is None else repr(result.exception))
    assert find_unsafe(result.output.replace("\n", "")) is None
    return text


def leaks(text: str) -> bool:
    return CANARY in text or "2677279" in text


PLANTED = [
    (keys, value)
    for keys, kind in LEAVES.items()
    if (value := planted(kind, SECRET if keys == ("auth", "secrets") else URL)) is not None
]
COMMANDS = (
    ("config", "show"),
    ("config", "check"),
    ("plugins", "list"),
    ("schema", "asyncapi"),
    ("schema", "openapi"),
    ("db", "stats"),
    ("db", "stats", "--json"),
    ("db", "backup", "none/copy.db"),
    ("db", "restore", "none.db"),
    ("token", "--user", "ana"),
    ("tail", "acme", "--url", "127.0.0.1:1"),
    ("publish", "--url", URL),
    ("tail", "acme", "--url", URL, "--token", CANARY),
)


def test_there_are_settings_to_plant_in() -> None:
    assert len(PLANTED) >= 20
    assert {("auth", "secrets"), ("auth", "jwks_url"), ("engine", "url")} <= dict(PLANTED).keys()


def test_no_command_shows_a_secret_of_any_setting(tmp_path: Path) -> None:
    options = {"plugins": {"loose": OPTIONS, "webhooks": {"url": URL, "secret": CANARY}}}
    together = write(tmp_path / "all.toml", options, *(tree(*each) for each in PLANTED))
    assert CANARY in together.read_text()
    shown = command("config", "show", "--config", str(together))
    assert not leaks(shown), shown
    assert shown.count("****") > len(PLANTED)
    for keys, value in PLANTED:
        good = {"auth": {"secrets": [SECRET]}} if keys[0] != "auth" else {}
        file = write(tmp_path / "one.toml", good, options, tree(keys, value))
        for arguments in COMMANDS:
            if keys == ("engine", "url") or arguments[0] == "config":
                said = command(*arguments, "--config", str(file))
                assert not leaks(said), (keys, arguments, said)
    for arguments in COMMANDS:
        said = command(*arguments, "--config", str(file), "--data", str(tmp_path / "data"))
        assert not leaks(said), (arguments, said)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("as_text", [False, True], ids=["file", "environment"])
def test_no_error_text_shows_the_value_at_fault(tmp_path: Path, as_text: bool) -> None:
    for keys in LEAVES:
        name = f"POV_RT_{'__'.join(keys)}".upper()
        bare = (SECRET, [[SECRET]], {"a": [SECRET]}) if keys == ("auth", "secrets") else ()
        for wrong in (URL, [URL], {"a": URL}, {"a": {"secret": URL}}, *bare):
            if as_text:
                text = wrong if isinstance(wrong, str) else json.dumps(wrong)
                said = command("config", "check", **{name: text})
            else:
                file = write(tmp_path / "wrong.toml", tree(keys, wrong))
                said = command("config", "check", "--config", str(file))
            assert not leaks(said), (keys, wrong, said)
    for wrong in ("secret", "url", "batch", "secret_file", "headers", "x"):
        for value in (URL, [CANARY], {"a": CANARY}, 2677279):
            options: dict[str, Any] = {"url": URL, "secret": CANARY, wrong: value}
            file = write(
                tmp_path / "wrong.toml",
                {"auth": {"secrets": [SECRET]}, "plugins": {"webhooks": options}},
            )
            said = command("config", "check", "--config", str(file))
            if wrong != "url":
                assert not leaks(said), (wrong, value, said)


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_server_that_says_all_it_can_shows_no_secret(tmp_path: Path, style: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/loose.py").write_text(PLUGIN)
    hook, port = {"url": URL, "secret": SECRET}, free_port()
    settings = {
        "server": {"port": 0, "admin_port": port, "plugins_dir": str(tmp_path / "plugins")},
        "auth": {"secrets": [SECRET], "jwks_url": URL.replace("/p@", "@")},
        "engine": {"url": "memory://"},
        "log": {"level": "debug", "format": style},
        "plugins": {"loose": {"url": URL}, "webhooks": hook, "authoriser": hook},
    }
    file = write(tmp_path / "pov-rt.toml", settings)
    token = command("token", "--user", "ana", "--config", str(file)).split()[0]
    with running(
        [*COMMAND, "serve", "--config", str(file)],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
    ) as process:
        log = read_until(process.stderr, "listens on ")
        found = re.search(r"listens on ([\d.]+:\d+)", log)
        assert found is not None
        ask(found[1], token)
        log += read_until(process.stderr, "a handler failed")
        answers = get(port, "/metrics") + get(port, "/readyz")
        process.send_signal(signal.SIGHUP)
        log += read_until(process.stderr, "reloaded")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        log += process.stderr.read()
    assert "no answer of" in log
    assert "cannot connect" in log
    assert "connecting to" in log
    assert "pov_rt_" in answers
    assert not leaks(log), log
    assert not leaks(answers)


def ask(address: str, token: str) -> None:
    """Have the plugin fail, and the authoriser and webhooks be called."""
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    protocols = [Subprotocol("pov-rt.v1"), Subprotocol(f"bearer.{token}")]
    with connect(f"ws://{address}/ws/", subprotocols=protocols, proxy=None) as client:
        for message in ({"type": "subscribe", "povId": "acme"}, {"type": "loose.ask"}):
            client.send(json.dumps(message))
        answers = [str(client.recv(timeout=10)) for _ in range(3)]
    assert not leaks("".join(answers)), answers


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_crash_shows_its_traceback_without_secrets(tmp_path: Path) -> None:
    script = (
        "import sys; from pov_rt.cli import main\n"
        "main.main(['plugins', 'list'], standalone_mode=False)\n"
        f"raise RuntimeError('cannot reach {URL} \\x9b')"
    )
    with running(
        [sys.executable, "-c", script],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        _, said = process.communicate(timeout=30)
    assert "RuntimeError: cannot reach http://****@127.0.0.1:1/hook/****" in said
    assert "\\x9b" in said
    assert not leaks(said.split("RuntimeError:")[1])
