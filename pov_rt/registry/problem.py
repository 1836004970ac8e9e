"""What keeps a server under development from running as its files say: for its author's eyes."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import msgspec

from pov_rt.protocol.redaction import redact
from pov_rt.registry.discovery import PluginError


class Problem(msgspec.Struct, rename="camel", frozen=True):
    """A mistake, and where it is: `file` is as one types it, `line` 0 where there is none."""

    message: str
    file: str = ""
    line: int = 0
    traceback: str = ""
    is_running: bool = False
    """The server goes on as it was before the mistake."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.file else self.message


def problem_of(error: BaseException, *, is_running: bool = False) -> Problem:
    """Return what an error says, without the secrets in it."""
    if isinstance(error, PluginError):
        file, line, message = error.source.file, error.source.line, error.problem
        message = "\n".join([message, *map(str, error.others)])
        cause = error.__cause__
    else:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        file, line = (last[0].filename, last[0].lineno or 0) if last else ("", 0)
        message = f"{type(error).__name__}: {error}"
        cause = error
    lines = _shown(cause, file)
    return Problem(redact(message), _short(file), line, redact("".join(lines)), is_running)


def _shown(error: BaseException | None, file: str) -> list[str]:
    """Return a traceback, from the file on that is to be mended: what loaded it is ours."""
    if error is None:
        return []
    if isinstance(error, SyntaxError):
        return traceback.format_exception_only(error)
    step = error.__traceback__
    path = os.path.abspath(file)
    while step is not None and os.path.abspath(step.tb_frame.f_code.co_filename) != path:
        step = step.tb_next
    return traceback.format_exception(type(error), error, step or error.__traceback__, chain=False)


def _short(file: str) -> str:
    """Return a path as whoever started the server would type it."""
    path = Path(os.path.abspath(file)) if file else Path()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
