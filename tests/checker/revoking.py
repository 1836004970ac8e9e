"""Revokes the tokens of members while they are served: nothing follows, and none is good again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random

from tests.checker.activities import SIDE
from tests.checker.clients import LOST, PASSING, Http, WebSocket, make_token, wait_s
from tests.checker.members import Member, expect_refusal
from tests.checker.records import History

PAUSE_S = (0.5, 2.5)
CLOSED_S = 8.0
"""A socket whose token is void is closed by then: the server may stand still for a while."""
REMEMBERED = 5


class Revoker:
    """Owner: the run, which cancels it."""

    name = "revoker"

    def __init__(self, history: History, port: int, victims: Sequence[Member], seed: int) -> None:
        self._history = history
        self._port = port
        self._victims = victims
        self._random = Random(f"{seed} revoker")
        self._http = Http(port, make_token("revoker", SIDE, service=True, can=["operate"]))
        self._void: list[str] = []
        self._waiting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Revoke, until it is cancelled."""
        while True:
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            await self._revoke(self._random.choice(self._victims))
            if self._void:
                await self._check(self._random.choice(self._void))

    def reset(self) -> None:
        """Cut the connection."""
        self._http.reset()

    async def check_end(self) -> None:
        """Check that none is good again, and that no socket lives on."""
        for token in self._void:
            await self._check(token)
        if self._waiting:
            await asyncio.wait(self._waiting)

    async def _revoke(self, member: Member) -> None:
        name, socket = member.token_id, member.socket
        token = member.renew()  # before: else it would be refused when it comes back at once
        body = json.dumps({"tokenId": name}).encode()
        while True:
            try:
                status, answer, _ = await self._http.request("/api/tokens/revoke", body)
            except LOST:
                await asyncio.sleep(self._random.uniform(0.01, 0.1))
                continue
            if status < 300:
                break
            problem = json.loads(answer)["error"]
            if problem["code"] not in PASSING:
                self._history.notes.add("refused", f"to revoke was answered {problem}")
                return
            await asyncio.sleep(max(0.1, wait_s(problem)))
        self._history.counts["revoked"] += 1
        self._void = [*self._void[-REMEMBERED:], token]
        if socket is not None and not socket.lost.done():
            task = asyncio.get_running_loop().create_task(self._expect_end(member, socket, name))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _expect_end(self, member: Member, socket: WebSocket, name: str) -> None:
        await asyncio.wait([socket.lost], timeout=CLOSED_S)
        if not socket.lost.done():
            member.note("revoked", f"is still connected {CLOSED_S:g} s after {name} was revoked")
            socket.reset()

    async def _check(self, token: str) -> None:
        problem = await expect_refusal(self._port, token)
        if problem is not None:
            self._history.notes.add("revoked", problem)
