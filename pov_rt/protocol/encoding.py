"""Turns messages, errors and log entries into the bytes of the wire, each exactly once."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.protocol.details.depth import KEPT_LEVELS, prune
from pov_rt.protocol.errors import ClientError, InvalidId, InvalidMessage
from pov_rt.protocol.messages import Message
from pov_rt.protocol.tenants import encode_tenant_id

RequestIdValue = int | str | UnsetType

encode = msgspec.json.Encoder(enc_hook=encode_tenant_id).encode
encode_sorted = msgspec.json.Encoder(enc_hook=encode_tenant_id, order="deterministic").encode
"""Encodes objects with their keys in one order, whatever the order they came in."""

BYTE_ORDER_MARK = "\ufeff".encode()
"""What Windows' programs put before UTF-8. It says nothing, and is passed over (RFC 8259, 8.1)."""

_HALF = "\ud800"
"""Stands for whatever has half a character in it."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding hostile bytes can raise; only the first is msgspec's own."""


_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:)(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
"""By RFC 3339, which has more of them than Python: leap seconds, and the last moment of 9999.

`9999-12-31T23:59:59.9999999Z` is how .NET writes "never"; rounded, it would be in no year at all.
"""


def decode_anyway(body: bytes | bytearray | msgspec.Raw) -> Any:
    """Decode JSON of which one wants to know what is wrong with it.

    Half characters are taken, too (an escape for a lone surrogate): to the decoder of messages they
    are no JSON, so that it could not say where they are. Of what no decoder can follow down the
    first levels are there, which is more than any door lets in. Raises one of `DECODE_ERRORS`.
    """
    try:
        return _decode_either(body)
    except RecursionError:
        return _decode_either(prune(bytes(body), KEPT_LEVELS))


def _decode_either(body: bytes | bytearray | msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            return json.loads(
                bytes(body).decode(),
                object_pairs_hook=_object,
                parse_float=_float,
                parse_constant=_float,
            )
        except ValueError:
            raise error from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        name.encode()  # one with half a character could not be named in the answer
        if name in found and (found[name] is _HALF or not _is_whole(found[name])):
            # The last one counts, but the decoder of messages has looked into all of them.
            found[name] = _HALF
        else:
            found[name] = value
    return found


def _is_whole(value: Any) -> bool:
    try:
        encode(value)
    except UnicodeEncodeError:
        return False
    return True


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number


def with_id(body: bytes, request_id: RequestIdValue) -> bytes:
    """Add the request's id at the end of an encoded object, after the fields of the contract."""
    if request_id is UNSET:
        return body
    return b'%b,"id":%b}' % (body[:-1], encode(request_id))


def encode_reply(reply: Message, request_id: RequestIdValue) -> bytes:
    """Encode a handler's reply; the id it may carry itself wins over the request's."""
    body = encode(reply)
    return body if request_id is UNSET or reply.id is not UNSET else with_id(body, request_id)


def encode_error(error: ClientError, request_id: RequestIdValue = UNSET) -> bytes:
    """Encode an error message; the contract's two fields come first.

    A bad id is a wrong field, for which the contract has the words.
    """
    fields: dict[str, Any] = {"type": "error", "message": error.message, **error.as_fields()}
    if isinstance(error, InvalidId):
        fields |= {"message": InvalidMessage.message, "detail": error.message}
    return with_id(encode(fields), request_id)


def http_error(error: ClientError, **more: Any) -> bytes:
    """Encode an error as the body of an HTTP answer; `more` are further fields of it."""
    fields = error.as_fields() | more
    return encode({"error": {"code": fields.pop("code"), "message": error.message, **fields}})


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
