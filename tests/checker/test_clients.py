"""The checker's own sockets."""

from __future__ import annotations

import asyncio

from tests.checker.clients import WebSocket


def test_what_came_with_a_message_that_ends_the_connection_is_lost() -> None:
    """As with a reset from outside: else it would be noted as the next connection's."""

    async def run() -> None:
        received: list[bytes] = []

        def receive(payload: bytes) -> None:
            received.append(payload)
            if payload == b"no":
                client.reset()

        client = WebSocket(receive, b"")
        client.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02on\x81\x02")
        client.data_received(b"no\x81\x03off")
        assert received == [b"on", b"no"]

    asyncio.run(run())
