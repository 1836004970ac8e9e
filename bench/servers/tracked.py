"""An ASGI app whose requests become activities: `TRACKED_URL` and `TRACKED_TOKEN` say where.

Without them nothing watches its requests.
"""

import os

from bench.backends import RULES, answer
from pov_rt.tracker.asgi import ActivityTracker

url = os.environ.get("TRACKED_URL", "")
app = answer
if url:
    app = ActivityTracker(answer, url, os.environ["TRACKED_TOKEN"], RULES, anonymous="bench")
