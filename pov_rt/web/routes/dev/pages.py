"""Under --dev: the development pages and their files, and who may have what gives tokens."""

from __future__ import annotations

from pathlib import Path

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from pov_rt.protocol.errors import Forbidden, NotFound
from pov_rt.web.addresses import is_loopback
from pov_rt.web.http import JsonHandler

FOLDER = Path(__file__).parents[2] / "static/dev"
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
OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
"""Whoever writes one of these speaks for somebody else."""


def find_file(name: str, folder: Path | None = None) -> Path | None:
    """Return a file of the folder, if it is of a kind that pages need."""
    for path in (folder or FOLDER).iterdir():
        if path.name == name and path.suffix in KINDS:
            return path
    return None


def send_file(handler: RequestHandler, path: Path, policy: str = POLICY) -> None:
    """Send a file, or say that it is still the same: whoever works on it has it on a reload."""
    handler.set_header("Content-Type", KINDS[path.suffix])
    handler.set_header("Content-Security-Policy", policy)
    handler.set_header("Cache-Control", "no-cache")
    handler.finish(path.read_bytes())


def require_local(host: str, request: HTTPServerRequest) -> None:
    """Raise `Forbidden` unless this is a browser on the server's machine, by a local name.

    A name that merely points here must not get tokens, nor read source code.
    """
    if host.rpartition(":")[0] not in LOCAL_NAMES and host not in LOCAL_NAMES:
        raise Forbidden("Open this as http://localhost")
    is_carried = any(name in request.headers for name in OF_PROXIES)
    if is_carried or not is_loopback(request.remote_ip or ""):
        raise Forbidden("This is for browsers on the server's machine, without a proxy")


class PageHandler(JsonHandler):
    """`GET /dev/NAME`: a file of the folder; or `page` of it, for a route with a path of its own.

    Read anew for each request: whoever works on the pages has them with the next reload.
    """

    FOLDER: Path | None = None
    """Where other files are than those of the development pages."""
    POLICY = POLICY

    page = ""
    path: Path

    def check_method(self) -> None:
        """Refuse what is no file of the folder, and kinds of files that no page needs."""
        found = find_file(self.path_args[0] if self.path_args else self.page, self.FOLDER)
        if found is None:
            raise NotFound("The server has no such page or file")
        self.path = found
        super().check_method()

    def get(self, _: str = "") -> None:
        """Send the file."""
        send_file(self, self.path, self.POLICY)

    def compute_etag(self) -> str | None:
        """Have Tornado hash the file, so that one that is still the same is not sent again."""
        return RequestHandler.compute_etag(self)


class LocalHandler(JsonHandler):
    """The base of what gives tokens: for browsers on the server's machine, by a local name."""

    def check(self) -> None:
        """Refuse all others."""
        super().check()
        require_local(self.host, self.request)


class LocalPageHandler(LocalHandler, PageHandler):
    """A page that is of no use without tokens."""
