"""`pov-rt user` and `pov-rt pov`: what is kept about a user; who is blocked; PoVs deleted.

A running server is asked to. On the database of one that is stopped, a node does it that nobody can
reach: with the same plugins, for they may keep something, too.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import click
import msgspec

from pov_rt.auth.grants import Kind
from pov_rt.cli.client import TOKEN, URL, Duration, address_of, make_tokens
from pov_rt.cli.options import SettingsOptions, registry_of, say, settings_options
from pov_rt.config.settings import MIN_SECRET_BYTES, AuthSettings, Settings, database_path
from pov_rt.protocol.bodies import (
    Block,
    Blocked,
    DeletedPov,
    Erased,
    MissingNode,
    Unblocked,
)
from pov_rt.protocol.errors import Unavailable
from pov_rt.protocol.messages import check_id
from pov_rt.protocol.tenants import TenantId

if TYPE_CHECKING:
    from pov_rt.cli.remote import Operator
    from pov_rt.server.people import People

ResultT = TypeVar("ResultT")

TOKEN_S = 600.0
"""How long the token is valid that is made for one request."""
TEAM = click.option("--team", help="With auth.tenants: the team whose id it is.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")


class Place:
    """Where a command does its work: at a running server, or on the database of a stopped one."""

    def __init__(
        self,
        options: SettingsOptions,
        wire_id: str,
        url: str | None,
        bearer: str | None,
        team: str | None,
    ) -> None:
        check_id(wire_id, "ID")
        self._options = options
        self._settings = options.load().settings
        self._url = url
        self._bearer = bearer
        self._team = team
        self._wire_id = wire_id

    @property
    def wire_id(self) -> str:
        """The id as it was given."""
        return self._wire_id

    @property
    def part(self) -> str:
        """The id as a part of a path."""
        return quote(self._wire_id, safe="")

    @property
    def id(self) -> str:
        """The id as a node knows it."""
        if not self._settings.auth.tenants:
            return self._wire_id
        if self._team is None:
            raise click.UsageError("with auth.tenants, say whose id it is: --team TEAM")
        return TenantId.of(self._team, self._wire_id)

    def do(
        self,
        here: Callable[[People], Awaitable[ResultT]],
        there: Callable[[Operator], Awaitable[ResultT]],
    ) -> ResultT:
        """Do the work on a node's parts here, or have a server do it; return its result."""
        if self._is_stopped():
            return asyncio.run(_on_own_node(self._settings, here))
        return self.ask(there)

    def ask(self, there: Callable[[Operator], Awaitable[ResultT]]) -> ResultT:
        """Have a server do the work; return its result."""
        from pov_rt.cli.remote import Operator

        operator = Operator(address_of(self._url, self._options), self._token())

        async def ask() -> ResultT:
            return await there(operator)

        return asyncio.run(ask())

    def _is_stopped(self) -> bool:
        """Tell whether there is a database, and no server that has it."""
        from pov_rt.engine.sqlite.schema import FileLock

        path = database_path(self._settings)
        if self._url is not None or path is None or not path.exists():
            return False
        try:
            FileLock(path).release()
        except Unavailable:
            return False
        return True

    def _token(self) -> str:
        if self._bearer:
            return self._bearer
        tokens = make_tokens(self._options)
        if self._settings.auth.tenants and self._team is None:
            raise click.UsageError("with auth.tenants, say whose id it is: --team TEAM")
        return tokens.issue(
            Kind.SERVICE,
            "pov-rt-cli",
            ttl_s=TOKEN_S,
            povs="*",
            can=["operate"],
            team_id=self._team,
        )


async def _on_own_node(settings: Settings, work: Callable[[People], Awaitable[ResultT]]) -> ResultT:
    """Start a node without listeners, and do the work on it.

    It needs none of the server's keys, which are perhaps systemd's to give: nobody gets in.
    """
    from pov_rt.server.server import Server
    from pov_rt.web.fetch import fetch

    auth = AuthSettings(
        secrets=[secrets.token_urlsafe(MIN_SECRET_BYTES)],
        default_povs="none",
        tenants=settings.auth.tenants,
    )
    server = Server(
        msgspec.structs.replace(settings, auth=auth), registry_of(settings), fetch=fetch
    )
    await server.start()
    try:
        return await work(server.people)
    finally:
        await server.stop()


class _Line(msgspec.Struct):
    kind: str


class Lines:
    """Writes the lines of an export, as they come in pieces, and knows whether all were there."""

    def __init__(self) -> None:
        self._rest = b""
        self._failed = 0
        self._last = ""

    async def take_all(self, lines: AsyncIterator[bytes]) -> None:
        """Write each line."""
        async for line in lines:
            self.take(line + b"\n")

    def take(self, piece: bytes) -> None:
        """Write a piece."""
        sys.stdout.buffer.write(piece)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._last = msgspec.json.decode(line, type=_Line).kind
            self._failed += self._last == "failed"

    def check(self) -> None:
        """Raise unless all was there."""
        sys.stdout.buffer.flush()
        if self._last != "end":
            raise click.ClickException("the export broke off; the server's log says why")
        if self._failed:
            raise click.ClickException(
                "a plugin failed, and what it keeps is missing; the server's log says why"
            )


@click.group()
def user() -> None:
    """Export what is kept about a user, erase it, or keep a user out."""


