"""The plugins of one server: checked, frozen, and ready for dispatch.

Everything that can be wrong with a plugin's declarations is found here, before the server listens.
"""

from __future__ import annotations

import inspect
import linecache
import re
import typing
from asyncio import Future
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import structs

from pov_rt.activities.details.declared import Declared
from pov_rt.auth.grants import GRANTS
from pov_rt.config.merge import convert
from pov_rt.config.settings import ActivitySettings, AuthSettings, SettingsError
from pov_rt.plugin.declare import (
    HOOKS,
    HandlerSpec,
    ListenerSpec,
    Plugin,
    RouteSpec,
    Source,
    source_of,
)
from pov_rt.protocol.messages import CORE_PUSHES, Event, Message
from pov_rt.protocol.topics import pov_topic, team_topic, user_topic
from pov_rt.registry.activities import check_activity, declare
from pov_rt.registry.discovery import Found, PluginError, Problems, discover
from pov_rt.registry.mistakes import (
    ARGUMENTS,
    CONTEXT,
    EVENT,
    FOLLOWED,
    HOST,
    MESSAGE,
    REQUEST,
    Wrong,
    blame,
    check_arguments,
    check_finished,
    check_function,
    check_grant,
    check_own_grants,
    check_seconds,
    check_struct,
    find_field,
    hints_of,
    say_unknown,
)
from pov_rt.registry.paths import OWN, find_cover
from pov_rt.registry.pov_ids import CheckIds, Unchecked, check_of, find_unchecked, names_pov
from pov_rt.registry.tenants import Scope, scope_of
from pov_rt.runtime.limits import Rate, parse_rate

