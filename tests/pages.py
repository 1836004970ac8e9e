"""Pages in a real browser: Debian's Chromium, and a page of an origin that is not the server's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, sync_playwright

POPUPS = "WebUIOmniboxPopup,WebUIOmniboxAimPopup"
"""What its address bar lists: pages of its own in each window, which cost more than our own."""


@contextmanager
def chromium() -> Iterator[Page]:
    """Open a page; the test is skipped where there is no browser."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no Chromium: scripts/test installs Debian's")
    with sync_playwright() as playwright:
        # As root it runs without its sandbox alone; the pages here are our own.
        options = ["--no-sandbox", "--disable-quic", "--host-resolver-rules=MAP rt.test 127.0.0.1"]
        # These are in the place of those that Playwright has off, of which we need the first.
        options.append(f"--disable-features=HttpsUpgrades,{POPUPS}")
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser.new_page()
        finally:
            browser.close()


TYPES = {"": "text/html", "js": "text/javascript", "css": "text/css"}


@contextmanager
def another_origin(html: str = "", files: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve a page, and files by their paths, whatever is asked behind a `?`; yield its origin."""
    texts = {"/": html, **(files or {})}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            self.send_response(200 if path in texts else 404)
            kind = TYPES.get(path.rpartition(".")[2] if "." in path else "", "text/plain")
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.end_headers()
            self.wfile.write(texts.get(path, "").encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
