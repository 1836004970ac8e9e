"""Turns messages, errors and log entries into the bytes of the wire, each exactly once."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.protocol.errors import ClientError
from pov_rt.protocol.messages import Message

RequestIdValue = int | str | UnsetType

_encoder = msgspec.json.Encoder()
encode = _encoder.encode

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding hostile bytes can raise; only the first is msgspec's own."""


def with_id(body: bytes, request_id: RequestIdValue) -> bytes:
    """Add the request's id at the end of an encoded object, after the fields of the contract."""
    if request_id is UNSET:
        return body
    return b'%b,"id":%b}' % (body[:-1], encode(request_id))


def encode_reply(reply: Message, request_id: RequestIdValue) -> bytes:
    """Encode a handler's reply; the id it may carry itself wins over the request's."""
    body = encode(reply)
    if request_id is UNSET or reply.id is not UNSET:
        return body
    return with_id(body, request_id)


def encode_error(error: ClientError, request_id: RequestIdValue = UNSET) -> bytes:
    """Encode an error message; the contract's two fields come first."""
    fields: dict[str, Any] = {"type": "error", "message": error.message, **error.as_fields()}
    return with_id(encode(fields), request_id)


def http_error(error: ClientError) -> bytes:
    """Encode an error as the body of an HTTP answer."""
    fields = error.as_fields()
    return encode({"error": {"code": fields.pop("code"), "message": error.message, **fields}})
