"""Under --dev: a page to try everything, with a ready token. It is not there otherwise."""

from __future__ import annotations

from pathlib import Path

from pov_rt.auth.grants import Kind
from pov_rt.registry.schema import asyncapi
from pov_rt.server.server import Server
from pov_rt.version import VERSION
from pov_rt.web.http import JsonHandler
from pov_rt.web.routes.pages import LocalHandler

STATIC = Path(__file__).parents[1] / "static"
TOKEN_S = 86400.0
EVERYTHING = ("subscribe", "publish", "collaborate")


def dev_tokens(server: Server) -> tuple[str, str]:
    """Return a socket token and a service token for a day of trying things out."""
    issue = server.tokens.issue
    socket = issue(Kind.SOCKET, "dev", ttl_s=TOKEN_S, povs="*", can=EVERYTHING)
    return socket, issue(Kind.SERVICE, "dev-publisher", ttl_s=TOKEN_S, povs="*")


class ConsoleHandler(JsonHandler):
    """`GET /`: the page."""

    def get(self) -> None:
        """Send the page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; frame-ancestors 'none'",
        )
        self.finish((STATIC / "console.html").read_bytes())


class ConsoleDataHandler(LocalHandler):
    """`GET /dev/console.json`: tokens and the messages' schemas, for this machine's browsers."""

    def get(self) -> None:
        """Send what the page needs."""
        token, service = dev_tokens(self.server)
        self.answer(
            {
                "version": VERSION,
                "token": token,
                "serviceToken": service,
                "schema": asyncapi(self.server.registry, self.server.settings),
            }
        )
