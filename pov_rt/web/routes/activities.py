"""Activities over HTTP: services publish them, and everyone entitled reads pages of history."""

from __future__ import annotations

import json
import re
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import UNSET

from pov_rt.activities.publishing import publisher_of
from pov_rt.auth.tokens import Identity
from pov_rt.connections.borders import Rejected
from pov_rt.connections.budgets import ROW
from pov_rt.delivery.entries import ActivityEncoder
from pov_rt.dispatch.host import MAX_HISTORY
from pov_rt.dispatch.request import Content, fault_of, read_number
from pov_rt.protocol.bodies import BatchAnswer, PageState, Published, PublishedActivity
from pov_rt.protocol.encoding import (
    BYTE_ORDER_MARK,
    DECODE_ERRORS,
    decode_anyway,
    encode,
    http_error,
)
from pov_rt.protocol.errors import ClientError, InvalidActivity, InvalidId, InvalidRequest, TooLarge
from pov_rt.protocol.messages import MAX_ID_CHARS, MAX_SAFE_INTEGER, NewActivity
from pov_rt.registry.tenants import Scope, scope_of
from pov_rt.server.server import Server
from pov_rt.web.http import API_KINDS, SERVICE, JsonHandler, parse_query

MAX_BYTES = 1024 * 1024
"""Of activities in a page, save for the last one of them: the largest there may be fill 16 MB."""

Item = Content | msgspec.Raw


class _Loose(msgspec.Struct, rename="camel"):
    """What an activity that is none says of itself."""

    id: Any = None
    pov_id: Any = None
    user_id: Any = None


_decode_loosely = msgspec.json.Decoder(_Loose).decode
_scope = cast("Scope", scope_of(PublishedActivity))
_decode_one = msgspec.json.Decoder(PublishedActivity).decode
_IS_ARRAY = re.compile(rb"\s*\[").match
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_activity(raw: Item, identity: Identity, levels: int) -> NewActivity | ClientError:
    """Decode one activity of a publisher, or say what is wrong with it.

    `levels` is how deep details may be nested.
    """
    try:
        activity = _decode_one(raw)
        if identity.grants.tenant is not None:
            _scope(activity, identity.grants.tenant)
        if identity.grants.povs is not None:  # else there is the id to check, as in any case later
            identity.grants.require_pov(activity.pov_id)
    except ClientError as error:
        return error
    except DECODE_ERRORS:
        return _diagnose(raw, levels)
    return activity


def read_batch(
    items: Sequence[Item], identity: Identity, levels: int
) -> Sequence[NewActivity | ClientError]:
    """Decode a publisher's activities, or say what is wrong with each."""
    grants = identity.grants
    if grants.tenant is None and grants.povs is None:
        try:
            return list(map(_decode_one, items))
        except DECODE_ERRORS:
            pass  # whose fault that is, is found out one by one
    return [read_activity(raw, identity, levels) for raw in items]


def _diagnose(raw: Item, levels: int) -> ClientError:
    fault = fault_of(PublishedActivity, raw, levels)
    if isinstance(fault, InvalidId):
        return fault
    return InvalidActivity(fault.message, field=fault.field)


def split_batch(body: Content, *, lines: bool) -> Sequence[Item] | None:
    """Return the items of a JSON array or of NDJSON; None for a single object.

    Raises `InvalidRequest`.
    """
    if lines:
        found: Sequence[Item] = body.split(b"\n")
        if BYTE_ORDER_MARK in body:  # where files were joined
            found = [line.removeprefix(BYTE_ORDER_MARK) for line in found]
        return [line for line in found if line and not line.isspace()]
    if not _IS_ARRAY(body):
        return None
    try:
        return _split(body)
    except DECODE_ERRORS as error:
        refusal = InvalidRequest("The body is not a JSON array, or is nested too deep")
        try:
            items = decode_anyway(body)
        except DECODE_ERRORS:
            raise refusal from error
        # Half a character in one of them, or one that is too deep: no reason to refuse the others.
        return [json.dumps(item).encode() for item in items]


class Answer(NamedTuple):
    """What is answered to a publication, and with which status."""

    value: BatchAnswer | Published
    status: int


