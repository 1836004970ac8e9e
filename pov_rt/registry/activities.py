"""What plugins and settings declare of activities: checked at start, and when it is read anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pov_rt.activities.details.declared import Declared, DetailsType, find_key_problem
from pov_rt.activities.details.files import FileDetails, SchemaError, read_details
from pov_rt.activities.details.structs import StructDetails
from pov_rt.config.settings import ActivitySettings, SettingsError, join_name
from pov_rt.plugin.declare import ActivitySpec
from pov_rt.registry.discovery import Found
from pov_rt.registry.mistakes import blame, check_struct


def check_activity(spec: ActivitySpec) -> None:
    """Check one `@plugin.activity`; raises `PluginError`."""
    wrong = blame(spec.source, f"@plugin.activity({spec.key!r})")
    if not isinstance(spec.key, str):
        raise wrong("the first argument must be a text like 'task.completed'")
    if (problem := find_key_problem(spec.key)) is not None:
        raise wrong(problem)
    check_struct(spec.details, spec.source)
    if spec.details.__struct_config__.array_like:
        raise wrong(f"{spec.details.__name__} is array_like, and details are always an object")
    try:
        msgspec.json.schema(spec.details)
    except (TypeError, RecursionError) as error:
        raise wrong(f"{spec.details.__name__} cannot be described: {error}") from error


def declare(found: Iterable[Found], settings: Mapping[str, ActivitySettings]) -> Declared:
    """Return what plugins, which were checked, and settings declare.

    Raises `SettingsError`, with a line for each setting that cannot work.
    """
    specs = {spec.key: spec for each in found for spec in each.plugin.activities}
    types: dict[str, DetailsType] = {
        key: StructDetails(spec.details) for key, spec in specs.items()
    }
    problems = []
    for key, wanted in settings.items():
        name = join_name("activities", key)
        if (problem := find_key_problem(key)) is not None:
            problems.append(f"{name}: {problem}")
        elif (spec := specs.get(key)) is not None:
            problems.append(f"{name}: a plugin declares its details, too, at {spec.source}")
        else:
            try:
                types[key] = _read(wanted)
            except SchemaError as error:
                problems.append(f"{join_name(name, 'details')}: {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return Declared(types)


def _read(wanted: ActivitySettings) -> FileDetails:
    if not wanted.details:
        raise SchemaError("is not set; write the path of a file with a JSON Schema")
    return read_details(Path(wanted.details))
