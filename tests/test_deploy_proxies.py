"""Behind each proxy whose file is shipped, with that file: Host, address, upgrade, body, log."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.processes import running
from tests.web.routes.test_activities import call

DEPLOY = Path(__file__).parent.parent / "scripts/deploy"
HOST = "rt.example"
CLIENT = "127.0.0.5"
"""The address that the client has; all of 127.0.0.0/8 is this machine."""
WAIT_S = 20.0
LARGE = 4_500_000
"""More than limits.publish_bytes, less than what a proxy lets pass."""
ONE = json.dumps({"type": "t", "action": "a", "povId": "a/b", "userId": "ana"}).encode()


class Place(NamedTuple):
    """Where things are in a test: a folder, the proxy's port, the server's two, a certificate."""

    folder: Path
    port: int
    server: int
    admin: int
    certificate: Path


def replaced(file: str, *changes: tuple[str, str]) -> str:
    """Return a shipped file with other places in it; each is there."""
    text = (DEPLOY / file).read_text()
    for before, after in changes:
        assert before in text, (file, before)
        text = text.replace(before, after)
    return text


def nginx(program: str, place: Place) -> list[str]:
    site = replaced(
        "nginx.conf",
        ("listen 443 ssl;", f"listen 127.0.0.1:{place.port} ssl;"),
        ("/etc/ssl/certs/rt.example.pem", str(place.certificate)),
        ("/etc/ssl/private/rt.example.key", str(place.certificate)),
        ("server 127.0.0.1:8765;", f"server 127.0.0.1:{place.server};"),
        ("/var/log/nginx/pov-rt.log", str(place.folder / "access.log")),
    )
    folders = "".join(
        f"{kind}_temp_path {place.folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = place.folder / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {place.folder}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\n{folders}{site}}}\n"
    )
    return [program, "-c", str(config), "-p", str(place.folder)]


def haproxy(program: str, place: Place) -> list[str]:
    config = place.folder / "haproxy.cfg"
    config.write_text(
        replaced(
            "haproxy.cfg",
            ("bind :443 ssl", f"bind 127.0.0.1:{place.port} ssl"),
            ("/etc/haproxy/rt.example.pem", str(place.certificate)),
            (
                "server node-1 127.0.0.1:8765 check port 8766 inter 2s",
                f"server node-1 127.0.0.1:{place.server} check port {place.admin} inter 2s",
            ),
            ("maxconn 20000", "maxconn 200"),
        )
    )
    return [program, "-db", "-f", str(config)]


def caddy(program: str, place: Place) -> list[str]:
    config = place.folder / "Caddyfile"
    text = replaced(
        "Caddyfile",
        (
            "\nrt.example {",
            f"\nhttps://rt.example:{place.port} {{\n\tbind 127.0.0.1\n"
            f"\ttls {place.certificate} {place.certificate}",
        ),
        ("127.0.0.1:8765", f"127.0.0.1:{place.server}"),
        ("\tlog {", f"\tlog {{\n\t\toutput file {place.folder}/access.log"),
    )
    config.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [program, "run", "--config", str(config), "--adapter", "caddyfile"]


def apache(program: str, place: Place) -> list[str]:
    modules = Path(program).resolve().parents[1] / "lib/apache2/modules"
    names = "mpm_event authz_core authz_host log_config headers ssl proxy proxy_http socache_shmcb"
    loaded = "".join(
        f"LoadModule {name}_module {modules}/mod_{name}.so\n"
        for name in names.split()
        if (modules / f"mod_{name}.so").exists()
    )
    site = replaced(
        "apache.conf",
        ("*:443", f"127.0.0.1:{place.port}"),
        ("/etc/ssl/certs/rt.example.pem", str(place.certificate)),
        ("/etc/ssl/private/rt.example.key", str(place.certificate)),
        ("127.0.0.1:8765", f"127.0.0.1:{place.server}"),
        ("/var/log/apache2/pov-rt.log", str(place.folder / "access.log")),
    )
    config = place.folder / "apache.conf"
    config.write_text(
        f'ServerRoot "{place.folder}"\nServerName rt.example\nPidFile {place.folder}/pid\n'
        f"Listen 127.0.0.1:{place.port}\nErrorLog /dev/stderr\nDefaultRuntimeDir {place.folder}\n"
        f"{loaded}{site}"
    )
    return [program, "-X", "-f", str(config)]


Proxy = Callable[[str, Place], list[str]]
PROXIES: dict[str, tuple[Proxy, str, str]] = {
    "nginx": (nginx, "nginx", "nginx"),
    "haproxy": (haproxy, "haproxy", "haproxy"),
    "caddy": (caddy, "caddy", "caddy"),
    "apache": (apache, "apache2", "apache2"),
}
"""What starts each, its program, and its Debian package."""


@pytest.fixture
def settings() -> Settings:
    server = ServerSettings(
        port=0,
        admin_port=0,
        drain_s=0.2,
        trusted_proxies=["127.0.0.1"],
        allowed_hosts=[HOST],
    )
    return make_settings(server=server)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is missing: apt-get install -y openssl")
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", f"/CN={HOST}", "-addext"),
            *(f"subjectAltName=DNS:{HOST}", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    both.chmod(0o600)
    return both


@contextmanager
def connected(port: int) -> Iterator[ssl.SSLSocket]:
    """Return a client's connection, by TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(
        ("127.0.0.1", port), timeout=WAIT_S, source_address=(CLIENT, 0)
    )
    with closing(plain), context.wrap_socket(plain, server_hostname=HOST) as sock:
        yield sock


