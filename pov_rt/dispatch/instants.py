"""Instants that RFC 3339 has and Python has not: leap seconds, and the last moment of 9999.

`9999-12-31T23:59:59.9999999Z` is how .NET writes "never"; rounded, it would be in no year at all.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, get_args, get_origin

import msgspec

from pov_rt.protocol.encoding import DECODE_ERRORS, encode

_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:)(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def mend_instants(
    kind: type[msgspec.Struct], content: bytes | bytearray | msgspec.Raw
) -> bytes | None:
    """Return a JSON object that did not decode to a struct with its instants as Python has them.

    None if there is nothing to mend. A fraction is cut to microseconds; a leap second ends with the
    second before.
    """
    names = [field.encode_name for field in msgspec.structs.fields(kind) if _is_instant(field.type)]
    if not names:
        return None
    try:
        value = msgspec.json.decode(content)
    except DECODE_ERRORS:
        return None
    mended = False
    for name in names if isinstance(value, dict) else ():
        text = value.get(name)
        if isinstance(text, str) and (found := _INSTANT.fullmatch(text)):
            start, second, fraction, zone = found.groups()
            second, fraction = ("59", ".999999") if second == "60" else (second, fraction or "")
            value[name] = f"{start}{second}{fraction[:7]}{zone}"
            mended |= value[name] != text
    return encode(value) if mended else None


def _is_instant(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        return _is_instant(get_args(kind)[0])
    return kind is datetime or any(map(_is_instant, get_args(kind)))
