"""The generated documents name everything there is, and their references lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pov_rt.messages import CORE_PUSHES
from pov_rt.registry import build_registry
from pov_rt.schema import asyncapi, openapi, tag_of

REGISTRY = build_registry({})


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.parametrize("document", [asyncapi(REGISTRY), openapi(REGISTRY)])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert found
    for reference in found:
        place: Any = document
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]


def test_every_message_is_there_with_a_summary() -> None:
    document = asyncapi(REGISTRY)
    messages = document["components"]["messages"]
    assert REGISTRY.tags | {tag_of(push) for push in CORE_PUSHES} <= set(messages)
    assert all(message["summary"] for message in messages.values())
    assert all(operation["summary"] for operation in document["operations"].values())
    subscribe = document["operations"]["receive.subscribe"]
    assert subscribe["reply"]["messages"] == [{"$ref": "#/channels/socket/messages/subscribed"}]
    ping = document["components"]["schemas"]["Ping"]
    assert ping["properties"]["type"] == {"enum": ["ping"]}
