"""What the commands share: the options that say where the settings come from, errors as words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pov_rt.config import load as config
from pov_rt.config.load import Loaded
from pov_rt.config.settings import Settings, SettingsError
from pov_rt.protocol.characters import escape_json, escape_lines
from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.redaction import redact

if TYPE_CHECKING:
    from pov_rt.registry.build import Registry


class SettingsOptions(NamedTuple):
    """Where a command's settings come from, beside what they always come from."""

    file: Path | None
    flags: Mapping[str, Any]
    """By the dotted names of the settings; None for one that was not given."""

    def with_flags(self, flags: Mapping[str, Any]) -> SettingsOptions:
        """Return them with flags of the command's own."""
        return SettingsOptions(self.file, {**self.flags, **flags})

    def load(self) -> Loaded:
        """Load the settings, without a check. Raises `SettingsError`."""
        return config.load(file=self.file, flags=self.flags)


def settings_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the settings come from; the command gets them as `options`.

    What the user can mend is shown as words and not as a traceback.
    """

    @wraps(function)
    def command(file: Path | None, data: str | None, dev: bool | None, **more: Any) -> None:
        options = SettingsOptions(file, {"server.data": data, "dev": dev})
        try:
            function(options=options, **more)
        except _mendable() as error:
            raise failure(str(error)) from error

    for option in (
        click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file."),
        click.option("--data", type=str, help="Folder for the log and, under --dev, the secret."),
        click.option(
            "--dev",
            is_flag=True,
            default=None,
            help="Development: the data is in .dev, `serve` makes a secret, and / is a console.",
        ),
    ):
        command = option(command)
    return command


def _mendable() -> tuple[type[Exception], ...]:
    """Return the errors that a user can mend; most commands need nothing of plugins but this."""
    from pov_rt.registry.discovery import PluginError

    return SettingsError, PluginError, ClientError


def say(text: str, *, err: bool = False) -> None:
    """Print lines; what others wrote in them cannot move the cursor or change what is read."""
    click.echo(escape_lines(text), err=err)


def say_json(text: str) -> None:
    """Print JSON; what would act in its strings is escaped."""
    click.echo("\n".join(map(escape_json, text.split("\n"))))


def failure(words: str) -> click.ClickException:
    """Return what ends a command with these words, without the secrets in them."""
    return click.ClickException(escape_lines(redact(words)))


def registry_of(settings: Settings) -> Registry:
    """Find and check the plugins that the settings name, and the grants that both do.

    Raises `PluginError` or `SettingsError`.
    """
    from pov_rt.registry.build import build_registry, check_roles

    folder = settings.server.plugins_dir
    plugins_dir = Path(folder) if folder else None
    registry = build_registry(settings.plugins, plugins_dir, settings.activities)
    check_roles(settings.auth, registry)
    return registry
