"""`GET /api/connections`, `users`, `povs`, `plugins`: pages of what is on the node."""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import UNSET

from pov_rt.dispatch.request import read_number
from pov_rt.protocol.bodies import Listed
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.protocol.messages import check_id
from pov_rt.registry.pov_ids import names_id
from pov_rt.server.listings import MOST_ROWS, Cursor, Query
from pov_rt.web.http import SERVICE, JsonHandler, parse_query

MAX_SEARCH_CHARS = 200
PRICE = 1.0

ONE_NODE = "node"
"""The parameter that asks of one node alone."""

_cursor = msgspec.json.Decoder(Cursor)


def write_cursor(cursor: Cursor) -> str:
    """Return what a client sends back for the next page; what is in it is nobody's business."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def read_cursor(text: str) -> Cursor:
    """Read what `write_cursor` wrote. Raises `InvalidRequest`."""
    try:
        return _cursor.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (binascii.Error, *DECODE_ERRORS) as error:
        raise InvalidRequest("after is none that the server gave", field="after") from error


class ListingHandler(JsonHandler):
    """`GET` of one list, for service tokens that may operate."""

    listing: str
    query: Query
    node: str | None
    """Whose rows are asked for; None: all nodes'."""

    def authorize(self) -> None:
        """Ask for such a token, and read the query."""
        identity = self.authenticate(SERVICE)
        self.pay(PRICE)
        identity.grants.require("operate")
        self.query = self._read_query()

    async def get(self) -> None:
        """Answer a page."""
        page = await self.server.lists.look(self.listing, self.query, self.node)
        said = Listed(
            node=self.server.node,
            nodes=list(page.nodes),
            missing=list(page.missing),
            total=page.total,
            more=page.more,
            next=write_cursor(page.rows[-1][0]) if page.more and page.rows else UNSET,
        )
        rows = [msgspec.Raw(row) for _, row in page.rows]
        self.answer({**msgspec.to_builtins(said), self.listing: rows})

    def _read_query(self) -> Query:
        """Return what is asked for. Raises `InvalidRequest` or `InvalidId` naming the parameter."""
        asked = dict(parse_query(self.request.query))
        limit = read_number(asked, "limit", MOST_ROWS, 1, MOST_ROWS)
        asked.pop("limit", None)
        grants = self.identity.grants
        self.node = asked.pop(ONE_NODE, None)
        sort, after = asked.pop("sort", ""), asked.pop("after", None)
        search = asked.pop("q", "")
        if len(search) > MAX_SEARCH_CHARS:
            raise InvalidRequest(f"q has at most {MAX_SEARCH_CHARS} characters", field="q")
        for name in filter(names_id, asked):
            check_id(asked[name], name)
        return Query(
            sort=sort.removeprefix("-"),
            reverse=sort.startswith("-"),
            filters={
                name: grants.scope(text) if names_id(name) else text for name, text in asked.items()
            },
            search=search,
            limit=limit,
            after=None if after is None else read_cursor(after),
            tenant=grants.operates_on,
        )