def publish(
    server: Server, identity: Identity, content: Content, content_type: str
) -> Future[Answer]:
    """Publish what a body has: one activity (201, or 200 if it was there) or a batch (200).

    Raises `ClientError` for what is no body of either; the future gets what is wrong with one.
    """
    limits, publishing = server.settings.limits, server.publishing
    kind = content_type.partition(";")[0].strip().lower()
    split = split_batch(content, lines=kind in ("application/x-ndjson", "application/ndjson"))
    if split is not None and len(split) > limits.publish_batch:
        raise TooLarge(f"A batch has at most {limits.publish_batch} activities")
    items: Sequence[Item] = [content] if split is None else split
    batch = read_batch(items, identity, limits.details_depth)
    publisher = publisher_of(identity, is_service=True)
    if (rejected := server.borders.rejected) is not None:
        for raw, new in zip(items, batch, strict=True):
            if isinstance(new, ClientError):
                _tell_rejected(rejected, raw, identity, publisher.key, new)
    if split is None:
        return publishing.publish_one(batch[0], publisher, _answer_one, decoded=True)
    return publishing.publish(batch, publisher, _answer_all, decoded=True)


def _answer_one(result: Callable[[], Published]) -> Answer:
    done = result()
    if done.duplicate:  # one alone says it with its status
        return Answer(msgspec.structs.replace(done, duplicate=False), 200)
    return Answer(done, 201)


def _answer_all(results: Sequence[Published | ClientError]) -> Answer:
    answers: list[Published | msgspec.Raw] = [
        each if isinstance(each, Published) else msgspec.Raw(http_error(each, index=index))
        for index, each in enumerate(results)
    ]
    return Answer(BatchAnswer(results=answers), 200)


def _tell_rejected(
    rejected: Callable[[Rejected], None],
    raw: Item,
    identity: Identity,
    publisher: str,
    error: ClientError,
) -> None:
    """Tell who wants to know of what could not be read, as far as it says what it is."""
    try:
        said = _decode_loosely(raw)
    except DECODE_ERRORS:
        return
    own, pov_id, user_id = (
        value if isinstance(value, str) and len(value) <= MAX_ID_CHARS else ""
        for value in (said.id, said.pov_id, said.user_id)
    )
    grants = identity.grants
    rejected(Rejected(grants.topic(pov_id), own, publisher, grants.scope(user_id), error, False))


class ActivitiesHandler(JsonHandler):
    """`POST /api/activities`, as far as it does not take the short way (`web.publication`)."""

    BODIES = frozenset({"POST"})

    def authorize(self) -> None:
        """Ask for a service token that may publish."""
        self.authenticate(SERVICE).grants.require("publish")

    async def post(self) -> None:
        """Publish, and answer; or answer what was published the short way."""
        outcome, self._stream.outcome = self._stream.outcome, None
        if outcome is None:
            kind = self.request.headers.get("Content-Type", "")
            outcome = await publish(self.server, self.identity, self.content, kind)
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self.answer(*outcome)
        finally:
            del outcome  # an error's traceback knows this frame: they would wait for the collector


class HistoryHandler(JsonHandler):
    """`GET /api/povs/{povId}/activities?after=0&limit=100`, or `?before=0` for the newest first."""

    CORS_METHODS = "GET"

    async def authorize(self, pov_id: str) -> None:
        """Ask for a token that may see the PoV."""
        identity = self.authenticate(API_KINDS)
        self.pay()
        await self.server.permissions.require(identity, identity.grants.scope(pov_id), "subscribe")

    async def get(self, pov_id: str) -> None:
        """Answer a page with the log's state."""
        query = dict(parse_query(self.request.query))
        if unknown := sorted(set(query) - {"after", "before", "limit"}):
            raise InvalidRequest(f"There is no parameter '{unknown[0]}'", field=unknown[0])
        if "after" in query and "before" in query:
            raise InvalidRequest("Send after or before, not both", field="before")
        limit = read_number(query, "limit", 100, 1, MAX_HISTORY)
        reverse = "before" in query
        start = read_number(query, "before" if reverse else "after", 0, 0, MAX_SAFE_INTEGER)
        topic, stored = self.identity.grants.topic(pov_id), self.server.hub.stored
        async with self.server.pages.at_work:
            self.server.budgets.check()
            page = await self.server.engine.log.read(
                topic, start, limit, reverse=reverse, max_bytes=MAX_BYTES
            )
        encoder = ActivityEncoder()
        items: list[bytes] = []
        read = size = 0
        for entry in page.entries:
            read += 1
            if stored.is_good(topic, entry):
                items.append(encoder.item(entry))
                size += len(items[-1])
            if size >= MAX_BYTES:
                break
        following = page.next(read, reverse=reverse)
        head = PageState(
            pov_id=pov_id,
            epoch=page.top.epoch,
            offset=page.top.offset,
            oldest_offset=page.top.oldest,
            next=UNSET if following is None else following,
        )
        self.server.budgets.charge(len(page.entries) * ROW)
        self.answer_bytes(b'%b,"activities":[%b]}' % (encode(head)[:-1], b",".join(items)))
