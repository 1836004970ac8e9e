"""Merge tables of settings by the types of `Settings`, remembering where each value comes from.

Names are dotted paths as in TOML: `auth.grace_s`, `plugins.poll.max`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from pov_rt.config.settings import Section, Settings, SettingsError, join_name
from pov_rt.protocol.faults import Fault, find_fault, join_path
from pov_rt.protocol.redaction import HIDDEN, is_secret, redact, redact_url

SECRETS = "auth.secrets"
PASSWORDS = ("engine.redis.sentinel_password",)
"""Settings that are secret whatever they look like, beside those."""

_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


class Merged:
    """What was added so far: `tree` holds the values, `sources` where each name comes from."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self._problems: list[str] = []

    def add(self, table: Mapping[str, Any], source: str, *, is_text: bool = False) -> None:
        """Merge a table over what is there; `is_text` if its values are to be read from strings.

        What is no setting or has a wrong type is left out, for `build` to tell.
        """
        layer = _Layer(source, is_text, self.sources, self._problems)
        layer.merge(self.tree, Settings, table, "")

    def put(self, keys: list[str], value: Any, source: str, *, is_text: bool = False) -> None:
        """Add one value."""
        for key in reversed(keys):
            value = {key: value}
        self.add(value, source, is_text=is_text)

    def build(self) -> Settings:
        """Return the settings. Raises `SettingsError`, with a line for each that cannot be."""
        if self._problems:
            raise SettingsError("\n".join(self._problems))
        return msgspec.convert(self.tree, Settings)


class _Layer:
    """One source of settings, while it is merged."""

    def __init__(
        self, source: str, is_text: bool, sources: dict[str, str], problems: list[str]
    ) -> None:
        self._source = source
        self._is_text = is_text
        self._sources = sources
        self._problems = problems

    def merge(self, tree: dict[str, Any], kind: Any, table: Mapping[str, Any], path: str) -> None:
        """Merge a table of this kind into the tree's."""
        for key, value in table.items():
            try:
                self._merge_one(tree, kind, key, value, path)
            except SettingsError as error:
                self._problems.append(str(error))

    def _merge_one(self, tree: dict[str, Any], kind: Any, key: str, value: Any, path: str) -> None:
        name = join_name(path, key)
        member = self._find_kind(kind, key, path, value)
        if self._is_text and isinstance(value, str):
            value = self._parse(value, member, name)
        if _is_table(member) or (member is Any and isinstance(value, dict)):
            if not isinstance(value, dict):
                raise self._wrong(name, "must be a table of settings")
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            self.merge(tree[key], member, value, name)
        else:
            tree[key] = convert(name, value, member, self._source, strict=not self._is_text)
        self._sources[name] = self._source

    def _find_kind(self, kind: Any, key: str, path: str, value: Any) -> Any:
        if kind is Any:
            return Any
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            # In a plugin's table this key is the server's; the rest is checked by the plugin.
            return bool if kind is Any and key == "enabled" else kind
        members = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        if key in members:
            return members[key]
        known = _KNOWN | {member: join_name(path, member) for member in members}
        similar = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {known[similar[0]]}?" if similar else ""
        table, _, name = path.rpartition(".")
        if table and isinstance(value, dict):  # as [activities.task.completed]
            quoted = join_name(table, f"{name}.{key}")
            hint = f"; a name with a dot needs quotation marks: {quoted}"
        raise self._wrong(join_name(path, key), f"there is no such setting{hint}")

    def _parse(self, text: str, kind: Any, name: str) -> Any:
        if name == SECRETS:
            return _parse_secrets(text)
        kinds = _list_kinds(kind)
        is_list = any(get_origin(each) is list for each in kinds)
        if text[:1] in ("{", "[") and (is_list or _is_table(kind) or kind is Any):
            try:
                return msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise self._wrong(name, f"this is no JSON: {error}") from error
        if not text and type(None) in kinds:
            return None
        if is_list:
            return [item.strip() for item in text.split(",") if item.strip()]
        return text

    def _wrong(self, name: str, problem: str) -> SettingsError:
        return SettingsError(complain(name, self._source, problem))


def convert(name: str, value: Any, kind: Any, source: str | None, *, strict: bool = False) -> Any:
    """Return what a setting or a table of them is read as; unless `strict`, numbers from texts.

    Raises `SettingsError` that says what has to be there, and what is, if that is no secret.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        fault = find_fault(kind, value, strict=strict) or Fault("", "cannot be read")
        more = fault.more
        if name.startswith("plugins.") or mask(name, value) != value:
            more = ""  # any option of a plugin may be a secret
        elif fault.problem.startswith("must be ") and not isinstance(value, list | dict):
            more = f", not {to_text(name, value)}"
        path = join_path(name, fault.path)
        raise SettingsError(complain(path, source, fault.problem + more)) from error


def complain(name: str, source: str | None, problem: str) -> str:
    """Return the line that tells what is wrong with a setting; `source` is where it comes from."""
    where = "" if source is None else f" ({source})"
    return f"{name}{where}: {redact(problem)}"


def list_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each setting; an empty table counts as a value."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, member in value.items():
        yield from list_leaves(member, join_name(path, key))


def mask(name: str, value: Any) -> Any:
    """Return the value with `****` in place of secrets.

    Those are our own, parts of URLs, and plugin options that are called like secrets.
    """
    if isinstance(value, dict):
        return {key: mask(join_name(name, key), member) for key, member in value.items()}
    if isinstance(value, list):
        return [mask(name, item) for item in value]
    if name == SECRETS or (name in PASSWORDS and value):
        return HIDDEN
    if name.startswith("plugins.") and is_secret(name.split(".", 2)[-1], value):
        return HIDDEN
    if not isinstance(value, str):
        return value
    return redact_url(value) if _URL.match(value) else redact(value)


def to_text(name: str, value: Any) -> str:
    """Return the value as JSON in ASCII (so it is safe on a terminal), secrets masked."""
    return json.dumps(mask(name, value), default=str)


def _parse_secrets(text: str) -> list[str]:
    """Return the strings of a JSON list, else the lines: a secret may have any character in it."""
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return split_secrets(text)


def split_secrets(text: str) -> list[str]:
    """Return the lines; a blank one is no secret."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip()]


def _list_kinds(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, else the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Section))


_NAMES = [name for name, _ in list_leaves(Settings())]
# `port` and `server_port` (one underscore too few in a variable) are meant to be `server.port`.
_KNOWN = {name.rpartition(".")[2]: name for name in _NAMES} | {
    name.replace(".", "_"): name for name in _NAMES
}
