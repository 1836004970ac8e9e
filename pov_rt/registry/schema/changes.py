"""What changes for clients between two documents, of the socket or of HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pov_rt.activities.details.walk import resolve
from pov_rt.registry.schema.compare import Change, Comparison, Side

Document = dict[str, Any]
JSON_TYPE = "application/json"


class NoDocumentError(ValueError):
    """None of the two documents, or one that is damaged; the text says what it is."""


def kind_of(document: Any) -> str:
    """Return `asyncapi` or `openapi`. Raises `NoDocumentError`."""
    kinds = [
        kind for kind in ("asyncapi", "openapi") if isinstance(document, dict) and kind in document
    ]
    if len(kinds) != 1:
        raise NoDocumentError("is no document that `pov-rt schema asyncapi` or `openapi` prints")
    return kinds[0]


def find_changes(old: Any, new: Document) -> list[Change]:
    """Return what changes, what breaks clients first, each once.

    Both are of the same kind. Raises `NoDocumentError` if the old one cannot be read.
    """
    documents = _Documents(old, new)
    try:
        (documents.socket if kind_of(old) == "asyncapi" else documents.http)()
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        raise NoDocumentError(f"is damaged: {type(error).__name__}: {error}") from error
    found = [*documents.sent.changes, *documents.received.changes]
    return sorted(dict.fromkeys(found), key=lambda change: (not change.breaking, *change[1:]))


class _Documents:
    """Walks two documents side by side."""

    def __init__(self, old: Document, new: Document) -> None:
        self._old, self._new = old, new
        self.sent, self.received = Comparison("sent"), Comparison("received")

    def socket(self) -> None:
        before, after = self._old["operations"], self._new["operations"]
        for name in dict.fromkeys([*before, *after]):
            one, other = before.get(name), after.get(name)
            action, _, tag = name.partition(".")
            comparison = self.sent if action == "receive" else self.received
            if one is None:
                comparison.say(tag, "is new", breaking=False)
            elif other is None:
                comparison.say(tag, "is gone", breaking=True)
            else:
                self._messages(comparison, one["messages"], other["messages"], tag)
                had, has = (each.get("reply", {}).get("messages", []) for each in (one, other))
                self._messages(self.received, had, has, f"the answer to {tag}")

    def _messages(
        self,
        comparison: Comparison,
        old: Iterable[Document],
        new: Iterable[Document],
        where: str,
    ) -> None:
        """Compare messages, which are known by their names."""
        before, after = (
            {each["$ref"].rpartition("/")[2]: resolve(root, each["$ref"]) for each in messages}
            for root, messages in ((self._old, old), (self._new, new))
        )
        for name in dict.fromkeys([*before, *after]):
            if name not in after:
                # No answer breaks who waits for one; of several, one that does not come nobody.
                breaking = comparison is self.sent or not after
                comparison.say(where, f"is {name} no longer", breaking=breaking)
            elif name not in before:
                comparison.say(where, f"may be {name} now", breaking=comparison is self.received)
            else:
                one, other = self._old, self._new
                comparison.compare(
                    Side(_payload(before[name], one), one),
                    Side(_payload(after[name], other), other),
                    name,
                )

    def http(self) -> None:
        before, after = _operations(self._old), _operations(self._new)
        for name in dict.fromkeys([*before, *after]):
            if name not in after:
                self.sent.say(name, "is gone", breaking=True)
            elif name not in before:
                self.sent.say(name, "is new", breaking=False)
            else:
                self._ways_in(before[name], after[name], name)
                self._parameters(before[name], after[name], name)
                self._body(before[name], after[name], name)
                self._answers(before[name], after[name], name)

    def _ways_in(self, old: Document, new: Document, where: str) -> None:
        had, has = (
            {" and ".join(sorted(way)) for way in each.get("security", [])} for each in (old, new)
        )
        for way in sorted(had - has):
            self.sent.say(where, f"does not take the token as `{way}` any more", breaking=True)
        for way in sorted(has - had):
            self.sent.say(where, f"takes the token as `{way}`, too", breaking=False)

    def _parameters(self, old: Document, new: Document, where: str) -> None:
        before, after = (
            {(each["in"], each["name"]): each for each in operation.get("parameters", [])}
            for operation in (old, new)
        )
        for key in dict.fromkeys([*before, *after]):
            place = f"{where} {key[0]}.{key[1]}"
            if key not in after:
                self.sent.say(place, "is gone", breaking=True)
                continue
            required = bool(after[key].get("required"))
            if key not in before:
                what = "is new, and has to be there" if required else "is new"
                self.sent.say(place, what, breaking=required)
                continue
            if required != bool(before[key].get("required")):
                what = "has to be there now" if required else "may be absent now"
                self.sent.say(place, what, breaking=required)
            sides = Side(before[key]["schema"], self._old), Side(after[key]["schema"], self._new)
            self.sent.compare(*sides, place)

    def _body(self, old: Document, new: Document, where: str) -> None:
        before, after = old.get("requestBody"), new.get("requestBody")
        place = f"{where} body"
        if before is None or after is None:
            if before is not after:
                what = "is gone" if after is None else "is new, and has to be there"
                self.sent.say(place, what, breaking=True)
            return
        self._content(self.sent, before, after, place)

    def _answers(self, old: Document, new: Document, where: str) -> None:
        before, after = old.get("responses", {}), new.get("responses", {})
        for status in dict.fromkeys([*before, *after]):
            place = f"{where} {'error' if status == 'default' else status}"
            if status not in after:
                self.received.say(place, "is gone", breaking=True)
            elif status not in before:
                self.received.say(place, "is new", breaking=False)
            else:
                one, other = before[status], after[status]
                self._content(
                    self.received, _followed(one, self._old), _followed(other, self._new), place
                )

    def _content(self, comparison: Comparison, old: Document, new: Document, where: str) -> None:
        before, after = old.get("content", {}), new.get("content", {})
        for kind in dict.fromkeys([*before, *after]):
            place = where if kind == JSON_TYPE else f"{where} as {kind}"
            if kind not in after:
                comparison.say(place, "is gone", breaking=True)
            elif kind not in before:
                comparison.say(place, "is new", breaking=False)
            else:
                schemas = before[kind]["schema"], after[kind]["schema"]
                comparison.compare(Side(schemas[0], self._old), Side(schemas[1], self._new), place)


def _operations(document: Document) -> dict[str, Document]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def _payload(message: Document, document: Document) -> Any:
    return _followed(message, document)["payload"]


def _followed(value: Document, document: Document) -> Document:
    """Return what a reference leads to; what is none stays."""
    while "$ref" in value:
        value = resolve(document, value["$ref"])
    return value


def as_json(changes: Iterable[Change]) -> str:
    """Return them for programs: a list of objects with the fields of `Change`."""
    return json.dumps([change._asdict() for change in changes], indent=2, ensure_ascii=False)
