"""What an activity may have in it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from pov_rt.protocol.details.depth import LEVELS
from pov_rt.protocol.errors import InvalidActivity
from pov_rt.protocol.messages import MAX_SAFE_INTEGER

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What types and actions look like."""

ODDITIES = bytes(
    LEVELS.get(byte, ord("0") if byte in b"0123456789" else ord(" ")) for byte in range(256)
)
"""A translation that leaves the numbers and the levels of JSON: all that may be odd in what was
decoded.

To look for them in an encoded activity is cheaper than to look at the values, and much cheaper
where these are many (docs/measurements.md, odd numbers).
"""

LONG_NUMBER = b"0" * 16
"""How a number beyond 2^53 looks with `ODDITIES`."""


def check_name(name: str, field: str, *, allowed: Sequence[str] | None = None) -> None:
    """Refuse what is no type or action, or none of those allowed. Raises `InvalidActivity`."""
    if not NAME.fullmatch(name):
        raise InvalidActivity(
            f"{field} must have 1 to 64 letters, digits, '_', '.' or '-'", field=field
        )
    if allowed is not None and name not in allowed:
        raise InvalidActivity(f"this server takes no {field} '{name}'", field=field)


def check_value(value: Any) -> None:
    """Raise `InvalidActivity` for what JSON readers disagree on, anywhere in `details`."""
    if not _is_plain(value):
        _find_odd(value)


def _is_plain(value: Any) -> bool:
    """Tell whether every JSON reader will read the same; no words are made for what is good.

    Without recursion: the depth is the client's choice.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is str:
            if not item.isascii() and not _is_text(item):
                return False
        elif kind is dict:
            waiting += item.values()
            if any(type(key) is not str for key in item):
                return False
            waiting += item
        elif kind is list:
            waiting += item
        elif kind is int:
            if not -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
                return False
        elif kind is float:
            if not math.isfinite(item):
                return False
        elif kind is not bool and item is not None:
            return False
    return True


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_odd(value: Any) -> None:
    """Raise `InvalidActivity` that names the path of what is not plain."""
    waiting: list[tuple[Any, str]] = [(value, "details")]
    while waiting:
        item, path = waiting.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise InvalidActivity(f"a key of {path} is no string", field=path)
                _check_text(key, path)
                waiting.append((inner, f"{path}.{key}"))
        elif isinstance(item, list):
            waiting.extend((inner, f"{path}[{index}]") for index, inner in enumerate(item))
        elif isinstance(item, str):
            _check_text(item, path)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise InvalidActivity(f"{path} is no finite number", field=path)
        elif isinstance(item, int):
            if abs(item) > MAX_SAFE_INTEGER:
                raise InvalidActivity(
                    f"{path} is beyond 2^53, where JSON readers lose digits; send it as a string",
                    field=path,
                )
        elif item is not None:
            raise InvalidActivity(f"{path} is a {type(item).__name__}, no JSON", field=path)


def _check_text(text: str, path: str) -> None:
    if not _is_text(text):
        raise InvalidActivity(f"{path} has half a character (a surrogate)", field=path)
