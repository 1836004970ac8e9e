"""What the machine says: settings, files, disk, clock, limits, and the node that runs."""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from pov_rt.auth.keys import Keyring
from pov_rt.cli.doctor.findings import Finding, bad, doubt, ok, skipped
from pov_rt.cli.options import registry_of
from pov_rt.config import load as config
from pov_rt.config.load import Loaded
from pov_rt.config.settings import (
    MIN_SECRET_BYTES,
    AuthSettings,
    Settings,
    SettingsError,
    database_path,
    describe_access,
)
from pov_rt.engine.sqlite.stats import library_version
from pov_rt.protocol.redaction import redact
from pov_rt.registry.activities import declare
from pov_rt.registry.discovery import PluginError
from pov_rt.runtime.clock import SystemClock

LEAST_FREE_BYTES = 1_000_000_000
LEAST_FREE_PART = 0.05
REMOTE_DISKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph"})
"""File systems whose locks and flushes other machines see late, or not at all."""
SAFE_SQLITE = (3, 51, 3)
"""Before it two connections that copy the write-ahead log can corrupt it; a node has one."""
LEAST_BACKLOG = 4096
"""What the shipped socket unit asks for."""
_SERIES = re.compile(r"^((?:pov_rt|process)_\w+)(?:\{[^}]*\})? ([-+.\deE]+)$", re.M)
MOUNTS = Path("/proc/mounts")
BACKLOG = Path("/proc/sys/net/core/somaxconn")
TIME_ERROR = 5
OTHERS = 0o077


def find_problems(loaded: Loaded) -> list[str]:
    """Return, each as a line, what is wrong with settings, keys, schemas and plugins."""
    problems: list[str] = []
    for check in (
        lambda: config.check(loaded),
        lambda: Keyring(with_dev_secret(loaded.settings), SystemClock()),
        lambda: declare((), loaded.settings.activities),  # whatever is wrong with plugins
        lambda: registry_of(loaded.settings),
    ):
        try:
            check()
        except (SettingsError, PluginError) as error:
            problems += [line for line in str(error).split("\n") if line not in problems]
    return problems


def with_dev_secret(settings: Settings) -> AuthSettings:
    """Return the keys that a server would have; one that it would make is not made here."""
    if not settings.dev:
        return settings.auth
    auth = config.kept_secret(settings).auth
    if auth.secrets or auth.secret_files:
        return auth
    return msgspec.structs.replace(auth, secrets=["?" * MIN_SECRET_BYTES])


def check_settings(loaded: Loaded) -> Iterator[Finding]:
    """Look for what `pov-rt config check` says."""
    name = "settings"
    problems = find_problems(loaded)
    for problem in problems:
        yield bad(name, redact(problem), "change it in the settings; pov-rt config show has all")
    for warning in loaded.warnings:
        yield doubt(name, redact(warning), "change it in the settings")
    if not problems:
        yield ok(name, describe_access(loaded.settings.auth))


def private_files(settings: Settings) -> Iterator[Path]:
    """Yield what nobody else may read: secrets, and the database with what is beside it."""
    yield from map(Path, settings.auth.secret_files)
    if settings.dev:
        yield config.dev_secret_path(settings)
    if settings.server.data:
        yield Path(settings.server.data)
    if (path := database_path(settings)) is not None:
        yield from (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm")))


def check_modes(settings: Settings) -> Iterator[Finding]:
    """Look for files and folders that others on the machine may read."""
    name, seen = "file modes", 0
    for path in dict.fromkeys(private_files(settings)):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue
        except PermissionError:
            yield skipped(name, f"{path} is another user's: run this as the server's, or as root")
            continue
        seen += 1
        if mode & OTHERS:
            wanted = "700" if stat.S_ISDIR(mode) else "600"
            what = f"{path} has the mode {stat.S_IMODE(mode):04o}, so that others may get at it"
            yield bad(name, what, f"chmod {wanted} {path}")
            seen -= 1
    if seen:
        yield ok(name, f"{seen} files and folders are their owner's alone")


def check_disk(settings: Settings, mounts: Path = MOUNTS) -> Iterator[Finding]:
    """Look for a disk that is nearly full, or on another machine."""
    name = "disk"
    path = database_path(settings)
    if path is None:
        scheme = settings.engine.url.partition("://")[0]
        yield skipped(name, f"{scheme} keeps nothing on a disk of this machine")
        return
    folder = next((each for each in path.absolute().parents if each.is_dir()), Path("/"))
    kind = find_kind(folder.resolve(), mounts.read_text())
    if kind in REMOTE_DISKS:
        what = f"{folder} is on {kind}, where neither locks nor flushes hold: the log can be lost"
        yield bad(name, what, "have server.data on a disk of this machine")
    yield from judge_space(folder, os.statvfs(folder))


def judge_space(folder: Path, found: os.statvfs_result) -> Iterator[Finding]:
    """Say whether there is room: a twentieth of the disk, or a GB, has to be free."""
    name, size = "disk", found.f_frsize
    free, total = found.f_bavail * size, max(1, found.f_blocks * size)
    words = f"{folder} has {free / 1e9:.1f} GB free of {total / 1e9:.1f}"
    mend = "make room, or keep less: engine.max_age_s, engine.max_entries; then pov-rt db scrub"
    if free < LEAST_FREE_BYTES / 10:
        yield bad(name, f"{words}: publications are about to be refused", mend)
    elif free < min(LEAST_FREE_BYTES, total * LEAST_FREE_PART):
        yield doubt(name, words, mend)
    elif found.f_files and found.f_favail < 1000:
        yield bad(name, f"{folder} has {found.f_favail} inodes left", "remove files that are old")
    else:
        yield ok(name, words)


def find_kind(folder: Path, mounts: str) -> str:
    """Return what sort of file system a folder is on."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, place, found, *_ = line.split()
        if folder.is_relative_to(place) and len(place) >= best:
            best, kind = len(place), found
    return kind


def kernel_clock() -> int | None:
    """Return the state of the kernel's clock, as `adjtimex` has it; None where there is none."""
    try:
        # It fills in a struct of about 200 bytes; its first word, the modes, says: change nothing.
        return int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(1024)))
    except (OSError, AttributeError):
        return None


