"""`pov-rt token`, `publish`, `tail` and `client`: what talks to a server, and is not one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from msgspec import UNSET

from pov_rt.auth.explain import Explanation, explain
from pov_rt.auth.grants import GRANTS, Kind
from pov_rt.auth.keys import MAX_TOKEN_BYTES, Keyring
from pov_rt.auth.revocations import REVOCATIONS, decode
from pov_rt.auth.tokens import Identity, Tokens
from pov_rt.cli.options import SettingsOptions, failure, registry_of, say, settings_options
from pov_rt.config import load as config
from pov_rt.config.settings import Settings, SettingsError, database_path
from pov_rt.protocol.errors import ClientError, TokenRevoked
from pov_rt.protocol.redaction import redact
from pov_rt.runtime.clock import SystemClock, rfc3339
from pov_rt.runtime.limits import SECONDS
from pov_rt.version import VERSION

# What servers have, Tornado among it, is imported where it is used: most commands here need none of
# it, and began after nearly twice the time (docs/measurements.md, commands).
if TYPE_CHECKING:
    from pov_rt.cli.tail import Since
    from pov_rt.remote.addresses import Address
    from pov_rt.web.routes.client import File

DAY_S = 86400.0
MAX_GIVEN_BYTES = 4 * MAX_TOKEN_BYTES


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


@click.group(invoke_without_command=True)
@settings_options
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    default="socket",
    show_default=True,
    help="access: the app's own. socket: to connect. service: to publish over HTTP.",
)
@click.option("--user", help="The token's userId; it must be given.")
@click.option("--email", help="The token's email.")
@click.option("--role", help="The token's role; [auth.roles] may say what it grants.")
@click.option("--povs", help="PoV ids, a,b, or '*'. Default: left out: see auth.default_povs.")
@click.option("--can", help="Grants, such as subscribe,publish. Default: those of the kind.")
@click.option("--team", help="The token's teamId: whose feed, and whose ids. Default: main.")
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="90s, 15m, 1h, 7d.")
def token(
    options: SettingsOptions,
    kind: str,
    user: str | None,
    email: str | None,
    role: str | None,
    povs: str | None,
    can: str | None,
    team: str | None,
    ttl: float,
) -> None:
    """Print a token that the server takes, or check one.

    It is signed as the server signs its own. On standard output is the token alone; beside it is
    said when it ends.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        given = [name for name in context.params if _is_given(context, name)]
        if given:
            raise click.UsageError(f"put the options behind '{context.invoked_subcommand}'")
        return
    if user is None:
        raise click.UsageError("Missing option '--user'.")
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
    for problem in unknown_grants(options, names(can) or ()):
        say(f"warning: {problem}", err=True)
    say(text)
    say(f"it ends at {rfc3339(SystemClock().time() + ttl)}; --ttl says when", err=True)


def unknown_grants(options: SettingsOptions, wanted: Collection[str]) -> Iterator[str]:
    """Say which of the grants there are not, here: a server with other plugins may have them."""
    from pov_rt.registry.mistakes import say_unknown

    if not GRANTS.issuperset(wanted):
        known = registry_of(options.load().settings).grants
        yield from (say_unknown(grant, known) for grant in wanted if grant not in known)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


@token.command("check")
@settings_options
@click.argument("text", metavar="[TOKEN]", required=False)
def check(options: SettingsOptions, text: str | None) -> None:
    """Say what a token grants, or why it is refused; exit 1 then.

    It is read from standard input where none is given, and verified as the server does that has
    these settings: with its keys, those at auth.jwks_url and its revocations.
    """
    if text is None:
        if sys.stdin.isatty():
            say("paste the token, then Enter and Ctrl-D", err=True)
        text = sys.stdin.buffer.read(MAX_GIVEN_BYTES).decode(errors="replace")
    settings = options.load().settings
    auth, clock = config.kept_secret(settings).auth, SystemClock()
    keyring = Keyring(auth, clock)
    if auth.jwks_url is not None:
        asyncio.run(fetch_keys(keyring, auth.jwks_url))
    tokens = Tokens(auth, keyring, clock, StoredRevocations(settings))
    found = explain(text.strip().removeprefix("Bearer "), tokens, keyring)
    say("\n".join(describe(found, clock.time())))
    if found.verdict != "good":
        raise SystemExit(1)


async def fetch_keys(keyring: Keyring, url: str) -> None:
    """Take over the keys at a URL; if that fails, say so and go on with the others."""
    try:
        keyring.replace_jwks(await get_key_set(url))
    except (ClientError, ValueError) as error:
        say(redact(f"warning: no keys from auth.jwks_url, {url}: {error}"), err=True)


async def get_key_set(url: str) -> bytes:
    """Return what is at a URL. Raises `Unavailable`, or ValueError for another status than 200."""
    from pov_rt.web.fetch import fetch

    answer = await fetch(url)
    if answer.status != 200:
        raise ValueError(f"the answer has status {answer.status}")
    return answer.body


