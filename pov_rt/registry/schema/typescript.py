"""The messages of the socket as TypeScript: what `asyncapi` says, for those who write clients.

It has types alone, which are gone when it is compiled.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from pov_rt.activities.details.walk import resolve
from pov_rt.config.settings import Settings
from pov_rt.protocol.errors import ERRORS, CloseCode
from pov_rt.protocol.messages import MAX_SAFE_INTEGER
from pov_rt.registry.build import Registry
from pov_rt.registry.schema.activities import COMPONENTS, pascal
from pov_rt.registry.schema.documents import Document, asyncapi

HEAD = """\
/**
 * All messages of the socket: made by `pov-rt schema typescript`, which knows those of your own
 * plugins, too (`--plugins-dir`). Change nothing here.
 *
 * A field that may be absent is optional. Servers may add fields and types: ignore what is unknown.
 * `id` is the sender's own, and comes back with the answer.
 */

"""
WIDTH = 110
NAMELESS = frozenset({"type", "id"})
"""Fields whose values are no type of their own."""
RESERVED = frozenset(
    {"ActivityDetails", "ActivityOf", "Answers", "ClientMessage", "CloseCode", "DetailsOf"}
    | {"ErrorCode", "NewActivityOf", "Omit", "Record", "Requests", "ServerMessage"}
)
DETAILS = """\
/** What `details` is, of a type and action. */
export type DetailsOf<Type extends string, Action extends string, All = ActivityDetails> =
  `${Type}.${Action}` extends keyof All ? All[`${Type}.${Action}`]
  : `${Type}.*` extends keyof All ? All[`${Type}.*`]
  : Record<string, unknown>

/** An activity of a type and action, with its `details` as declared. */
export type ActivityOf<Type extends string, Action extends string, All = ActivityDetails> =
  Activity & {type: Type; action: Action} & WithDetails<DetailsOf<Type, Action, All>>

/** The same as it is published. */
export type NewActivityOf<Type extends string, Action extends string, All = ActivityDetails> =
  Omit<NewActivity, 'type' | 'action' | 'details'> & {type: Type; action: Action}
  & WithDetails<DetailsOf<Type, Action, All>>

type WithDetails<Details> = {} extends Details ? {details?: Details} : {details: Details}
"""
"""What follows from `ActivityDetails`, whatever that has."""
_LOADED = re.compile(r"^pov_rt_plugin_|_[0-9a-f]{12}$")
"""What discovery adds to a plugin's name."""
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*")


def typescript(registry: Registry, settings: Settings) -> str:
    """Return a module with a type for each message and for each object in one."""
    return HEAD + "\n".join(_Module(asyncapi(registry, settings)).declarations())