StructT = TypeVar("StructT", bound=msgspec.Struct)

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
TAG = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
ROUTE = re.compile(r"(/([a-z0-9_-]+|\{[a-z][a-z0-9_]*\}))+\Z")
TAKEN = tuple(topic("").rstrip("/") for topic in (pov_topic, team_topic, user_topic))
"""A plugin of such a name would have its channels where inboxes, PoVs and feeds are."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WITH_BODY = ("POST", "PUT", "PATCH")
"""The methods with which a route may have a body."""


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """A message type, ready to be dispatched to."""

    plugin: Plugin[Any]
    spec: HandlerSpec
    tag: str
    is_async: bool
    may_wait: bool
    """It is `async`, or says that it returns a future: the messages behind it may have to wait."""
    rate: Rate | None
    check_ids: CheckIds | None
    scope: Scope | None
    """Makes the ids of a message those of its sender's team."""
    replies: tuple[type[Message], ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A plugin's HTTP route; `answer` is the struct it returns, for the documentation."""

    plugin: Plugin[Any]
    spec: RouteSpec
    answer: type[msgspec.Struct] | None


class Idle(NamedTuple):
    """A plugin that is off, and why."""

    found: Found
    why: str

    @property
    def plugin(self) -> Plugin[Any]:
        """The plugin."""
        return self.found.plugin


@dataclass(frozen=True, slots=True)
class Registry:
    """What all plugins of a server declare. Immutable.

    Nothing of those in `idle` counts: they are turned off, or what they need is not set.
    """

    found: tuple[Found, ...]
    idle: tuple[Idle, ...]
    handlers: Mapping[type[Message], Handler]
    routes: tuple[Route, ...]
    options: Mapping[str, msgspec.Struct | None]
    decoder: msgspec.json.Decoder[Message]
    grants: frozenset[str] = GRANTS
    """Every grant that there is: the server's, and those of all plugins, also of the idle ones."""
    activities: Declared = field(default_factory=Declared)
    """What the details of activities are, by the plugins and the settings."""

    @property
    def asks_before_publish(self) -> bool:
        """Whether a plugin changes or refuses what is published, for which it may wait."""
        return any(
            hook.name == "before_publish" for found in self.found for hook in found.plugin.hooks
        )

    @property
    def tags(self) -> frozenset[str]:
        """Every message type that a client may send."""
        return frozenset(handler.tag for handler in self.handlers.values())

    @property
    def pushes(self) -> tuple[type[Message], ...]:
        """Every message that is sent without being asked for: the server's and the plugins'."""
        own = (push for found in self.found for push in found.plugin.pushes)
        return tuple(dict.fromkeys([*CORE_PUSHES, *own]))


def build_registry(
    plugin_settings: Mapping[str, Mapping[str, Any]],
    plugins_dir: Path | Sequence[Path] | None = None,
    activities: Mapping[str, ActivitySettings] | None = None,
) -> Registry:
    """Find, check and freeze the plugins, less those that `[plugins.NAME]` leaves off.

    With what they and the settings declare of activities. Raises `PluginError` (a plugin is wrong)
    or `SettingsError` (its settings are, or the settings' schemas).
    """
    problems = Problems()
    found = tuple(discover(plugins_dir, problems))
    problems.check()
    by_name = _by_name(found, problems)
    problems.check()
    if unknown := sorted(set(plugin_settings) - set(by_name)):
        raise SettingsError(
            f"plugins.{unknown[0]}: there is no plugin of that name; "
            f"there are {', '.join(sorted(by_name))}"
        )
    grants = GRANTS.union(*(each.plugin.grants for each in found))
    options: dict[str, msgspec.Struct | None] = {}
    enabled: list[Found] = []
    idle: list[Idle] = []
    for each in found:
        given, name = plugin_settings.get(each.plugin.name, {}), each.plugin.name
        if not given.get("enabled", True):
            idle.append(Idle(each, f"plugins.{name}.enabled is false"))
            continue
        with problems.gather():
            check_plugin(each)
            mine = options[name] = _options(each.plugin, given)
            if _has_what_it_needs(each, mine):
                enabled.append(each)
            else:
                idle.append(Idle(each, f"plugins.{name}.{each.plugin.needs} is not set"))
    handlers: dict[type[Message], Handler] = {}
    routes: list[Route] = []
    taken: dict[tuple[str, ...], Source] = {}
    paths: dict[str, Source] = {}
    for each in enabled:
        for spec in each.plugin.handlers:
            with problems.gather(), _blaming(spec.source):
                handler = check_handler(each.plugin, spec, grants)
                tag = handler.tag
                _claim(taken, (tag,), spec.source, f"the type {tag!r} is already handled")
                handlers[spec.message] = handler
        for route_spec in each.plugin.routes:
            with problems.gather(), _blaming(route_spec.source):
                routes.append(check_route(each.plugin, route_spec, grants))
                method, path = route_spec.method, route_spec.path
                _claim(
                    taken, (method, path), route_spec.source, f"{method} {path} is already served"
                )
                _claim_path(paths, route_spec)
        check_hooks(each.plugin, problems)
        for activity in each.plugin.activities:
            with problems.gather(), _blaming(activity.source):
                check_activity(activity)
                key = ("activity", activity.key)
                said = f"the details of {activity.key!r} are already declared"
                _claim(taken, key, activity.source, said)
    for each in enabled:
        check_events(each.plugin, by_name, problems)
    problems.check()
    return Registry(
        found=tuple(enabled),
        idle=tuple(idle),
        handlers=handlers,
        routes=tuple(routes),
        options=options,
        decoder=msgspec.json.Decoder(Union[tuple(handlers)] if handlers else Message),  # noqa: UP007  (built at run time)
        activities=declare(enabled, activities or {}),
        grants=grants,
    )


def _claim(
    taken: dict[tuple[str, ...], Source], key: tuple[str, ...], source: Source, claim: str
) -> None:
    """Take what only one may have. Raises `PluginError` for the second."""
    if key in taken:
        raise PluginError(source, f"{claim} at {taken[key]}")
    taken[key] = source


def _claim_path(paths: dict[str, Source], spec: RouteSpec) -> None:
    """Take a path. Raises `PluginError` for one whose requests another route would have."""
    path, said = spec.path, f"{spec.method} {spec.path} would never be asked"
    if (own := find_cover(path, OWN)) is not None:
        raise PluginError(
            spec.source, f"{said}: /api{own} is the server's own; choose another path"
        )
    if (other := find_cover(path, (each for each in paths if each != path))) is not None:
        raise PluginError(
            spec.source,
            f"{said}: /api{other} takes its requests, at {paths[other]}; choose another path, or "
            "the same names for its parts",
        )
    paths.setdefault(path, spec.source)


@contextmanager
def _blaming(source: Source) -> Iterator[None]:
    """Name the place for whatever else goes wrong with a declaration that is being checked."""
    try:
        yield
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(source, f"{type(error).__name__}: {error}") from error


def _by_name(found: Iterable[Found], problems: Problems) -> dict[str, Found]:
    by_name: dict[str, Found] = {}
    for each in found:
        with problems.gather():
            source = _place_of(each)
            name = each.plugin.name
            if not isinstance(name, str) or not NAME.match(name):
                raise PluginError(
                    source,
                    f"the plugin's name {name!r} is not {NAME.pattern}: a small letter, then small "
                    "letters, digits and '_', 64 in all at most",
                )
            if name in TAKEN:
                raise PluginError(source, f"the plugin name {name!r} is the server's own")
            if (other := by_name.get(name)) is not None:
                raise PluginError(
                    source, f"the plugin name {name!r} is taken by {other.module.__file__}"
                )
            by_name[name] = each
    return by_name


def _place_of(found: Found) -> Source:
    return Source(found.module.__file__ or "?", 1)


def check_plugin(found: Found) -> None:
    """Check what a plugin declares by itself: decorators, grants, options; raises `PluginError`."""
    plugin, place = found.plugin, _place_of(found)
    wrong = blame(place, f"Plugin({plugin.name!r})")
    check_finished(plugin)
    check_own_grants(plugin, wrong)
    if plugin.options is not None:
        check_struct(plugin.options, place)
        if any(field.encode_name == "enabled" for field in structs.fields(plugin.options)):
            source = find_field(plugin.options, "enabled") or place
            raise PluginError(source, "the option 'enabled' is every plugin's: false turns it off")
    for push in plugin.pushes:
        _tag(push, wrong)
        check_struct(push, place, is_received=False)


def check_handler(
    plugin: Plugin[Any], spec: HandlerSpec, grants: Collection[str] = GRANTS
) -> Handler:
    """Check one `@plugin.on`; raises `PluginError`."""
    wrong = blame(spec.source, f"@plugin.on({getattr(spec.message, '__name__', spec.message)})")
    tag = _tag(spec.message, wrong)
    check_struct(spec.message, spec.source)
    check_arguments(spec.function, (MESSAGE, CONTEXT), wrong)
    check_function(spec.function, wrong)
    if spec.grant is not None:
        check_grant(spec.grant, grants, wrong)
    hints = hints_of(spec.function)
    first = next(iter(inspect.signature(spec.function).parameters))
    if hints.get(first, spec.message) is not spec.message:
        declared = getattr(hints[first], "__name__", hints[first])
        raise wrong(f"the handler's first argument is declared as {declared}")
    try:
        rate = parse_rate(spec.rate) if spec.rate is not None else None
        check_ids = check_of(spec.message)
        unchecked = find_unchecked(spec.message)
    except (ValueError, TypeError, RecursionError) as error:
        raise wrong(str(error)) from error
    if unchecked is not None:
        raise _unchecked(unchecked, spec.source)
    replies = _answers(hints, Message)
    _check_result(hints, Message, wrong)
    for reply in replies:
        _tag(reply, wrong)
        check_struct(reply, spec.source, is_received=False)
    is_async = inspect.iscoroutinefunction(spec.function)
    _check_price(spec.price, wrong)
    may_wait = is_async or _is_future(hints.get("return"))
    if spec.pipelined and (spec.unordered or not may_wait):
        raise wrong(
            "only a handler that is `async` or returns a Future can be pipelined, and not an "
            "unordered one"
        )
    scope = scope_of(spec.message)
    return Handler(plugin, spec, tag, is_async, may_wait, rate, check_ids, scope, replies)


def _check_result(hints: Mapping[str, Any], base: type, wrong: Wrong) -> None:
    """Raise for a function that says that it returns something else than a struct, or None."""
    for each in _union(hints.get("return")):
        kind = get_origin(each) or each
        if isinstance(kind, type) and kind.__module__ == "builtins" and kind not in _NOTHING:
            raise wrong(f"it returns {kind.__name__}; it must return a {base.__name__} or None")


_NOTHING = (type(None), object)


def check_route(plugin: Plugin[Any], spec: RouteSpec, grants: Collection[str] = GRANTS) -> Route:
    """Check one `@plugin.http`; raises `PluginError`."""
    wrong = blame(spec.source, f"@plugin.http({spec.method!r}, {spec.path!r})")
    if spec.method not in METHODS:
        raise wrong(f"the method must be one of {', '.join(METHODS)}")
    if not ROUTE.match(spec.path):
        raise wrong("the path must look like '/povs/{pov_id}/tally'")
    _check_price(spec.price, wrong)
    before = ""
    for part in spec.path.split("/"):
        name = part.strip("{}")
        if part != name != "pov_id" and (names_pov(name) or names_pov(before)):
            raise wrong(
                f"{part} looks like a PoV, which nobody would check; call it {{pov_id}}, and every "
                "other PoV of the request a PovId of its body"
            )
        before = "" if part != name else part
    check_arguments(spec.function, (REQUEST,), wrong)
    check_function(spec.function, wrong)
    check_grant(spec.grant, grants, wrong)
    if spec.body is not None:
        _check_body(spec, spec.body, wrong)
    hints = hints_of(spec.function)
    answers = _answers(hints, msgspec.Struct)
    _check_result(hints, msgspec.Struct, wrong)
    for answer in answers:
        check_struct(answer, spec.source, is_received=False)
    return Route(plugin, spec, answers[0] if answers else None)


def _check_price(price: object, wrong: Callable[[str], PluginError]) -> None:
    is_number = isinstance(price, int | float) and 0 <= price < 1e6
    if not is_number and not callable(price):
        raise wrong(f"the price {price!r} must be a number from 0 on")


def _check_body(
    spec: RouteSpec, body: type[msgspec.Struct], wrong: Callable[[str], PluginError]
) -> None:
    if spec.method not in WITH_BODY:
        raise wrong(f"only {', '.join(WITH_BODY)} have a body")
    check_struct(body, spec.source)
    try:
        check_of(body)
        unchecked = find_unchecked(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise wrong(str(error)) from error
    if unchecked is not None:
        raise _unchecked(unchecked, spec.source)


def _unchecked(field: Unchecked, used_at: Source) -> PluginError:
    """Return the error for what is named like a PoV and is not made of ids, with a way to mend it.

    It names the line of the field, or if the class's source is not known that where it is used.
    """
    source, line = find_field(field.owner, field.name) or used_at, f"{field.name}: PovId"
    if source is not used_at:
        text = linecache.getline(source.file, source.line)
        line = re.sub(r"\bstr\b", "PovId", text.strip())
    return PluginError(
        source,
        f"{field.owner.__name__}: the field {field.path!r} is named like a PoV, and nobody would "
        f"check it against the token; write `{line if 'PovId' in line else 'PovId'}`, or "
        "`UncheckedId` in place of `PovId` if the function itself asks for what it needs",
    )


def check_hooks(plugin: Plugin[Any], problems: Problems) -> None:
    """Check the lifespan, the timers and the hooks of a plugin."""
    for lifespan in plugin.lifespans:
        wrong = blame(source_of(lifespan), "@plugin.lifespan")
        with problems.gather(), _blaming(source_of(lifespan)):
            if not inspect.isasyncgenfunction(lifespan):
                raise wrong("must be `async def` with one `yield`")
            if len(plugin.lifespans) > 1:
                raise wrong("a plugin has only one")
            check_arguments(lifespan, (HOST,), wrong)
            check_function(lifespan, wrong, may_yield=True)
    for hook in plugin.hooks:
        wrong = blame(hook.source, f"@plugin.{hook.name}")
        with problems.gather(), _blaming(hook.source):
            check_arguments(hook.function, ARGUMENTS[hook.name], wrong)
            rule = HOOKS[hook.name]
            check_function(hook.function, wrong, may_yield=rule.yields)
            if rule.yields and not inspect.isasyncgenfunction(hook.function):
                raise wrong("must be `async def` with a `yield` for each value")
            if inspect.iscoroutinefunction(hook.function) and not rule.may_be_async:
                raise wrong("must be a plain function: nobody waits for it")
    for timer in plugin.timers:
        wrong = blame(timer.source, "@plugin.every")
        with problems.gather(), _blaming(timer.source):
            check_seconds(timer.seconds, wrong)
            check_arguments(timer.function, (HOST,), wrong)
            check_function(timer.function, wrong)

    names: set[str] = set()
    for follower in plugin.followers:
        wrong = blame(follower.source, "@plugin.follows")
        with problems.gather(), _blaming(follower.source):
            check_arguments(follower.function, FOLLOWED, wrong)
            check_function(follower.function, wrong)
            if follower.since not in ("now", "beginning"):
                raise wrong(f"since must be 'now' or 'beginning', not {follower.since!r}")
            if follower.function.__name__ in names:
                raise wrong("another one of that name would share its place in the log")
            names.add(follower.function.__name__)


def check_events(plugin: Plugin[Any], by_name: Mapping[str, Found], problems: Problems) -> None:
    """Check what a plugin announces, and what it hears against what others announce."""
    for event in plugin.announces:
        place = Source(inspect.getfile(plugin.announces[0]), 1)
        with problems.gather(), _blaming(place):
            wrong = blame(Source(inspect.getfile(event), 1), f"announces {event.__name__}")
            check_struct(event, place)
            if _event_tag(event, wrong).partition(".")[0] != plugin.name:
                raise wrong(f"the tag must begin with '{plugin.name}.'")
    for spec in plugin.listeners:
        with problems.gather(), _blaming(spec.source):
            _check_listener(spec, by_name)


def _check_listener(spec: ListenerSpec, by_name: Mapping[str, Found]) -> None:
    wrong = blame(spec.source, f"@plugin.hears({getattr(spec.event, '__name__', spec.event)})")
    tag = _event_tag(spec.event, wrong)
    check_arguments(spec.function, (EVENT, HOST), wrong)
    check_function(spec.function, wrong)
    if inspect.iscoroutinefunction(spec.function):
        raise wrong("must be a plain function; the plugin that announces does not wait")
    other = by_name.get(tag.partition(".")[0])
    announced = other.plugin.announces if other is not None else ()
    said = next((each for each in announced if each.__struct_config__.tag == tag), None)
    if said is None:
        raise wrong(f"no plugin announces {tag!r}")
    known = typing.get_type_hints(said)
    for name, kind in typing.get_type_hints(spec.event).items():
        if known.get(name) != kind:
            raise wrong(f"{tag!r} has no field {name!r} of that type")


def _event_tag(event: Any, wrong: Callable[[str], PluginError]) -> str:
    if not (isinstance(event, type) and issubclass(event, Event)):
        raise wrong("this is no subclass of Event")
    tag = event.__struct_config__.tag
    if not isinstance(tag, str) or "." not in tag or not TAG.match(tag):
        raise wrong(f'{event.__name__} needs a tag like Event, tag="poll.closed"')
    return tag


def _tag(message: type[Message], wrong: Callable[[str], PluginError]) -> str:
    """Return the wire type, refusing what msgspec would take in silence."""
    if not (isinstance(message, type) and issubclass(message, Message)):
        raise wrong("the first argument must be a subclass of Message")
    tag = message.__struct_config__.tag
    if tag == message.__name__:
        # Without `tag=` msgspec uses the class's name.
        raise wrong(
            f'{message.__name__} has no tag; write class {message.__name__}(Message, tag="...")'
        )
    if not isinstance(tag, str) or not TAG.match(tag) or len(tag) > 64:
        raise wrong(f"the tag {tag!r} must look like 'poll.vote' and have at most 64 characters")
    for base in message.__mro__[1:]:
        if base is not Message and issubclass(base, Message) and base.__struct_config__.tag == tag:
            raise wrong(
                f"{message.__name__} inherits the tag {tag!r} of {base.__name__}; give it its own"
            )
    if any(tag == push.__struct_config__.tag and message is not push for push in CORE_PUSHES):
        raise wrong(f"the type {tag!r} belongs to the server")
    return tag


def _answers(hints: Mapping[str, Any], base: type[StructT]) -> tuple[type[StructT], ...]:
    """Return the classes that a function may return, of those derived from `base`."""
    kinds = _union(hints.get("return"))
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, base))


