"""For operators: what is kept about a user, exported or erased; who is blocked; PoVs deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from tornado.iostream import StreamClosedError

from pov_rt.dispatch.request import decode_body
from pov_rt.protocol.bodies import Block
from pov_rt.protocol.messages import check_id
from pov_rt.web.http import SERVICE, UNREAD_S, JsonHandler

OPERATE = "operate"
CHUNK_BYTES = 64 * 1024
"""Lines are gathered up to this, and the next ones looked for when they are sent."""


class UserHandler(JsonHandler):
    """`DELETE /api/users/{userId}`."""

    def authorize(self, user_id: str) -> None:
        """Ask for a service token that may operate."""
        self.authenticate(SERVICE).grants.require(OPERATE)
        check_id(user_id, "userId")

    async def delete(self, user_id: str) -> None:
        """Erase the user, and answer what that was when all is done."""
        user_id = self.identity.grants.scope(user_id)
        self.answer(await self.server.people.erase(user_id))


class LinesHandler(JsonHandler):
    """What is answered as lines, as fast as they are read."""

    async def send_all(self, lines: AsyncIterator[bytes]) -> None:
        """Send lines; who is not there any more is not told of it."""
        if self.request.method == "HEAD":
            return
        with suppress(StreamClosedError):
            await self._send_all(lines)

    async def _send_all(self, lines: AsyncIterator[bytes]) -> None:
        waiting, size = list[bytes](), 0
        async for line in lines:
            waiting.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                await self.send(waiting)
                waiting, size = [], 0
        await self.send(waiting)

    async def send(self, lines: list[bytes]) -> None:
        """Send lines; who does not read them in time is cut off, before the end."""
        self.write(b"".join(lines))
        try:
            async with asyncio.timeout(UNREAD_S):
                await self.flush()
        except TimeoutError:
            self._stream.close()
            raise StreamClosedError from None


class ExportHandler(LinesHandler):
    """`GET /api/users/{userId}/export`."""

    def authorize(self, user_id: str) -> None:
        """Ask for a service token that may operate."""
        self.authenticate(SERVICE).grants.require(OPERATE)
        check_id(user_id, "userId")

    async def get(self, user_id: str) -> None:
        """Answer with a JSON object a line."""
        self.set_header("Content-Type", "application/x-ndjson")
        await self.send_all(self._lines(self.identity.grants.scope(user_id)))

    async def _lines(self, user_id: str) -> AsyncIterator[bytes]:
        async for line in self.server.people.export(user_id):
            yield line + b"\n"


class AuditHandler(LinesHandler):
    """`GET /api/povs/{povId}/audit`."""

    async def authorize(self, pov_id: str) -> None:
        """Ask for a service token that may operate, and see the PoV."""
        identity = self.authenticate(SERVICE)
        await self.server.permissions.require(identity, identity.grants.scope(pov_id), OPERATE)

    async def get(self, pov_id: str) -> None:
        """Answer who was sent what, as CSV."""
        own = str(self.identity.grants.scope(pov_id))
        self.set_header("Content-Type", "text/csv; charset=utf-8; header=present")
        await self.send_all(self.server.audit.lines(own))


class BlockHandler(JsonHandler):
    """`POST` and `DELETE /api/users/{userId}/block`."""

    BODIES = frozenset({"POST"})

    def authorize(self, user_id: str) -> None:
        """Ask for a service token that may operate."""
        self.authenticate(SERVICE).grants.require(OPERATE)
        check_id(user_id, "userId")

    async def post(self, user_id: str) -> None:
        """Keep the user out for a time, and answer until when."""
        wanted = decode_body(self.content, Block, self.server.settings.limits.details_depth)
        user_id = self.identity.grants.scope(user_id)
        self.answer(await self.server.people.block(user_id, wanted.seconds))

    async def delete(self, user_id: str) -> None:
        """Let the user in again."""
        self.answer(await self.server.people.unblock(self.identity.grants.scope(user_id)))


class PovHandler(JsonHandler):
    """`DELETE /api/povs/{povId}`."""

    async def authorize(self, pov_id: str) -> None:
        """Ask for a service token that may operate, and see the PoV."""
        identity = self.authenticate(SERVICE)
        await self.server.permissions.require(identity, identity.grants.scope(pov_id), OPERATE)

    async def delete(self, pov_id: str) -> None:
        """Delete the PoV, and answer what that was when all is done."""
        pov_id = self.identity.grants.scope(pov_id)
        self.answer(await self.server.people.delete(pov_id))
