"""HTTP requests as plugins see them, and bodies decoded so that the field at fault is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pov_rt.auth.grants import Kind
from pov_rt.auth.tokens import Identity
from pov_rt.connections.budgets import BYTE
from pov_rt.dispatch.host import PluginHost
from pov_rt.plugin.declare import RouteSpec
from pov_rt.protocol.details.depth import find_deep, may_be_deeper
from pov_rt.protocol.encoding import DECODE_ERRORS, decode_anyway, mend_instants
from pov_rt.protocol.errors import ClientError, InvalidRequest
from pov_rt.protocol.faults import find_fault
from pov_rt.protocol.messages import check_id
from pov_rt.registry.pov_ids import check_of, find_bad_id, names_id, names_pov
from pov_rt.registry.tenants import scope_of

Content = bytes | bytearray
"""A body as it came: in one piece, or put together."""
StructT = TypeVar("StructT", bound=msgspec.Struct)

MAX_DIGITS = 16
"""Of a number within 2^53."""


class PluginRequest:
    """An HTTP request to a plugin's route; implements `interfaces.Request`."""

    def __init__(
        self,
        host: PluginHost,
        user: Identity,
        route: RouteSpec,
        path: Mapping[str, str],
        query: Mapping[str, str],
        content: Content,
    ) -> None:
        self.host = host
        self.user = user
        self.path = path
        self.query = {
            name: user.grants.scope(text) if names_id(name) else text
            for name, text in query.items()
        }
        self._route = route
        self._content = content
        self._body: msgspec.Struct | None = None

    @property
    def state(self) -> Any:
        return self.host.state

    async def admit(self) -> None:
        """Decode the body, and raise unless every PoV that body and query name is for its user."""
        levels = self.host.services.settings.limits.details_depth
        povs = {text: name for name, text in self.query.items() if names_pov(name)}
        if self._route.body is not None:
            if self.user.kind is not Kind.SERVICE:  # what services publish costs nothing here
                self.charge(len(self._content) * BYTE)
            tenant = self.user.grants.tenant
            self._body = decode_body(self._content, self._route.body, levels, tenant)
            if (check := check_of(self._route.body)) is not None:
                check(self._body, povs.setdefault)
        await self.host.services.permissions.require_all(self.user, povs, self._route.grant)

    def charge(self, cost: float) -> None:
        self.host.services.budgets.charge_owner(self.user.owner, cost)

    def body(self, kind: type[StructT]) -> StructT:
        if not isinstance(self._body, kind):
            raise TypeError(
                f"{self._route.source}: declare the body: @plugin.http(..., body={kind.__name__})"
            )
        return self._body

    async def check_pov(self, pov_id: str | None, field: str = "povId") -> None:
        if pov_id is None:
            self.user.grants.require_every_pov(field)
        else:
            permissions = self.host.services.permissions
            await permissions.require(self.user, pov_id, self._route.grant, field)

    def number(self, name: str, default: int, least: int, most: int) -> int:
        return read_number(self.query, name, default, least, most)


def read_number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Read a parameter of a query that is a number. Raises `InvalidRequest` naming it."""
    text = query.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not is_number or not least <= int(text) <= most:
        raise InvalidRequest(f"{name} must be a number from {least} to {most}", field=name)
    return int(text)


def decode_body(
    content: Content, kind: type[StructT], levels: int, tenant: str | None = None
) -> StructT:
    """Decode a JSON object. Raises what is wrong with it, naming the field at fault.

    `levels` is how deep details may be nested. Raises `InvalidRequest`, `InvalidId` or, for
    details, `InvalidActivity`.
    """
    try:
        body = msgspec.json.decode(content, type=kind)
    except DECODE_ERRORS:
        if (mended := mend_instants(kind, content)) is not None:
            return decode_body(mended, kind, levels, tenant)
        raise fault_of(kind, content, levels) from None
    if may_be_deeper(content, levels):
        deep = find_deep(kind, msgspec.json.decode(content), levels)
        if deep is not None:
            raise deep
    check = check_of(kind)
    if check is not None:
        check(body, check_id)
    if tenant is not None and (scope := scope_of(kind)) is not None:
        scope(body, tenant)
    return body


def fault_of(
    kind: type[msgspec.Struct], content: Content | msgspec.Raw, levels: int
) -> ClientError:
    """Say what is wrong with JSON that does not decode to a struct."""
    try:
        value = decode_anyway(content)
    except DECODE_ERRORS:
        return InvalidRequest("This is not JSON")
    if not isinstance(value, dict):
        return InvalidRequest("This is not a JSON object")
    if (bad_id := find_bad_id(kind, value)) is not None:
        return bad_id
    if (fault := find_fault(kind, value)) is not None:
        return InvalidRequest(fault.sentence, field=fault.path or None)
    return find_deep(kind, value, levels) or InvalidRequest("This is not JSON")
