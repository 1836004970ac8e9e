"""Through real proxies: the shipped files are good, and each fault has the line that mends it."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pov_rt.auth.grants import Kind
from pov_rt.cli.doctor import public as module
from pov_rt.cli.doctor.findings import Finding, run
from pov_rt.cli.doctor.probe import Public
from pov_rt.cli.doctor.public import POV, Doctor, Seen
from pov_rt.config.settings import PingSettings, ServerSettings, Settings
from pov_rt.testing import RunningServer, make_settings
from tests.processes import running
from tests.test_deploy_proxies import CLIENT, HOST, PROXIES, WAIT_S, Place, certificate

__all__ = ["certificate"]

Change = tuple[str, str]


def make(ping_s: float = 60.0, **server: object) -> Settings:
    """Return settings; their ping comes later than what a test waits for, unless it is that."""
    chosen = {"port": 0, "admin_port": 0, "drain_s": 0.2, "allowed_hosts": [HOST], **server}
    return make_settings(
        server=ServerSettings(**chosen),  # type: ignore[arg-type]
        ping=PingSettings(interval_s=ping_s),
    )


@pytest.fixture
def settings() -> Settings:
    return make(trusted_proxies=["127.0.0.1"])


@contextmanager
def behind(
    name: str, server: RunningServer, certificate: Path, folder: Path, *changes: Change
) -> Iterator[int]:
    """Run a proxy with its shipped file, changed; yield its port."""
    start, program, package = PROXIES[name]
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is missing: apt-get install -y --no-install-recommends {package}")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    command = start(found, Place(folder, port, server.web.port, certificate))
    (config,) = [each for each in folder.iterdir() if str(each) in command]
    text = config.read_text()
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after.replace("ADMIN", str(server.web.admin_port)))
    config.write_text(text)
    log = folder / "output.log"
    with log.open("wb") as output, running(command, stdout=output, stderr=output) as process:
        end = time.monotonic() + WAIT_S
        while not listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield port


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
    except ConnectionRefusedError:
        return False
    return True


def examine(
    server: RunningServer, port: int, certificate: Path | None, *, quick: bool = True
) -> list[Finding]:
    scheme = "http" if certificate is None else "https"
    public = Public(
        f"{scheme}://{HOST}:{port}",
        ("127.0.0.1", port),
        None if certificate is None else str(certificate),
        CLIENT,
    )

    def token(is_service: bool) -> str:
        kind = Kind.SERVICE if is_service else Kind.SOCKET
        can = ["publish"] if is_service else ["subscribe"]
        return server.token(POV, kind, povs=[POV], can=can)

    def look_up(_: str) -> Seen:
        (found,) = server.call(lambda: server.web.server.directory.of(POV))
        return Seen(found.remote_ip)

    doctor = Doctor(public, server.web.settings, token, look_up, time.time, quick=quick)
    return [finding for check in doctor.checks() for finding in run([check])]


def faults(found: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in found if each.level not in ("ok", "doubt")}


ALL = {
    *("reached", "certificate", "upgrade", "address", "origin", "buffering"),
    *("body size", "head size", "admin port"),
}


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_the_shipped_files_are_good(
    server: RunningServer, certificate: Path, tmp_path: Path, name: str
) -> None:
    with behind(name, server, certificate, tmp_path) as port:
        found = examine(server, port, certificate)
    assert not faults(found)
    assert {each.check for each in found} == ALL
    assert [each.check for each in found if each.level == "doubt"] == ["certificate"], "of one day"


FORWARDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
FAULTS: list[tuple[str, Change, str, str]] = [
    ("nginx", ("proxy_set_header Upgrade $http_upgrade;", ""), "upgrade", "$http_upgrade"),
    ("nginx", ("Host $http_host;", "Host wrong.example;"), "reached", "Host $http_host"),
    ("nginx", (FORWARDED, ""), "address", FORWARDED),
    ("nginx", ("location / {", "location / { proxy_ignore_headers X-Accel-Buffering;"),
     "buffering", "proxy_buffering off;"),
    ("nginx", ("client_max_body_size 5m;", ""), "body size", "client_max_body_size 5m;"),
    ("nginx", ("4 32k;", "4 8k;"), "head size", "large_client_header_buffers 4 32k;"),
    ("nginx", ("location / {", "location = /metrics { proxy_pass http://127.0.0.1:ADMIN; }\n"
               "location / {"), "admin port", "admin port"),
    ("nginx", ("server 127.0.0.1:", "server 127.0.0.9:"), "reached", "server.port"),
    ("haproxy", ("http-request set-header X-Forwarded-For %[src]", ""),
     "address", "http-request set-header X-Forwarded-For %[src]"),
    ("haproxy", ("gt 5242880", "gt 1048576"), "body size", "limits.publish_bytes"),
    ("haproxy", ("default_backend", "http-request del-header Origin\n    default_backend"),
     "origin", "server.allowed_origins"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "check", "mend"), FAULTS, ids=[f"{each[0]}-{each[2]}" for each in FAULTS]
)
def test_each_fault_is_found_with_the_line_that_mends_it(
    server: RunningServer,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Change,
    check: str,
    mend: str,
) -> None:
    if check == "buffering":
        monkeypatch.setattr(module, "FIRST_EVENT_S", 0.5)  # it would wait in vain
    with behind(name, server, certificate, tmp_path, change) as port:
        found = faults(examine(server, port, certificate))
    assert list(found) == [check]
    assert (found[check].level, mend in found[check].mend) == ("bad", True), found


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nginx", ("proxy_read_timeout 60s;", "proxy_read_timeout 3s;")),
        ("haproxy", ("timeout tunnel 60s", "timeout tunnel 3s")),
    ],
)
def test_a_proxy_that_ends_silent_sockets_is_found(
    server: RunningServer, certificate: Path, tmp_path: Path, name: str, change: Change
) -> None:
    with behind(name, server, certificate, tmp_path, change) as port:
        found = faults(examine(server, port, certificate, quick=False))
    assert list(found) == ["idle"]
    assert "60s" in found["idle"].mend


def test_a_socket_that_outlives_the_silence_is_good() -> None:
    with RunningServer(make(ping_s=0.5), None) as server:
        found = examine(server, server.web.port, None, quick=False)
    assert [each.level for each in found if each.check == "idle"] == ["ok"]


def test_a_certificate_that_nobody_can_check_is_found(
    server: RunningServer, certificate: Path, tmp_path: Path
) -> None:
    with behind("nginx", server, certificate, tmp_path) as port:
        public = Public(f"https://{HOST}:{port}", ("127.0.0.1", port))
        doctor = Doctor(public, server.web.settings, str, lambda _: None, time.time)
        (found,) = [each for check in doctor.checks() for each in run([check])]
    assert (found.check, found.level) == ("reached", "bad")
    assert HOST in found.mend


def test_where_nobody_is_only_that_is_said(server: RunningServer) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    (found,) = examine(server, port, None)
    assert (found.check, found.level) == ("reached", "bad")


def test_a_proxy_that_the_settings_do_not_name_is_found(certificate: Path, tmp_path: Path) -> None:
    with RunningServer(make(), None) as server:
        with behind("nginx", server, certificate, tmp_path) as port:
            found = faults(examine(server, port, certificate))
    assert 'server.trusted_proxies = ["127.0.0.1"]' in found["address"].mend


def test_pages_that_the_server_does_not_know_as_its_own_are_found() -> None:
    with RunningServer(make(public_url="https://other.example"), None) as server:
        port = server.web.port
        found = faults(examine(server, port, None))
    assert list(found) == ["origin"]
    assert found["origin"].mend == f'server.public_url = "http://{HOST}:{port}"'
