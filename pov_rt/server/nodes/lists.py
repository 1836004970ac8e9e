"""Lists over all nodes: each is asked for its page, and those are merged.

All begin at one place. What is merged ends where the first of them does that goes on, for nobody
knows what that one has behind it: so no row is left out between two pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from pov_rt.dispatch.host import Services
from pov_rt.engine.base import Peer
from pov_rt.protocol.bodies import MissingNode
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.server.listings import Cursor, Listings, Page, Query
from pov_rt.server.nodes.asking import Asking, Question


class Wanted(msgspec.Struct):
    """A page that another node is asked for."""

    listing: str
    query: Query


class Merged(NamedTuple):
    """A page as `Page` has it; `nodes` are those whose rows are counted, the others `missing`."""

    rows: Sequence[tuple[Cursor, bytes]]
    total: int
    more: int
    nodes: Sequence[str]
    missing: Sequence[MissingNode]


PAGE = Question("page", Wanted, Page)


class Lists:
    """Lists of all nodes. Owner: the server."""

    def __init__(self, services: Services, listings: Listings, asking: Asking) -> None:
        self._services = services
        self._listings = listings
        self._asking = asking
        asking.on(PAGE, lambda wanted: listings.page(wanted.listing, wanted.query))

    async def look(self, listing: str, query: Query, node: str | None = None) -> Merged:
        """Return a page of all nodes' rows, or of one node's.

        Raises `InvalidRequest` as `Listings.page` does, and for a node that is not there.
        """
        own = self._services.node
        self._listings.check(listing, query)
        peers = () if node == own else self._peers(node)
        told = await self._asking.ask_all(PAGE, Wanted(listing, query), peers)
        pages, nodes = [page for _, page in told.answers], [peer.name for peer, _ in told.answers]
        if node in (None, own):
            pages.insert(0, await self._listings.page(listing, query))
            nodes.insert(0, own)
        rows, more = merge(pages, query.limit)
        return Merged(rows, sum(page.total for page in pages), more, nodes, told.missing)

    def _peers(self, node: str | None) -> Sequence[Peer]:
        peers = self._asking.peers
        if node is None:
            return peers
        if found := [each for each in peers if each.name == node]:
            return found
        there = ", ".join([self._services.node, *(each.name for each in peers)])
        raise InvalidRequest(f"There is no node {node}; there are: {there}", field="node")


def merge(pages: Sequence[Page], limit: int) -> tuple[Sequence[tuple[Cursor, bytes]], int]:
    """Return the first rows of several pages in one order, and how many come after these."""
    rows = sorted((row for page in pages for row in page.rows), key=itemgetter(0))
    ends = [page.rows[-1][0] for page in pages if page.more]
    shown = rows[:limit] if not ends else [each for each in rows if each[0] <= min(ends)][:limit]
    return shown, sum(page.more for page in pages) + len(rows) - len(shown)
