"""Behind each proxy whose file is shipped, with that file: Host, address, upgrade, body, log."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.peers import free_port
from pov_rt.auth.grants import Kind
from pov_rt.config.settings import ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.processes import running
from tests.web.routes.test_activities import call

DEPLOY = Path(__file__).parent.parent / "scripts/deploy"
HOST = "rt.example"
CLIENT = "127.0.0.5"
"""The address that the client has; all of 127.0.0.0/8 is this machine."""
WAIT_S = 30.0
LARGE = 4_500_000
"""More than limits.publish_bytes, less than what a proxy lets pass."""
ONE = json.dumps({"type": "t", "action": "a", "povId": "a/b", "userId": "ana"}).encode()


class Place(NamedTuple):
    """Where things are in a test: a folder, the proxy's port, the server's, a certificate."""

    folder: Path
    port: int
    server: int
    certificate: Path
    nodes: Sequence[tuple[int, int]] = ()
    """The ports and admin ports of two nodes, if they are in the server's place."""


def for_nodes(text: str, place: Place) -> str:
    """Do as a file says where there are several nodes: one line goes, others are there."""
    text, gone = re.subn(r"(?m)^ +server (?:node-1 )?127\.0\.0\.1:8765;?\n", "", text)
    assert gone == 1
    words = "balance|option|retry-on|http-request|server"
    text, there = re.subn(rf"(?m)^( +)# ((?:{words}) )", r"\1\2", text)
    assert there in (2, 7)
    for node, (port, admin_port) in zip((8801, 8802), place.nodes, strict=True):
        text = text.replace(f"1{node} ", f"{admin_port} ").replace(f":{node}", f":{port}")
    return text


def replaced(file: str, place: Place, *changes: tuple[str, str]) -> str:
    """Return a shipped file with other places in it; each is there."""
    text = (DEPLOY / file).read_text()
    if place.nodes:
        text = for_nodes(text, place)
    else:
        changes = (*changes, ("127.0.0.1:8765", f"127.0.0.1:{place.server}"))
    for before, after in changes:
        assert before in text, (file, before)
        text = text.replace(before, after)
    return text


