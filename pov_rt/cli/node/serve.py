"""`pov-rt serve`: load, run, and under --dev start anew when a file changes.

And what a development server prints when it has started: where it is, and lines to paste.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from pov_rt.cli.node.manager import Manager, find_manager
from pov_rt.cli.options import SettingsOptions, failure, registry_of, say, settings_options
from pov_rt.config import load as config
from pov_rt.config.settings import AuthSettings, Settings, SettingsError, describe_access
from pov_rt.protocol.encoding import encode
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.redaction import redact
from pov_rt.runtime.process import logs
from pov_rt.version import VERSION

if TYPE_CHECKING:
    from pov_rt.cli.node.restart import Watch
    from pov_rt.cli.node.workers import Workers
    from pov_rt.config.load import Loaded
    from pov_rt.web.app import WebServer

log = logging.getLogger(__name__)


@click.command()
@settings_options
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port for clients.")
@click.option("--unix", help="Listen on this Unix socket instead.")
@click.option("--admin-port", type=int, help="Port for health and metrics.")
@click.option("--workers", type=int, help="Processes that share the port; they need Redis.")
@click.option("--plugins-dir", type=str, help="Folder of further plugin files.")
@click.option(
    "--conformance-echo",
    is_flag=True,
    default=None,
    help="Mount /ws/_echo, which sends messages back, for protocol test suites.",
)
def serve(options: SettingsOptions, **server: Any) -> None:
    """Run the server."""
    gc.disable()  # all that a start makes stays; `Process` sets it for what comes after
    try:
        _serve(options, server)
    finally:
        gc.enable()


def _serve(options: SettingsOptions, server: Mapping[str, Any]) -> None:
    from pov_rt.cli.node.restart import TRIAL, Watch, start_anew

    # Each of its own options is the setting of that name.
    options = options.with_flags({f"server.{name}": value for name, value in server.items()})
    manager, options = find_manager(options)
    watch = Watch(config.main_file(options.file), wanted=bool(options.flags["dev"]))
    if os.environ.pop(TRIAL, None):
        try_out(options, watch)
        return
    try:
        changed = run(options, watch, manager)
    except click.ClickException:
        raise
    except Exception as error:  # whoever works on the server itself makes mistakes, too
        if not watch.wanted:
            raise
        from pov_rt.registry.discovery import PluginError

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
        registry_of(load(options, watch).settings)
    except BaseException as error:  # as when a plugin's file calls sys.exit
        click.echo(encode(problem_of(error)))
        sys.exit(1)


def load(options: SettingsOptions, watch: Watch) -> Loaded:
    """Load the settings, and say what there is to say of them. Raises `SettingsError`."""
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
    schemas = (each.details for each in settings.activities.values())
    watch.add_files(Path(schema) for schema in schemas if schema)
    return loaded


async def wait_for_change(watch: Watch, error: Exception) -> list[Path]:
    """Wait for what could mend an error, and show it in the console meanwhile."""
    from pov_rt.registry.problem import problem_of
    from pov_rt.web.routes.dev.standin import stand_in

    gc.enable()
    if watch.server is None:
        return await watch.changed()
    async with stand_in(watch.server, problem_of(error)):
        return await watch.changed()


def run(options: SettingsOptions, watch: Watch, manager: Manager) -> list[Path]:
    """Run the server to its end; return the files for whose sake it is to be started anew.

    Raises `SettingsError` or `PluginError` for what a change of the files can mend.
    """
    from pov_rt.cli.node.process import Process
    from pov_rt.transport.loop import DirectLoop

    loaded = load(options, watch)
    if loaded.settings.server.workers > 1:
        supervise(options, loaded.settings)
        return []
    registry = registry_of(loaded.settings)

    def announce(web: WebServer) -> None:
        tell(web)
        if watch.wanted:
            process.restart_on_change(watch, web.trouble)
            web.on_restart = partial(process.restart, "the demo's button")

    process = Process(
        options, loaded, registry, manager=manager, stream=sys.stderr, announce=announce
    )
    try:
        with asyncio.Runner(loop_factory=DirectLoop) as runner:
            runner.run(process.run())
    except (SettingsError, ClientError) as error:  # such as a port or a folder that is taken
        raise failure(str(error)) from error
    return process.changed


def supervise(options: SettingsOptions, settings: Settings) -> None:
    """Run several servers in processes of their own, to their end."""
    from pov_rt.cli.node.workers import Workers

    gc.enable()

    async def run_all() -> None:
        await Workers(options, settings, tell_of_workers).run()

    try:
        asyncio.run(run_all())
    except SettingsError as error:
        raise failure(str(error)) from error


def tell_of_workers(workers: Workers) -> None:
    """Say that all workers listen, and where each is asked how it is."""
    from pov_rt.registry.schema import address

    server = workers.settings.server
    log.info(
        "pov-rt %s listens on %s with %d workers; their admin ports: %s",
        VERSION,
        server.unix or address(server.host, workers.port),
        server.workers,
        ", ".join(map(str, workers.admin_ports)),
    )


def tell(web: WebServer) -> None:
    """Say that the server listens, and where."""
    from pov_rt.cli.node.restart import CHANGED
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


# What a development server says:

ACTIVITY = json.dumps(
    {"type": "task", "action": "completed", "povId": "demo", "userId": "ana"},
    separators=(",", ":"),
)
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (binds nothing)
DEFAULT_URL = "http://127.0.0.1:8765"


def welcome(web: WebServer) -> str:
    """Return what a developer wants to see first. Each line to paste works in any terminal."""
    from pov_rt.registry.schema import address
    from pov_rt.web.routes.dev.console import dev_tokens

    settings, unix = web.settings, web.settings.server.unix
    socket_token, service_token = dev_tokens(web.server)
    host = EVERYWHERE.get(settings.server.host, settings.server.host)
    url = "http://localhost" if unix else f"http://{address(host, web.port)}"
    admin = address(settings.server.admin_host, web.admin_port)
    curl = f"curl -s {f'--unix-socket {shlex.quote(os.path.abspath(unix))} ' if unix else ''}{url}"
    with_curl = f"""
  {curl}/api/activities -H 'Content-Type: application/json' \\
    -H 'Authorization: Bearer {service_token}' \\
    -d '{ACTIVITY}'
