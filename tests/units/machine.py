"""A container that runs systemd, with this checkout installed as scripts/deploy/README.md says.

Its root is a small disk in memory; `/usr` is this machine's, and so are nginx, HAProxy and Python.
It has a network of its own, in which there is nothing but itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.processes import running

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "scripts/deploy"
HOST = "rt.example"
SIZE = "1500m"
WAIT_S = 90.0
OWN_FILES = (
    "passwd group shadow nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl "
    "services protocols pam.d security login.defs nginx haproxy localtime"
).split()
"""What of this machine's /etc its programs want."""
OLDER = "/opt/older"


class Unbootable(Exception):
    """systemd does not start in a container here; the words say what it said."""


class Machine:
    """A booted container. `run` runs commands in it."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader
        self._token = ""

    def run(
        self, command: str, *, check: bool = True, timeout: float = WAIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in it. Raises AssertionError with what it said if it fails."""
        done = subprocess.run(
            [
                *("nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net"),
                *("--pid", "--root", "--wd", "env", "-i", "HOME=/root", "LANG=C.UTF-8"),
                "PATH=/opt/pov-rt/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                *("PYTHONPATH=/opt/checkout", "sh", "-c", f"cd /opt/checkout; {command}"),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def said(self, command: str) -> str:
        """Return what a line of shell prints, whatever its status."""
        return self.run(command, check=False).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.said(f"systemctl show --value --property={name} {unit}")

    def journal(self, unit: str = "pov-rt") -> str:
        """Return the messages of a unit."""
        return self.said(f"journalctl --unit={unit} --output=cat --no-pager")

    def ready(self, path: str = "/readyz", port: int = 8766) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of a probe; 0 if nobody answers."""
        said = self.said(f"curl -s -w '\n%{{http_code}}' http://127.0.0.1:{port}{path}")
        body, _, status = said.rpartition("\n")
        return int(status or 0), json.loads(body or "{}")

    def publish(self, name: str, pov: str = "acme", address: str = "127.0.0.1:8765") -> int:
        """Publish one activity; return the status, 0 if nobody answers."""
        body = json.dumps({"id": name, "type": "t", "action": "a", "povId": pov, "userId": "eve"})
        return int(
            self.said(
                "curl -s -k -m 20 -o /dev/null -w '%{http_code}' "
                f"-H 'Authorization: Bearer {self.token}' -d '{body}' http://{address}/api/activities"
            )
        )

    def activities(self, pov: str = "acme", address: str = "127.0.0.1:8765") -> list[str]:
        """Return the ids that a PoV's history has."""
        said = self.said(
            f"curl -s -H 'Authorization: Bearer {self.token}' "
            f"'http://{address}/api/povs/{pov}/activities?after=0&limit=1000'"
        )
        return [each["data"]["id"] for each in json.loads(said)["activities"]]

    @property
    def token(self) -> str:
        """A service's token."""
        if not self._token:
            self._token = self.said("pov-rt-as-root token --kind service --user app --povs '*'")
        return self._token

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait until something is so. Raises AssertionError if it does not come to be."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"never {what}: {self.journal()[-2000:]}"
            time.sleep(0.1)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)


@contextmanager
def booted(progress: Callable[[str], None]) -> Iterator[Machine]:
    """Make a root, boot it, and end it all afterwards. Raises `Unbootable`."""
    root = Path(tempfile.mkdtemp(prefix="pov-rt-units-", dir="/run"))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"mode=755,size={SIZE}", "tmpfs", root], check=True
    )
    try:
        progress("installing")
        python = _fill(root)
        log = root / "console.log"
        command = [
            # Whatever ends this ends all in it: nspawn, killed, would leave the container behind.
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"),
            *(f"--directory={root}", "--bind-ro=/usr", *python, "--boot"),
            *("--hostname=units", "systemd.unit=multi-user.target"),
        ]
        progress("booting")
        with log.open("wb") as output, running(command, stdout=output, stderr=output) as nspawn:
            yield Machine(root, _leader(nspawn, log))
    finally:
        subprocess.run(["umount", "--lazy", root], check=False)
        root.rmdir()


