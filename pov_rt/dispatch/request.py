"""HTTP requests as plugins see them, and bodies decoded so that the field at fault is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pov_rt.auth.tokens import Identity
from pov_rt.dispatch.host import PluginHost
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.errors import Forbidden, InvalidRequest
from pov_rt.protocol.faults import find_fault

S = TypeVar("S", bound=msgspec.Struct)


class PluginRequest:
    """An HTTP request to a plugin's route; implements `context.Request`."""

    def __init__(
        self,
        host: PluginHost,
        user: Identity,
        path: Mapping[str, str],
        query: Mapping[str, str],
        content: bytes,
    ) -> None:
        self.host = host
        self.user = user
        self.path = path
        self.query = query
        self._content = content

    @property
    def state(self) -> Any:
        return self.host.state

    def body(self, kind: type[S]) -> S:
        return decode_body(self._content, kind)

    def check_pov(self, pov_id: str | None) -> None:
        grants = self.user.grants
        if not (grants.sees_all if pov_id is None else grants.sees(pov_id)):
            raise Forbidden("The token does not cover this PoV", field="povId")


def decode_body(content: bytes, kind: type[S]) -> S:
    """Decode a JSON object. Raises `InvalidRequest` naming the field at fault."""
    try:
        return msgspec.json.decode(content, type=kind)
    except DECODE_ERRORS:
        pass
    try:
        value = msgspec.json.decode(content)
    except DECODE_ERRORS as error:
        raise InvalidRequest("The body is not JSON") from error
    raise fault_of(kind, value)


def fault_of(kind: type[msgspec.Struct], value: Any) -> InvalidRequest:
    """Say what is wrong with a decoded value that does not fit a struct."""
    path = find_fault(kind, value)
    if not path:
        return InvalidRequest("This is not a JSON object")
    fields = {field.encode_name for field in msgspec.structs.fields(kind)}
    if isinstance(value, dict) and path in value and path not in fields:
        return InvalidRequest(f"There is no field '{path}'", field=path)
    if isinstance(value, dict) and path in fields and path not in value:
        return InvalidRequest(f"The field '{path}' is missing", field=path)
    return InvalidRequest(f"The field '{path}' has a wrong type, length or value", field=path)