def check_clock(state: Callable[[], int | None] = kernel_clock) -> Iterator[Finding]:
    """Look for a clock that nothing keeps right: tokens end by it."""
    name, found = "clock", state()
    if found is None or found < 0:
        yield skipped(name, "the kernel does not say whether something keeps the clock right")
    elif found == TIME_ERROR:
        what = "nothing keeps the clock right, and tokens begin and end by it"
        yield doubt(name, what, "timedatectl set-ntp true")
    else:
        yield ok(name, "the kernel's clock is synchronised")


def check_sqlite(version: tuple[int, ...] | None = None) -> Iterator[Finding]:
    """Say which SQLite there is, and what has to be minded with it."""
    found = version or library_version()
    text = ".".join(map(str, found))
    if found >= SAFE_SQLITE:
        yield ok("SQLite", text)
        return
    yield ok(
        "SQLite",
        f"{text}: open the database with nothing but pov-rt (before "
        f"{'.'.join(map(str, SAFE_SQLITE))} two programs at once can corrupt it)",
    )


def check_backlog(path: Path = BACKLOG) -> Iterator[Finding]:
    """Look for a kernel that lets too few clients wait while the server restarts."""
    name, found = "limits", int(path.read_text())
    if found < LEAST_BACKLOG:
        what = f"net.core.somaxconn is {found}: so few clients can wait while the server restarts"
        yield doubt(name, what, f"sysctl -w net.core.somaxconn={LEAST_BACKLOG}")
    else:
        yield ok(name, f"net.core.somaxconn is {found}")


def read_metrics(text: str) -> dict[str, float]:
    """Return the server's metrics by name, those with labels summed."""
    found: dict[str, float] = {}
    for name, value in _SERIES.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def judge_node(
    readiness: Mapping[str, object], metrics: Mapping[str, float], settings: Settings
) -> Iterator[Finding]:
    """Say how the running node is, by its readiness and its metrics."""
    name = "node"
    works = readiness.get("status") == "ready" and readiness.get("publish") is not False
    if not works:
        yield bad(name, f"it is not ready: {readiness.get('reason')}", "journalctl -u pov-rt -n 50")
    if warning := readiness.get("warning"):
        mend = "one server for one name: what else is behind the proxy, or has this host's name?"
        yield bad(name, str(warning), mend)
    plugins = readiness.get("plugins")
    for plugin, why in plugins.items() if isinstance(plugins, dict) else ():
        mend = "systemctl reload pov-rt, when its cause is mended; the log has it"
        yield bad(name, f"the plugin {plugin} is {why}", mend)
    most, wanted = metrics.get("process_max_fds", 0.0), settings.limits.connections
    if most and wanted and most < wanted + 64:
        what = f"it may open {most:.0f} files, and limits.connections is {wanted}"
        yield bad("limits", what, f"LimitNOFILE={wanted + 1000}, in its unit")
    elif most and metrics.get("process_open_fds", 0.0) > 0.8 * most:
        what = f"{metrics['process_open_fds']:.0f} of {most:.0f} files are open"
        yield doubt("limits", what, f"LimitNOFILE={most * 4:.0f}, in its unit")
    elif most:
        yield ok("limits", f"{metrics.get('process_open_fds', 0):.0f} of {most:.0f} files are open")
    lag = metrics.get("pov_rt_loop_lag_seconds", 0.0)
    if lag > 0.25:
        what = f"its event loop was {lag:.2f} s late in the last minute"
        yield doubt(name, what, "look for 'blocked' in the log: it names file and line")
    elif works:
        yield ok(name, f"it is ready, with {metrics.get('pov_rt_connections', 0):.0f} connections")
