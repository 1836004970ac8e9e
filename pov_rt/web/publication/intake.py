"""What every publication is asked that takes the short way, and how it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from pov_rt.auth.tokens import Identity
from pov_rt.config.settings import Settings
from pov_rt.connections.budgets import BYTE, LARGE_BYTES
from pov_rt.protocol.encoding import BYTE_ORDER_MARK, encode
from pov_rt.protocol.errors import TokenError
from pov_rt.server.server import Server
from pov_rt.web.addresses import Client, Failures
from pov_rt.web.bodies import Bodies
from pov_rt.web.hosts import HostRules, check_host, check_origin
from pov_rt.web.http import SERVICE, AccessLog, bearer
from pov_rt.web.routes.activities import Answer, publish
from pov_rt.web.upgrade.head import Head

CLOSE = b"Connection: close\r\n"


class Sender(NamedTuple):
    """Who sends a head, and what it said so by."""

    client: Client
    token: str
    content_type: str
    settings: Settings


@dataclass(slots=True)
class Intake:
    """Takes publications in. Owner: the web server."""

    server: Server
    host_rules: HostRules
    failures: Failures
    bodies: Bodies
    access_log: AccessLog
    _dated: int = -1
    _date: bytes = b""

    def read_sender(self, head: Head) -> Sender:
        """Return who sends a head. Raises `ClientError` for what is wrong with it."""
        settings = self.server.settings
        client = self.failures.client(head, settings.server)
        check_origin(head, check_host(head, settings, self.host_rules), settings)
        token = bearer(head)
        if token is None:
            raise TokenError
        return Sender(client, token, head.headers.get("content-type", ""), settings)

    def identify(self, sender: Sender) -> Identity | None:
        """Return who publishes; None where that is to be looked at the long way.

        That is where it takes a signature, so that a bad token is counted once, or where the node
        is not as it was when the head was read. Raises `ClientError` for who may not publish.
        """
        server, token = self.server, sender.token
        if server.draining or sender.settings is not server.settings:
            return None
        if not server.tokens.remembers(token, SERVICE):
            return None
        identity = self.failures.verify(server.tokens, token, SERVICE, sender.client)
        identity.grants.require("publish")
        return identity

    def publish(self, identity: Identity, sender: Sender, body: bytes) -> asyncio.Future[Answer]:
        """Publish what a body has. Raises `ClientError`, or the future gets what is wrong."""
        content = body.removeprefix(BYTE_ORDER_MARK)
        return publish(self.server, identity, content, sender.content_type)

    def answer(self, answer: Answer, sender: Sender, owner: str, took_s: float) -> bytes | None:
        """Return the bytes of an answer, for which its owner is charged; None of a large one.

        Who does not read that would hold too much.
        """
        body = encode(answer.value)
        if len(body) > LARGE_BYTES:
            return None
        self.server.budgets.charge_owner(owner, len(body) * BYTE)
        self.access_log.went_well("POST /api/activities", answer.status, sender.client.ip, took_s)
        status = b"201 Created" if answer.status == HTTPStatus.CREATED else b"200 OK"
        return (
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nDate: %b\r\n"
            b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n%bContent-Length: %d"
            b"\r\n\r\n%b"
        ) % (status, self._now(), CLOSE if self.server.draining else b"", len(body), body)

    def _now(self) -> bytes:
        """Return the date, which is written once a second."""
        second = int(asyncio.get_running_loop().time())
        if second != self._dated:
            self._dated, self._date = second, formatdate(usegmt=True).encode()
        return self._date
