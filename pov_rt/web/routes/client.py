"""The browser SDK, built by clients/js: for pages anywhere, under stable names and lasting ones."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from functools import cache
from hashlib import sha384
from pathlib import Path
from typing import NamedTuple

from pov_rt.protocol.errors import NotFound
from pov_rt.web.http import JsonHandler

FOLDER = Path(__file__).parents[1] / "static/client"
SCRIPT, MODULE, CORE = "pov-rt.js", "pov-rt.mjs", "pov-rt-core.mjs"
WIDGETS = "pov-rt-widgets.mjs"
"""What pages name. All else is imported by the modules, and has its contents' hash in its name."""
LASTING = "public, max-age=31536000, immutable"
HASH_CHARS = 12


class File(NamedTuple):
    """A file of the SDK. `lasting` is its name for good: with these contents or not at all."""

    lasting: str
    body: bytes
    zipped: bytes
    integrity: str


@cache
def read_files() -> Mapping[str, File]:
    """Read the SDK, once; by the names that are its own."""
    return {path.name: _read(path) for path in sorted(FOLDER.glob("*.*js"))}


def _read(path: Path) -> File:
    body = path.read_bytes()
    digest = sha384(body)
    lasting = path.name
    if lasting in (SCRIPT, MODULE, CORE, WIDGETS):
        lasting = f"{path.stem}-{digest.hexdigest()[:HASH_CHARS]}{path.suffix}"
    integrity = f"sha384-{base64.b64encode(digest.digest()).decode()}"
    return File(lasting, body, gzip.compress(body, mtime=0), integrity)


def widgets(files: Mapping[str, File]) -> File:
    """Return the file of both tags: what has their plain name only leads to it."""
    stem = WIDGETS.removesuffix(".mjs")
    (found,) = (file for name, file in files.items() if name.startswith(f"{stem}-"))
    return found


def served() -> Mapping[str, File]:
    """Return the files by every name under which they are served."""
    files = read_files()
    return {**files, **{file.lasting: file for file in files.values()}}


class ClientHandler(JsonHandler):
    """`GET /client/NAME`: code that anybody may have, so pages of any origin get it."""

    IS_PUBLIC = True

    files: Mapping[str, File]
    etag = ""

    def set_default_headers(self) -> None:
        """Let pages of other origins have it, with `integrity` and without."""
        super().set_default_headers()
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")

    def check_method(self) -> None:
        """Refuse what is no file of the SDK, whatever else is in its folder."""
        if self.path_args[0] not in self.files:
            raise NotFound(
                "This version of the client is not here: `pov-rt client` names its files"
            )
        super().check_method()

    def get(self, name: str) -> None:
        """Send the file, or say that it is still the same."""
        file = self.files[name]
        is_zipped = _takes_gzip(self.request.headers.get("Accept-Encoding", ""))
        self.etag = f'"{file.integrity[-HASH_CHARS:]}{"-gzip" if is_zipped else ""}"'
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", LASTING if name == file.lasting else "no-cache")
        self.set_header("Vary", "Accept-Encoding")
        if is_zipped:
            self.set_header("Content-Encoding", "gzip")
        self.finish(file.zipped if is_zipped else file.body)

    def compute_etag(self) -> str | None:
        """Return what stands for the answer, so that Tornado need not hash it."""
        return self.etag or None


def _takes_gzip(accepted: str) -> bool:
    """Tell whether an Accept-Encoding header names gzip, and not to say that it is unwanted."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return not weight or weight.partition("=")[2].strip(" 0.") != ""
    return False
