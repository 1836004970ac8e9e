"""The SDK is there for pages of any origin, by names for good and stable ones, and nothing more."""

from __future__ import annotations

import base64
import gzip
import re
import socket
from contextlib import closing
from hashlib import sha384

import pytest

from pov_rt.testing import RunningServer
from pov_rt.web.routes.client import CORE, FOLDER, MODULE, SCRIPT, WIDGETS, read_files
from tests.web.routes.test_activities import call

STABLE = (SCRIPT, MODULE, CORE, WIDGETS)
FOREIGN = {"Origin": "https://app.example", "Sec_Fetch_Site": "cross-site"}


def test_the_built_client_is_here() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(read_files())
    assert set(STABLE) <= set(read_files())
    for name, file in read_files().items():
        for part in re.findall(r'"\./([\w.-]+)"', file.body.decode()):
            assert part in read_files(), f"{name} imports {part}"


def test_each_file_is_served_under_its_names(server: RunningServer) -> None:
    for name, file in read_files().items():
        for each in {name, file.lasting}:
            answer = call(server, f"/client/{each}", **FOREIGN)
            assert (answer.code, answer.body) == (200, file.body)
            headers = answer.headers
            assert headers["Content-Type"] == "text/javascript; charset=utf-8"
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in headers
            assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Vary"] == "Accept-Encoding"
            caching = headers["Cache-Control"]
            if each in STABLE:
                assert caching == "no-cache"
            else:
                assert caching == "public, max-age=31536000, immutable"
                assert re.search(r"-\w{8,}\.m?js$", each)


def test_integrity_is_that_of_what_is_served(server: RunningServer) -> None:
    for file in read_files().values():
        digest = sha384(call(server, f"/client/{file.lasting}").body).digest()
        assert file.integrity == f"sha384-{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("accepted", "is_zipped"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP ; q=0.5", True),
        ("gzip;q=1.000", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br, identity", False),
        ("x-gzip", False),
        ("", False),
    ],
)
def test_it_is_compressed_for_who_takes_that(
    server: RunningServer, accepted: str, is_zipped: bool
) -> None:
    head, _, body = raw(server, f"/client/{MODULE}", f"Accept-Encoding: {accepted}")
    assert ("\r\nContent-Encoding: gzip" in head) == is_zipped
    whole = read_files()[MODULE].body
    assert (gzip.decompress(body) if is_zipped else body) == whole


def raw(
    server: RunningServer, path: str, *lines: str, method: str = "GET"
) -> tuple[str, str, bytes]:
    """Return the head of the answer, its ETag, and the body as it came."""
    asked = [f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "Connection: close"]
    with closing(socket.create_connection(("127.0.0.1", server.web.port), timeout=10)) as sock:
        sock.sendall(("\r\n".join(asked) + "\r\n\r\n").encode())
        got = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = got.partition(b"\r\n\r\n")
    tag = re.search(r"\r\nETag: (\S+)", head.decode(), re.I)
    return head.decode(), tag[1] if tag else "", body


def test_who_has_it_already_is_not_sent_it_again(server: RunningServer) -> None:
    tags = set()
    for encoding in ("identity", "gzip"):
        for name in STABLE:
            asked = f"Accept-Encoding: {encoding}"
            _, tag, _ = raw(server, f"/client/{name}", asked)
            tags.add(tag)
            head, again, body = raw(server, f"/client/{name}", asked, f"If-None-Match: W/{tag}")
            assert (head.split()[1], again, body) == ("304", tag, b"")
            assert "\r\nAccess-Control-Allow-Origin: *" in head
            assert "\r\nCache-Control: no-cache" in head
            other, _, body = raw(server, f"/client/{name}", asked, 'If-None-Match: "x"')
            assert (other.split()[1], bool(body)) == ("200", True)
    assert len(tags) == 2 * len(STABLE), "other bytes have another tag"


def test_head_says_what_get_would(server: RunningServer) -> None:
    head, tag, body = raw(server, f"/client/{SCRIPT}", method="HEAD")
    assert (head.split()[1], body) == ("200", b"")
    assert f"\r\nContent-Length: {len(read_files()[SCRIPT].body)}" in head
    assert tag == raw(server, f"/client/{SCRIPT}")[1]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../dev/console.html",
        "%2e%2e%2fdev%2fconsole.html",
        "..%2Fdev%2Fconsole.html",
        "%2e%2e/dev/console.html",
        "..%5cdev%5cconsole.html",
        "./pov-rt.js",
        "pov-rt.js/",
        "pov-rt.js%00",
        "pov-rt.JS",
        "pov-rt-000000000000.js",
        "%ff",
    ],
)
def test_nothing_else_is_there(server: RunningServer, path: str) -> None:
    head, _, body = raw(server, f"/client/{path}")
    assert head.split()[1] == ("400" if path == "%ff" else "404"), body
    assert b'"error"' in body
    assert "immutable" not in head
    assert "\r\nCache-Control: no-store" in head


def test_it_takes_no_other_method_and_no_other_host(server: RunningServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        head, _, _ = raw(server, f"/client/{SCRIPT}", method=method)
        assert head.split()[1] == "405"
        assert "\r\nAllow: GET, HEAD" in head
    assert call(server, f"/client/{SCRIPT}", Host="evil.example").code == 421