def nginx(program: str, place: Place) -> list[str]:
    site = replaced(
        "nginx.conf",
        place,
        ("listen 443 ssl;", f"listen 127.0.0.1:{place.port} ssl;"),
        ("/etc/ssl/certs/rt.example.pem", str(place.certificate)),
        ("/etc/ssl/private/rt.example.key", str(place.certificate)),
        ("/var/log/nginx/pov-rt.log", str(place.folder / "access.log")),
        ("/var/log/nginx/pov-rt-error.log", str(place.folder / "error.log")),
        ("user www-data;\n", ""),
        ("/run/nginx.pid", str(place.folder / "pid")),
        ("worker_rlimit_nofile 65536;\n", ""),  # there may be less here
        ("worker_connections 32768;", "worker_connections 512;"),
    )
    folders = "".join(
        f"{kind}_temp_path {place.folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = place.folder / "nginx.conf"
    config.write_text(site.replace("http {\n", f"http {{\n{folders}"))
    started = f"daemon off; master_process off; error_log {place.folder}/main.log;"
    return [program, "-c", str(config), "-p", str(place.folder), "-g", started]


def haproxy(program: str, place: Place) -> list[str]:
    config = place.folder / "haproxy.cfg"
    config.write_text(
        replaced(
            "haproxy.cfg",
            place,
            ("bind :443 ssl", f"bind 127.0.0.1:{place.port} ssl"),
            ("/etc/haproxy/rt.example.pem", str(place.certificate)),
            ("maxconn 20000", "maxconn 200"),
        )
    )
    return [program, "-db", "-f", str(config)]


def caddy(program: str, place: Place) -> list[str]:
    config = place.folder / "Caddyfile"
    text = replaced(
        "Caddyfile",
        place,
        (
            "\nrt.example {",
            f"\nhttps://rt.example:{place.port} {{\n\tbind 127.0.0.1\n"
            f"\ttls {place.certificate} {place.certificate}",
        ),
        ("\n\tlog {", f"\n\tlog {{\n\t\toutput file {place.folder}/access.log"),
        ("\n{\n", "\n{\n\tadmin off\n\tauto_https off\n"),
    )
    config.write_text(text)
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
        place,
        ("*:443", f"127.0.0.1:{place.port}"),
        ("/etc/ssl/certs/rt.example.pem", str(place.certificate)),
        ("/etc/ssl/private/rt.example.key", str(place.certificate)),
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
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def make_certificate(folder: Path) -> Path:
    """Return a file with a key, and a certificate for `HOST`."""
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


@contextmanager
def in_front(
    name: str,
    folder: Path,
    certificate: Path,
    server: int,
    answers: Collection[int],
    nodes: Sequence[tuple[int, int]] = (),
) -> Iterator[Place]:
    """Run a proxy in front of a port, and wait until it answers with one of these."""
    start, program_name, package = PROXIES[name]
    program = shutil.which(program_name) or shutil.which(program_name, path="/usr/sbin")
    if program is None:
        pytest.skip(
            f"{program_name} is missing: apt-get install -y --no-install-recommends {package}"
        )
    place = Place(folder, free_port(), server, certificate, nodes)
    log = (folder / "output.log").open("wb")
    with log, running(start(program, place), stdout=log, stderr=log) as process:
        end = time.monotonic() + WAIT_S
        while True:
            with suppress(OSError):
                if ask(place.port, "GET /nowhere")[0] in answers:
                    break
            text = (folder / "output.log").read_text()
            assert process.poll() is None, text
            assert time.monotonic() < end, text
            time.sleep(0.05)
        yield place


@pytest.fixture(params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, server: RunningServer, certificate: Path, tmp_path: Path
) -> Iterator[Place]:
    """Run one of the proxies in front of the server."""
    with in_front(request.param, tmp_path, certificate, server.web.port, {404}) as place:
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


def test_a_proxy_with_the_shipped_file_passes_events_on_as_they_come(
    server: RunningServer, proxy: Place
) -> None:
    """Also when a wait is answered, and when an answer is refused."""
    port, read = proxy.port, f"Authorization: Bearer {server.token()}"
    publish = f"Authorization: Bearer {server.token('app', Kind.SERVICE)}"
    target = "/api/povs/a%2Fb/stream"

    def more() -> None:
        length = f"Content-Length: {len(ONE)}"
        assert ask(port, "POST /api/activities", publish, length, body=ONE)[0] == 201

    more()
    status, text = ask(port, f"GET {target}", read)
    (known,) = re.findall(r"(?i)stream-next-offset: (\S+)", text)
    assert (status, known.endswith("1")) == (200, True)
    with ThreadPoolExecutor() as threads:
        waits = f"GET {target}?offset={known}&live=long-poll"
        waiting = threads.submit(ask, port, waits, read)
        end = time.monotonic() + WAIT_S
        while server.call(lambda: server.web.server.hub.audience("pov/a/b")) == 0:
            assert time.monotonic() < end
        more()
        status, text = waiting.result()
        assert (status, '"offset":2' in text) == (200, True), text
    with connected(port) as sock:
        lines = [f"GET {target}?offset=-1&live=sse HTTP/1.1", f"Host: {HOST}:{port}", read]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        read_until(sock, b'"offset":2}]')
        more()  # at once, though the answer has not ended
        read_until(sock, b'"offset":3}]')
    status, text = ask(port, f"GET {target}?offset=x{known[1:]}&live=sse", read)
    assert (status, '"position_lost"' in text) == (410, True), text


def read_until(sock: ssl.SSLSocket, words: bytes) -> None:
    """Read an answer as far as these words."""
    found = b""
    while words not in found:
        data = sock.recv(65536)
        assert data, found
        found += data


@pytest.mark.parametrize("name", PROXIES)
def test_what_fails_while_the_server_is_away_is_logged_without_its_token(
    name: str, certificate: Path, tmp_path: Path
) -> None:
    away, token = {502, 503}, "a-token-that-nobody-may-read"
    with in_front(name, tmp_path, certificate, free_port(), away) as place:
        assert ask(place.port, f"GET /ws/?token={token}")[0] in away
        given = (f"Sec-WebSocket-Protocol: bearer.{token}", f"Authorization: Bearer {token}")
        assert ask(place.port, "GET /ws/", *given)[0] in away
    written = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "/ws/" in written, "that it failed is there"
    assert token not in written


def test_each_shipped_file_is_tried() -> None:
    others = (".md", ".service", ".socket", ".yml", ".json")
    shipped = {path.name for path in DEPLOY.iterdir() if path.suffix not in others}
    assert shipped == {"nginx.conf", "haproxy.cfg", "Caddyfile", "apache.conf"}
