"""What changes for clients between two JSON Schemas: the rule of `pov-rt schema diff`.

A schema is *narrowed* where less fits than did, and *widened* where more does. Of what clients send
the one breaks them, of what they receive the other: they have to expect what they never saw. Fields
that are new are passed over by whoever does not know them, so that they break nobody unless they
have to be sent; fields that are gone break both.

Where two schemas cannot be compared in detail (`not`, `pattern`, conditions), another one counts as
both: better a break too many than one that nobody was told of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pov_rt.activities.details.walk import resolve
from pov_rt.activities.details.words import expected, listed, literal

Direction = Literal["sent", "received"]
"""By clients."""

LOWER = ("exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum")
UPPER = ("exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum")
COMPARED = frozenset(
    {"$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "items", "oneOf"}
    | {"prefixItems", "properties", "required", "type", *LOWER, *UPPER}
)
"""Keywords with rules of their own. Every other one is compared as a whole."""
NOTES = frozenset(
    {"$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description"}
    | {"discriminator", "examples", "readOnly", "title", "writeOnly"}
)
"""Keywords that say nothing about what fits."""

ANYTHING = "any"
SORTS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)


class Change(NamedTuple):
    """One difference. `where` is a path such as `publish.data.details`, `what` says it in words."""

    breaking: bool
    direction: Direction
    where: str
    what: str


class Side(NamedTuple):
    """A schema with the document that its references lead into."""

    schema: Any
    root: Any

    def at(self, schema: Any) -> Side:
        """Return another schema of the same document."""
        return Side(schema, self.root)


class Comparison:
    """Compares schemas of two documents in one direction; what both refer to is told of once."""

    def __init__(self, direction: Direction) -> None:
        self.direction: Direction = direction
        self.changes: list[Change] = []
        self._seen: set[tuple[str, str]] = set()

    def compare(self, old: Side, new: Side, where: str, *, is_top: bool = True) -> None:
        """Add what differs. Raises `LookupError` for a reference that leads nowhere.

        Below the top what has a name in its document is called by that.
        """
        if _is_open(old.schema) and _is_open(new.schema):
            return
        before, after = list(_alternatives(old)), list(_alternatives(new))
        for one, other in _pairs(before, after):
            if one.name and other.name:
                if (one.name, other.name) in self._seen:
                    continue
                self._seen.add((one.name, other.name))
            place = where if is_top or not other.name else other.name.rpartition("/")[2]
            self._pair(one, other, old, new, place)
        for each in before:
            self._narrowed(where, f"may not be {_shown(each, old)} any more")
        for each in after:
            self._widened(where, f"may be {_shown(each, new)} now")

    def _narrowed(self, where: str, what: str) -> None:
        self.say(where, what, breaking=self.direction == "sent")

    def _widened(self, where: str, what: str) -> None:
        self.say(where, what, breaking=self.direction == "received")

    def say(self, where: str, what: str, *, breaking: bool) -> None:
        """Add a change."""
        self.changes.append(Change(breaking, self.direction, where, what))

    def _pair(self, one: _Kind, other: _Kind, old: Side, new: Side, where: str) -> None:
        if one.type != other.type:  # integer and number, or one of them is anything
            is_narrower = other.type == "integer" or one.type == ANYTHING
            say = self._narrowed if is_narrower else self._widened
            say(where, f"is {_shown(other, new)} now, and was {_shown(one, old)}")
            if ANYTHING in (one.type, other.type):
                return  # which has no more to compare with
        before, after = one.schema, other.schema
        self._values(before.get("enum"), after.get("enum"), where)
        self._bounds(before, after, where)
        self._fields(old.at(before), new.at(after), where)
        self._items(old.at(before), new.at(after), where)
        self._rules(old.at(before.get("allOf", [])), new.at(after.get("allOf", [])), where)
        for keyword in sorted((before.keys() | after.keys()) - COMPARED - NOTES):
            if not keyword.startswith("x-"):
                self._constraint(keyword, old.at(before), new.at(after), where)

    def _values(self, before: list[Any] | None, after: list[Any] | None, where: str) -> None:
        if before is None and after is not None:
            self._narrowed(where, f"may only be {listed(_literals(after))} now")
        elif before is not None and after is None:
            self._widened(where, "may have other values now")
        elif before is not None and after is not None:
            had, has = _literals(before), _literals(after)
            for value in had:
                if value not in has:
                    self._narrowed(where, f"may not be {value} any more")
            for value in has:
                if value not in had:
                    self._widened(where, f"may be {value} now")

    def _bounds(self, before: Mapping[str, Any], after: Mapping[str, Any], where: str) -> None:
        for keyword in (*LOWER, *UPPER):
            was, now = before.get(keyword), after.get(keyword)
            if was == now:
                continue
            is_narrower = was is None or (
                now is not None and (now > was if keyword in LOWER else now < was)
            )
            say = self._narrowed if is_narrower else self._widened
            say(where, f"{keyword} is {_or_none(now)}, and was {_or_none(was)}")

    def _fields(self, old: Side, new: Side, where: str) -> None:
        before, after = old.schema.get("properties", {}), new.schema.get("properties", {})
        had, has = set(old.schema.get("required", [])), set(new.schema.get("required", []))
        for name in dict.fromkeys([*before, *after, *sorted(had | has)]):
            place = f"{where}.{name}"
            if name in after and name not in before and name not in had:
                required = name in has
                what = "is new, and has to be there" if required else "is new"
                self.say(place, what, breaking=required and self.direction == "sent")
            elif name in before and name not in after and name not in has:
                self.say(place, "is gone", breaking=True)
            else:
                if name in has - had:
                    self._narrowed(place, "has to be there now")
                elif name in had - has:
                    self._widened(place, "may be absent now")
                pair = old.at(before.get(name, True)), new.at(after.get(name, True))
                self.compare(*pair, place, is_top=False)
        self._other_fields(old, new, where)

    def _other_fields(self, old: Side, new: Side, where: str) -> None:
        was = old.schema.get("additionalProperties", True)
        now = new.schema.get("additionalProperties", True)
        if was is False and now is not False:
            self.say(where, "may have fields that are not known now", breaking=False)
        elif now is False and was is not False:
            self._narrowed(where, "may have no field any more that is not known")
        else:
            self.compare(old.at(was), new.at(now), f"{where}.*", is_top=False)

    def _items(self, old: Side, new: Side, where: str) -> None:
        before, after = old.schema.get("prefixItems", []), new.schema.get("prefixItems", [])
        rest = old.schema.get("items", True), new.schema.get("items", True)
        for index in range(max(len(before), len(after))):
            one = before[index] if index < len(before) else rest[0]
            other = after[index] if index < len(after) else rest[1]
            self.compare(old.at(one), new.at(other), f"{where}[{index}]", is_top=False)
        self.compare(old.at(rest[0]), new.at(rest[1]), f"{where}[]", is_top=False)

    def _rules(self, old: Side, new: Side, where: str) -> None:
        """Compare what holds under a condition, which a title names."""
        before = {_rule_name(each, old): each for each in old.schema}
        after = {_rule_name(each, new): each for each in new.schema}
        for name in dict.fromkeys([*before, *after]):
            place = f"{where} ({name})"
            if name not in after:
                self._widened(place, "is not declared any more")
            elif name not in before:
                self._narrowed(place, "is declared now")
            else:
                one, other = before[name], after[name]
                if _plain(one["if"], old.root) != _plain(other["if"], new.root):
                    self.say(place, "is declared for others than before", breaking=True)
                for part in ("then", "else"):
                    pair = old.at(one.get(part, True)), new.at(other.get(part, True))
                    self.compare(*pair, place)

    def _constraint(self, keyword: str, old: Side, new: Side, where: str) -> None:
        was, now = (_plain(_wanted(side.schema, keyword), side.root) for side in (old, new))
        if was == now:
            return
        if was == "null":
            self._narrowed(where, f"has the condition {keyword} now")
        elif now == "null":
            self._widened(where, f"has the condition {keyword} no longer")
        else:
            self.say(where, f"has another condition {keyword}", breaking=True)


class _Kind(NamedTuple):
    """One of the alternatives of a schema: of one type, without references at its top.

    `name` is the last reference that led to it, `tag` what tells it from other objects.
    """

    type: str
    schema: dict[str, Any]
    name: str = ""
    tag: str = ""


def compare_schemas(old: Any, new: Any, direction: Direction, where: str = "") -> list[Change]:
    """Return the changes from one schema to another one, each being its own document."""
    comparison = Comparison(direction)
    comparison.compare(Side(old, old), Side(new, new), where)
    return comparison.changes


def _alternatives(side: Side, inside: frozenset[str] = frozenset()) -> Iterator[_Kind]:
    """Yield what a schema may be; `inside` are the references that led to it."""
    schema, name, followed = _flat(side.schema, side.root, inside)
    if schema is False:
        return
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            rest = {key: value for key, value in schema.items() if key != keyword}
            for each in schema[keyword]:
                if not isinstance(each, dict) or each.get("$ref") not in followed:
                    yield from _alternatives(side.at(_joined(each, rest)), followed)
            return
    yield from _by_type(schema, name)


def _flat(schema: Any, root: Any, inside: frozenset[str]) -> tuple[Any, str, frozenset[str]]:
    """Return a schema with what it refers to, and what `allOf` has, as if it were its own.

    With the reference that it began with, and all that were followed. What holds under a condition
    stays in `allOf`. False: nothing fits.
    """
    if isinstance(schema, bool):
        return {} if schema else False, "", inside
    name = schema.get("$ref", "")
    parts: list[Any] = []
    rules: list[Any] = []
    if name and name not in inside:
        inside |= {name}
        parts.append(resolve(root, name))
    for each in schema.get("allOf", []):
        (rules if isinstance(each, dict) and "if" in each else parts).append(each)
    found = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
    for part in parts:
        inner, _, inside = _flat(part, root, inside)
        found = _joined(inner, found)
        if found is False:
            return False, name, inside
    if rules:
        found["allOf"] = [*found.get("allOf", []), *rules]
    return found, name, inside


def _by_type(schema: dict[str, Any], name: str) -> Iterator[_Kind]:
    if "const" in schema:
        rest = {key: value for key, value in schema.items() if key != "const"}
        schema = {**rest, "enum": [schema["const"]]}
    kinds = schema.get("type")
    if kinds is None and "enum" in schema:
        kinds = list(dict.fromkeys(_sort_of(value) for value in schema["enum"]))
    if not isinstance(kinds, list):
        kinds = [kinds or ANYTHING]
    for kind in kinds:
        own = schema
        if "enum" in schema:
            values = [each for each in schema["enum"] if _sort_of(each) in (kind, _part_of(kind))]
            own = {**schema, "enum": values}
        yield _Kind(kind, own, name, _tag(own))


def _part_of(kind: str) -> str:
    return "integer" if kind == "number" else kind


def _sort_of(value: Any) -> str:
    return next(sort for kind, sort in SORTS if isinstance(value, kind))


def _joined(schema: Any, more: dict[str, Any]) -> Any:
    """Return what fits both, as far as that can be said in one."""
    if not isinstance(schema, dict):
        return False if schema is False else more
    both = {**schema, **more}
    if "properties" in schema and "properties" in more:
        both["properties"] = {**schema["properties"], **more["properties"]}
    for keyword in ("required", "allOf"):
        if keyword in schema and keyword in more:
            both[keyword] = [*schema[keyword], *more[keyword]]
    return both


def _tag(schema: Mapping[str, Any]) -> str:
    """Return the values of the fields that can only have one: they tell objects apart."""
    values = {
        name: each.get("enum", [each.get("const")])
        for name, each in schema.get("properties", {}).items()
        if isinstance(each, dict) and ("const" in each or len(each.get("enum", ())) == 1)
    }
    return json.dumps(values, sort_keys=True) if values else ""


def _pairs(before: list[_Kind], after: list[_Kind]) -> list[tuple[_Kind, _Kind]]:
    """Take out what belongs together, the most alike first: what is left is gone, or new."""
    found = []
    for is_alike in _LIKENESS:
        for one in list(before):
            other = next((each for each in after if is_alike(one, each)), None)
            if other is not None:
                before.remove(one)
                after.remove(other)
                found.append((one, other))
    return found


_LIKENESS = (
    lambda one, other: one == other,
    lambda one, other: (one.type, one.tag, one.name) == (other.type, other.tag, other.name),
    lambda one, other: (one.type, one.tag) == (other.type, other.tag),
    lambda one, other: one.type == other.type,
    lambda one, other: {one.type, other.type} == {"integer", "number"},
    lambda one, other: ANYTHING in (one.type, other.type),
)


def _rule_name(rule: Mapping[str, Any], side: Side) -> str:
    return str(rule.get("title") or _plain(rule["if"], side.root))


def _plain(value: Any, root: Any) -> str:
    """Return a schema as text, with what it refers to in the references' place."""

    def inline(value: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [inline(each, inside) for each in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str) and reference not in inside:
            target = inline(resolve(root, reference), (*inside, reference))
            return {**{k: inline(v, inside) for k, v in value.items()}, "$ref": target}
        return {key: inline(each, inside) for key, each in value.items()}

    return json.dumps(inline(value, ()), sort_keys=True)


def _shown(kind: _Kind, side: Side) -> str:
    if kind.type == ANYTHING:
        return "anything"
    if kind.name and kind.type == "object":
        return kind.name.rpartition("/")[2]
    return expected({**kind.schema, "type": kind.type}, side.root)


def _is_open(schema: Any) -> bool:
    return schema is True or schema == {}


def _wanted(schema: Mapping[str, Any], keyword: str) -> Any:
    """Return a keyword's value; None where it asks for nothing."""
    value = schema.get(keyword)
    return None if keyword == "uniqueItems" and value is False else value


def _literals(values: list[Any]) -> list[str]:
    return [literal(each) for each in values]


def _or_none(bound: Any) -> str:
    return "none" if bound is None else str(bound)
