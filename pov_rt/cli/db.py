"""`pov-rt db`: the log's database on disk."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from pov_rt.auth.revocations import REVOCATIONS, Revocation, decode
from pov_rt.cli.options import SettingsOptions, say, say_json, settings_options
from pov_rt.config.settings import Settings, SettingsError, database_path, find_problems
from pov_rt.engine.copying import CopiedLog, Progress, Sums, compare, copy, total
from pov_rt.engine.keeping import Keeping
from pov_rt.engine.open import open_source, open_target
from pov_rt.engine.sqlite.backups import back_up, renew, restore, scrub
from pov_rt.engine.sqlite.members import read_members, remove_member
from pov_rt.engine.sqlite.stats import Stats, read_stats
from pov_rt.protocol.redaction import redact_url
from pov_rt.runtime.clock import rfc3339

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def db() -> None:
    """Back up, restore or look at the database of the log."""


@db.command("backup")
@settings_options
@click.argument("target", type=FILE, metavar="FILE")
def backup_command(options: SettingsOptions, target: Path) -> None:
    """Copy the database to FILE, while a server runs or not. FILE must not be there yet."""
    path = find_database(options)
    with progress_bar("copying") as progress:
        back_up(path, target, progress)
    say(f"wrote {target} ({size(target.stat().st_size)})")


@db.command("restore")
@settings_options
@click.argument("source", type=FILE, metavar="FILE")
def restore_command(options: SettingsOptions, source: Path) -> None:
    """Put the backup FILE into the database's place.

    The server must be stopped. The old database is kept beside the new one. Clients see another
    epoch, and know that what they had got before need not be there.
    """
    path = find_database(options)
    with progress_bar("copying") as progress:
        kept = restore(path, source, progress)
    say(f"restored {path}")
    if kept is not None:
        say(f"the database that was there is now {kept}")


@db.command("copy")
@settings_options
@click.option("--to", "target", metavar="URL", help="Where to; without it, engine.url.")
@click.option("--from", "source", metavar="URL", help="Where from; without it, engine.url.")
@click.option("--positions", is_flag=True, help="List the epoch and offset of each log.")
def copy_command(
    options: SettingsOptions, target: str | None, source: str | None, positions: bool
) -> None:
    """Copy the database to Redis, from Redis, or from one Redis to another.

    All servers on either must be stopped, and there must be nothing yet where it is copied to. All
    is kept: activities, epochs and offsets, ids, marks, inboxes, what plugins keep. So clients go
    on from where they were. In the end both are read and compared. A copy that was interrupted has
    left nothing that a server starts on: do it again.

    A URL on the command line is seen by everybody on the machine: one with a password belongs into
    the settings, as engine.url.
    """
    settings = options.load().settings
    urls = [settings.engine.url if url is None else url for url in (source, target)]
    if urls[0] == urls[1]:
        raise SettingsError("--to or --from has to name another database than engine.url does")
    both = [with_engine(settings, url) for url in urls]
    if all(database_path(each) for each in both):
        raise SettingsError("from one file to another: pov-rt db backup, and pov-rt db restore")
    sums = asyncio.run(copy_database(*both, positions=positions))
    for kind, each in sums.items():
        say(f"{kind:<16} {each.number:,}")
    say(f"copied {redact_url(urls[0])} to {redact_url(urls[1])}, and compared: all of it is there,")
    say(
        "each log at its position. Servers use it when engine.url names it. What it was copied from"
    )
    say("has nothing of what comes here: used again, it goes on under another epoch")


def with_engine(settings: Settings, url: str) -> Settings:
    """Return the settings with another `engine.url`. Raises `SettingsError`."""
    found = replace(settings, engine=replace(settings.engine, url=url))
    check_engine(found)
    return found


async def copy_database(source: Settings, target: Settings, *, positions: bool) -> Sums:
    """Copy a database, and return how much of what there is. Raises `Unavailable`."""

    def look(log: CopiedLog) -> None:
        if positions:
            say(f"{log.topic}: {log.epochs[0][0]} {log.offset}")

    source_opens, target_opens = open_source(source), open_target(target)
    async with source_opens as old, target_opens as new:
        with counting("copied") as progress:
            await copy(old, new, time.time(), progress)
        # Later, and at one instant for both: what has become too old meanwhile is in neither.
        now = time.time()
        with counting("compared") as progress:
            before = await total(old, now, progress)
            after = await total(new, now, progress, look)
        compare(before, after)
        return after


@db.command("renew")
@settings_options
def renew_command(options: SettingsOptions) -> None:
    """Give the database a new epoch, after a snapshot of its disk or machine was brought back.

    The server must be stopped. Clients learn that they may have missed something; nothing is lost.
    After `db restore`, and after files were copied, it is not needed.
    """
    path = find_database(options)
    say(f"{path} has a new epoch: {renew(path)}")


@db.command("scrub")
@settings_options
def scrub_command(options: SettingsOptions) -> None:
    """Write the database anew, so that nothing is left in its file of what was removed.

    The server must be stopped. It does that by itself where it is needed, but in a large file says
    so instead. The disk must have room for two more copies meanwhile.
    """
    path = find_database(options)
    scrub(path)
    say(f"wrote {path} anew ({size(path.stat().st_size)})")


@db.command("stats")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, sizes in bytes.")
def stats_command(options: SettingsOptions, as_json: bool) -> None:
    """Count what is in the database, while a server runs or not."""
    path, settings = find_database(options), options.load().settings
    keeping = Keeping(settings.engine, settings.pov)
    stats = read_stats(path, keeping)
    rows = describe(path, stats)
    if as_json:
        values: dict[str, Any] = {name: value for name, _, value in rows}
        values["patterns"] = {
            pattern: {**found._asdict(), "maxEntries": limits[0], "maxAgeS": limits[1]}
            for (pattern, found), limits in zip(
                stats.patterns.items(), keeping.rules.values(), strict=True
            )
        }
        say_json(json.dumps(values, ensure_ascii=False))
        return
    for name, title, value in rows:
        say(f"{title:<16} {in_words(name, value)}")
    for pattern, found in stats.patterns.items():
        most, age_s = keeping.rules[pattern]
        say(
            f'[pov."{pattern}"]: {found.povs:,} PoVs, {found.entries:,} entries; kept are '
            f"{most:,} of each, for {age_s / 86400:.3g} days"
        )


@db.command("revocations")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in RFC 3339.")
@click.option(
    "--remove", metavar="NAME", help="Remove this one, as the list calls it; the server is stopped."
)
def revocations_command(options: SettingsOptions, as_json: bool, remove: str | None) -> None:
    """List which tokens are void before their time, while a server runs or not; or remove one."""
    path = find_database(options)
    if remove is not None:
        name = find_name(read_revocations(path), remove)
        if not remove_member(path, REVOCATIONS, name):
            raise click.ClickException(f"there is no revocation {remove}; the list has the names")
        say(f"removed: {remove}")
        return
    found = read_revocations(path)
    if as_json:
        say_json(json.dumps({name: in_json(each) for name, each in found.items()}))
        return
    for shown, name in spell(found).items():
        say(f"{shown}: {found[name].describe()}")


def read_revocations(path: Path) -> dict[str, Revocation]:
    """Return what is stored, by name."""
    return {name: decode(body) for name, body in read_members(path, REVOCATIONS).items()}


def spell(found: dict[str, Revocation]) -> dict[str, str]:
    """Return the names by how the list writes them: as JSON what is not for people.

    A terminal obeys control characters, and an id of a token may have any; two may look the same.
    """
    count = Counter(each.spelling for each in found.values())
    return {
        each.spelling
        if each.spelling.isprintable() and count[each.spelling] == 1
        else json.dumps(name): name
        for name, each in found.items()
    }


def find_name(found: dict[str, Revocation], text: str) -> str:
    """Return the name that somebody means, who writes it as the list or as `--json` does."""
    name = spell(found).get(text)
    if name is not None:
        return name
    try:
        return str(json.loads(text)) if text.startswith('"') else text
    except ValueError as error:
        raise click.ClickException(f"{text} is not as the list writes it") from error


def in_json(revocation: Revocation) -> dict[str, str | None]:
    """Return when a revocation was said, up to which instant it reaches, and until when."""
    times = {"issuedBefore": revocation.before, "at": revocation.at, "until": revocation.until}
    return {name: None if time is None else rfc3339(time) for name, time in times.items()}


def find_database(options: SettingsOptions) -> Path:
    """Return the file that the settings name. Raises `SettingsError`.

    Only what names it is checked: the keys of tokens, say, are systemd's to give to the server.
    """
    settings = options.load().settings
    check_engine(settings)
    path = database_path(settings)
    if path is None:
        scheme = settings.engine.url.partition("://")[0]  # the rest may have a password
        raise SettingsError(f"engine.url: {scheme}:// has no database file")
    return path


def check_engine(settings: Settings) -> None:
    """Raise `SettingsError` if `engine.url` cannot work."""
    for name, problem in find_problems(settings):
        if name == "engine.url":
            raise SettingsError(f"{name}: {problem}")


@contextmanager
def counting(done: str) -> Iterator[Progress]:
    """Show on a terminal how many records were copied, or whatever is done with them."""
    number = 0
    is_shown = sys.stderr.isatty()

    def count(more: int) -> None:
        nonlocal number
        number += more
        if is_shown:
            click.echo(f"\r{done} {number:,} records", nl=False, err=True)

    yield count
    if is_shown:
        click.echo(err=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show progress on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show


def describe(path: Path, stats: Stats) -> list[tuple[str, str, str | int | None]]:
    """Return the counts: the names that JSON has everywhere else, names for people, values."""
    oldest, newest = (None if at is None else rfc3339(at) for at in (stats.oldest, stats.newest))
    return [
        ("file", "file", str(path)),
        ("sizeBytes", "size", stats.size_bytes),
        ("walBytes", "write-ahead log", stats.wal_bytes),
        ("schema", "schema", stats.schema),
        ("epoch", "epoch", stats.epoch),
        ("topics", "topics", stats.topics),
        ("entries", "entries", stats.entries),
        ("oldest", "oldest entry", oldest),
        ("newest", "newest entry", newest),
        ("ids", "ids remembered", stats.ids),
        ("producers", "producers", stats.producers),
        ("marks", "marks", stats.marks),
        ("setMembers", "set members", stats.set_members),
        ("stored", "plugins' values", stats.stored),
    ]


def in_words(name: str, value: str | int | None) -> str:
    """Return a value of `describe` for people."""
    if isinstance(value, int):
        return size(value) if name.endswith("Bytes") else f"{value:,}"
    return value or "-"


def size(count: int) -> str:
    """Return bytes for people: `812 B`, `3.4 MB`."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"
