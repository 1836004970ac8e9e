"""`pov-rt token`, `publish` and `tail`: what talks to a server, and is not one."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from pov_rt.auth.grants import Kind
from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import Tokens
from pov_rt.cli.options import SettingsOptions, failure, say, settings_options
from pov_rt.config import load as config
from pov_rt.config.settings import SettingsError
from pov_rt.runtime.clock import SystemClock
from pov_rt.runtime.limits import SECONDS

DAY_S = 86400.0


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


def make_tokens(options: SettingsOptions) -> Tokens:
    """Return what signs tokens as the server with these settings does.

    Only the keys need be right. Raises `SettingsError` if there is no secret; none is made here,
    because no server would know it.
    """
    settings = options.load().settings
    auth = config.kept_secret(settings).auth
    if not auth.secrets and not auth.secret_files:
        raise SettingsError(
            "there is no secret to sign a token with: the settings have none, and there is no "
            f"{config.dev_secret_path(settings)}; give --data FOLDER (for `serve --dev` its .dev), "
            "or --config FILE"
        )
    clock = SystemClock()
    return Tokens(auth, Keyring(auth, clock), clock)


@click.command()
@settings_options
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    default="socket",
    show_default=True,
    help="access: the app's own. socket: to connect. service: to publish over HTTP.",
)
@click.option("--user", required=True, help="The token's userId.")
@click.option("--email", help="The token's email.")
@click.option("--role", help="The token's role; [auth.roles] may say what it grants.")
@click.option("--povs", help="PoV ids, a,b, or '*'. Default: left out: see auth.default_povs.")
@click.option("--can", help="Grants, such as subscribe,publish. Default: those of the kind.")
@click.option("--team", help="The token's teamId: whose feed, and whose ids. Default: main.")
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="90s, 15m, 1h, 7d.")
def token(
    options: SettingsOptions,
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
    try:
        text = make_tokens(options).issue(
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
        raise failure(str(error)) from error
    say(text)


URL = click.option(
    "--url",
    default="http://127.0.0.1:8765",
    show_default=True,
    help="The server: a URL or HOST:PORT.",
)
TOKEN = click.option(
    "--token",
    "bearer",
    envvar=config.TOKEN_VARIABLE,
    help="Default: $POV_RT_TOKEN, or one made with the settings' secret.",
)


def own_token(bearer: str | None, kind: Kind, options: SettingsOptions) -> str:
    """Return the given token, or one signed with the settings' secret."""
    if bearer:
        return bearer
    try:
        return make_tokens(options).issue(kind, "pov-rt-cli", ttl_s=DAY_S, povs="*")
    except SettingsError as error:
        raise SettingsError(f"{error}, or --token TOKEN") from error


@click.command()
@settings_options
@click.argument("pov")
@URL
@TOKEN
@click.option("--count", type=int, help="Stop after this number of activities.")
def tail(
    options: SettingsOptions, pov: str, url: str, bearer: str | None, count: int | None
) -> None:
    """Show what happens on a PoV ('*': on all): for people, or in a pipe as JSON lines."""
    from pov_rt.cli import remote

    style: remote.Style = "json"
    if sys.stdout.isatty():
        style = "plain" if os.environ.get("NO_COLOR") else "coloured"
    text = own_token(bearer, Kind.SOCKET, options)
    try:
        asyncio.run(remote.tail(url, text, pov, count=count, style=style))
    except KeyboardInterrupt:
        say("", err=True)


@click.command()
@settings_options
@URL
@TOKEN
def publish(options: SettingsOptions, url: str, bearer: str | None) -> None:
    """Publish activities: JSON lines on standard input. Refused ones are named; exit 1 then."""
    from pov_rt.cli import remote

    text = own_token(bearer, Kind.SERVICE, options)
    tally = asyncio.run(remote.publish(url, text, sys.stdin.fileno()))
    said = [f"{tally.published} published"]
    if tally.duplicates:
        said.append(f"{tally.duplicates} there already")
    if tally.refused:
        said.append(f"{tally.refused} refused")
    say(", ".join(said), err=True)
    if tally.refused:
        raise SystemExit(1)
