"""`pov-rt spool` and `relay`: what apps have kept for the server, looked at and brought there."""

from __future__ import annotations

import json
import logging
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pov_rt.auth.grants import Kind
from pov_rt.cli.client import TOKEN, URL, Duration, address_of, make_tokens
from pov_rt.cli.options import SettingsOptions, failure, say, settings_options
from pov_rt.client.errors import PovError

if TYPE_CHECKING:
    from pov_rt.client.publishing import Relay

HOUR_S = 3600.0
SHOWN = 10
SPOOL = click.argument(
    "path", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
USER = click.option(
    "--user",
    help="The service that the app publishes as, for a token that is made with the settings' "
    "secret. Retries are known by it: another one's are published once more.",
)


def relay_of(
    connect: Callable[[], Any],
    options: SettingsOptions,
    url: str | None,
    bearer: str | None,
    user: str | None,
) -> Relay:
    """Return a relay to the server that was named, or that has the settings."""
    from pov_rt.client.publishing import Relay

    if bearer:
        return Relay(connect, address_of(url, options), bearer)
    if user is None:
        raise click.UsageError("say as which service: --user my-app, or --token TOKEN")
    tokens, name = make_tokens(options), user
    return Relay(
        connect,
        address_of(url, options),
        lambda: tokens.issue(Kind.SERVICE, name, ttl_s=HOUR_S, povs="*"),
    )


@click.group()
def spool() -> None:
    """Look after an app's spool."""


def look_into(path: Path) -> Relay:
    """Return what reads a spool, and sends nothing."""
    from pov_rt.client.publishing import Relay
    from pov_rt.client.publishing.spool import connect

    return Relay(lambda: connect(path), "localhost", "")


@spool.command()
@SPOOL
def status(path: Path) -> None:
    """Say how many activities wait, and which the server refused."""
    relay = look_into(path)
    try:
        counts, refusals = relay.counts(), relay.refusals(SHOWN)
    except PovError as error:
        raise failure(str(error)) from error
    finally:
        relay.close()
    say(f"{counts.waiting} waiting, {counts.refused} refused")
    for body, why in refusals:
        found = json.loads(body)
        say(f"  {found['povId']} {found['type']}.{found['action']} {found['id']}: {why}")


@spool.command()
@SPOOL
def retry(path: Path) -> None:
    """Have what the server refused sent again, behind all else."""
    relay = look_into(path)
    try:
        say(f"{relay.retry()} wait once more")
    finally:
        relay.close()


@spool.command()
@settings_options
@SPOOL
@URL
@TOKEN
@USER
@click.option("--timeout", type=Duration(), default="60s", help="How long to try. Default: 60s.")
def drain(
    options: SettingsOptions,
    path: Path,
    url: str | None,
    bearer: str | None,
    user: str | None,
    timeout: float,
) -> None:
    """Send what waits, also beside the app; exit 1 if some of it still does."""
    from pov_rt.client.publishing.spool import connect

    relay = relay_of(lambda: connect(path), options, url, bearer, user)
    try:
        is_sent, counts = relay.drain(timeout), relay.counts()
    finally:
        relay.close()
    say(f"{counts.waiting} waiting, {counts.refused} refused", err=True)
    if not is_sent:
        raise SystemExit(1)


@click.command()
@settings_options
@click.option(
    "--database",
    required=True,
    envvar="POV_RT_RELAY_DATABASE",
    help="Where the outbox is: postgresql://USER@HOST/NAME or sqlite:///PATH.",
)
@URL
@TOKEN
@USER
def relay(
    options: SettingsOptions,
    database: str,
    url: str | None,
    bearer: str | None,
    user: str | None,
) -> None:
    """Bring an app's outbox to the server, until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    relay_of(connector(database), options, url, bearer, user).run(stop)


def connector(database: str) -> Callable[[], Any]:
    """Return what connects to a database by its URL."""
    scheme, _, rest = database.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        return lambda: sqlite3.connect(rest[1:] or "/", timeout=20)
    if scheme not in ("postgresql", "postgres"):
        raise click.UsageError("--database is written like postgresql://USER@HOST/NAME")
    try:
        import psycopg
    except ImportError as error:
        raise failure("PostgreSQL needs the package psycopg: pip install 'psycopg[binary]'") from (
            error
        )
    return lambda: psycopg.connect(database)
