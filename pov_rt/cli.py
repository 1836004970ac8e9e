"""The commands of `pov-rt`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from pov_rt import config, logs
from pov_rt.auth.grants import Kind
from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import Tokens
from pov_rt.clock import SystemClock
from pov_rt.db_commands import db
from pov_rt.limits import SECONDS
from pov_rt.options import load, plain_errors, settings_options
from pov_rt.registry import Registry, build_registry
from pov_rt.scaffold import write_plugin
from pov_rt.settings import Settings
from pov_rt.version import VERSION

DAY_S = 86400.0


def make_tokens(settings: Settings) -> Tokens:
    """Return what signs tokens as the server does."""
    clock = SystemClock()
    return Tokens(settings.auth, Keyring(settings.auth, clock), clock)


class Duration(click.ParamType[float]):
    """`90s`, `15m`, `1h`, `7d`."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        units = {**SECONDS, "d": DAY_S}
        try:
            seconds = float(value[:-1]) * units[value[-1:]]
        except (ValueError, KeyError):
            seconds = 0.0
        if not 0 < seconds < 1e9:
            self.fail(f"{value!r} is no duration; write it like 90s, 15m, 1h or 7d", param, ctx)
        return seconds


def names(text: str | None) -> list[str] | None:
    """Split `a,b`; None stays None."""
    return None if text is None else [name for name in text.split(",") if name]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="pov-rt")
def main() -> None:
    """Real-time activity server for proofs of value."""


main.add_command(db)


@main.command()
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
def serve(
    file: Path | None,
    data: str | None,
    dev: bool | None,
    host: str | None,
    port: int | None,
    unix: str | None,
    admin_port: int | None,
    plugins_dir: str | None,
    conformance_echo: bool | None,
) -> None:
    """Run the server."""
    from pov_rt.web.app import WebServer
    from pov_rt.web.run import Process

    flags = {
        "server.host": host,
        "server.port": port,
        "server.unix": unix,
        "server.admin_port": admin_port,
        "server.plugins_dir": plugins_dir,
        "server.conformance_echo": conformance_echo,
    }
    with plain_errors():
        loaded = load(file, data, dev, **flags)
        settings = loaded.settings
        logs.configure(settings.log, stream=sys.stderr)
        for warning in loaded.warnings:
            click.echo(f"warning: {warning}", err=True)
        folder = settings.server.plugins_dir
        registry = build_registry(settings.plugins, Path(folder) if folder else None)

        def announce(web: WebServer) -> None:
            if settings.dev:
                click.echo(welcome(web))
                process.restart_on_change()
            else:
                where = settings.server.unix or f"{settings.server.host}:{web.port}"
                click.echo(f"pov-rt {VERSION} listens on {where}", err=True)

        process = Process(
            loaded,
            registry,
            file=file,
            flags={"server.data": data, "dev": dev, **flags},
            stream=sys.stderr,
            announce=announce,
        )
        asyncio.run(process.run())


def welcome(web: Any) -> str:
    """Return what a developer wants to see first."""
    from pov_rt.web.console import dev_tokens

    settings = web.settings
    host = settings.server.host
    if host in ("0.0.0.0", "::"):  # noqa: S104  (binds nothing: it is what a browser can open)
        host = "127.0.0.1"
    url = f"{host}:{web.port}"
    token, service = dev_tokens(web.server)
    body = json.dumps({"type": "task", "action": "completed", "povId": "demo", "userId": "ana"})
    return f"""
pov-rt {VERSION} listens on http://{url} (health and metrics: port {web.admin_port})
Open it in a browser for the console.

A socket token for user 'dev', valid for a day:
{token}

Watch PoV 'demo' in a second terminal:
  pov-rt tail demo --url ws://{url}/ws/ --token {token}

Publish to it in a third one:
  curl -s http://{url}/api/activities -H 'Content-Type: application/json' \\
    -H 'Authorization: Bearer {service}' \\
    -d '{body}'
"""


