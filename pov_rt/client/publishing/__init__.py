"""Publishing without losing anything: a spool, an outbox in the app's own database, and a relay."""

from pov_rt.client.publishing.outbox import Outbox
from pov_rt.client.publishing.relay import Relay
from pov_rt.client.publishing.spool import Publisher, SpoolFull

__all__ = ["Outbox", "Publisher", "Relay", "SpoolFull"]
