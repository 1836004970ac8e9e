"""Runs plans against a server, many at once, and checks all that comes back."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.answers import Answers, Failure
from tests.fuzz.plans import Deafen, End, Listen, Plan, Planner, Send, Settle

AT_ONCE = 16
IDLE_S = 0.002
"""How long a turn waits when nobody has anything to do."""
QUIET_S = 0.3
"""A client that waits for the server to hang up gives up after this long without a byte."""
PATIENCE_S = 20.0
SMALL_BUFFER_BYTES = 4096
RESET = struct.pack("ii", 1, 0)


@dataclass
class Tally:
    """What was done, and how it was answered."""

    connections: int = 0
    frames: int = 0
    answers: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


class Session:
    """One client that follows its plan. Owner: `run`, until it is `done`."""

    def __init__(self, port: int, plan: Plan) -> None:
        self.plan = plan
        self.answers = Answers()
        self.done = False
        self.sent = 0
        self.socket = socket.socket()
        if plan.small_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._began = self._heard = time.monotonic()
        self._actions = list(reversed(plan.actions))
        self._unsent = b""
        self._deaf = 0
        self._listens_until = 0.0
        self._settle_s = 0.0
        self._ended = False
        self._careless = False

    @property
    def frames(self) -> int:
        """How many of its frames were sent to their end."""
        return bisect_right(self.plan.frame_ends, self.sent)

    def waits_for(self) -> tuple[bool, bool]:
        """Tell whether it wants to read, and whether to write."""
        return not self._deaf, bool(self._unsent)

    def step(self) -> bool:
        """Go on a little; return whether anything happened."""
        if time.monotonic() - self._began > PATIENCE_S:
            raise Failure(f"not over after {PATIENCE_S:g} s; sent {self.sent} bytes")
        heard = False
        if self._deaf:
            self._deaf -= 1
        else:
            heard = self._receive()
        if self.done or heard:
            self._listens_until = 0.0
            return True
        if self._unsent:
            return self._send()
        now = time.monotonic()
        if now < self._listens_until or now - self._heard < self._settle_s:
            return False
        return self._act()

    def close(self) -> None:
        """Let go of the socket."""
        self.done = True
        self.socket.close()

    def _act(self) -> bool:
        if not self._actions:
            return self._finish()
        action = self._actions.pop()
        if isinstance(action, Send):
            self._unsent = action.data
            return self._send()
        if isinstance(action, Listen):
            self._listens_until = time.monotonic() + action.seconds
        elif isinstance(action, Settle):
            self._settle_s = action.seconds
            self._heard = time.monotonic()
        elif isinstance(action, Deafen):
            self._deaf = action.turns
            self._careless = True
        return True

    def _send(self) -> bool:
        try:
            size = self.socket.send(self._unsent)
        except BlockingIOError:
            return False
        except ConnectionError:  # the server has hung up; it may have said why
            self._unsent = b""
            self._actions = []
            self._ended = True
            return True
        self.sent += size
        self._unsent = self._unsent[size:]
        return True

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.close()
            return True
        if data:
            self._heard = time.monotonic()
            self.answers.feed(data)
            return True
        if self.answers.cut and not self._careless:
            raise Failure("the server ended in the middle of an answer")
        self.close()
        return True

    def _finish(self) -> bool:
        """End in its own way, once; then only read."""
        if self._ended:
            return False
        end = self.plan.end
        if end is End.WAIT and time.monotonic() - self._heard < QUIET_S:
            return False
        self._ended = True
        self._careless = True
        if end is End.RESET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if end in (End.RESET, End.CLOSE):
            self.close()
            return True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the server was faster
            pass
        return True


def run(
    port: int,
    token: str,
    seed: int,
    *,
    connections: int = 0,
    frames: int = 0,
    between: Callable[[Tally], None],
) -> Tally:
    """Run plans until there were so many connections and frames; `between` is called every 100.

    Raises `Failure` for an answer that no client should get. The seed decides what is sent, in
    which pieces, and in which order the clients have their turns; when answers come, it does not.
    """
    planner = Planner(seed, token)
    dice = random.Random(seed)
    tally = Tally()
    sessions: list[Session] = []
    started = 0
    try:
        while True:
            while len(sessions) < AT_ONCE and (started < connections or tally.frames < frames):
                sessions.append(Session(port, planner.plan(started)))
                started += 1
            if not sessions:
                return tally
            dice.shuffle(sessions)
            moved = [_step(seed, session) for session in sessions]
            for session in [each for each in sessions if each.done]:
                sessions.remove(session)
                tally.connections += 1
                tally.frames += session.frames
                tally.answers += session.answers.frames
                tally.statuses[session.answers.status] += 1
                if tally.connections % 100 == 0:
                    between(tally)
            if not any(moved):
                _rest(sessions)
    finally:
        for session in sessions:
            session.close()


def _step(seed: int, session: Session) -> bool:
    try:
        return session.step()
    except Failure as failure:
        number = session.plan.number
        raise Failure(f"seed {seed}, connection {number}: {failure}") from failure


def _rest(sessions: list[Session]) -> None:
    readers = [session.socket for session in sessions if session.waits_for()[0]]
    writers = [session.socket for session in sessions if session.waits_for()[1]]
    select.select(readers, writers, [], IDLE_S)