"""
    rest = f"""
A client of your own connects to {url.replace("http", "ws", 1)}/ws/?token=TOKEN
(user 'dev', for a day) with this token:

  {socket_token}

Ctrl-C ends the server. It starts anew when a source or plugin file changes.
"""
    if unix:
        return f"""
pov-rt {VERSION} listens on the Unix socket {unix}, for a proxy
Health: http://{admin}/readyz

Publish to the PoV 'demo' in a second terminal:
{with_curl}{rest}"""
    program = how_to_start()
    console = ""
    if host in (*EVERYWHERE.values(), "localhost"):  # to others it gives no token
        console = (
            f"\n  Demo     {url}/demo  (in a browser: a board that two people share; break it)"
            f"\n  Console  {url}  (in a browser: a form for each message type, the live log)"
        )
    where = "" if url == DEFAULT_URL else f" --url {url}"
    tail, publish = f" --token {socket_token}", f" --token {service_token}"
    if is_kept(settings):
        folder = config.dev_secret_path(settings).parent.absolute()
        tail = publish = f" --data {shlex.quote(str(folder))}"
    return f"""
pov-rt {VERSION} listens on {url}
{console}
  Health   http://{admin}/readyz

1. Follow the PoV 'demo' in a second terminal:

  {program} tail demo{tail}{where}

2. Publish to it in a third one. The second one then shows: demo ana task.completed

  echo '{ACTIVITY}' |
    {program} publish{publish}{where}

   The same with curl:
{with_curl}{rest}"""


def how_to_start() -> str:
    """Return how to start this program from any folder and with any PATH, as a shell takes it."""
    started = Path(sys.argv[0])
    if started.suffix == ".py":
        return f"{shlex.quote(sys.executable)} -m pov_rt.cli"
    # What is in an environment's own folder is found only where that has been activated.
    folder = os.path.abspath(started.parent)
    in_environment = sys.prefix != sys.base_prefix and folder == os.path.join(sys.prefix, "bin")
    found = shutil.which(started.name)
    if found and not in_environment and os.path.abspath(found) == os.path.abspath(started):
        return started.name
    return shlex.quote(os.path.abspath(started))


def is_kept(settings: Settings) -> bool:
    """Tell whether other commands find the server's secret in its data folder."""
    bare = replace(settings, auth=AuthSettings())
    return config.kept_secret(bare).auth.secrets == settings.auth.secrets