def _leader(nspawn: subprocess.Popen[str], log: Path) -> int:
    """Return the number of the container's first process, once it has started everything."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and nspawn.poll() is None:
        with suppress(OSError):  # one of them has ended meanwhile
            leaders = [leader for each in _children(nspawn.pid) for leader in _children(each)]
            for leader in leaders:
                if Path(f"/proc/{leader}/comm").read_text() == "systemd\n":
                    machine = Machine(log.parent, leader)
                    if machine.said("systemctl is-active multi-user.target") == "active":
                        return leader
        time.sleep(0.1)
    raise Unbootable(log.read_text(errors="replace")[-3000:])


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _fill(root: Path) -> list[str]:
    """Put into a root what it needs; return nspawn's arguments for the rest."""
    for name in "usr etc var/lib var/log var/tmp run tmp proc sys dev root opt home".split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in OWN_FILES:
        source, target = Path("/etc") / name, root / "etc" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            shutil.copy2(source, target)
    shutil.copy("/usr/lib/os-release", root / "etc/os-release")
    (root / "etc/machine-id").touch()
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {HOST}\n")
    # What it says is looked at after restarts of all its parts.
    journald = root / "etc/systemd/journald.conf.d/units.conf"
    journald.parent.mkdir(parents=True)
    journald.write_text("[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n")
    checkout = root / "opt/checkout"
    for folder in ("pov_rt", "plugins"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, checkout / folder, ignore=ignored)
    for name in ("bench/__init__.py", "bench/storm.py", "tests/frames.py"):
        (checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    return _install(root)


def _install(root: Path) -> list[str]:
    """Make /opt/pov-rt of this checkout's environment; return what is to be bound for it."""
    base, bound = Path(sys.base_prefix), []
    python = Path(f"/usr/bin/python3.{sys.version_info[1]}")
    if not python.exists():
        python = (base / f"bin/python3.{sys.version_info[1]}").resolve()
    if not python.is_relative_to("/usr"):
        # Where it is, the unit might not look: it sees nobody's home.
        bound.append(f"--bind-ro={base}:/opt/python")
        python = Path("/opt/python") / python.relative_to(base)
    packages = Path(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    environment = root / "opt/pov-rt"
    (environment / "bin").mkdir(parents=True)
    (environment / packages).mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
    (environment / "bin/python3").symlink_to(python)
    bound.append(f"--bind-ro={Path(sys.prefix) / packages}:/opt/pov-rt/{packages}")
    (environment / "bin/pov-rt").write_text(
        "#!/opt/pov-rt/bin/python3\nimport sys\n"
        "from pov_rt.cli.main import main\nsys.exit(main())\n"
    )
    # As docs/operations.md has it for whoever administers the machine.
    (environment / "bin/pov-rt-as-root").write_text(
        "#!/bin/sh\nexport CREDENTIALS_DIRECTORY=/etc/pov-rt STATE_DIRECTORY=/var/lib/pov-rt\n"
        'exec /opt/pov-rt/bin/pov-rt "$@"\n'
    )
    for name in ("pov-rt", "pov-rt-as-root"):
        (environment / "bin" / name).chmod(0o755)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", root / "opt/checkout"],
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for unit in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")):
        shutil.copy(unit, units)
    manager = root / "etc/systemd/system.conf.d/units.conf"
    manager.parent.mkdir(parents=True)
    manager.write_text("[Manager]\nDefaultEnvironment=PYTHONPATH=/opt/checkout\n")
    return bound


def install_older(root: Path) -> str | None:
    """Put beside it the newest version of this checkout with an older schema; return its commit.

    None if the history at hand has none.
    """
    schema = "pov_rt/engine/sqlite/schema.py"
    pattern = r"^    (CREATE TABLE|ALTER TABLE)"
    log = ["git", "-C", str(ROOT), "log", "--format=%H", "-1", "-G", pattern, "--", schema]
    commit = subprocess.run(log, capture_output=True, text=True, check=False).stdout.strip()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", f"{commit}^", "pov_rt", "plugins"],
        capture_output=True,
        check=False,
    )
    if not commit or archive.returncode:
        return None
    folder = root / OLDER.lstrip("/")
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return f"{commit[:12]}^"
