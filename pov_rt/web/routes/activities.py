"""Activities over HTTP: services publish them, and everyone entitled reads pages of history."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.activities.publishing import Published, publisher_of
from pov_rt.auth.tokens import Identity
from pov_rt.delivery.entries import ActivityEncoder
from pov_rt.dispatch.host import MAX_HISTORY
from pov_rt.dispatch.request import fault_of, read_number
from pov_rt.protocol.bodies import BatchAnswer, LogPlace, PageState, PublishedActivity
from pov_rt.protocol.encoding import DECODE_ERRORS, decode_anyway, encode, http_error
from pov_rt.protocol.errors import ClientError, InvalidActivity, InvalidId, InvalidRequest, TooLarge
from pov_rt.protocol.messages import MAX_SAFE_INTEGER, NewActivity
from pov_rt.protocol.topics import pov_topic
from pov_rt.web.http import API_KINDS, SERVICE, JsonHandler, parse_query

MAX_BYTES = 1024 * 1024
"""Of activities in a page, save for the last one of them: the largest there may be fill 16 MB."""

_decode_one = msgspec.json.Decoder(PublishedActivity).decode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_activity(raw: bytes | msgspec.Raw, identity: Identity) -> NewActivity | ClientError:
    """Decode one activity of a publisher, or say what is wrong with it."""
    try:
        activity = _decode_one(raw)
        if identity.grants.povs is not None:  # else there is the id to check, as in any case later
            identity.grants.require_pov(activity.pov_id)
    except ClientError as error:
        return error
    except DECODE_ERRORS:
        return _diagnose(raw)
    return activity


def _diagnose(raw: bytes | msgspec.Raw) -> ClientError:
    fault = fault_of(PublishedActivity, raw)
    if isinstance(fault, InvalidId):
        return fault
    return InvalidActivity(fault.message, field=fault.field)


def split_batch(body: bytes, *, lines: bool) -> Sequence[bytes | msgspec.Raw] | None:
    """Return the items of a JSON array or of NDJSON; None for a single object.

    Raises `InvalidRequest`.
    """
    if lines:
        return [line for line in body.split(b"\n") if line.strip()]
    if not body.lstrip().startswith(b"["):
        return None
    try:
        return _split(body)
    except DECODE_ERRORS as error:
        refusal = InvalidRequest("The body is not a JSON array")
        try:
            items = decode_anyway(body)
        except DECODE_ERRORS:
            raise refusal from error
        # Half a character in one of them, which must not refuse the others.
        return [json.dumps(item).encode() for item in items]


class ActivitiesHandler(JsonHandler):
    """`POST /api/activities`."""

    async def post(self) -> None:
        """Publish one activity (201, or 200 if it was there already) or a batch (200, results)."""
        identity = self.authenticate(SERVICE)
        identity.grants.require("publish")
        limits = self.server.settings.limits
        body = self.request.body
        if self.request.headers.get("Content-Encoding", "identity") != "identity":
            raise InvalidRequest("Send the body as it is, without Content-Encoding")
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        items = split_batch(body, lines=kind in ("application/x-ndjson", "application/ndjson"))
        if items is not None and len(items) > limits.publish_batch:
            raise TooLarge(f"A batch has at most {limits.publish_batch} activities")
        batch = [read_activity(raw, identity) for raw in ([body] if items is None else items)]
        publisher = publisher_of(identity, is_service=True)
        results = await self.server.publishing.publish(batch, publisher, decoded=True)
        if items is not None:
            self.answer(BatchAnswer(results=[_result(i, each) for i, each in enumerate(results)]))
            return
        (result,) = results
        if isinstance(result, ClientError):
            raise result
        self.answer(_place(result), 200 if result.duplicate else 201)


def _place(done: Published, duplicate: bool | UnsetType = UNSET) -> LogPlace:
    return LogPlace(
        id=done.id, pov_id=done.pov_id, offset=done.offset, epoch=done.epoch, duplicate=duplicate
    )


def _result(index: int, result: Published | ClientError) -> LogPlace | msgspec.Raw:
    if isinstance(result, Published):
        # One alone says it with its status.
        return _place(result, result.duplicate or UNSET)
    return msgspec.Raw(http_error(result, index=index))


class HistoryHandler(JsonHandler):
    """`GET /api/povs/{povId}/activities?after=0&limit=100`, or `?before=0` for the newest first."""

    CORS_METHODS = "GET"

    async def get(self, pov_id: str) -> None:
        """Answer a page with the log's state."""
        identity = self.authenticate(API_KINDS)
        await self.server.permissions.require(identity, pov_id, "subscribe")
        query = dict(parse_query(self.request.query))
        if unknown := sorted(set(query) - {"after", "before", "limit"}):
            raise InvalidRequest(f"There is no parameter '{unknown[0]}'", field=unknown[0])
        if "after" in query and "before" in query:
            raise InvalidRequest("Send after or before, not both", field="before")
        limit = read_number(query, "limit", 100, 1, MAX_HISTORY)
        reverse = "before" in query
        start = read_number(query, "before" if reverse else "after", 0, 0, MAX_SAFE_INTEGER)
        page = await self.server.engine.log.read(pov_topic(pov_id), start, limit, reverse=reverse)
        encoder = ActivityEncoder()
        items: list[bytes] = []
        size = 0
        for entry in page.entries:
            items.append(encoder.item(entry))
            size += len(items[-1])
            if size >= MAX_BYTES:
                break
        following = page.next(len(items), limit, reverse=reverse)
        head = PageState(
            pov_id=pov_id,
            epoch=page.top.epoch,
            offset=page.top.offset,
            oldest_offset=page.top.oldest,
            next=UNSET if following is None else following,
        )
        self.answer_bytes(b'%b,"activities":[%b]}' % (encode(head)[:-1], b",".join(items)))
