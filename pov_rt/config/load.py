"""Load the settings from their sources, and tell where each comes from and what is wrong with it.

Later sources win: defaults, the TOML file, `conf.d/*.toml` beside it, `POV_RT_*` variables, systemd
credentials, flags. Tables merge key by key; any other value, lists included, replaces.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pov_rt.config.merge import Merged, complain, list_leaves, mask, split_secrets, to_text
from pov_rt.config.settings import MIN_SECRET_BYTES, Settings, SettingsError, find_problems
from pov_rt.runtime.process.private import narrow

DEFAULT_FILE = Path("/etc/pov-rt/pov-rt.toml")
PREFIX = "POV_RT_"
FILE_VARIABLE = "POV_RT_CONFIG"
TOKEN_VARIABLE = "POV_RT_TOKEN"  # noqa: S105  (a name)
"""The token of `tail` and `publish`; no setting."""
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd says where its credentials are."""
SECRET_CREDENTIAL = "jwt-secret"  # noqa: S105  (a name)
DEV_DATA = ".dev"

_POVS_CHOICE = {"default_povs", "require_grants"}
_RELOADABLE = re.compile(
    r"activities(\..*)?|auth\.(?!tenants).*|server\.allowed_(origins|hosts)|log\.level"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each comes from by dotted name, and what the operator should hear of."""

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def load(
    *, file: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> Loaded:
    """Merge all sources; `flags` has dotted names, and None for a flag that was not given.

    Raises `SettingsError` for what is no setting or has a wrong type. `check` does the rest.
    """
    merged = Merged()
    files = _find_files(file, environ)
    for path in files:
        merged.add(_anchored(_read_toml(path), path.parent), str(path))
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in (FILE_VARIABLE, TOKEN_VARIABLE):
            keys = variable.removeprefix(PREFIX).lower().split("__")
            merged.put(keys, environ[variable], f"environment {variable}", is_text=True)
    credentials = environ.get(CREDENTIALS)
    if credentials:
        for key, value, source in _read_credentials(Path(credentials)):
            merged.put(["auth", key], value, f"credential {source}")
    for name, value in flags.items():
        if value is not None:
            flag = name.rpartition(".")[2].replace("_", "-")
            merged.put(name.split("."), value, f"--{flag}")
    if "data" not in merged.tree.get("server", {}):
        _default_data(merged, environ)
    if merged.tree.get("dev") and not _POVS_CHOICE & merged.tree.get("auth", {}).keys():
        merged.put(["auth", "default_povs"], "*", "default under --dev")
    settings = merged.build()
    values = dict(list_leaves(settings))
    sources = merged.sources | {name: merged.sources.get(name, "default") for name in values}
    sensitive = {sources[name] for name in values if mask(name, values[name]) != values[name]}
    sensitive &= {str(path) for path in files}
    sensitive.update(settings.auth.secret_files)
    if credentials:
        sensitive.add(f"{credentials}/{SECRET_CREDENTIAL}")
    warnings = (*_find_exposed(sensitive), *_find_doubts(settings))
    return Loaded(settings, sources, warnings)


def _find_doubts(settings: Settings) -> Iterator[str]:
    """Yield what works and is hardly meant."""
    server = settings.server
    is_proxied = server.trusted_proxies or server.unix is not None
    if server.allowed_hosts and server.public_url is None and not is_proxied:
        yield (
            "server.allowed_hosts is set, and nothing tells http from https pages of these hosts: "
            "set server.public_url"
        )
    if "null" in server.allowed_origins:
        yield (
            "server.allowed_origins has 'null', which any site can send from a sandboxed frame: "
            "with a cookie such a page acts for its visitor"
        )


def check(loaded: Loaded) -> None:
    """Raise `SettingsError`, with a line for each setting that cannot work."""
    problems = [
        complain(name, loaded.sources[name], problem)
        for name, problem in find_problems(loaded.settings)
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def show(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """Yield each setting's dotted name, its value as JSON with secrets masked, and its source."""
    for name, value in list_leaves(loaded.settings):
        yield name, to_text(name, value), loaded.sources[name]


def reloadable(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Return the changed names: those that SIGHUP applies, and those that need a restart."""
    missing = object()
    before, after = dict(list_leaves(old)), dict(list_leaves(new))
    applied: list[str] = []
    restart: list[str] = []
    for name in sorted(before | after):
        if before.get(name, missing) != after.get(name, missing):
            (applied if _RELOADABLE.match(name) else restart).append(name)
    return applied, restart


def dev_secret(settings: Settings) -> Settings:
    """Return the settings with a secret: under dev, if there is none, the one in DATA/dev-secret.

    It is made once; all processes with that data folder get the same. Only a server may make it:
    a command that does so elsewhere has a secret that no server knows. Raises `SettingsError` if it
    cannot be kept.
    """
    path = dev_secret_path(settings)
    if settings.dev and not (settings.auth.secrets or settings.auth.secret_files):
        try:
            if not path.exists():
                _make_secret(path)
            narrow([path])
        except OSError as error:
            raise SettingsError(
                f"server.data: cannot keep a secret in {path}: {error.strerror}"
            ) from error
        return kept_secret(settings)
    return settings


def kept_secret(settings: Settings) -> Settings:
    """Return the settings with the secret that `dev_secret` made, if they have none of their own.

    Raises `SettingsError` if it cannot be read.
    """
    auth, path = settings.auth, dev_secret_path(settings)
    if auth.secrets or auth.secret_files:
        return settings
    try:
        secret = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return settings
    except OSError as error:
        raise SettingsError(f"server.data: cannot read {path}: {error.strerror}") from error
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(f"server.data: the secret in {path} is damaged; delete that file")
    return msgspec.structs.replace(settings, auth=msgspec.structs.replace(auth, secrets=[secret]))


def dev_secret_path(settings: Settings) -> Path:
    """Return where a development server keeps its secret."""
    return Path(settings.server.data or DEV_DATA, "dev-secret")


def _make_secret(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Of two processes that start at once, one links its whole file and the other reads it.
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:
        file.write(secrets.token_urlsafe(48) + "\n")
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)


def main_file(file: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return which TOML file is read, if it is there; `file` is the flag's."""
    return file or Path(environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def _find_files(file: Path | None, environ: Mapping[str, str]) -> list[Path]:
    main = main_file(file, environ)
    folder = main.parent / "conf.d"
    try:
        found = [main] if main.exists() else []
        if not found and (file is not None or environ.get(FILE_VARIABLE)):
            source = "--config" if file is not None else f"environment {FILE_VARIABLE}"
            raise SettingsError(f"{source}: there is no file {main}")
        if folder.is_dir():
            # Editors keep hidden files beside the one they have open.
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
            found += [folder / name for name in names if name.endswith(".toml")]
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from error
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    data = _read(path)
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}: line {line} is not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        end = f"line {len(data.splitlines())}, the end of the file"
        raise SettingsError(f"{path}: {str(error).replace('end of document', end)}") from error


def _anchored(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a file's table with the schemas that it names by whole paths.

    They belong to that file: whoever moves it takes them along, wherever the server is started.
    """
    activities = table.get("activities")
    for each in activities.values() if isinstance(activities, dict) else ():
        if isinstance(each, dict) and isinstance(each.get("details"), str):
            each["details"] = str(folder.absolute() / each["details"])
    return table


def _read_credentials(folder: Path) -> Iterator[tuple[str, Any, str]]:
    """Yield the key in `auth`, its value and the credentials' names."""
    try:
        folder.stat()
    except OSError as error:
        raise SettingsError(
            f"cannot read the credentials in {folder}: {error.strerror}. Only the service's main "
            "process may; before a reload: pov-rt config check --reload"
        ) from error
    path = folder / SECRET_CREDENTIAL
    if path.exists():
        yield "secrets", _read_secrets(path), SECRET_CREDENTIAL
    pems = sorted(folder.glob("jwt-public-key*.pem"))
    if pems:
        yield "public_key_files", [str(pem) for pem in pems], ", ".join(pem.name for pem in pems)
    path = folder / "jwks.json"
    if path.exists():
        yield "jwks_file", str(path), path.name


def _read_secrets(path: Path) -> list[str]:
    """Return the lines, newest secret first."""
    try:
        found = split_secrets(_read(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"auth.secrets (credential {path.name}): {path} is no text; it needs a secret a line "
            "(make one with: openssl rand -base64 48)"
        ) from error
    if not found:
        raise SettingsError(f"auth.secrets (credential {path.name}): {path} is empty")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error


def _default_data(merged: Merged, environ: Mapping[str, str]) -> None:
    keys = ["server", "data"]
    if folders := environ.get("STATE_DIRECTORY"):
        # systemd lists all folders of StateDirectory= here.
        merged.put(keys, folders.partition(":")[0], "environment STATE_DIRECTORY")
    elif merged.tree.get("dev"):
        merged.put(keys, DEV_DATA, "default under --dev")


def _find_exposed(paths: Iterable[str]) -> Iterator[str]:
    for path in sorted(paths):
        with suppress(OSError):  # a missing file is told of by whoever needs it
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if mode & 0o006:
                yield f"{path} has a secret, and all users can get at it; run: chmod o= {path}"
