"""What all these applications have: their trackers' options, and what a request asks of them.

A request's headers say which options watch it (`X-Options`), what it is answered with (`X-Status`,
`X-Behave`), who sends it and on which PoV (`X-User`, `X-Pov`). `/flush` sends what waits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pov_rt.tracker import Facts, NewActivity, ServiceToken, Track

TABLE = json.loads((Path(__file__).parent.parent / "conformance.json").read_text())
URL = os.environ.get("POV_URL", "http://127.0.0.1:9")
TOKEN = ServiceToken(os.environ.get("POV_SECRET", "-" * 32), "app")
PIECES = [b"a", b"b", b"c"]


def describe(facts: Facts) -> NewActivity:
    action = f"{facts.method.lower()}.{facts.status}"
    return NewActivity(type="request", action=action, pov_id=facts.path_arguments["pov_id"])


def only_removed(activity: NewActivity) -> NewActivity | None:
    if activity.action != "removed":
        return None
    return msgspec.structs.replace(activity, details={"seen": True})


def fail(_: object) -> NewActivity:
    raise RuntimeError("a mistake of the application's")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "request": describe,
    "only removed": only_removed,
    "raise": fail,
}


def trackers(header: Callable[[Any, str], str | None]) -> dict[str, dict[str, Any]]:
    """Return the arguments of each tracker, for a framework whose requests have such headers."""
    found = {}
    for name, given in TABLE["options"].items():
        options = {"url": URL, "token": TOKEN, **given}
        options["rules"] = [Track(**rule) for rule in given.get("rules", ())]
        options["actor"] = lambda request: header(request, "X-User")
        if "pov" in given:
            options["pov"] = lambda request: header(request, "X-Pov")
        for each in {"describe", "before_send"} & given.keys():
            options[each] = FUNCTIONS[given[each]]
        found[name] = options
    return found
