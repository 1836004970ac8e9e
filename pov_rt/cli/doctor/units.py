"""What systemd and a proxy's file say, where there are any."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pov_rt.cli.doctor.findings import Finding, bad, doubt, ok, skipped
from pov_rt.config.settings import Settings

UNITS = ("pov-rt.service", "pov-rt.socket")
NGINX = Path("/etc/nginx/nginx.conf")
LEAST_WORKER_CONNECTIONS = 4096
STOP_S = 5.0
"""How much longer than its drain a node may take to stop."""
SYSTEMCTL_S = 10.0
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "NRestarts", "NeedDaemonReload"),
    *("StartLimitIntervalUSec", "StartLimitBurst", "TimeoutStopUSec", "LimitNOFILE"),
)
_UNITS_S = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def read_units(text: str) -> dict[str, dict[str, str]]:
    """Read what `systemctl show` prints of units, by their names."""
    blocks = (
        dict(line.partition("=")[::2] for line in part.splitlines()) for part in text.split("\n\n")
    )
    return {block["Id"]: block for block in blocks if "Id" in block}


def read_span(text: str) -> float:
    """Read how systemd writes a time, such as `1min 30s`, in seconds."""
    if text == "infinity":
        return float("inf")
    parts = re.findall(r"([\d.]+)(h|min|ms|us|s)\b", text)
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def show_units() -> str | None:
    """Ask systemd; None where there is none."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    done = subprocess.run(  # noqa: S603  (nothing in it comes from elsewhere)
        [program, "show", f"--property={','.join(PROPERTIES)}", *UNITS],
        capture_output=True,
        text=True,
        timeout=SYSTEMCTL_S,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def check_units(settings: Settings) -> Iterator[Finding]:
    """Look at the units, if systemd is there and has them."""
    text = show_units()
    if text is None:
        yield skipped("units", "there is no systemd that could be asked")
        return
    yield from judge_units(read_units(text), settings)


def judge_units(units: Mapping[str, Mapping[str, str]], settings: Settings) -> Iterator[Finding]:
    """Say what is wrong with units, by their properties."""
    name = "units"
    service, socket = (units.get(each, {}) for each in UNITS)
    if service.get("LoadState") != "loaded":
        yield skipped(name, "systemd has no pov-rt.service")
        return
    found = list(_judge_state(service, socket))
    interval_s = read_span(service.get("StartLimitIntervalUSec", ""))
    if interval_s and int(service.get("StartLimitBurst") or 0):
        burst = service["StartLimitBurst"]
        what = (
            f"{burst} failed starts within {interval_s:g} s, as by a typo in the settings, and "
            "systemd gives up for good, with the port"
        )
        mend = "systemctl edit pov-rt, with the lines\n[Unit]\nStartLimitIntervalSec=0"
        found.append(doubt(name, what, mend))
    stop_s = read_span(service.get("TimeoutStopUSec", ""))
    needed_s = settings.server.drain_s + STOP_S
    if stop_s < needed_s:
        what = f"to stop takes {needed_s:g} s (server.drain_s), and it is killed after {stop_s:g} s"
        mend = f"systemctl edit pov-rt, with the lines\n[Service]\nTimeoutStopSec={needed_s + 10:g}"
        found.append(bad(name, what, mend))
    files = service.get("LimitNOFILE", "")
    wanted = max(settings.limits.connections, 0) + 64
    if files.isdigit() and int(files) < max(wanted, 4096):
        what = f"LimitNOFILE is {files}: so many clients are all there can be"
        mend = "systemctl edit pov-rt, with the lines\n[Service]\nLimitNOFILE=1048576"
        found.append(bad(name, what, mend))
    yield from found
    if not any(each.level != "ok" for each in found):
        yield ok(name, "pov-rt.service is as it should be")


def _judge_state(service: Mapping[str, str], socket: Mapping[str, str]) -> Iterator[Finding]:
    name = "units"
    state = service.get("ActiveState")
    if state == "failed" or socket.get("ActiveState") == "failed":
        yield bad(
            name,
            f"pov-rt.service is {state}, pov-rt.socket {socket.get('ActiveState', 'not there')}",
            "systemctl reset-failed pov-rt.service pov-rt.socket\n"
            "systemctl start pov-rt.socket pov-rt.service",
        )
    elif (
        socket.get("LoadState") == "loaded"
        and state == "active"
        and socket.get("ActiveState") != "active"
    ):
        what = "pov-rt.service runs without pov-rt.socket: clients are refused while it restarts"
        mend = "systemctl stop pov-rt.service\nsystemctl start pov-rt.socket pov-rt.service"
        yield bad(name, what, mend)
    if service.get("NeedDaemonReload") == "yes":
        yield doubt(
            name, "the unit's file was changed since it was read", "systemctl daemon-reload"
        )
    restarts = int(service.get("NRestarts") or 0)
    if restarts:
        what = f"systemd has started it anew {restarts} times, for it had ended"
        yield doubt(name, what, "journalctl -u pov-rt, which says why")


def check_nginx(path: Path = NGINX) -> Iterator[Finding]:
    """Look for an nginx on this machine that takes few clients, or writes tokens into its log."""
    if not path.exists():
        return
    yield from judge_nginx(path.read_text(), str(path))


def judge_nginx(text: str, path: str) -> Iterator[Finding]:
    """Say what is wrong with nginx's main file."""
    name = "nginx"
    lines = re.sub(r"#.*", "", text)
    found = re.search(r"\bworker_connections\s+(\d+)", lines)
    most = int(found[1]) if found else 512
    if most < LEAST_WORKER_CONNECTIONS:
        what = f"{path}: each worker takes {most} connections, of which a client needs two"
        yield doubt(name, what, f"events {{ worker_connections {LEAST_WORKER_CONNECTIONS * 4}; }}")
    else:
        yield ok(name, f"each worker takes {most} connections")
    level = re.search(r"\berror_log\s+\S+(?:\s+(\w+))?\s*;", lines)
    if level is None or level[1] not in ("crit", "alert", "emerg"):
        what = f"{path}: while the server is away, its error log gets each request with its token"
        mend = "error_log /var/log/nginx/error.log crit;  # in the site's server block, too"
        yield doubt(name, what, mend)
