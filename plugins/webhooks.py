"""Webhooks: tells another server who comes and goes, in signed calls."""

from collections.abc import AsyncIterator
from operator import attrgetter
from typing import Literal

from pov_rt.plugin import (
    UNSET,
    Context,
    Host,
    Joined,
    Left,
    Outbox,
    Part,
    Plugin,
    UnsetType,
    WebhookOptions,
    rfc3339,
    team_of,
)

TICK_S = 0.2
"""How long the first event waits for others to travel with it."""

Name = Literal["joined", "left", "subscribed", "unsubscribed", "connected", "disconnected"]


class Options(WebhookOptions, frozen=True, forbid_unknown_fields=True):
    """Where it tells of which `events`."""

    events: frozenset[Name] = frozenset({"joined", "left"})


class Happening(Part):
    """What happened; `at` is RFC 3339. A connection's events say which one it was."""

    event: Name
    at: str
    user_id: str
    team_id: str | UnsetType = UNSET
    pov_id: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    connection_id: str | UnsetType = UNSET


Box = Outbox[Happening]

plugin = Plugin[Box]("webhooks", options=Options, needs="url")


@plugin.lifespan
async def run(host: Host) -> AsyncIterator[Box]:
    """Read the secret; at the end tell what is left to tell."""
    outbox = Box(host, host.options(Options), attrgetter("user_id"))
    yield outbox
    await outbox.close()


@plugin.every(TICK_S)
async def deliver(host: Host[Box]) -> None:
    """Send what waits; the next tick comes when that is done."""
    await host.state.deliver()


@plugin.erased
def erased(user_id: str, host: Host[Box]) -> None:
    """Tell nothing of a user that was not told yet."""
    host.state.discard(lambda event: event.user_id == user_id)


@plugin.hears(Joined)
def joined(event: Joined, host: Host[Box]) -> None:
    """Tell who is on a PoV."""
    tell("joined", host, event.user_id, pov_id=event.pov_id)


@plugin.hears(Left)
def left(event: Left, host: Host[Box]) -> None:
    """Tell who is on it no more."""
    tell("left", host, event.user_id, pov_id=event.pov_id)


@plugin.connected
def connected(context: Context[Box]) -> None:
    """Tell of a connection."""
    tell_of("connected", context)


@plugin.disconnected
def disconnected(context: Context[Box]) -> None:
    """Tell of its end."""
    tell_of("disconnected", context)


@plugin.subscribed
def subscribed(pov_id: str, context: Context[Box]) -> None:
    """Tell of a connection's subscription."""
    tell_of("subscribed", context, pov_id=pov_id)


@plugin.unsubscribed
def unsubscribed(pov_id: str, context: Context[Box]) -> None:
    """Tell of its end."""
    tell_of("unsubscribed", context, pov_id=pov_id)


def tell_of(name: Name, context: Context[Box], **more: str) -> None:
    """Tell of something about a connection."""
    device, connection_id = context.device, context.connection_id
    user_id = context.user.user_id
    tell(name, context.host, user_id, device=device, connection_id=connection_id, **more)


def tell(name: Name, host: Host[Box], user_id: str, **more: str) -> None:
    """Put what happened into the outbox, if it is wanted."""
    if name in host.options(Options).events:
        at = rfc3339(host.clock.time())
        host.state.put(
            Happening(event=name, at=at, user_id=user_id, team_id=team_of(user_id) or UNSET, **more)
        )
