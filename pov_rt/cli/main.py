"""The commands of `pov-rt`."""

from __future__ import annotations

import dataclasses
import importlib
import io
import os
import shlex
import sys
import traceback
from pathlib import Path
from types import TracebackType

import click
import msgspec

from pov_rt.cli.options import (
    SettingsOptions,
    failure,
    registry_of,
    say,
    settings_options,
)
from pov_rt.config import load as config
from pov_rt.config.load import CREDENTIALS, Loaded
from pov_rt.config.settings import MIN_SECRET_BYTES, describe_access
from pov_rt.protocol.redaction import redact
from pov_rt.version import VERSION

MODULES = {
    "bench": "bench.command",
    "client": "client",
    "db": "db",
    "doctor": "doctor.command",
    "explain": "explain",
    "pov": "people",
    "publish": "client",
    "relay": "publisher",
    "schema": "schema",
    "serve": "node.serve",
    "spool": "publisher",
    "tail": "client",
    "token": "client",
    "top": "top.command",
    "user": "people",
}
"""Where the commands are, below this package, that are not in this file."""


class Commands(click.Group):
    """Loads a command when it is asked for: a server that starts would wait for all the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all, loaded or not."""
        return sorted({*super().list_commands(ctx), *MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is none of that name."""
        if cmd_name in MODULES and cmd_name not in self.commands:
            module = importlib.import_module(f"pov_rt.cli.{MODULES[cmd_name]}")
            self.add_command(getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
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


@main.group()
def plugins() -> None:
    """Show plugins, or begin a new one."""


@plugins.command("list")
@settings_options
@click.option("--plugins-dir", type=str)
def list_plugins(options: SettingsOptions, plugins_dir: str | None) -> None:
    """List the plugins with their message types and where they came from."""
    settings = options.with_flags({"server.plugins_dir": plugins_dir}).load().settings
    registry = registry_of(settings)
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
    from pov_rt.cli.node.serve import how_to_start
    from pov_rt.registry.scaffold import write_plugin

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


@main.group("config")
def config_group() -> None:
    """Check the settings, or show where each comes from."""


@config_group.command("check")
@click.option(
    "--reload",
    "for_reload",
    is_flag=True,
    help="Check what a reload takes over: not the credentials, which a start alone is given.",
)
@settings_options
def check_config(options: SettingsOptions, for_reload: bool) -> None:
    """Say what is wrong with the settings; exit 1 then."""
    from pov_rt.cli.doctor.machine import find_problems

    loaded = load_for_reload(options) if for_reload else options.load()
    problems = find_problems(loaded)
    if problems:
        raise failure("\n".join(problems))
    for warning in loaded.warnings:
        say(f"warning: {redact(warning)}", err=True)
    say(f"the settings are good: {describe_access(loaded.settings.auth)}")


def load_for_reload(options: SettingsOptions) -> Loaded:
    """Load the settings without credentials; where there are some, a key is taken to be there.

    They stay as they are until a restart, and what systemd runs for a reload may not read them.
    """
    environ = {name: value for name, value in os.environ.items() if name != CREDENTIALS}
    loaded = config.load(file=options.file, flags=options.flags, environ=environ)
    if len(environ) == len(os.environ):
        return loaded
    auth = loaded.settings.auth
    auth = msgspec.structs.replace(auth, secrets=[*auth.secrets, "?" * MIN_SECRET_BYTES])
    return dataclasses.replace(loaded, settings=msgspec.structs.replace(loaded.settings, auth=auth))


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
