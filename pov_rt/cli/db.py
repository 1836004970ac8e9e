"""`pov-rt db`: the log's database on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pov_rt.cli.options import SettingsOptions, plain_errors, settings_options
from pov_rt.config.settings import SettingsError, database_path, find_problems
from pov_rt.engine.sqlite.backups import back_up, restore
from pov_rt.engine.sqlite.stats import Stats, read_stats
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
    with plain_errors():
        path = find_database(options)
        with progress_bar("copying") as progress:
            back_up(path, target, progress)
    click.echo(f"wrote {target} ({size(target.stat().st_size)})")


@db.command("restore")
@settings_options
@click.argument("source", type=FILE, metavar="FILE")
def restore_command(options: SettingsOptions, source: Path) -> None:
    """Put the backup FILE into the database's place.

    The server must be stopped. The old database is kept beside the new one. Clients see another
    epoch, and know that what they had got before need not be there.
    """
    with plain_errors():
        path = find_database(options)
        with progress_bar("copying") as progress:
            kept = restore(path, source, progress)
    click.echo(f"restored {path}")
    if kept is not None:
        click.echo(f"the database that was there is now {kept}")


@db.command("stats")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object, sizes in bytes.")
def stats_command(options: SettingsOptions, as_json: bool) -> None:
    """Count what is in the database, while a server runs or not."""
    with plain_errors():
        path = find_database(options)
        stats = read_stats(path)
    if as_json:
        click.echo(json.dumps(to_json(path, stats), ensure_ascii=False))
        return
    for name, value in to_rows(path, stats):
        click.echo(f"{name:<16} {value}")


def find_database(options: SettingsOptions) -> Path:
    """Return the file that the settings name. Raises `SettingsError`.

    Only what names it is checked: the keys of tokens, say, are systemd's to give to the server.
    """
    settings = options.load().settings
    for name, problem in find_problems(settings):
        if name == "engine.url":
            raise SettingsError(f"{name}: {problem}")
    path = None if settings.engine.url.startswith("memory:") else database_path(settings)
    if path is None:
        raise SettingsError(f"engine.url: {settings.engine.url} keeps nothing on disk")
    return path


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


def to_json(path: Path, stats: Stats) -> dict[str, object]:
    """Return the counts with the names that JSON has everywhere else."""
    return {
        "file": str(path),
        "sizeBytes": stats.size_bytes,
        "walBytes": stats.wal_bytes,
        "schema": stats.schema,
        "epoch": stats.epoch,
        "topics": stats.topics,
        "entries": stats.entries,
        "oldest": None if stats.oldest is None else rfc3339(stats.oldest),
        "newest": None if stats.newest is None else rfc3339(stats.newest),
        "ids": stats.ids,
        "marks": stats.marks,
        "setMembers": stats.set_members,
    }


def to_rows(path: Path, stats: Stats) -> Iterator[tuple[str, str]]:
    """Yield names and values for people."""
    yield "file", str(path)
    yield "size", size(stats.size_bytes)
    yield "write-ahead log", size(stats.wal_bytes)
    yield "schema", str(stats.schema)
    yield "epoch", stats.epoch
    yield "topics", f"{stats.topics:,}"
    yield "entries", f"{stats.entries:,}"
    yield "oldest entry", "-" if stats.oldest is None else rfc3339(stats.oldest)
    yield "newest entry", "-" if stats.newest is None else rfc3339(stats.newest)
    yield "ids remembered", f"{stats.ids:,}"
    yield "marks", f"{stats.marks:,}"
    yield "set members", f"{stats.set_members:,}"


def size(count: int) -> str:
    """Return bytes for people: `812 B`, `3.4 MB`."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"
