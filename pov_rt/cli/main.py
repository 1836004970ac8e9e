"""The commands of `pov-rt`."""

from __future__ import annotations

import io
import json
import shlex
import sys
import traceback
from pathlib import Path
from types import TracebackType

import click
import msgspec

from pov_rt.auth.keys import Keyring
from pov_rt.cli.client import publish, tail, token
from pov_rt.cli.db import db
from pov_rt.cli.options import (
    SettingsOptions,
    failure,
    registry_of,
    say,
    say_json,
    settings_options,
)
from pov_rt.cli.page import client
from pov_rt.cli.serve import serve
from pov_rt.config import load as config
from pov_rt.config.settings import (
    MIN_SECRET_BYTES,
    AuthSettings,
    Settings,
    SettingsError,
    describe_access,
)
from pov_rt.protocol.redaction import redact
from pov_rt.registry.build import Registry
from pov_rt.registry.discovery import PluginError
from pov_rt.registry.scaffold import write_plugin
from pov_rt.runtime.clock import SystemClock
from pov_rt.version import VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="pov-rt")
def main() -> None:
    """Real-time activity server for proofs of value."""
    sys.excepthook = show_crash
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale says: JSON is UTF-8, and others' words must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def show_crash(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    """Print the traceback of what nobody caught, without the secrets in it."""
    words = "".join(traceback.format_exception(error))
    say(redact(words).rstrip(), err=True)


for command in (serve, token, publish, tail, client, db):
    main.add_command(command)


def configured_plugins(
    options: SettingsOptions, plugins_dir: str | None
) -> tuple[Settings, Registry]:
    """Load settings and plugins; nothing else need be right, such as keys."""
    settings = options.with_flags({"server.plugins_dir": plugins_dir}).load().settings
    return settings, registry_of(settings)


@main.group()
def plugins() -> None:
    """Show plugins, or begin a new one."""


@plugins.command("list")
@settings_options
@click.option("--plugins-dir", type=str)
def list_plugins(options: SettingsOptions, plugins_dir: str | None) -> None:
    """List the plugins with their message types and where they came from."""
    _, registry = configured_plugins(options, plugins_dir)
    off = {each.plugin.name: each for each in registry.idle}
    every = [*registry.found, *(each.found for each in registry.idle)]
    for found in sorted(every, key=lambda each: (each.origin, each.plugin.name)):
        name = found.plugin.name
        tags = sorted(
            handler.tag for handler in registry.handlers.values() if handler.plugin is found.plugin
        )
        shown = f"off: {off[name].why}" if name in off else ", ".join(tags)
        say(f"{name:<16} {found.origin:<16} {shown or '-'}")


@plugins.command("new")
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=".", show_default=True)
def new_plugin(name: str, folder: Path) -> None:
    """Write NAME.py and test_NAME.py, which passes as it stands."""
    from pov_rt.cli.welcome import how_to_start

    try:
        paths = write_plugin(name, folder)
    except ValueError as error:
        raise failure(str(error)) from error
    for path in paths:
        say(f"wrote {path}")
    python = shlex.quote(sys.executable)
    say(
        f"run it:  {how_to_start()} serve --dev --plugins-dir {shlex.quote(str(folder))}\n"
        f"test it: {python} -m pytest {shlex.quote(str(paths[1]))}\n"
        f"         (which needs once: {python} -m pip install 'pov-rt[testing]')"
    )


@main.command()
@settings_options
@click.argument("side", type=click.Choice(["asyncapi", "openapi", "typescript", "plugin-api"]))
@click.option("--plugins-dir", type=str, help="Folder of further plugin files.")
def schema(options: SettingsOptions, side: str, plugins_dir: str | None) -> None:
    """Print the AsyncAPI document of the socket, the OpenAPI one of the HTTP side, or TypeScript.

    That has a type for each message of the socket. Or, in Markdown, all that plugins import.
    """
    from pov_rt.registry.schema import asyncapi, openapi
    from pov_rt.registry.typescript import typescript

    if side == "plugin-api":
        from pov_rt import testing
        from pov_rt.registry.reference import reference

        say(reference(testing).rstrip("\n"))
        return
    settings, registry = configured_plugins(options, plugins_dir)
    if side == "typescript":
        say(typescript(registry, settings).rstrip("\n"))
        return
    document = (asyncapi if side == "asyncapi" else openapi)(registry, settings)
    say_json(json.dumps(document, indent=2, ensure_ascii=False))


@main.group("config")
def config_group() -> None:
    """Check the settings, or show where each comes from."""


@config_group.command("check")
@settings_options
def check_config(options: SettingsOptions) -> None:
    """Say what is wrong with the settings; exit 1 then."""
    loaded = options.load()
    problems: list[str] = []
    for check in (
        lambda: config.check(loaded),
        lambda: Keyring(with_dev_secret(loaded.settings), SystemClock()),
        lambda: registry_of(loaded.settings),
    ):
        try:
            check()
        except (SettingsError, PluginError) as error:
            problems += [line for line in str(error).split("\n") if line not in problems]
    if problems:
        raise failure("\n".join(problems))
    for warning in loaded.warnings:
        say(f"warning: {redact(warning)}", err=True)
    say(f"the settings are good: {describe_access(loaded.settings.auth)}")


def with_dev_secret(settings: Settings) -> AuthSettings:
    """Return the keys that a server would have; one that it would make is not made here."""
    if not settings.dev:
        return settings.auth
    auth = config.kept_secret(settings).auth
    if auth.secrets or auth.secret_files:
        return auth
    return msgspec.structs.replace(auth, secrets=["?" * MIN_SECRET_BYTES])


@config_group.command("show")
@settings_options
def show_config(options: SettingsOptions) -> None:
    """Show every setting with its source; secrets are masked."""
    rows = list(config.show(options.load()))
    width = max(len(name) + len(value) for name, value, _ in rows) + 3
    for name, value, source in rows:
        say(f"{f'{name} = {value}':<{min(width, 70)}}  # {source}")


if __name__ == "__main__":
    main()
