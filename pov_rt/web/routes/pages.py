"""Under --dev: the development pages and their files, and who may have what gives tokens."""

from __future__ import annotations

from pathlib import Path

from pov_rt.protocol.errors import Forbidden, NotFound
from pov_rt.web.addresses import is_loopback
from pov_rt.web.http import JsonHandler

FOLDER = Path(__file__).parents[1] / "static/dev"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The content type of each kind of file. Others are not served, whatever is in the folder."""
POLICY = (
    "default-src 'self'; require-trusted-types-for 'script'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
"""The strictest Content-Security-Policy, so that what works in these pages works in anybody's."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class PageHandler(JsonHandler):
    """`GET /dev/NAME`: a file of the folder; or `page` of it, for a route with a path of its own.

    Read anew for each request: whoever works on the pages has them with the next reload.
    """

    page = ""
    path: Path

    def check_method(self) -> None:
        """Refuse what is no file of the folder, and kinds of files that no page needs."""
        name = self.path_args[0] if self.path_args else self.page
        found = [path for path in FOLDER.iterdir() if path.name == name and path.suffix in KINDS]
        if not found:
            raise NotFound("The development server has no such page or file")
        (self.path,) = found
        super().check_method()

    def get(self, _: str = "") -> None:
        """Send the file, or say that it is still the same."""
        self.set_header("Content-Type", KINDS[self.path.suffix])
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-cache")
        self.finish(self.path.read_bytes())

    head = get


class LocalHandler(JsonHandler):
    """The base of what gives tokens: for browsers on the server's machine, by a local name."""

    def check(self) -> None:
        """Refuse all others. A name that merely points here must not get the tokens."""
        super().check()
        if self.host.rpartition(":")[0] not in LOCAL_NAMES and self.host not in LOCAL_NAMES:
            raise Forbidden("Open this as http://localhost")
        if not is_loopback(self.request.remote_ip or ""):
            raise Forbidden("This is for browsers on the server's machine")