class StoredRevocations:
    """Those in the database that the settings name, if it is there."""

    def __init__(self, settings: Settings) -> None:
        from pov_rt.engine.sqlite.members import read_members

        path = database_path(settings)
        bodies = {} if path is None or not path.exists() else read_members(path, REVOCATIONS)
        self._stored = [decode(body) for body in bodies.values()]

    def covers(self, identity: Identity) -> bool:
        """Tell whether a token is void."""
        return any(each.covers(identity) for each in self._stored)

    def refusal(self, identity: Identity) -> TokenRevoked:
        """Return the error for a token that is void."""
        return TokenRevoked()

    def see(self, identity: Identity) -> None:
        """Remember nothing: one token is looked at."""


DOORS = {
    Kind.ACCESS: "GET /api/auth/ws-token",
    Kind.SOCKET: "/ws/",
    Kind.SERVICE: "POST /api/activities",
}


def describe(found: Explanation, now: float) -> Iterator[str]:
    """Yield the lines that say in words what a token is good for, or why it is refused."""
    end = 0.0 if found.expires_at is UNSET else found.expires_at
    if found.verdict == "good":
        yield f"good until {rfc3339(end)}, for {words_of(end - now)}"
    elif found.verdict == "expired":
        yield f"expired: it ended at {rfc3339(end)}, {words_of(now - end)} ago"
    elif found.verdict == "revoked":
        yield "revoked: `pov-rt db revocations` says by what"
    else:
        yield f"refused: {found.reason}"
    rows = {"user": found.user_id, "team": found.team_id, "role": found.role}
    if found.kinds:
        rows["for"] = ", ".join(f"{kind} ({DOORS[Kind(kind)]})" for kind in found.kinds)
    if found.povs is not UNSET:
        rows["povs"] = "every PoV" if found.povs == "*" else ", ".join(found.povs) or "none"
    if found.can is not UNSET:
        rows["can"] = ", ".join(found.can) or "nothing"
    if found.is_signed:
        rows["signed"] = f"{found.algorithm}, by key {found.key} of {found.keys}"
    if found.verdict != "good" and found.says:
        told = "it says" if found.is_signed else "nobody signed that it says"
        rows[told] = json.dumps(found.says, ensure_ascii=False)
    for name, value in rows.items():
        if value is not UNSET:
            yield f"  {name:<8} {value}"


