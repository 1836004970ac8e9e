"""Activity trackers: turn an application's requests into activities.

`pov_rt.tracker.tornado` is the one for Tornado applications.
"""

from pov_rt.protocol.messages import NewActivity
from pov_rt.tracker.core import Facts, Track

__all__ = ["Facts", "NewActivity", "Track"]
