"""What the commands share: the options that say where the settings come from, errors as words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

from pov_rt.config import load as config
from pov_rt.config.load import Loaded
from pov_rt.config.settings import SettingsError
from pov_rt.protocol.errors import ClientError
from pov_rt.registry.discovery import PluginError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show what the user can mend as words and not as a traceback."""
    try:
        yield
    except (SettingsError, PluginError, ClientError) as error:
        raise click.ClickException(str(error)) from error


class SettingsOptions(NamedTuple):
    """Where a command's settings come from, beside what they always come from."""

    file: Path | None
    data: str | None
    dev: bool | None

    def flags(self, **more: Any) -> dict[str, Any]:
        """Return the flags, as `config.load` takes them, with those of the command itself."""
        return {"server.data": self.data, "dev": self.dev, **more}

    def load(self, **more: Any) -> Loaded:
        """Load the settings, without a check. Raises `SettingsError`."""
        return config.load(file=self.file, flags=self.flags(**more))


def settings_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the settings come from; the command gets them as `options`."""

    @wraps(function)
    def command(file: Path | None, data: str | None, dev: bool | None, **more: Any) -> None:
        function(options=SettingsOptions(file, data, dev), **more)

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