def ask(port: int, first: str, *lines: str, body: bytes = b"") -> tuple[int, str]:
    """Return an answer's status and all of it."""
    with connected(port) as sock:
        return talk(sock, port, first, *lines, "Connection: close", body=body)


def talk(
    sock: ssl.SSLSocket, port: int, first: str, *lines: str, body: bytes = b""
) -> tuple[int, str]:
    head = [f"{first} HTTP/1.1", f"Host: {HOST}:{port}", *lines]
    with suppress(OSError):  # it is refused before its end
        sock.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    answer = b""
    while not is_whole(answer):
        data = sock.recv(65536)
        if not data:
            break
        answer += data
    return int(answer.split(b" ", 2)[1]), answer.decode("latin-1")


def is_whole(answer: bytes) -> bool:
    """Tell whether an answer has come to its end; else it comes when the connection ends."""
    head, end, body = answer.partition(b"\r\n\r\n")
    size = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(end) and (b" 101 " in head or (size is not None and len(body) >= int(size[1])))


@pytest.fixture(params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, server: RunningServer, certificate: Path, tmp_path: Path
) -> Iterator[Place]:
    """Run one of the proxies in front of the server."""
    start, name, package = PROXIES[request.param]
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is missing: apt-get install -y --no-install-recommends {package}")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    place = Place(tmp_path, port, server.web.port, server.web.admin_port, certificate)
    log = (tmp_path / "output.log").open("wb")
    with log, running(start(program, place), stdout=log, stderr=log) as process:
        end = time.monotonic() + WAIT_S
        while True:
            with suppress(OSError):
                if ask(port, "GET /nowhere")[0] == 404:
                    break
            text = (tmp_path / "output.log").read_text()
            assert process.poll() is None, text
            assert time.monotonic() < end, text
            time.sleep(0.05)
        yield place


def test_a_proxy_with_the_shipped_file_passes_all_on(server: RunningServer, proxy: Place) -> None:
    port, service = proxy.port, server.token("app", Kind.SERVICE, can=["publish", "operate"])
    bearer = f"Authorization: Bearer {service}"
    token = server.token()
    lies = ("X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "X-Forwarded-Proto: http")

    # A body, also one whose length is not said before it comes.
    framed = (f"Content-Length: {len(ONE)}", ONE)
    chunked = ("Transfer-Encoding: chunked", b"%x;a=b\r\n%b\r\n0\r\nA: b\r\n\r\n" % (len(ONE), ONE))
    for framing, body in (framed, chunked):
        status, text = ask(port, "POST /api/activities", bearer, framing, body=body)
        assert status == 201, text
    # An id with a slash stays one.
    read = f"Authorization: Bearer {token}"
    status, text = ask(port, "GET /api/povs/a%2Fb/activities", read)
    assert (status, '"offset":2' in text) == (200, True), text
    status, text = ask(port, "HEAD /api/povs/a%2Fb/activities", read)
    assert (status, text.endswith("\r\n\r\n")) == (200, True)
    status, text = ask(
        port, "POST /api/activities", bearer, f"Content-Length: {LARGE}", body=bytes(LARGE)
    )
    assert (status, '"too_large"' in text) == (413, True), text

    # A handshake by a page of the same host, and the client's own address.
    upgrade = (
        *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    own = f"Origin: https://{HOST}:{port}"
    with connected(port) as sock:
        status, text = talk(sock, port, f"GET /ws/?token={token}", *upgrade, own, *lies)
        assert status == 101, text
        answer = call(server, "/api/connections?userId=ana", token=service, Host=HOST)
        (found,) = json.loads(answer.body)["connections"]
        assert found["remoteIp"] == CLIENT
    target = f"GET /ws/?token={token}"
    with connected(port) as sock:
        plain = f"Origin: http://{HOST}:{port}"
        assert talk(sock, port, target, *upgrade, plain)[0] == 403
    status, text = ask(port, target)
    assert (status, "upgrade_required" in text) == (426, True)

    written = "".join(path.read_text() for path in proxy.folder.glob("*.log"))
    assert "/api/activities" in written
    for signed in (token, service):
        assert signed.rpartition(".")[2] not in written


def test_each_shipped_file_is_tried() -> None:
    shipped = {
        path.name for path in DEPLOY.iterdir() if path.suffix not in (".md", ".service", ".socket")
    }
    assert shipped == {"nginx.conf", "haproxy.cfg", "Caddyfile", "apache.conf"}