class _Module:
    """The names and the declarations of one document."""

    def __init__(self, document: Document) -> None:
        self._schemas: Document = document["components"]["schemas"]
        self._messages: Document = document["components"]["messages"]
        self._operations: Document = document["operations"]
        of_message = {_last(message["payload"]): name for name, message in self._messages.items()}
        self._names: dict[str, str] = {}
        for schema in self._schemas:
            if schema not in of_message:
                self._names[schema] = self._free(_part_name(schema, self._schemas))
        for schema, message in of_message.items():
            self._names[schema] = self._free(_message_name(message, schema), "Message")
        self._choices = self._named_choices()

    def declarations(self) -> Iterator[str]:
        """Yield all of it, in an order that stays the same."""
        for name, values in sorted(self._choices.items()):
            yield _alias(name, map(_literal, values), f"What `{_camel(name)}` may be.")
        for schema, name in sorted(self._names.items(), key=lambda pair: pair[1]):
            yield self._declaration(name, self._schemas[schema])
        yield self._details()
        yield DETAILS
        every = self._operations.values()
        received = [each for each in every if each["action"] == "receive"]
        asked = [each for each in received if "reply" in each]
        sent = [each["messages"] for each in every if each["action"] == "send"]
        sent += [each["reply"]["messages"] for each in asked]
        taken = [each["messages"] for each in received]
        yield _alias("ServerMessage", self._kinds(*sent), "All that a server sends.")
        yield _alias("ClientMessage", self._kinds(*taken), "All that a server takes.")
        yield self._table("Requests", asked, lambda each: each["messages"], "What is answered.")
        yield self._table(
            "Answers",
            asked,
            lambda each: each["reply"]["messages"],
            "What the answer is, where it is no `error`.",
        )
        codes = dict.fromkeys(error.code for error in ERRORS)
        yield _alias(
            "ErrorCode",
            map(_literal, codes),
            "The codes of the server's own errors; plugins have others.",
        )
        yield _alias(
            "CloseCode",
            (str(each.code) for each in CloseCode),
            "Why a socket was closed. From 4000 to 4499: come back; from 4500 on: do not.",
        )

    def _free(self, name: str, more: str = "_") -> str:
        """Return a name that nothing else has."""
        while name in RESERVED or name in self._names.values():
            name += more
        return name

    def _named_choices(self) -> dict[str, list[Any]]:
        """Return the choices that have a name, that of their field.

        Where there are others under it, those of a type without a plugin's name before it have it.
        """
        found: dict[str, list[Any]] = {}
        names = sorted(self._messages, key=lambda name: ("." in name, name))
        schemas = [_last(self._messages[name]["payload"]) for name in names]
        for schema in dict.fromkeys([*schemas, *self._schemas]):
            for name, field in self._schemas[schema].get("properties", {}).items():
                choice = pascal(name)
                if not isinstance(field, dict):
                    continue
                if "enum" in field and name not in NAMELESS and self._free(choice) == choice:
                    found.setdefault(choice, field["enum"])
        return found

    def _interface(self, name: str, schema: Document) -> str:
        required = schema.get("required", [])
        fields = schema.get("properties", {})
        docs = inspect.cleandoc(schema.get("description", ""))
        for field in fields:  # which docstrings call as Python does
            docs = docs.replace(f"`{_snake(field)}`", f"`{field}`")
        lines = [*_docs(docs, ""), f"export interface {name} {{"]
        for field, kind in fields.items():
            if isinstance(kind, dict):
                lines += _docs("\n".join(_notes(kind)), "  ")
            mark = "" if field in required else "?"
            lines.append(f"  {_key(field)}{mark}: {self._type(kind, field)}")
        return "\n".join([*lines, "}", ""])

    def _declaration(self, name: str, schema: Document) -> str:
        """Return an object's interface, or a name for anything else."""
        joined = [each for each in schema.get("allOf", []) if "if" not in each]
        if "properties" in schema and not joined and not {"anyOf", "oneOf"} & schema.keys():
            return self._interface(name, schema)
        docs = inspect.cleandoc(schema.get("description", ""))
        return "\n".join([*_docs(docs, ""), f"export type {name} = {self._type(schema)}", ""])

    def _details(self) -> str:
        """Return the declared details of activities, by type and action."""
        pushed = self._schemas[_last(self._messages["activity"]["payload"])]
        activity = self._schemas[_last(pushed["properties"]["data"])]
        rows = {
            rule["title"]: self._type(rule["then"]["properties"]["details"])
            for rule in activity.get("allOf", [])
        }
        lines = [f"  {_literal(key)}: {kind}" for key, kind in sorted(rows.items())]
        docs = (
            "What `details` is, by type and action, as plugins and settings of the server declare "
            "it; `task.*` is every action of `task` that is not named. What was published before "
            "that may be otherwise."
        )
        body = "\n".join(["{", *lines, "}"]) if lines else "{}"
        return "\n".join([*_docs(docs, ""), f"export interface ActivityDetails {body}", ""])

    def _table(self, name: str, operations: list[Document], column: Any, docs: str) -> str:
        rows = {
            each["messages"][0]["$ref"].rpartition("/")[2]: " | ".join(self._kinds(column(each)))
            for each in operations
        }
        lines = [f"  {_key(tag)}: {kind}" for tag, kind in sorted(rows.items())]
        return "\n".join([*_docs(docs, ""), f"export interface {name} {{", *lines, "}", ""])

    def _kinds(self, *lists: Iterable[Document]) -> list[str]:
        """Return the names of the types of messages, each once."""
        kinds = {
            self._names[_last(self._messages[_last(message)]["payload"])]
            for messages in lists
            for message in messages
        }
        return sorted(kinds)

    def _type(self, schema: Any, field: str = "", inside: frozenset[str] = frozenset()) -> str:
        """Return a schema as a type; `inside` are the references that were followed to it."""
        if not isinstance(schema, dict):
            return "never" if schema is False else "unknown"
        joined = [each for each in schema.get("allOf", []) if "if" not in each]
        if joined:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            kinds = [self._type(each, inside=inside) for each in (rest, *joined)]
            kinds = [f"({kind})" if " | " in kind else kind for kind in dict.fromkeys(kinds)]
            return " & ".join(kind for kind in kinds if kind != "unknown") or "unknown"
        if "$ref" in schema:
            return self._referred(schema["$ref"], inside)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                kinds = [self._type(each, inside=inside) for each in schema[keyword]]
                return " | ".join(dict.fromkeys(kinds))
        if "enum" in schema:
            named = pascal(field)
            if field not in NAMELESS and self._choices.get(named) == schema["enum"]:
                return named
            return " | ".join(map(_literal, schema["enum"]))
        if "const" in schema:
            return _literal(schema["const"])
        if isinstance(several := schema.get("type"), list):
            kinds = [self._type({**schema, "type": each}, inside=inside) for each in several]
            return " | ".join(dict.fromkeys(kinds))
        return self._plain(schema, inside)

    def _plain(self, schema: Document, inside: frozenset[str]) -> str:
        """Return a schema of at most one `type` as a type."""
        kind = schema.get("type")
        if kind == "array":
            inner = self._type(schema.get("items") or {}, inside=inside)
            return f"({inner})[]" if " " in inner else f"{inner}[]"
        if fields := schema.get("properties"):
            required = schema.get("required", [])
            members = (
                f"{_key(name)}{'' if name in required else '?'}: {self._type(each, name, inside)}"
                for name, each in fields.items()
            )
            return f"{{{'; '.join(members)}}}"
        if kind == "object":
            values = schema.get("additionalProperties")
            of = self._type(values if isinstance(values, dict) else {}, inside=inside)
            return f"Record<string, {of}>"
        plain = {"integer": "number", "number": "number", "null": "null"}
        return plain.get(kind or "", kind or "unknown")

    def _referred(self, reference: str, inside: frozenset[str]) -> str:
        """Return the name of what is referred to, or its type if that is a part of something."""
        place = reference.removeprefix(COMPONENTS)
        if "/" not in place:
            return self._names[place]
        if reference in inside:  # it has itself inside, and no name to say so
            return "unknown"
        target = resolve({"components": {"schemas": self._schemas}}, reference)
        return self._type(target, inside=inside | {reference})


