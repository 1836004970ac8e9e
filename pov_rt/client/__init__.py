"""For the backends of apps: follow PoVs, and publish without losing anything.

`PovClient` is for asyncio, `SyncPovClient` for code that blocks. `Publisher` keeps what is to be
published in a file, `Outbox` in the app's own transaction, from which a `Relay` brings it.
"""

from pov_rt.client.client import PovClient, Published
from pov_rt.client.connection import Status
from pov_rt.client.errors import (
    Closed,
    ConnectionLost,
    Missed,
    PovError,
    Refused,
    RequestTimeout,
    SessionEnded,
)
from pov_rt.client.follow import Gap, Joined, Only, PlacedActivity, Position
from pov_rt.client.publishing import Outbox, Publisher, Relay, SpoolFull
from pov_rt.client.subscription import Messages, Subscription
from pov_rt.client.sync import SyncPovClient, SyncSubscription
from pov_rt.client.tokens import Exchange
from pov_rt.protocol.details.traces import traced
from pov_rt.protocol.messages import NewActivity, NotificationMessage

__all__ = [
    "Closed",
    "ConnectionLost",
    "Exchange",
    "Gap",
    "Joined",
    "Messages",
    "Missed",
    "NewActivity",
    "NotificationMessage",
    "Only",
    "Outbox",
    "PlacedActivity",
    "Position",
    "PovClient",
    "PovError",
    "Published",
    "Publisher",
    "Refused",
    "Relay",
    "RequestTimeout",
    "SessionEnded",
    "SpoolFull",
    "Status",
    "Subscription",
    "SyncPovClient",
    "SyncSubscription",
    "traced",
]
