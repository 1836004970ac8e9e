"""The command `pov-rt bench`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import IO

import click

from pov_rt.auth.grants import Kind
from pov_rt.cli.client import TOKEN, URL, Duration, address_of, make_tokens, own_token
from pov_rt.cli.options import SettingsOptions, failure, say, say_json, settings_options
from pov_rt.config.settings import SettingsError

TOKEN_S = 86400.0


@click.command()
@settings_options
@URL
@TOKEN
@click.option(
    "--tokens",
    "token_file",
    type=click.File(),
    help="A file with a socket token a line, which the clients take in turn; instead of --token.",
)
@click.option("--publish-token", help="The publisher's service token. Default: made as --token is.")
@click.option("--clients", type=click.IntRange(1), default=100, show_default=True)
@click.option("--slow", type=click.IntRange(0), default=0, help="So many of them read slowly.")
@click.option("--povs", type=click.IntRange(1), default=1, show_default=True, help="PoVs in all.")
@click.option(
    "--rate", type=click.FloatRange(0.01), default=50.0, show_default=True, help="Activities/s."
)
@click.option(
    "--for", "seconds", type=Duration(), default="10s", show_default=True, help="How long."
)
@click.option(
    "--bytes", "size", type=click.IntRange(0), default=100, show_default=True, help="Of each."
)
@click.option(
    "--late", type=Duration(), default="1s", show_default=True, help="Later than this is late."
)
@click.option(
    "--settle",
    type=Duration(),
    default="5s",
    show_default=True,
    help="So long after the last delivery what is missing is lost.",
)
@click.option("--pov", default="bench", show_default=True, help="How the PoVs' names begin.")
@click.option("--type", "kind", default="bench", show_default=True, help="The activities' type.")
@click.option("--action", default="sent", show_default=True, help="The activities' action.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in seconds.")
def bench(
    options: SettingsOptions,
    url: str | None,
    bearer: str | None,
    token_file: IO[str] | None,
    publish_token: str | None,
    clients: int,
    slow: int,
    povs: int,
    rate: float,
    seconds: float,
    size: int,
    late: float,
    settle: float,
    pov: str,
    kind: str,
    action: str,
    as_json: bool,
) -> None:
    """Load a server, and count what becomes of each message.

    Clients follow PoVs that are made for this, one publisher keeps a rate. Who is a slow client
    reads for two seconds, then does not for two. Exit 1 if anything that was acknowledged was lost
    or came twice, or if nothing was.
    """
    from pov_rt.cli.bench.load import Bench, BenchError, Load
    from pov_rt.cli.bench.report import as_json as in_json
    from pov_rt.cli.bench.report import as_text, is_good

    if slow > clients:
        raise click.UsageError("--slow is more than --clients")
    load = Load(
        address_of(url, options),
        find_tokens(options, bearer, token_file, clients),
        publish_token or service_token(options),
        clients=clients,
        slow=slow,
        povs=povs,
        rate=rate,
        seconds=seconds,
        size=size,
        late_s=late,
        settle_s=settle,
        pov=pov,
        type=kind,
        action=action,
    )
    try:
        run = asyncio.run(Bench(load).run())
    except BenchError as error:
        raise failure(str(error)) from error
    if as_json:
        say_json(json.dumps(in_json(load, run)))
    else:
        say("\n".join(as_text(load, run)))
    if not is_good(run):
        raise SystemExit(1)


def service_token(options: SettingsOptions) -> str:
    """Return a publisher's token, signed with the settings' secret."""
    try:
        return own_token(None, Kind.SERVICE, options)
    except SettingsError as error:
        raise SettingsError(f"{error}, and --publish-token TOKEN") from error


def find_tokens(
    options: SettingsOptions, bearer: str | None, file: IO[str] | None, clients: int
) -> Sequence[str]:
    """Return the clients' tokens: those given, or one of a user of its own for each client."""
    if file is not None:
        found = [line.strip() for line in file if line.strip()]
        if not found:
            raise click.UsageError("--tokens: there is none in the file")
        return found
    if bearer:
        return [bearer]
    tokens = make_tokens(options)
    return [
        tokens.issue(Kind.SOCKET, f"bench-{each}", ttl_s=TOKEN_S, povs="*")
        for each in range(clients)
    ]
