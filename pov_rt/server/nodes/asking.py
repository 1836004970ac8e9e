"""One node asks others, and they answer: over the engine's signals, each on a topic of its own.

A question names what is asked, and has a body that only its two sides understand. Whoever is asked
answers once, or refuses with an error of ours, which the asker raises as if it were its own. There
is no other answer: one that does not come in time never comes, and the asker says whose that is.
Where too much is on its way already, it is refused at once.
A node of a version that knows nothing of this does not hear, and one that does not know a question
says so.

Who may ask was decided by the node that a client or an operator asked: what comes over the engine
is trusted, as what is published is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pov_rt.engine.base import Engine, Peer, Room
from pov_rt.protocol.bodies import MissingNode
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.errors import (
    ClientError,
    Internal,
    NotFound,
    TooLarge,
    Unavailable,
    rebuild,
)
from pov_rt.protocol.tenants import TenantId
from pov_rt.protocol.topics import node_topic
from pov_rt.runtime.containment import Tasks

log = logging.getLogger(__name__)

WAIT_S = 1.0
"""For how long an answer is waited for."""
SILENT_S = 7.0
"""A node that was not heard of for so long, three beats and a bit, is not waited for."""
MOST_BYTES = 1536 * 1024
"""Of a question or an answer: others wait for Redis, and Redis for who reads slowly."""
MOST_ANSWERING = 10_000
"""Questions that a node answers at a time; most wait for what a session is sent."""
NO_ROOM = "the engine is away, or behind"

BodyT = TypeVar("BodyT")
AnswerT = TypeVar("AnswerT")
Answer = Callable[[bytes], Awaitable[bytes]]


def _plain(value: object) -> str:
    """Return an id of a team with its team, which `encode` leaves out for clients."""
    if isinstance(value, TenantId):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be sent to another node")


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode


class _Refusal(msgspec.Struct, omit_defaults=True):
    code: str
    message: str
    field: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: ClientError) -> _Refusal:
        return cls(error.code, error.message, error.field, error.retry_after_s)


class _Letter(msgspec.Struct, omit_defaults=True):
    """A question, or the answer to the one of that number: then nobody asks (`asker`)."""

    number: int
    asker: str = ""
    question: str = ""
    body: bytes = b""
    refusal: _Refusal | None = None


_decode = msgspec.msgpack.Decoder(_Letter).decode


@dataclass(frozen=True)
class Question(Generic[BodyT, AnswerT]):
    """A kind of question: its name, and what its body and its answer are."""

    name: str
    body: type[BodyT]
    answer: type[AnswerT]


class Told(NamedTuple, Generic[AnswerT]):
    """What nodes answered, and who did not, with the reason."""

    answers: Sequence[tuple[Peer, AnswerT]]
    missing: Sequence[MissingNode]


class Silent(Unavailable):
    """A node does not answer; `why` says so of it."""

    def __init__(self, peer: Peer, why: str) -> None:
        super().__init__(f"The node {peer.name} on {peer.host} {why}")
        self.why = why


def missing_node(peer: Peer, error: ClientError) -> MissingNode:
    """Return a node that did not say what it was asked, and why."""
    why = error.why if isinstance(error, Silent) else f"answered: {error.message}"
    return MissingNode(node=peer.name, host=peer.host, version=peer.version, why=why)


class Asking:
    """Asks the other nodes, and has their questions answered. Owner: the server."""

    def __init__(self, engine: Engine, run: str) -> None:
        self._engine = engine
        self._run = run
        self.topic = node_topic(run)
        """Where this node is asked, and answered."""
        self._answers: dict[str, Answer] = {}
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[_Letter]] = {}
        self._tasks = Tasks(log, "answering another node")

    @property
    def peers(self) -> Sequence[Peer]:
        """The other nodes; see `Engine.peers`."""
        return self._engine.peers

    def on(
        self, question: Question[BodyT, AnswerT], answer: Callable[[BodyT], Awaitable[AnswerT]]
    ) -> None:
        """Have a kind of question answered. `answer` may refuse with a `ClientError`."""

        async def encoded(body: bytes) -> bytes:
            return _encode(await answer(msgspec.msgpack.decode(body, type=question.body)))

        self._answers[question.name] = encoded

    async def ask(
        self,
        peer: Peer,
        question: Question[BodyT, AnswerT],
        body: BodyT,
        wait_s: float = WAIT_S,
    ) -> AnswerT:
        """Return what a node answers within `wait_s`.

        Raises `Silent` if it does not, `TooLarge`, or what it refuses with.
        """
        if peer.silent_s > SILENT_S:
            raise Silent(peer, f"was not heard of for {peer.silent_s:.0f} s")
        encoded = _encode(body)
        if len(encoded) > MOST_BYTES:
            raise TooLarge(f"To another node go {MOST_BYTES} bytes at a time")
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            if not self._send(peer.run, _Letter(number, self._run, question.name, encoded)):
                raise Silent(peer, f"was not asked: {NO_ROOM}")
            async with asyncio.timeout(wait_s):
                letter = await waiting
        except TimeoutError:
            raise Silent(peer, f"did not answer within {wait_s:g} s") from None
        finally:
            del self._waiting[number]
        if (refusal := letter.refusal) is not None:
            raise rebuild(refusal.code, refusal.message, refusal.field, refusal.retry_after_s)
        try:
            return msgspec.msgpack.decode(letter.body, type=question.answer)
        except DECODE_ERRORS as error:
            raise Silent(peer, "answered what this version cannot read") from error

    async def ask_all(
        self,
        question: Question[BodyT, AnswerT],
        body: BodyT,
        peers: Sequence[Peer] | None = None,
    ) -> Told[AnswerT]:
        """Return what all others, or these, answer; it takes no longer than `WAIT_S`."""
        asked = self.peers if peers is None else peers
        told = await asyncio.gather(
            *(self.ask(peer, question, body) for peer in asked), return_exceptions=True
        )
        answers, missing = list[tuple[Peer, AnswerT]](), list[MissingNode]()
        for peer, each in zip(asked, told, strict=True):
            if isinstance(each, ClientError):
                missing.append(missing_node(peer, each))
            elif isinstance(each, BaseException):
                raise each
            else:
                answers.append((peer, each))
        return Told(answers, missing)

    def hear(self, body: bytes) -> None:
        """Take what another node asks, or answers."""
        try:
            letter = _decode(body)
        except DECODE_ERRORS as error:
            log.warning("another node asked something unknown: %s", error)
            return
        if letter.asker:
            self._tasks.spawn(self._answer(letter))
            return
        waiting = self._waiting.get(letter.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(letter)

    async def close(self) -> None:
        """Answer nothing more."""
        await self._tasks.end()

    async def _answer(self, letter: _Letter) -> None:
        told = _Letter(letter.number)
        try:
            told.body = await self._find(letter)
        except ClientError as error:
            told.refusal = _Refusal.of(error)
        except Exception:  # a bug; the asker must not wait
            log.exception("answering another node's question failed: %s", letter.question)
            told.refusal = _Refusal(Internal.code, Internal.message)
        if not self._send(letter.asker, told) and told.refusal is None:
            full = Unavailable("Too much is on its way from it")
            self._send(letter.asker, _Letter(letter.number, refusal=_Refusal.of(full)))

    async def _find(self, letter: _Letter) -> bytes:
        answer = self._answers.get(letter.question)
        if answer is None:
            raise NotFound("This version does not know what is asked")
        if len(self._tasks) > MOST_ANSWERING:
            raise Unavailable("Too much is asked of it at a time")
        body = await answer(letter.body)
        if len(body) > MOST_BYTES:
            raise TooLarge(f"From another node come {MOST_BYTES} bytes at a time")
        return body

    def _send(self, run: str, letter: _Letter) -> bool:
        # A refusal is small, and must find room where answers find none.
        room = Room.LETTERS if letter.refusal is None else Room.ORDERS
        return self._engine.signals.send(node_topic(run), _encode(letter), room=room)
