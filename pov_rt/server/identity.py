"""Which node this is: a name that outlives its restarts, kept in its data folder.

Each start of a process is a *run*, with a name of its own: what concerns running nodes, such as
leases, goes by that. But a series of the metrics for each run would be as many as there were
restarts, and nobody could tell that they are one node.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from pov_rt.config.settings import Settings, database_path
from pov_rt.runtime.process.private import open_private

log = logging.getLogger(__name__)

FILE = "node-id"
_NAME = re.compile(r"[0-9a-f]{12}\n?")


def node_name(settings: Settings, new: str) -> str:
    """Return this node's name; `new`, 12 hexadecimal digits, if it has none yet.

    A node without a folder has a new one at each start. So has, with a warning, one whose folder
    cannot be used: that is no reason not to serve. The folder of a database is made for it.
    """
    folder, database = _folder(settings), database_path(settings)
    if folder is None:
        return new
    path = folder / FILE
    try:
        if database is not None and database.parent == folder:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.is_dir():
            return new
        if (found := _read(path)) is not None:
            return found
        # Beside it and then in its place: one that is half written is nobody's.
        beside = f"{path}.{new}"
        with open(beside, "w", opener=open_private) as file:
            file.write(f"{new}\n")
        os.replace(beside, path)
    except OSError as error:
        log.warning("%s: %s; this node has another name at each start", path, error.strerror)
    return new


def _folder(settings: Settings) -> Path | None:
    if settings.server.data:
        return Path(settings.server.data)
    path = database_path(settings)
    return None if path is None else path.parent


def _read(path: Path) -> str | None:
    try:
        text = path.read_text("ascii", "replace")
    except FileNotFoundError:
        return None
    return text.strip() if _NAME.fullmatch(text) else None
