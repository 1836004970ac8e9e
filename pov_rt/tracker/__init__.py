"""Activity trackers: turn an application's requests into activities.

`pov_rt.tracker.tornado` is the one for Tornado applications.
"""

from pov_rt.protocol.messages import NewActivity
from pov_rt.tracker.core import Facts, Track
from pov_rt.tracker.token import ServiceToken

__all__ = ["Facts", "NewActivity", "ServiceToken", "Track"]
