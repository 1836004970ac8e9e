"""`pov-rt schema`: what a server says and takes, described, and how that changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from pov_rt.cli.options import (
    SettingsOptions,
    failure,
    registry_of,
    say,
    say_json,
    settings_options,
)
from pov_rt.config.settings import Settings, SettingsError
from pov_rt.registry.build import Registry
from pov_rt.registry.discovery import PluginError


@click.group()
def schema() -> None:
    """Describe messages, routes and activities; tell what changed."""


def described(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every description is made of; the command gets `options` and `plugins_dir`."""
    folder = click.option("--plugins-dir", type=str, help="Folder of further plugin files.")
    return settings_options(folder(command))


def load(options: SettingsOptions, plugins_dir: str | None) -> tuple[Registry, Settings]:
    """Load plugins and settings; nothing else need be right, such as keys."""
    settings = options.with_flags({"server.plugins_dir": plugins_dir}).load().settings
    return registry_of(settings), settings


def document_of(kind: str, registry: Registry, settings: Settings) -> dict[str, Any]:
    """Return the AsyncAPI or the OpenAPI document."""
    from pov_rt.registry.schema.documents import asyncapi, openapi

    return (asyncapi if kind == "asyncapi" else openapi)(registry, settings)


def say_document(kind: str, options: SettingsOptions, plugins_dir: str | None) -> None:
    """Print a document."""
    document = document_of(kind, *load(options, plugins_dir))
    say_json(json.dumps(document, indent=2, ensure_ascii=False))


@schema.command()
@described
def asyncapi(options: SettingsOptions, plugins_dir: str | None) -> None:
    """Print the AsyncAPI document of the socket."""
    say_document("asyncapi", options, plugins_dir)


@schema.command()
@described
def openapi(options: SettingsOptions, plugins_dir: str | None) -> None:
    """Print the OpenAPI document of the HTTP side."""
    say_document("openapi", options, plugins_dir)


@schema.command()
@described
def typescript(options: SettingsOptions, plugins_dir: str | None) -> None:
    """Print the messages and activities as TypeScript."""
    from pov_rt.registry.schema.typescript import typescript

    say(typescript(*load(options, plugins_dir)).rstrip("\n"))


@schema.command("plugin-api")
def plugin_api() -> None:
    """Print, in Markdown, all that plugins import."""
    from pov_rt import testing
    from pov_rt.registry.reference import reference

    say(reference(testing).rstrip("\n"))


@schema.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="A list for programs.")
@described
def diff(
    options: SettingsOptions, plugins_dir: str | None, old: Path, new: Path | None, *, as_json: bool
) -> None:
    """Tell what changed for clients since OLD was printed.

    OLD is from `pov-rt schema asyncapi` or `openapi`. It is compared with NEW, another one, or
    without it with the settings and plugins of now. Breaking is what clients sent and is not taken
    any more, and what they receive and have never seen, but for new fields, messages and routes.

    Exits with 0 if nothing breaks, 1 if something does, 2 if it cannot be told.
    """
    from pov_rt.registry.schema import changes

    before = read_document(old)
    try:
        kind = changes.kind_of(before)
        if new is not None:
            after = read_document(new)
            if changes.kind_of(after) != kind:
                raise unusable(f"{old} is of {kind}, and {new} is not")
        else:
            after = document_of(kind, *load(options, plugins_dir))
        found = changes.find_changes(before, after)
    except changes.NoDocumentError as error:
        raise unusable(f"{old if new is None else f'{old} or {new}'} {error}") from error
    except (SettingsError, PluginError) as error:
        raise unusable(str(error)) from error
    if as_json:
        say_json(changes.as_json(found))
    else:
        say_changes(found)
    if any(change.breaking for change in found):
        raise SystemExit(1)


def say_changes(found: list[Any]) -> None:
    """Print them in groups."""
    if not found:
        say("nothing changed")
    for heading, breaking in (("breaking", True), ("additive", False)):
        group = [change for change in found if change.breaking is breaking]
        if group:
            say(f"{heading}:")
        for change in group:
            say(f"  {change.where}: {change.what} ({change.direction} by clients)")


def read_document(path: Path) -> Any:
    """Return the JSON of a file; end the command if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise unusable(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise unusable(f"{path} is no JSON: {error}") from error


class Unusable(click.ClickException):
    """Ends the command where it cannot tell what changed: not with 1, which is that it breaks."""

    exit_code = click.UsageError.exit_code


def unusable(words: str) -> Unusable:
    """Return what ends the command with these words, without the secrets in them."""
    return Unusable(failure(words).message)