def _part_name(schema: str, schemas: Iterable[str]) -> str:
    """Return what an object's type is called: as its class.

    Of several classes with one name those of plugins have their plugin's before it, so that the
    server's own keep theirs whatever plugins there are.
    """
    *modules, name = schema.split(".")
    twins = [each for each in schemas if each.startswith("pov_rt.") and each.endswith(f".{name}")]
    if not modules or twins == [schema]:
        return pascal(name)
    return pascal(_LOADED.sub("", modules[-1])) + pascal(name)


def _message_name(message: str, schema: str) -> str:
    """Return what a message's type is called: as its class, if that begins with its wire type."""
    wanted, name = pascal(message), pascal(schema.rpartition(".")[2])
    return name if name.startswith(wanted) else wanted


def _alias(name: str, kinds: Iterable[str], docs: str) -> str:
    """Return a union, on several lines if it is long."""
    every = list(kinds)
    line = f"export type {name} = {' | '.join(every)}"
    if len(line) > WIDTH:
        body = textwrap.fill(
            " | ".join(every), WIDTH, initial_indent="  | ", subsequent_indent="    "
        )
        # A line begins with what joins it to the one before.
        body = re.sub(r" \|\n    ", "\n  | ", body)
        line = f"export type {name} =\n{body}"
    return "\n".join([*_docs(docs, ""), line, ""])


def _notes(schema: Document) -> Iterator[str]:
    """Yield what a type cannot say of a value."""
    if "description" in schema:
        yield schema["description"]
    for least, most, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minimum", "maximum", ""),
    ):
        low, high = schema.get(least), schema.get(most)
        if high is not None and high < MAX_SAFE_INTEGER:
            yield f"{'At most' if low is None else f'{low} to'} {high} {unit}".rstrip() + "."
    if schema.get("format") == "date-time":
        yield "RFC 3339."


def _docs(text: str, indent: str) -> list[str]:
    """Return words as a comment."""
    text = text.replace("*/", "*\\/")
    if not text:
        return []
    if "\n" not in text and len(text) + len(indent) + 7 <= WIDTH:
        return [f"{indent}/** {text} */"]
    lines = [
        part
        for line in text.split("\n")
        for part in textwrap.wrap(line, WIDTH - len(indent) - 3) or [""]
    ]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


def _key(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else _literal(name)


def _literal(value: Any) -> str:
    """Return a value as a literal type."""
    if not isinstance(value, str):
        return json.dumps(value)
    return "'" + json.dumps(value)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


def _last(reference: Document) -> str:
    """Return the name that a reference ends with."""
    return str(reference["$ref"]).rpartition("/")[2]
