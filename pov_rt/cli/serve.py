"""`pov-rt serve`: load, run, and under --dev start anew when a file changes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pov_rt.cli.options import SettingsOptions, failure, registry_of, say, settings_options
from pov_rt.config import load as config
from pov_rt.config.settings import SettingsError, describe_access
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.redaction import redact
from pov_rt.registry.discovery import PluginError
from pov_rt.runtime import logs
from pov_rt.version import VERSION

if TYPE_CHECKING:
    from pov_rt.cli.restart import Watch
    from pov_rt.config.load import Loaded
    from pov_rt.registry.build import Registry
    from pov_rt.web.app import WebServer

log = logging.getLogger(__name__)


@click.command()
@settings_options
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port for clients.")
@click.option("--unix", help="Listen on this Unix socket instead.")
@click.option("--admin-port", type=int, help="Port for health and metrics.")
@click.option("--plugins-dir", type=str, help="Folder of further plugin files.")
@click.option(
    "--conformance-echo",
    is_flag=True,
    default=None,
    help="Mount /ws/_echo, which sends messages back, for protocol test suites.",
)
def serve(options: SettingsOptions, **server: Any) -> None:
    """Run the server."""
    from pov_rt.cli.restart import TRIAL, Watch, start_anew

    # Each of its own options is the setting of that name.
    options = options.with_flags({f"server.{name}": value for name, value in server.items()})
    watch = Watch(config.main_file(options.file), wanted=bool(options.flags["dev"]))
    if os.environ.pop(TRIAL, None):
        try_out(options, watch)
        return
    try:
        changed = run(options, watch)
    except click.ClickException:
        raise
    except Exception as error:  # whoever works on the server itself makes mistakes, too
        if not watch.wanted:
            raise
        words = str(error)
        if not isinstance(error, SettingsError | PluginError):
            words = "".join(traceback.format_exception(error))
        say(f"Error: {redact(words)}\n\nWaiting for a change; Ctrl-C ends this.", err=True)
        changed = asyncio.run(wait_for_change(watch, error))
    if changed:
        start_anew(changed)


def try_out(options: SettingsOptions, watch: Watch) -> None:
    """Load what a server is made of; print what is wrong, for `restart.find_problem`, and exit."""
    from pov_rt.registry.problem import problem_of

    try:
        load(options, watch)
    except BaseException as error:  # as when a plugin's file calls sys.exit
        click.echo(encode(problem_of(error)))
        sys.exit(1)


def load(options: SettingsOptions, watch: Watch) -> tuple[Loaded, Registry]:
    """Load the settings and the plugins. Raises `SettingsError` or `PluginError`."""
    loaded = options.load()
    config.check(loaded)
    settings = loaded.settings
    watch.wanted, watch.server = settings.dev, settings.server
    logs.configure(settings.log.format, settings.log.level, stream=sys.stderr)
    if not settings.dev:
        log.info("%s", describe_access(settings.auth))
    for warning in loaded.warnings:
        log.warning("%s", warning)
    if settings.server.plugins_dir:
        watch.add_folder(Path(settings.server.plugins_dir))
    return loaded, registry_of(settings)


async def wait_for_change(watch: Watch, error: Exception) -> list[Path]:
    """Wait for what could mend an error, and show it in the console meanwhile."""
    from pov_rt.registry.problem import problem_of
    from pov_rt.web.routes.standin import stand_in

    if watch.server is None:
        return await watch.changed()
    async with stand_in(watch.server, problem_of(error)):
        return await watch.changed()


def run(options: SettingsOptions, watch: Watch) -> list[Path]:
    """Run the server to its end; return the files for whose sake it is to be started anew.

    Raises `SettingsError` or `PluginError` for what a change of the files can mend.
    """
    from pov_rt.cli.process import Process
    from pov_rt.transport.loop import DirectLoop

    loaded, registry = load(options, watch)

    def announce(web: WebServer) -> None:
        tell(web)
        if watch.wanted:
            process.restart_on_change(watch, web.trouble)
            web.on_restart = partial(process.restart, "the demo's button")

    process = Process(options, loaded, registry, stream=sys.stderr, announce=announce)
    try:
        with asyncio.Runner(loop_factory=DirectLoop) as runner:
            runner.run(process.run())
    except (SettingsError, ClientError) as error:  # such as a port or a folder that is taken
        raise failure(str(error)) from error
    return process.changed


def tell(web: WebServer) -> None:
    """Say that the server listens, and where."""
    from pov_rt.cli.restart import CHANGED
    from pov_rt.cli.welcome import welcome
    from pov_rt.registry.schema import address

    server = web.settings.server
    changed = os.environ.pop(CHANGED, None)
    if web.settings.dev and not changed:
        say(welcome(web))
        return
    log.info(
        "pov-rt %s listens on %s%s",
        VERSION,
        server.unix or address(server.host, web.port),
        f", started anew: {changed}" if changed else "",
    )
