"""Whether another server, which knows nothing of this one, answers under the same name.

Then each client misses what is published on the one that it is not connected to, and nothing fails.
What gives it away are positions: clients that come from the other bring those of its log. One that
began after this server's own has never been this server's, whatever was restored or renewed here;
so of two such servers the one whose log began earlier notices.
"""

from __future__ import annotations

import logging

from pov_rt.engine.bounds import is_later

log = logging.getLogger(__name__)

ENOUGH = 3
"""So many users have to bring such positions: one could make them up."""


class OtherLogs:
    """Positions of logs that have never been this server's. Owner: the hub."""

    def __init__(self) -> None:
        self.positions = 0
        """How many clients brought."""
        self._owners: set[str] = set()

    def look(self, owner: str, epoch: str, own: str) -> None:
        """Look at a position's epoch, which a user brought for a log whose epoch is `own`."""
        if epoch == own or not is_later(epoch, own):
            return
        self.positions += 1
        if len(self._owners) < ENOUGH:
            self._owners.add(owner)
            if len(self._owners) == ENOUGH:
                log.error("%s", self.warning)

    @property
    def warning(self) -> str | None:
        """What an operator should hear; None if there is nothing."""
        if len(self._owners) < ENOUGH:
            return None
        return (
            "clients bring positions of another log: another server, which knows nothing of this "
            "one, answers under the same name, and clients of one miss what is published on the "
            "other. Have one server for an app"
        )
