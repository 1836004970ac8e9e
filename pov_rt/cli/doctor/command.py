"""The command: which checks there are, and how their findings are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import click
import msgspec

from pov_rt.auth.grants import Kind
from pov_rt.cli.client import make_tokens
from pov_rt.cli.doctor import machine, units
from pov_rt.cli.doctor.findings import Check, Finding, bad, describe, run, skipped
from pov_rt.cli.doctor.probe import Public
from pov_rt.cli.doctor.public import POV, Doctor, Seen
from pov_rt.cli.options import SettingsOptions, say, say_json, settings_options
from pov_rt.cli.remote import Operator, RemoteError, find_admin_address, parse_url
from pov_rt.config.load import Loaded
from pov_rt.config.settings import Settings, SettingsError
from pov_rt.remote.addresses import Address
from pov_rt.runtime.clock import SystemClock

TOKEN_S = 300.0


class Place(click.ParamType[tuple[str, int]]):
    """`HOST:PORT`."""

    name = "host:port"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        """Return both."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdigit():
            self.fail(f"{value!r} is no place; write it like 127.0.0.1:443", param, ctx)
        return host.strip("[]"), int(port)


class Tokens:
    """Makes the doctor's tokens, with the settings' secret. Raises `SettingsError` without one."""

    def __init__(self, options: SettingsOptions) -> None:
        self._tokens = make_tokens(options)

    def make(self, is_service: bool) -> str:
        """Return one to connect with, or a service's; both see a PoV that nobody has."""
        kind = Kind.SERVICE if is_service else Kind.SOCKET
        can = ["publish", "operate", "operate_all"] if is_service else ["subscribe"]
        return self._tokens.issue(kind, POV, ttl_s=TOKEN_S, povs=[POV], can=can)


class Node:
    """The node that runs, by its admin port."""

    def __init__(self, address: Address, tokens: Tokens) -> None:
        self._address = address
        self._tokens = tokens

    def look_up(self, welcome: str) -> Seen | None:
        """Return what it knows of the connection that it welcomed so."""
        try:
            connection_id = json.loads(welcome)["connectionId"]
            path = f"/api/connections?connectionId={connection_id}"
            rows = self._ask(path, dict[str, Any])["connections"]
        except (RemoteError, ValueError, KeyError):
            return None
        return Seen(rows[0]["remoteIp"]) if rows else None

    def check(self, settings: Settings) -> Iterator[Finding]:
        """Look how it is."""
        try:
            metrics = machine.read_metrics(self._read("/metrics"))
        except RemoteError as error:
            mend = "systemctl start pov-rt, or the settings of the one that runs: --config"
            yield bad("node", f"no node answers at its admin port: {error.message}", mend)
            return
        yield from machine.judge_node(json.loads(self._read("/readyz")), metrics, settings)

    def _read(self, path: str) -> str:
        pieces = list[bytes]()
        operator = Operator(self._address, self._tokens.make(True))
        asyncio.run(operator.read(path, pieces.append))
        return b"".join(pieces).decode()

    def _ask(self, path: str, kind: type[Any]) -> Any:
        return msgspec.json.decode(self._read(path), type=kind)


def local_checks(loaded: Loaded) -> Iterator[Check]:
    """Yield the checks of this machine."""
    settings = loaded.settings
    yield Check("settings", partial(machine.check_settings, loaded))
    yield Check("file modes", partial(machine.check_modes, settings))
    yield Check("disk", partial(machine.check_disk, settings))
    yield Check("clock", machine.check_clock)
    yield Check("SQLite", machine.check_sqlite)
    yield Check("limits", machine.check_backlog)
    yield Check("units", partial(units.check_units, settings))
    yield Check("nginx", units.check_nginx)


@click.command()
@settings_options
@click.option("--url", help="The server's public URL. Default: server.public_url.")
@click.option("--at", type=Place(), help="Connect to HOST:PORT in place of the URL's host.")
@click.option("--from", "source", help="Connect from this address of the machine.")
@click.option(
    "--ca", type=click.Path(exists=True), help="Certificates to trust beside the system's."
)
@click.option(
    "--admin", help="The admin port: a URL or HOST:PORT. Default: where the settings say."
)
@click.option("--quick", is_flag=True, help="Do not wait for a ping on an idle socket.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list of findings.")
def doctor(
    options: SettingsOptions,
    url: str | None,
    at: tuple[str, int] | None,
    source: str | None,
    ca: str | None,
    admin: str | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Say what is wrong with an installation, and what mends it.

    It looks at settings, files, disk, clock, limits and units of this machine, asks the node that
    runs, and makes requests through the public URL as a client would. It changes and publishes
    nothing. Exit 1 if something is bad.
    """
    found = list[Finding]()
    way = {"place": at, "authorities": ca, "source": source}
    for finding in run_all(options, url, admin, quick=quick, **way):
        found.append(finding)
        if not as_json:
            say(describe(finding))
    if as_json:
        say_json(json.dumps(msgspec.to_builtins(found)))
    if any(each.level == "bad" for each in found):
        click.get_current_context().exit(1)


def run_all(
    options: SettingsOptions, url: str | None, admin: str | None, *, quick: bool, **way: Any
) -> Iterator[Finding]:
    """Yield what all checks find, as they find it; `way` is for `Public`."""
    loaded = options.load()
    settings = loaded.settings
    yield from run(list(local_checks(loaded)))
    try:
        tokens = Tokens(options)
    except SettingsError as error:
        yield skipped("node", str(error))
        return
    node = Node(parse_url(admin) if admin else find_admin_address(settings.server), tokens)
    yield from node.check(settings)
    public_url = url or settings.server.public_url
    if public_url is None:
        yield skipped("reached", "there is no server.public_url: give the --url that clients have")
        return
    checkup = Doctor(
        Public(public_url, **way),
        settings,
        tokens.make,
        node.look_up,
        SystemClock().time,
        quick=quick,
    )
    for check in checkup.checks():
        yield from run([check])
