"""What the commands share: the options that say where the settings come from, errors as words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from pov_rt.config import load as config
from pov_rt.config.load import Loaded
from pov_rt.config.settings import SettingsError
from pov_rt.protocol.errors import ClientError
from pov_rt.registry.discovery import PluginError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show what the user can mend as words and not as a traceback."""
    try:
        yield
    except (SettingsError, PluginError, ClientError) as error:
        raise click.ClickException(str(error)) from error


def settings_options(function: FunctionT) -> FunctionT:
    """Add the options that say where the settings come from."""
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
        function = option(function)
    return function


def load(file: Path | None, data: str | None, dev: bool | None, **flags: Any) -> Loaded:
    """Load and check the settings."""
    loaded = config.load(file=file, flags={"server.data": data, "dev": dev, **flags})
    config.check(loaded)
    return loaded
