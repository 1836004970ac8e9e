"""The units are correct and closed, and use options that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pov_rt.auth.keys import MAX_TOKEN_BYTES
from pov_rt.cli.node.serve import serve
from pov_rt.config.settings import LimitSettings, ServerSettings
from pov_rt.web.stream import MAX_HEADER_BYTES

DEPLOY = Path(__file__).parent.parent / "scripts/deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


@pytest.fixture(scope="module")
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing; scripts/test installs it (Debian package systemd)"
    return program


def unit_in(folder: Path, unit: Path) -> Path:
    """Return a copy of a unit whose program exists on this machine."""
    text = unit.read_text().replace("/opt/pov-rt/bin/pov-rt", "/bin/true")
    name = unit.name.replace("@.", "@8801.")
    copy = folder / name
    copy.write_text(text)
    return copy


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_correct_and_its_exposure_is_small(
    unit: Path, analyze: str, tmp_path: Path
) -> None:
    copy = unit_in(tmp_path, unit)
    socket = unit.with_suffix(".socket")
    shutil.copy(socket, tmp_path / socket.name.replace("@.", "@8801."))
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    # In tenths: what is left is that it talks to others at all.
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=9", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_and_its_socket_go_together_and_give_up_on_nothing(unit: Path) -> None:
    text, socket = unit.read_text(), unit.with_suffix(".socket")
    name = socket.name.replace("@.", "@%i.")
    for line in (f"Requires={name}", f"Sockets={name}", "StartLimitIntervalSec=0", "RestartSec=1"):
        assert f"\n{line}\n" in text, line
    assert "\nTriggerLimitIntervalSec=0\n" in socket.read_text()


def test_units_of_one_machine_share_no_folder() -> None:
    folders = [re.findall(r"^StateDirectory=(.*)$", unit.read_text(), re.M) for unit in UNITS]
    assert folders == [["pov-rt"], ["pov-rt-%i"]]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_reload_checks_the_settings_before_it_touches_the_server(unit: Path) -> None:
    steps = re.findall(r"^ExecReload=(.*)$", unit.read_text(), re.M)
    steps = [step.split(" ", 1)[1] for step in steps]
    assert steps == ["config check --reload", "-c 'kill -HUP $MAINPID'"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_uses_options_that_exist(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=.* serve(.*)$", unit.read_text(), re.M)
    known = {option for parameter in serve.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", line)) <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_lets_a_start_bring_a_large_log_up_to_date(unit: Path) -> None:
    # The 90 s of systemd end it half way, and the next start begins anew, for ever.
    (hours,) = re.findall(r"^TimeoutStartSec=(\d+)h$", unit.read_text(), re.M)
    assert int(hours) >= 1


@pytest.mark.parametrize(
    ("file", "form", "secret"),
    [
        ("nginx.conf", r"^ *log_format .*?;$", r"\$(request|request_uri|args|query_string)\b"),
        ("haproxy.cfg", r"^ *log-format .*?$", r"%(HU|HQ|HV|r)\b|capture|httplog"),
        ("apache.conf", r"^LogFormat .*?$", r"%(r|q)\b|combined|\{"),
    ],
)
def test_no_proxy_logs_the_query_where_tokens_travel(file: str, form: str, secret: str) -> None:
    formats = re.findall(form, (DEPLOY / file).read_text(), re.M | re.S)
    assert len(formats) == 1
    assert not re.search(secret, formats[0])


def test_a_nodes_admin_port_is_a_port() -> None:
    (line,) = re.findall(
        r"^ExecStart=/bin/sh -c '(.*)'$", (DEPLOY / "pov-rt@.service").read_text(), re.M
    )
    for port, admin in (("8801", "18801"), ("18801", "28801"), ("55535", "65535")):
        # systemd replaces %i, and $$ by $.
        command = line.replace("%i", port).replace("$$", "$").replace("/opt/pov-rt/bin/", "echo ")
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"pov-rt serve --port {port} --admin-port {admin}\n"


def test_the_proxy_passes_the_host_with_its_port() -> None:
    hosts = re.findall(r"proxy_set_header Host (\S+);", (DEPLOY / "nginx.conf").read_text())
    assert set(hosts) == {"$http_host"}


def test_a_proxy_writes_the_header_that_is_believed_and_the_scheme() -> None:
    nginx, haproxy = ((DEPLOY / name).read_text() for name in ("nginx.conf", "haproxy.cfg"))
    passes = nginx.count("proxy_pass ")
    for header in (ServerSettings().client_ip_header, "X-Forwarded-Proto", "Host"):
        assert nginx.count(f"proxy_set_header {header} ") == passes
    assert f"set-header {ServerSettings().client_ip_header} " in haproxy
    assert "set-header X-Forwarded-Proto " in haproxy


def test_a_proxy_lets_a_body_pass_that_may_be_published() -> None:
    (size,) = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text())
    (most,) = re.findall(r"content-length\) gt (\d+)", (DEPLOY / "haproxy.cfg").read_text())
    assert int(size) * 1024 * 1024 == int(most) > LimitSettings().publish_bytes


def test_a_proxy_lets_headers_pass_that_pov_rt_takes() -> None:
    nginx, haproxy = ((DEPLOY / name).read_text() for name in ("nginx.conf", "haproxy.cfg"))
    (line,) = re.findall(r"large_client_header_buffers \d+ (\d+)k;", nginx)
    (head,) = re.findall(r"tune\.bufsize (\d+)", haproxy)
    assert int(line) * 1024 == int(head) - 1024 == MAX_HEADER_BYTES > MAX_TOKEN_BYTES


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_bounds_what_it_may_take_of_the_machine(unit: Path) -> None:
    text = unit.read_text()
    for name in ("MemoryHigh", "MemoryMax", "TasksMax", "OOMPolicy"):
        assert re.search(rf"^{name}=", text, re.M), name
    assert "\nLimitCORE=0\n" in text


def test_links_of_the_deployment_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", (DEPLOY / "README.md").read_text()):
        assert (DEPLOY / target).exists(), target
