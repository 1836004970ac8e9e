"""The admin page's files, and what it asks of the node besides lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from pov_rt.auth.tokens import Identity
from pov_rt.protocol.bodies import Happenings, NodeHour, NodesState, NodeState
from pov_rt.web.http import SERVICE, JsonHandler
from pov_rt.web.routes.dev.pages import PageHandler

FOLDER = Path(__file__).parents[2] / "static/admin"
POLICY = (
    "default-src 'self'; require-trusted-types-for 'script'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No page of others may show it: a click there would be a click here."""


class AdminPageHandler(PageHandler):
    """`GET /`: the page; `GET /admin/NAME`: its files. Without a token they show nothing."""

    FOLDER = FOLDER
    POLICY = POLICY


class OperatorsHandler(JsonHandler):
    """What is for service tokens that may operate."""

    def authorize(self) -> None:
        """Ask for such a token."""
        identity = self.authenticate(SERVICE)
        self.pay()
        identity.grants.require("operate")


class NodeHandler(OperatorsHandler):
    """`GET /api/node`, and what is below it.

    The node in numbers, `hour`: what those were, `activities`: what is published.
    """

    state: Callable[[Identity], NodeState | NodeHour | Happenings]

    def get(self) -> None:
        """Answer it as it is now."""
        self.answer(self.state(self.identity))


class NodesHandler(OperatorsHandler):
    """`GET /api/nodes`: all nodes in numbers."""

    state: Callable[[Identity], Awaitable[NodesState]]

    async def get(self) -> None:
        """Answer it as it is now, and who does not answer."""
        self.answer(await self.state(self.identity))
