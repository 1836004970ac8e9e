"""For services: tokens that are void at once, such as at a logout."""

from datetime import datetime
from typing import Annotated

import msgspec

from pov_rt.plugin import (
    UNSET,
    InvalidRequest,
    Length,
    MissingNode,
    Part,
    Plugin,
    Request,
    UnsetType,
    UserId,
    rfc3339,
)

plugin = Plugin("revoke")


class Revoke(Part, forbid_unknown_fields=True):
    """Which tokens: one by its `jti`, or a user's or everybody's issued before an instant."""

    token_id: Annotated[str, Length(1, 4096)] | UnsetType = UNSET
    user_id: UserId | UnsetType = UNSET
    issued_before: Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType = UNSET


class Revoked(Part):
    """What is void now: what was issued before this instant, unless it was one token.

    `closed` is how many connections ended, on all nodes but those that are `missing`: these did not
    say so within a second, and close them when they hear of it.
    """

    closed: int
    missing: list[MissingNode]
    issued_before: str | UnsetType = UNSET


@plugin.http("POST", "/tokens/revoke", grant="operate", service=True, body=Revoke, price=0)
async def revoke(request: Request) -> Revoked:
    """Make tokens void and close the connections that have one."""
    which, grants = request.body(Revoke), request.user.grants
    if which.token_id is not UNSET:
        if which.user_id is not UNSET or which.issued_before is not UNSET:
            raise InvalidRequest("Send tokenId alone", field="tokenId")
        revoked = await request.host.revoke(token_id=which.token_id, tenant=grants.tenant)
        return Revoked(closed=revoked.closed, missing=list(revoked.missing))
    if which.user_id is UNSET and which.issued_before is UNSET:
        raise InvalidRequest("Send tokenId, userId or issuedBefore", field="userId")
    revoked = await request.host.revoke(
        user_id=None if which.user_id is UNSET else which.user_id,
        before=None if which.issued_before is UNSET else which.issued_before.timestamp(),
        tenant=grants.operates_on,
    )
    before = UNSET if revoked.before is None else rfc3339(revoked.before)
    return Revoked(closed=revoked.closed, missing=list(revoked.missing), issued_before=before)
