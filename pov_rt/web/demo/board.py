"""The demo's board: what is changed on it, and the file that keeps it over restarts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from pov_rt.protocol.messages import NewActivity
from pov_rt.runtime.clock import Clock
from pov_rt.runtime.process.private import open_private
from pov_rt.web.demo.content import PEOPLE, PHASES, Pov, Task, first_povs, link

log = logging.getLogger(__name__)

MAX_TASKS = 20
"""Of a proof of value."""
MAX_TITLE_CHARS = 80


class Unknown(Exception):
    """There is no such proof of value, task or phase."""


class Refused(Exception):
    """It cannot be done; the text says why, for whoever asked."""


class State(msgspec.Struct):
    """What is kept. `begun` names this beginning of the board, which was at `since` (s)."""

    begun: str
    since: float
    povs: list[Pov]
    is_told: bool = False
    """What it begins with has been published."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(State).decode


class Board:
    """The board, kept in a file where there is one. Owner: the demo."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._left: dict[str, str] = {}
        """The phase that each proof of value was in before its last move."""
        self.state = self._load() or self._begin()

    def view(self) -> dict[str, Any]:
        """Return all of it, as pages get it."""
        return {
            "since": int(self.state.since * 1000),
            "people": PEOPLE,
            "phases": PHASES,
            "povs": self.state.povs,
        }

    def add_task(self, pov_id: str, task_id: str, title: str, who: str) -> bool:
        """Add a task; return whether it was not there. Raises `Unknown` or `Refused`."""
        title = " ".join(title.split())
        if not 0 < len(title) <= MAX_TITLE_CHARS:
            raise Refused(f"A task has a title of 1 to {MAX_TITLE_CHARS} characters")
        return self._change(pov_id, lambda pov: _add(pov, Task(task_id, title, who)))

    def set_done(self, pov_id: str, task_id: str, *, done: bool) -> bool:
        """Say whether a task is done; return whether that is news. Raises `Unknown`."""
        return self._change(pov_id, lambda pov: _set_done(pov, task_id, done))

    def move(self, pov_id: str, phase: str) -> bool:
        """Move a proof of value to a phase; return whether it was elsewhere. Raises `Unknown`."""
        if phase not in PHASES:
            raise Unknown
        left = PHASES[self._find(pov_id).phase]
        is_moved = self._change(pov_id, lambda pov: _move(pov, PHASES.index(phase)))
        if is_moved:
            self._left[pov_id] = left
        return is_moved

    def reset(self) -> None:
        """Begin anew."""
        self._keep(self._begin())

    def told(self) -> None:
        """Note that what the board begins with has been published."""
        self._keep(msgspec.structs.replace(self.state, is_told=True))

    def describe(self, activity: NewActivity) -> NewActivity:
        """Return a request's activity with what the board knows of it.

        A tracker's rule has the parts of the path as details; here they get their names.
        """
        parts: dict[str, Any] = {} if activity.details is UNSET else activity.details
        pov = self._find(activity.pov_id)
        task = pov.find(parts.get("task", ""))
        details = {"title": pov.name, "href": link(pov.id)}
        if task is not None:
            details = {"title": task.title, "task": task.id, "href": link(pov.id, task.id)}
        if "to" in parts:
            details |= {"from": self._left.get(pov.id, ""), "to": parts["to"]}
        return msgspec.structs.replace(activity, details=details)

    def _find(self, pov_id: str) -> Pov:
        for pov in self.state.povs:
            if pov.id == pov_id:
                return pov
        raise Unknown

    def _change(self, pov_id: str, change: Callable[[Pov], bool]) -> bool:
        """Change one of the proofs of value, once what comes of it has been written."""
        changed = _decode(_encode(self.state))
        pov = next((each for each in changed.povs if each.id == pov_id), None)
        if pov is None:
            raise Unknown
        if not change(pov):
            return False
        self._keep(changed)
        return True

    def _keep(self, state: State) -> None:
        if self._path is not None:
            beside = self._path.with_suffix(".new")
            with open(beside, "wb", opener=open_private) as file:
                file.write(_encode(state))
            os.replace(beside, self._path)
        self.state = state

    def _load(self) -> State | None:
        if self._path is None:
            return None
        try:
            return _decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            log.warning("the demo's board begins anew, for %s is damaged: %s", self._path, error)
            return None

    def _begin(self) -> State:
        return State(self._clock.new_id(), self._clock.time(), first_povs())


def _add(pov: Pov, task: Task) -> bool:
    if pov.find(task.id) is not None:
        return False
    if len(pov.tasks) >= MAX_TASKS:
        raise Refused(f"A board has at most {MAX_TASKS} tasks")
    pov.tasks.append(task)
    return True


def _set_done(pov: Pov, task_id: str, done: bool) -> bool:
    task = pov.find(task_id)
    if task is None:
        raise Unknown
    is_news = task.done != done
    task.done = done
    return is_news


def _move(pov: Pov, phase: int) -> bool:
    is_news = pov.phase != phase
    pov.phase = phase
    return is_news