def words_of(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two, such as `90 min`."""
    for unit, size in (("days", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


URL = click.option(
    "--url",
    help="The server: a URL, HOST:PORT or unix:/PATH. Default: where the settings have it listen.",
)
TOKEN = click.option(
    "--token",
    "bearer",
    envvar=config.TOKEN_VARIABLE,
    help="Default: $POV_RT_TOKEN, or one made with the settings' secret.",
)


def address_of(url: str | None, options: SettingsOptions) -> Address:
    """Return where the server is that was named, or else the one that has these settings."""
    from pov_rt.cli import remote

    return remote.parse_url(url) if url else remote.find_address(options.load().settings.server)


class Start(click.ParamType["Since"]):
    """`10m`, `2026-01-31T12:00:00Z`, `120`: how long ago, an instant, an offset."""

    name = "since"

    def convert(self, value: Any, param: Any, ctx: Any) -> Since:
        """Return from where to begin."""
        from pov_rt.cli.tail import Since

        if value.isascii() and value.isdigit():
            return Since(offset=int(value))
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return Since(at=at.timestamp())
        try:
            ago_s = Duration().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(
                f"{value!r} is no beginning; write it like 10m (ago), 2026-01-31T12:00:00Z, or 120 "
                "(an offset)",
                param,
                ctx,
            )
        return Since(at=SystemClock().time() - ago_s)


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
@click.option("--count", type=click.IntRange(min=1), help="Stop after this number of activities.")
@click.option(
    "--since", type=Start(), help="Begin earlier: 10m ago, at 2026-01-31T12:00Z, after offset 120."
)
@click.option("--last", type=click.IntRange(1, 1000), help="Begin with this many that were there.")
@click.option("--once", is_flag=True, help="End with the connection, exit 1; for scripts.")
def tail(
    options: SettingsOptions,
    pov: str,
    url: str | None,
    bearer: str | None,
    count: int | None,
    since: Since | None,
    last: int | None,
    once: bool,
) -> None:
    """Show what happens on a PoV ('*': on all).

    For people, or in a pipe as JSON lines.

    It goes on where it was when the server restarts or the network fails.
    """
    from pov_rt.cli.tail import Since, Style, Tail

    if since is not None and last is not None:
        raise click.UsageError("--since and --last both say where to begin; give one of them")
    style: Style = "json"
    if sys.stdout.isatty():
        style = "plain" if os.environ.get("NO_COLOR") else "coloured"
    address = address_of(url, options)
    following = Tail(
        address,
        lambda: own_token(bearer, Kind.SOCKET, options),
        pov,
        count=count,
        since=since if last is None else Since(last=last),
        once=once,
        style=style,
    )
    try:
        asyncio.run(following.run())
    except KeyboardInterrupt:
        say("", err=True)


@click.command()
@settings_options
@URL
@TOKEN
def publish(options: SettingsOptions, url: str | None, bearer: str | None) -> None:
    """Publish activities: JSON lines on standard input. Refused ones are named; exit 1 then."""
    from pov_rt.cli import remote

    text = own_token(bearer, Kind.SERVICE, options)
    tally = asyncio.run(remote.publish(address_of(url, options), text, sys.stdin.fileno()))
    said = [f"{tally.published} published"]
    if tally.duplicates:
        said.append(f"{tally.duplicates} there already")
    if tally.refused:
        said.append(f"{tally.refused} refused")
    say(", ".join(said), err=True)
    if tally.refused:
        raise SystemExit(1)


# What a page pastes:

PAGE_URL = "http://127.0.0.1:8765"
DOCS = "docs/widgets.md"

USE = """\
  const getToken = async () => {{
    const answer = await fetch({token}, {{credentials: 'include'}})
    if (answer.status === 401) return null // nobody is signed in
    if (!answer.ok) throw new Error(`no token: ${{answer.status}}`) // it is asked again later
    return (await answer.json()).token
  }}
  const client = {connect}({{url: {url}, getToken}})
  client.on('status', ({{state, reason = ''}}) => console.log(state, reason))
  client.subscribe('demo').on('activity', ({{activity}}) => console.log(activity))
"""


@click.command("client")
@settings_options
@click.option("--url", help=f"The server. Default: server.public_url, or {PAGE_URL}.")
def client(options: SettingsOptions, url: str | None) -> None:
    """Print what to paste into a page.

    That is the two tags, or the SDK alone, with the hashes of this server's files.
    """
    from pov_rt.cli.remote import parse_url
    from pov_rt.web.routes.client import CORE, MODULE, SCRIPT, WIDGETS, read_files

    files = read_files()
    if not {SCRIPT, MODULE, CORE, WIDGETS} <= files.keys():
        raise failure("the SDK is not built: run `npm ci` and `npm run build` in clients/js")
    base = parse_url(url or options.load().settings.server.public_url or PAGE_URL).http
    ways = [_as_tags(files, base), _as_script(files, base), _as_modules(files, base)]
    say("\n".join([*ways, _remark(base)]))


def _as_tags(files: Mapping[str, File], base: str) -> str:
    from pov_rt.web.routes.client import widgets

    file = widgets(files)
    return (
        f"<!-- A feed and its toasts, {_size(file)}; panels load when they are opened.\n"
        f"  What can be set: {DOCS} -->\n"
        f'<script type="module" src="{escape(_address(base, file))}"\n'
        f'  integrity="{file.integrity}" crossorigin></script>\n'
        '<pov-team-activity pov="demo"></pov-team-activity>\n'
        "<pov-activity-notification></pov-activity-notification>\n"
    )


def _as_script(files: Mapping[str, File], base: str) -> str:
    from pov_rt.web.routes.client import SCRIPT

    file = files[SCRIPT]
    return (
        f"<!-- Or the SDK without the tags, in one file, {_size(file)}: -->\n"
        f'<script src="{escape(_address(base, file))}"\n'
        f'  integrity="{file.integrity}" crossorigin></script>\n'
        f"<script>\n{_use(base, 'PovRT.connect')}</script>\n"
    )


def _as_modules(files: Mapping[str, File], base: str) -> str:
    from pov_rt.web.routes.client import CORE, MODULE, SCRIPT, widgets

    modules = {name: file for name, file in files.items() if name != SCRIPT}
    imports = {
        "imports": {
            "pov-rt": _address(base, files[MODULE]),
            "pov-rt/core": _address(base, files[CORE]),
            "pov-rt/widgets": _address(base, widgets(files)),
        },
        # Of what is imported later, too: a script tag's own attribute is for one file.
        "integrity": {_address(base, file): file.integrity for file in modules.values()},
    }
    return (
        f"<!-- Or as modules: pov-rt, {_size(files[MODULE])}; pov-rt/core, without createFeed,\n"
        f"  {_size(files[CORE])}; pov-rt/widgets, with the tags. The map has the hashes of\n"
        "  what loads later, too: panels, sharing a socket between tabs, the outbox. -->\n"
        f'<script type="importmap">\n{_json(imports, indent=2)}\n</script>\n'
        "<script type=\"module\">\n  import {connect} from 'pov-rt'\n"
        f"{_use(base, 'connect')}</script>\n"
    )


def _remark(base: str) -> str:
    from pov_rt.web.routes.client import WIDGETS

    return (
        f"<!-- Names and hashes are those of pov-rt {VERSION}: print them anew with each upgrade.\n"
        f"  {escape(base)}/client/{WIDGETS} is always the server's own, without a hash. -->"
    )


def _use(base: str, connect: str) -> str:
    token, url = _json(f"{base}/api/auth/ws-token"), _json(base)
    return USE.format(token=token, connect=connect, url=url)


def _json(value: object, indent: int | None = None) -> str:
    """Return JSON that does not end the script which it is in."""
    return json.dumps(value, indent=indent).replace("<", "\\u003c")


def _address(base: str, file: File) -> str:
    return f"{base}/client/{file.lasting}"


def _size(file: File) -> str:
    return f"{len(file.zipped) / 1024:.1f} KB gzipped"
