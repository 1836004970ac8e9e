"""What becomes of what a node tells all others to do: they are asked, behind it, what it closed.

Whoever has not heard of it by then, or does not answer, is named: it does it once it hears.
"""

from __future__ import annotations

from pov_rt.connections.directory import Closed, Directory, Order
from pov_rt.protocol.errors import NotFound
from pov_rt.server.nodes.asking import Asking, Question

CLOSED = Question("closed", str, int)
"""How many connections a node has closed by an order of that name."""


class Orders:
    """Counts what orders closed on all nodes. Owner: the server."""

    def __init__(self, directory: Directory, asking: Asking) -> None:
        self._directory = directory
        self._asking = asking
        asking.on(CLOSED, self._count)

    async def closed(self, order: Order) -> Closed:
        """Return how many connections of all nodes an order closed, and who did not say so.

        It is waited for as long as for any answer, a second at most.
        """
        told = await self._asking.ask_all(CLOSED, order.name)
        return Closed(order.closed + sum(number for _, number in told.answers), told.missing)

    async def _count(self, name: str) -> int:
        closed = self._directory.closed_by(name)
        if closed is None:
            raise NotFound("It has not heard of it")
        return closed