@main.command()
@settings_options
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), default="socket")
@click.option("--user", required=True, help="The token's userId.")
@click.option("--email")
@click.option("--role")
@click.option("--povs", help="PoV ids, a,b, or '*'. Default: left out, which means every PoV.")
@click.option("--can", help="Grants, such as subscribe,publish. Default: those of the kind.")
@click.option("--team", help="The team of the feed.")
@click.option("--ttl", type=Duration(), default="1h", show_default=True)
def token(
    file: Path | None,
    data: str | None,
    dev: bool | None,
    kind: str,
    user: str,
    email: str | None,
    role: str | None,
    povs: str | None,
    can: str | None,
    team: str | None,
    ttl: float,
) -> None:
    """Print a token, signed as the server signs its own, and nothing else."""
    with plain_errors():
        settings = config.dev_secret(load(file, data, dev).settings)
        try:
            text = make_tokens(settings).issue(
                Kind(kind),
                user,
                ttl_s=ttl,
                email=email,
                role=role,
                povs="*" if povs == "*" else names(povs),
                can=names(can),
                team_id=team,
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        click.echo(text)


URL = click.option(
    "--url", default="ws://127.0.0.1:8765/ws/", show_default=True, help="The server's socket."
)
TOKEN = click.option(
    "--token", "bearer", envvar="POV_RT_TOKEN", help="Default: one made from the settings."
)


def own_token(bearer: str | None, kind: Kind, file: Path | None, data: str | None, dev: Any) -> str:
    """Return the given token, or one signed with the settings' secret."""
    if bearer:
        return bearer
    settings = config.dev_secret(load(file, data, dev).settings)
    return make_tokens(settings).issue(kind, "pov-rt-cli", ttl_s=DAY_S)


@main.command()
@settings_options
@click.argument("pov")
@URL
@TOKEN
@click.option("--count", type=int, help="Stop after so many activities.")
def tail(
    file: Path | None,
    data: str | None,
    dev: bool | None,
    pov: str,
    url: str,
    bearer: str | None,
    count: int | None,
) -> None:
    """Show what happens on a PoV ('*': on every one): for people, or in a pipe as JSON lines."""
    from pov_rt.web import remote

    with plain_errors():
        text = own_token(bearer, Kind.SOCKET, file, data, dev)
        colours = sys.stdout.isatty()
        try:
            asyncio.run(remote.tail(url, text, pov, count=count, colours=colours))
        except KeyboardInterrupt:
            click.echo(err=True)
        except remote.RemoteError as error:
            raise click.ClickException(str(error)) from error


@main.command()
@settings_options
@click.option("--url", default="http://127.0.0.1:8765", show_default=True, help="The server.")
@TOKEN
def publish(
    file: Path | None, data: str | None, dev: bool | None, url: str, bearer: str | None
) -> None:
    """Publish activities: JSON lines on standard input. Refused ones are named; exit 1 then."""
    from pov_rt.web import remote

    with plain_errors():
        text = own_token(bearer, Kind.SERVICE, file, data, dev)
        try:
            refused = asyncio.run(remote.publish(url, text, sys.stdin.buffer))
        except remote.RemoteError as error:
            raise click.ClickException(str(error)) from error
    if refused:
        raise SystemExit(1)


def configured_plugins(
    file: Path | None, data: str | None, dev: bool | None, plugins_dir: str | None
) -> tuple[Settings, Registry]:
    """Load settings and plugins; nothing else need be right, such as keys."""
    flags = {"server.data": data, "dev": dev, "server.plugins_dir": plugins_dir}
    settings = config.load(file=file, flags=flags).settings
    folder = settings.server.plugins_dir
    return settings, build_registry(settings.plugins, Path(folder) if folder else None)


@main.group()
def plugins() -> None:
    """Show plugins, or begin a new one."""


@plugins.command("list")
@settings_options
@click.option("--plugins-dir", type=str)
def list_plugins(
    file: Path | None, data: str | None, dev: bool | None, plugins_dir: str | None
) -> None:
    """List the plugins with their message types and where they came from."""
    with plain_errors():
        _, registry = configured_plugins(file, data, dev, plugins_dir)
    for found in registry.found:
        tags = sorted(
            handler.tag for handler in registry.handlers.values() if handler.plugin is found.plugin
        )
        click.echo(f"{found.plugin.name:<16} {found.origin:<16} {', '.join(tags) or '-'}")


@plugins.command("new")
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=".", show_default=True)
def new_plugin(name: str, folder: Path) -> None:
    """Write NAME.py and test_NAME.py, which passes as it stands."""
    try:
        paths = write_plugin(name, folder)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for path in paths:
        click.echo(f"wrote {path}")
    click.echo(f"run it:  pov-rt serve --dev --plugins-dir {folder}\ntest it: pytest {paths[1]}")


@main.command()
@settings_options
@click.argument("side", type=click.Choice(["asyncapi", "openapi"]))
@click.option("--plugins-dir", type=str, help="Folder of further plugin files.")
def schema(
    file: Path | None, data: str | None, dev: bool | None, side: str, plugins_dir: str | None
) -> None:
    """Print the AsyncAPI document of the socket, or the OpenAPI one of the HTTP side."""
    from pov_rt.schema import asyncapi, openapi

    with plain_errors():
        settings, registry = configured_plugins(file, data, dev, plugins_dir)
    document = (asyncapi if side == "asyncapi" else openapi)(registry, settings)
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@main.group("config")
def config_group() -> None:
    """Check the settings, or show where each comes from."""


@config_group.command("check")
@settings_options
def check_config(file: Path | None, data: str | None, dev: bool | None) -> None:
    """Say what is wrong with the settings; exit 1 then."""
    with plain_errors():
        loaded = load(file, data, dev)
        settings = config.dev_secret(loaded.settings)
        Keyring(settings.auth, SystemClock())
        folder = settings.server.plugins_dir
        build_registry(settings.plugins, Path(folder) if folder else None)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo("the settings are good")


@config_group.command("show")
@settings_options
def show_config(file: Path | None, data: str | None, dev: bool | None) -> None:
    """Show every setting with its source; secrets are masked."""
    with plain_errors():
        rows = list(config.show(config.load(file=file, flags={"server.data": data, "dev": dev})))
    width = max(len(name) + len(value) for name, value, _ in rows) + 3
    for name, value, source in rows:
        click.echo(f"{f'{name} = {value}':<{min(width, 70)}}  # {source}")


if __name__ == "__main__":
    main()