@user.command("export")
@settings_options
@click.argument("user_id", metavar="ID")
@URL
@TOKEN
@TEAM
def export_user(
    options: SettingsOptions, user_id: str, url: str | None, bearer: str | None, team: str | None
) -> None:
    """Print all that is kept about a user: a JSON object a line. Exit 1 if something is missing."""
    place, lines = Place(options, user_id, url, bearer, team), Lines()
    place.do(
        lambda people: lines.take_all(people.export(place.id)),
        lambda server: server.read(f"/api/users/{place.part}/export", lines.take),
    )
    lines.check()


@user.command("erase")
@settings_options
@click.argument("user_id", metavar="ID")
@URL
@TOKEN
@TEAM
@YES
def erase_user(
    options: SettingsOptions,
    user_id: str,
    url: str | None,
    bearer: str | None,
    team: str | None,
    yes: bool,
) -> None:
    """Erase all that is kept about a user; say in numbers what that was.

    Their activities keep their places, without anything in them. It cannot be undone. It may be
    repeated, and has to be if it did not come to its end.
    """
    place = Place(options, user_id, url, bearer, team)
    confirm(f"erase all that is kept about the user {user_id!r}, for good", yes=yes)
    done = place.do(
        lambda people: people.erase(place.id),
        lambda server: server.delete(f"/api/users/{place.part}", Erased),
    )
    tell(done)
    tell_missing(done.missing)
    if done.revocations:
        say("kept: a revocation of the user's tokens; see pov-rt db revocations", err=True)
    if done.failed:
        raise click.ClickException(
            f"these plugins could not erase what they keep: {', '.join(done.failed)}; the log says "
            "why; then erase the user once more"
        )


@user.command("block")
@settings_options
@click.argument("user_id", metavar="ID")
@click.option("--for", "for_s", type=Duration(), required=True, help="90s, 15m, 1h, 7d.")
@URL
@TOKEN
@TEAM
def block_user(
    options: SettingsOptions,
    user_id: str,
    for_s: float,
    url: str | None,
    bearer: str | None,
    team: str | None,
) -> None:
    """Keep a user out for a time: connections end, and no token is good, whenever it is issued.

    It holds on all nodes and over restarts. `pov-rt db revocations` lists all blocks.
    """
    place = Place(options, user_id, url, bearer, team)
    done = place.do(
        lambda people: people.block(place.id, for_s),
        lambda server: server.post(f"/api/users/{place.part}/block", Block(seconds=for_s), Blocked),
    )
    say(f"blocked until {done.until}; {done.closed} connections were closed")
    tell_missing(done.missing)


@user.command("unblock")
@settings_options
@click.argument("user_id", metavar="ID")
@URL
@TOKEN
@TEAM
def unblock_user(
    options: SettingsOptions, user_id: str, url: str | None, bearer: str | None, team: str | None
) -> None:
    """Let a blocked user in again, at once."""
    place = Place(options, user_id, url, bearer, team)
    done = place.do(
        lambda people: people.unblock(place.id),
        lambda server: server.delete(f"/api/users/{place.part}/block", Unblocked),
    )
    say("not blocked any more" if done.was_blocked else "this user was not blocked")


@click.group()
def pov() -> None:
    """Delete a PoV, or print who was sent what of it."""


@pov.command("delete")
@settings_options
@click.argument("pov_id", metavar="ID")
@URL
@TOKEN
@TEAM
@YES
def delete_pov(
    options: SettingsOptions,
    pov_id: str,
    url: str | None,
    bearer: str | None,
    team: str | None,
    yes: bool,
) -> None:
    """Delete a PoV with its activities, everybody's marks and subscriptions; say what that was.

    Its subscribers are told. Should something be published on it again, it is a new one.
    """
    place = Place(options, pov_id, url, bearer, team)
    confirm(f"delete the PoV {pov_id!r} with all of its activities, for good", yes=yes)
    tell(
        place.do(
            lambda people: people.delete(place.id),
            lambda server: server.delete(f"/api/povs/{place.part}", DeletedPov),
        )
    )


@pov.command("audit")
@settings_options
@click.argument("pov_id", metavar="ID")
@URL
@TOKEN
@TEAM
def audit_pov(
    options: SettingsOptions, pov_id: str, url: str | None, bearer: str | None, team: str | None
) -> None:
    """Print who was sent what of a PoV, and when, as CSV, from a running server.

    It is kept of PoVs whose settings have audit = true.
    """
    place = Place(options, pov_id, url, bearer, team)

    def take(piece: bytes) -> None:
        sys.stdout.buffer.write(piece)

    place.ask(lambda server: server.read(f"/api/povs/{place.part}/audit", take))
    sys.stdout.buffer.flush()


def confirm(what: str, *, yes: bool) -> None:
    """Ask whether something is to be done; end the command unless it is."""
    if not yes:
        click.confirm(f"{what[0].upper()}{what[1:]}?", abort=True, err=True)


def tell_missing(missing: Sequence[MissingNode]) -> None:
    """Say which nodes did not say that they closed a user's connections."""
    for each in missing:
        say(
            f"the node {each.node} on {each.host} {each.why}: it closes what it has when it hears "
            "of it",
            err=True,
        )


def tell(done: Erased | DeletedPov) -> None:
    """Say in numbers what was removed."""
    numbers = {
        name: number
        for name, number in msgspec.structs.asdict(done).items()
        if isinstance(number, int) and name != "revocations"
    }
    say("removed: " + ", ".join(f"{number} {name}" for name, number in numbers.items()))
