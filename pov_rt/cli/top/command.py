"""The command: asks the admin port again and again, reads keys, writes the screen."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import click

from pov_rt.auth.grants import Kind
from pov_rt.cli.client import TOKEN, Duration, make_tokens
from pov_rt.cli.options import SettingsOptions, say, settings_options
from pov_rt.cli.remote import Operator, RemoteError, find_admin_address, parse_url
from pov_rt.cli.top.screen import (
    NAMES,
    TABLES,
    Row,
    Snapshot,
    View,
    draw,
    engine_of,
    gaps,
    keys,
    numbers_of,
    press,
)
from pov_rt.remote.addresses import Address
from pov_rt.runtime.clock import SystemClock

TOKEN_S = 600.0
MOST_ROWS = 200
PLAIN_SIZE = (160, 60)
"""Columns and lines where there is no terminal."""

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""A screen of its own without a cursor, and back."""


class Source:
    """What a server says, again and again. `token` is asked for one each time."""

    def __init__(self, address: Address, token: Callable[[], str]) -> None:
        self.name = address.name
        self._address = address
        self._token = token
        self._clock = SystemClock()
        self._nodes: Sequence[Row] = ()
        self._at = 0.0

    async def look(self, view: View, limit: int) -> Snapshot:
        """Return what the server says now. Raises `RemoteError`."""
        operator = Operator(self._address, self._token())
        page = await operator.get(view.path(limit), dict[str, Any])
        state = await operator.get("/api/node", dict[str, Any])
        found = await operator.get("/api/nodes", dict[str, Any])
        before, then = self._nodes, self._at
        self._nodes = [each for each in found["nodes"] if view.node in ("", each["node"])]
        self._at = self._clock.monotonic()
        numbers = numbers_of(self._nodes, before, self._at - then)
        at = f"{datetime.now().astimezone():%H:%M:%S}"
        return Snapshot(self.name, at, page, numbers, engine=engine_of(state))


class Top:
    """The screen as it goes on. `show` writes one; keys come by `type`."""

    def __init__(
        self, source: Source, view: View, interval_s: float, show: Callable[[list[str]], None]
    ) -> None:
        self._source = source
        self._view: View | None = view
        self._interval_s = interval_s
        self._show = show
        self._snapshot: Snapshot | None = None
        self._changed = asyncio.Event()

    def type(self, text: str) -> None:
        """Take what was typed."""
        following = None if self._snapshot is None else self._snapshot.page.get("next")
        for key in keys(text):
            if self._view is not None:
                self._view = press(self._view, key, following)
        self._changed.set()

    def redraw(self) -> None:
        """Show what is known, once more."""
        if self._view is not None and self._snapshot is not None:
            self._show(draw(self._view, self._snapshot, *shutil.get_terminal_size()))

    async def run(self) -> None:
        """Look until a key ends it. Raises `RemoteError` if the server cannot be asked at first."""
        loop, asked, due = asyncio.get_running_loop(), "", 0.0
        while (view := self._view) is not None:
            self._changed.clear()
            is_due = loop.time() >= due and not view.paused
            if is_due or view.path(1) != asked:
                asked = view.path(1)
                await self._look(view)
                due = loop.time() + self._interval_s
            self.redraw()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if view.paused else due):
                    await self._changed.wait()

    async def _look(self, view: View) -> None:
        lines = shutil.get_terminal_size().lines
        try:
            snapshot = await self._source.look(view, min(MOST_ROWS, max(1, lines - 4)))
        except RemoteError as error:
            if self._snapshot is None:
                raise
            self._snapshot = self._snapshot._replace(trouble=error.message)
            return
        self._snapshot = snapshot


@contextmanager
def own_screen(descriptor: int) -> Iterator[Callable[[list[str]], None]]:
    """Have the terminal to oneself, and yield what writes a screen; it ends as it was."""
    before = termios.tcgetattr(descriptor)

    def show(lines: list[str]) -> None:
        head, looked, titles, *rest = [f"{line}\x1b[K" for line in lines]
        shown = [f"\x1b[1m{head}\x1b[0m", looked, f"\x1b[7m{titles}\x1b[0m", *rest]
        sys.stdout.write("\x1b[H" + "\r\n".join(shown))
        sys.stdout.flush()

    tty.setraw(descriptor)
    sys.stdout.write(ENTER)
    try:
        yield show
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def _on_terminal(source: Source, view: View, interval_s: float) -> None:
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    with own_screen(descriptor) as show:
        top = Top(source, view, interval_s, show)
        work = loop.create_task(top.run())

        def read() -> None:
            typed = os.read(descriptor, 1024)
            if typed:
                top.type(typed.decode(errors="ignore"))
            else:  # the terminal is gone
                work.cancel()

        loop.add_reader(descriptor, read)
        loop.add_signal_handler(signal.SIGWINCH, top.redraw)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            pass
        finally:
            loop.remove_reader(descriptor)


async def _once(source: Source, view: View, limit: int) -> None:
    snapshot = await source.look(view, limit)
    lines = draw(view, snapshot, *PLAIN_SIZE)[:-1]
    say("\n".join(filter(None, lines)))
    for gap in gaps(snapshot.page):
        say(gap, err=True)


@click.command()
@settings_options
@click.argument("name", type=click.Choice(NAMES), default="connections")
@click.option("--sort", help="unsent, lag, rate, cost, ...; with a - in front turned round.")
@click.option("--filter", "search", default="", help="A part of a user, PoV, device or address.")
@click.option("--node", default="", help="One node alone, by the name in the column NODE.")
@click.option("--every", type=Duration(), default="2s", show_default=True, help="Look this often.")
@click.option("--once", is_flag=True, help="Print it once, as where there is no terminal.")
@click.option("--limit", type=click.IntRange(1, 50), default=50, help="Rows with --once.")
@click.option("--url", help="The admin port: a URL or HOST:PORT. Default: where the settings say.")
@TOKEN
def top(
    options: SettingsOptions,
    name: str,
    sort: str | None,
    search: str,
    node: str,
    every: float,
    once: bool,
    limit: int,
    url: str | None,
    bearer: str | None,
) -> None:
    """Show who and what is on all nodes, the worst first.

    It asks the server's admin port, and needs nothing else: that node asks the others, and those
    that do not answer within a second are named. Keys: q ends it, 1 to 4 choose the
    list, s the next sort, r turns it round, / filters, n and p turn pages, space pauses.
    """
    given = sort or TABLES[name].sorts[0]
    wanted = given.removeprefix("-")
    if wanted not in TABLES[name].sorts:
        raise click.BadParameter(
            f"{name} are sorted by {', '.join(TABLES[name].sorts)}", param_hint="'--sort'"
        )
    view = View(name, wanted, reverse=given.startswith("-"), search=search, node=node)
    settings = options.load().settings
    address = parse_url(url) if url else find_admin_address(settings.server)
    source = Source(address, (lambda: bearer) if bearer else _own_token(options))
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        asyncio.run(_once(source, view, limit))
    else:
        asyncio.run(_on_terminal(source, view, every))


def _own_token(options: SettingsOptions) -> Callable[[], str]:
    """Return what gives a token that is good for minutes yet, made with the settings' secret."""
    tokens, clock = make_tokens(options), SystemClock()
    made, until = "", 0.0

    def give() -> str:
        nonlocal made, until
        if clock.monotonic() >= until:
            until = clock.monotonic() + TOKEN_S / 2
            can = ["operate", "operate_all"]
            made = tokens.issue(Kind.SERVICE, "pov-rt-cli", ttl_s=TOKEN_S, povs="*", can=can)
        return made

    return give
