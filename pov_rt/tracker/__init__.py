"""Activity trackers: turn an application's requests into activities. Best effort, and counted.

There is one for each kind of application: `pov_rt.tracker.asgi`, `wsgi`, `django`, `tornado`.
`ActivityTracker` here is for any other, whose middleware is called with a request and what is next.
"""

from pov_rt.protocol.messages import NewActivity
from pov_rt.tracker.core import Facts, Track
from pov_rt.tracker.neutral import ActivityTracker
from pov_rt.tracker.token import ServiceToken

__all__ = ["ActivityTracker", "Facts", "NewActivity", "ServiceToken", "Track"]
