"""Which changes of a schema break clients: those that send it, and those that receive it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import is_valid

from pov_rt.activities.details.walk import subschemas
from pov_rt.registry.schema.compare import Direction, compare_schemas

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
NONE = {"type": "null"}


def fields(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def choice(*values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


def either(*schemas: Any) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def rule(title: str, condition: Any, then: Any) -> dict[str, Any]:
    return {"allOf": [{"title": title, "if": condition, "then": then}]}


TASK = {"properties": {"type": {"const": "task"}}}
LOOP = {
    "$ref": "#/$defs/node",
    "$defs": {"node": fields(next=either({"$ref": "#/$defs/node"}, NONE), name=TEXT)},
}
LOOP_LONGER = {
    "$ref": "#/$defs/node",
    "$defs": {"node": fields("name", next=either({"$ref": "#/$defs/node"}, NONE), name=TEXT)},
}

BOTH, SENT, RECEIVED, NOBODY = (
    ("sent", "received"),
    ("sent",),
    ("received",),
    (),
)

CASES: list[tuple[str, Any, Any, tuple[str, ...], str]] = [
    ("a new field", fields(), fields(a=TEXT), NOBODY, ".a: is new"),
    ("a new required field", fields(), fields("a", a=TEXT), SENT, ".a: is new, and has to be"),
    ("a field that is gone", fields(a=TEXT), fields(), BOTH, ".a: is gone"),
    ("a required field that is gone", fields("a", a=TEXT), fields(), BOTH, ".a: is gone"),
    ("required", fields(a=TEXT), fields("a", a=TEXT), SENT, ".a: has to be there now"),
    ("optional", fields("a", a=TEXT), fields(a=TEXT), RECEIVED, ".a: may be absent now"),
    ("nullable", fields(a=TEXT), fields(a=either(TEXT, NONE)), RECEIVED, ".a: may be null now"),
    ("not nullable", {"type": ["string", "null"]}, TEXT, SENT, ": may not be null any more"),
    ("one type less", either(TEXT, NUMBER), TEXT, SENT, ": may not be a number any more"),
    ("another type", TEXT, {"type": "boolean"}, BOTH, ": may be true or false now"),
    ("a narrower number", NUMBER, INTEGER, SENT, ": is a whole number now, and was a number"),
    ("a wider number", INTEGER, NUMBER, RECEIVED, ": is a number now, and was a whole number"),
    ("anything", TEXT, {}, RECEIVED, ": is anything now, and was a string"),
    ("no longer anything", True, TEXT, SENT, ": is a string now, and was anything"),
    ("a choice less", choice("a", "b"), choice("a"), SENT, ': may not be "b" any more'),
    ("a choice more", choice("a"), choice("a", "b"), RECEIVED, ': may be "b" now'),
    ("null as a choice", choice("a"), choice("a", None), RECEIVED, ": may be null now"),
    ("any text instead of a choice", choice("a"), TEXT, RECEIVED, ": may have other values now"),
    ("a choice instead of any text", TEXT, choice("a"), SENT, ': may only be "a" now'),
    ("a const is a choice of one", choice("a"), {"const": "a"}, NOBODY, ""),
    ("shorter", {**TEXT, "maxLength": 9}, {**TEXT, "maxLength": 5}, SENT, ": maxLength is 5"),
    ("longer", {**TEXT, "maxLength": 5}, {**TEXT, "maxLength": 9}, RECEIVED, ": maxLength is 9"),
    ("a bound", INTEGER, {**INTEGER, "minimum": 0}, SENT, ": minimum is 0, and was none"),
    ("no bound", {**INTEGER, "minimum": 0}, INTEGER, RECEIVED, ": minimum is none, and was 0"),
    ("a pattern", TEXT, {**TEXT, "pattern": "a"}, SENT, ": has the condition pattern now"),
    ("no pattern", {**TEXT, "pattern": "a"}, TEXT, RECEIVED, "the condition pattern no longer"),
    ("another pattern", {**TEXT, "pattern": "a"}, {**TEXT, "pattern": "b"}, BOTH,
     ": has another condition pattern"),
    ("what has no rule", TEXT, {**TEXT, "unheardOf": 1}, SENT, "the condition unheardOf now"),
    ("words", {**TEXT, "title": "a"}, {**TEXT, "description": "b", "x-more": 1}, NOBODY, ""),
    ("items", {"type": "array", "items": TEXT}, {"type": "array", "items": either(TEXT, NONE)},
     RECEIVED, "[]: may be null now"),
    ("the first of a list", {"type": "array", "prefixItems": [TEXT]},
     {"type": "array", "prefixItems": [{**TEXT, "minLength": 1}]}, SENT, "[0]: minLength is 1"),
    ("repetitions", {"type": "array", "uniqueItems": False},
     {"type": "array", "uniqueItems": True}, SENT, "uniqueItems now"),
    ("values of a map", {"type": "object", "additionalProperties": TEXT},
     {"type": "object", "additionalProperties": INTEGER}, BOTH, ".*: may be a whole number now"),
    ("closed", fields(), {**fields(), "additionalProperties": False}, SENT, "no field any more"),
    ("open", {**fields(), "additionalProperties": False}, fields(), NOBODY, "may have fields"),
    ("tagged objects", either(fields("k", k=choice("a")), fields("k", k=choice("b"), x=TEXT)),
     either(fields("k", k=choice("b")), fields("k", k=choice("a"))), BOTH, ".x: is gone"),
    ("a reference", {"$ref": "#/$defs/a", "$defs": {"a": fields(x=TEXT)}},
     {"$ref": "#/$defs/b", "$defs": {"b": fields(x=INTEGER)}}, BOTH, ".x: may be a whole number"),
    ("in place of a reference", {"$ref": "#/$defs/a", "$defs": {"a": TEXT}}, TEXT, NOBODY, ""),
    ("joined", {"allOf": [fields(x=TEXT), fields("y", y=TEXT)]}, fields("y", x=TEXT, y=TEXT),
     NOBODY, ""),
    ("a part of what is joined", {"allOf": [fields(x=TEXT), fields(y=TEXT)]},
     {"allOf": [fields(x=TEXT), fields("y", y=TEXT)]}, SENT, ".y: has to be there now"),
    ("a loop", LOOP, LOOP_LONGER, SENT, ".name: has to be there now"),
    ("a rule", {}, rule("task", TASK, fields(a=TEXT)), SENT, " (task): is declared now"),
    ("no rule", rule("task", TASK, fields(a=TEXT)), {}, RECEIVED, "is not declared any more"),
    ("within a rule", rule("task", TASK, fields(a=TEXT)), rule("task", TASK, fields("a", a=TEXT)),
     SENT, " (task).a: has to be there now"),
    ("for whom a rule is", rule("task", TASK, {}), rule("task", fields(a=TEXT), {}), BOTH,
     " (task): is declared for others than before"),
    ("nothing fits", fields(a=False), fields(a=TEXT), RECEIVED, ".a: may be a string now"),
    ("what a condition refers to", {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": TEXT}},
     {"not": {"$ref": "#/$defs/a"}, "$defs": {"a": INTEGER}}, BOTH, "another condition not"),
]  # fmt: skip
DIRECTIONS: tuple[Direction, ...] = ("sent", "received")


@pytest.mark.parametrize(
    ("name", "old", "new", "breaks", "words"), CASES, ids=lambda each: str(each)[:40]
)
def test_who_is_broken_by_a_change(
    name: str, old: Any, new: Any, breaks: tuple[str, ...], words: str
) -> None:
    for direction in DIRECTIONS:
        changes = compare_schemas(old, new, direction)
        said = "\n".join(f"{change.where}: {change.what}" for change in changes)
        assert any(change.breaking for change in changes) == (direction in breaks), said
        assert words in said if words else not said
        assert all(change.direction == direction for change in changes)


@pytest.mark.parametrize("schema", [case[index] for case in CASES for index in (1, 2)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_did_not_change_is_not_told(schema: Any, direction: Direction) -> None:
    assert compare_schemas(schema, schema, direction) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, TEXT]},
        {"allOf": [{"$ref": "#"}, TEXT]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}},
    ],
    ids=str,
)
def test_circles_end(schema: Any) -> None:
    assert compare_schemas(schema, schema, "sent") == []
    compare_schemas(schema, TEXT, "sent")
    compare_schemas(TEXT, schema, "received")


def test_a_reference_to_nothing_is_an_error() -> None:
    with pytest.raises(LookupError):
        compare_schemas({"$ref": "#/$defs/none"}, TEXT, "sent")


CHOICES = st.sampled_from(["a", "b", 1, None])
SCALARS = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.builds(lambda values: {"enum": values}, st.lists(CHOICES,
                                                        min_size=1, unique=True)),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"])},
                          optional={"minimum": st.integers(0, 2), "maximum": st.integers(1, 3)}),
    st.fixed_dictionaries({"type": st.just("string")},
                          optional={"maxLength": st.integers(0, 2)}),
)  # fmt: skip


def schemas(*, closed: bool) -> st.SearchStrategy[Any]:
    """Return schemas whose objects take fields that they do not know, or none."""

    def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        properties = st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
        objects = st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required & properties.keys()),
                **({"additionalProperties": False} if closed else {}),
            },
            properties,
            st.sets(st.sampled_from("xyz")),
        )
        lists = st.builds(
            lambda items, most: {"type": "array", "items": items, "maxItems": most},
            inner,
            st.integers(0, 2),
        )
        unions = st.builds(
            lambda several: {"anyOf": several}, st.lists(inner, min_size=1, max_size=2)
        )
        return st.one_of(objects, lists, unions)

    return st.recursive(SCALARS, larger, max_leaves=5)


VALUES = st.recursive(
    st.sampled_from([None, True, "", "a", "b", "abc", 0, 1, 2, 1.5]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(schemas(closed=False), st.sampled_from(DIRECTIONS))
def test_no_schema_differs_from_itself(schema: Any, direction: Direction) -> None:
    assert compare_schemas(schema, schema, direction) == []


@st.composite
def pairs(draw: st.DrawFn, *, closed: bool) -> tuple[Any, Any]:
    """Return a schema and another one, which is the same but for one place."""
    old = draw(schemas(closed=closed))
    new = copy.deepcopy(old)
    place = draw(st.sampled_from([each for _, each in subschemas(new)]))
    if draw(st.integers(0, 3)) == 0:
        other = draw(schemas(closed=closed))
        place.clear()
        place.update(other)
        return old, new
    keyword = draw(st.sampled_from(sorted(place)))
    if keyword == "required":
        names = st.sampled_from(sorted(place["properties"]) or ["x"])
        place[keyword] = draw(st.lists(names, unique=True))
    elif keyword == "properties":
        place[keyword] = {**place[keyword], **draw(st.dictionaries(st.just("x"), SCALARS))}
    elif keyword == "enum":
        place[keyword] = draw(st.lists(CHOICES, min_size=1, unique=True))
    elif keyword == "anyOf":
        place[keyword] = place[keyword][:1]
    elif type(place[keyword]) is int:
        place[keyword] = max(0, place[keyword] + draw(st.integers(-1, 1)))
    return old, new


def fitting(draw: st.DrawFn, schema: Any) -> Any:
    """Return a value that fits a schema, if any does."""
    if "anyOf" in schema:
        return fitting(draw, draw(st.sampled_from(schema["anyOf"])))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    kind, least, most = schema.get("type"), schema.get("minimum", 0), schema.get("maximum", 4)
    if kind == "object":
        wanted = draw(st.sets(st.sampled_from("xyz"))) | set(schema.get("required", []))
        fields = schema.get("properties", {})
        return {name: fitting(draw, fields[name]) for name in sorted(wanted & fields.keys())}
    if kind == "array":
        count = draw(st.integers(0, schema.get("maxItems", 3)))
        return [fitting(draw, schema.get("items", {})) for _ in range(count)]
    if kind == "string":
        return "abc"[: draw(st.integers(0, schema.get("maxLength", 3)))]
    if kind in ("integer", "number"):
        return draw(st.sampled_from(range(least, max(least, most) + 1))) + (
            draw(st.sampled_from([0, 0.5])) if kind == "number" else 0
        )
    return draw({"null": st.none(), "boolean": st.booleans()}.get(kind, VALUES))


@st.composite
def pairs_with_values(draw: st.DrawFn, *, closed: bool, of_new: bool) -> tuple[Any, Any, list[Any]]:
    """Return a schema, one that differs in one place, and values that fit one of them."""
    old, new = draw(pairs(closed=closed))
    one, other = (new, old) if of_new else (old, new)
    values = [fitting(draw, one) for _ in range(5)]
    return old, new, [each for each in values if is_valid(one, each) and not is_valid(other, each)]


@given(pairs_with_values(closed=True, of_new=False))
def test_what_was_taken_and_is_not_any_more_is_told_as_breaking(
    found: tuple[Any, Any, list[Any]],
) -> None:
    old, new, lost = found
    breaks = any(change.breaking for change in compare_schemas(old, new, "sent"))
    assert breaks or not lost, lost


@given(pairs_with_values(closed=False, of_new=True))
def test_what_comes_and_never_came_before_is_told_as_breaking(
    found: tuple[Any, Any, list[Any]],
) -> None:
    old, new, unheard = found
    breaks = any(change.breaking for change in compare_schemas(old, new, "received"))
    assert breaks or not unheard, unheard


@given(st.dictionaries(st.sampled_from("xyz"), schemas(closed=False)), schemas(closed=False))
def test_a_new_field_that_may_be_absent_breaks_nobody(known: dict[str, Any], more: Any) -> None:
    for direction in DIRECTIONS:
        (change,) = compare_schemas(fields(**known), fields(**known, more=more), direction)
        assert (change.breaking, change.where, change.what) == (False, ".more", "is new")
