"""Raised hands: a queue for each PoV; a hand that nobody took goes down after a while."""

from collections.abc import AsyncIterator

import msgspec

from pov_rt.plugin import Context, Host, Message, Plugin, PovId, Request


class Options(msgspec.Struct):
    """`[plugins.hands]`."""

    down_after_s: float = 300.0


class Raise(Message, tag="hands.raise"):
    """Raise the hand, or take it down."""

    pov_id: PovId
    up: bool = True


class Queue(Message, tag="hands.queue"):
    """Whose hands are up, the first first."""

    pov_id: PovId
    users: list[str]


class Hands(msgspec.Struct):
    """What the route answers."""

    users: list[str]


Raised = dict[str, dict[str, float]]
"""By PoV and user, since when."""

plugin = Plugin[Raised]("hands", options=Options, pushes=[Queue])


@plugin.lifespan
async def raised(host: Host) -> AsyncIterator[Raised]:
    """Keep the queues in this node's memory."""
    yield {}


@plugin.on(Raise, grant="collaborate", rate="2/s")
def raise_hand(message: Raise, context: Context[Raised]) -> Queue:
    """Enter the queue at its end, or leave it."""
    context.require_subscribed(message.pov_id)
    hands = context.state.setdefault(message.pov_id, {})
    if message.up:
        hands.setdefault(context.user.user_id, context.host.clock.monotonic())
    else:
        hands.pop(context.user.user_id, None)
    queue = Queue(pov_id=message.pov_id, users=list(hands))
    context.broadcast(message.pov_id, queue)
    return queue


@plugin.every(10)
def take_down(host: Host[Raised]) -> None:
    """Take down what has been up for too long."""
    before = host.clock.monotonic() - host.options(Options).down_after_s
    for pov_id, hands in list(host.state.items()):
        kept = {user: since for user, since in hands.items() if since > before}
        if kept != hands:
            host.state[pov_id] = kept
            host.broadcast(pov_id, Queue(pov_id=pov_id, users=list(kept)))
        if not kept:
            del host.state[pov_id]


@plugin.http("GET", "/povs/{pov_id}/hands", grant="subscribe")
def show(request: Request[Raised]) -> Hands:
    """Answer the queue."""
    return Hands(users=list(request.state.get(request.path["pov_id"], {})))