def _is_future(hint: Any) -> bool:
    """Tell whether something is declared to be a future, or may be one."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return any(Future in (each, get_origin(each)) for each in members)


def _union(hint: Any) -> Iterable[Any]:
    """Yield the members of a union; of `Future[X]` those of X."""
    if get_origin(hint) in (Union, UnionType, Future):
        for each in get_args(hint):
            yield from _union(each)
    elif hint is not None:
        yield hint


def _has_what_it_needs(found: Found, options: msgspec.Struct | None) -> bool:
    needs = found.plugin.needs
    if needs is None:
        return True
    if options is None or needs not in options.__struct_fields__:
        raise PluginError(
            _place_of(found), f"the plugin needs {needs!r}, which is none of its options"
        )
    return bool(getattr(options, needs))


def check_roles(auth: AuthSettings, registry: Registry) -> None:
    """Raise `SettingsError` for a role with a grant that there is not: it would allow nothing."""
    for role, settings in auth.roles.items():
        for grant in settings.can:
            if grant not in registry.grants:
                raise SettingsError(f"auth.roles.{role}.can: {say_unknown(grant, registry.grants)}")


def _options(plugin: Plugin[Any], given: Mapping[str, Any]) -> msgspec.Struct | None:
    table = {name: value for name, value in given.items() if name != "enabled"}
    if plugin.options is None:
        if table:
            raise SettingsError(f"plugins.{plugin.name}.{min(table)}: this plugin has no options")
        return None
    names = {field.encode_name for field in msgspec.structs.fields(plugin.options)}
    if unknown := sorted(set(table) - names):
        raise SettingsError(
            f"plugins.{plugin.name}.{unknown[0]}: no such option; "
            f"there are {', '.join(sorted(names))}"
        )
    problems: list[str] = []
    for option in msgspec.structs.fields(plugin.options):
        if option.encode_name in table:
            name = f"plugins.{plugin.name}.{option.encode_name}"
            try:
                convert(name, table[option.encode_name], option.type, None)
            except SettingsError as error:
                problems.append(str(error))
    if problems:
        raise SettingsError("\n".join(problems))
    options: msgspec.Struct = convert(f"plugins.{plugin.name}", table, plugin.options, None)
    return options
