"""What the demo's board begins with: its people, its proofs of value, and what they have done."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pov_rt.protocol.messages import NewActivity

PEOPLE = {
    "ana": "Ana Ruiz",
    "jonas": "Jonas Weber",
    "mei": "Mei Tanaka",
    "ife": "Ife Okafor",
    "priya": "Priya Raman",
    "sam": "Sam Doyle",
}
PHASES = ("Scope", "Set up", "Prove", "Decide")
PAGE = "/demo/board"


class Task(msgspec.Struct):
    """Something to be done; `who` is to do it."""

    id: str
    title: str
    who: str
    done: bool = False


class Pov(msgspec.Struct):
    """A proof of value: day `day` of `days`, in the phase of that index."""

    id: str
    name: str
    day: int
    days: int
    phase: int
    tasks: list[Task]

    def find(self, task_id: str) -> Task | None:
        """Return one of its tasks."""
        return next((task for task in self.tasks if task.id == task_id), None)


def link(pov_id: str, task_id: str | None = None) -> str:
    """Return where the board shows a proof of value, or a task of it."""
    return f"{PAGE}?pov={pov_id}" + (f"&task={task_id}" if task_id else "")


def first_povs() -> list[Pov]:
    """Return the board as it is at first."""
    return [
        Pov(
            "mossgate-bank",
            "Mossgate Bank",
            day=12,
            days=19,
            phase=2,
            tasks=[
                Task("single-sign-on", "Single sign-on", "sam", done=True),
                Task("audit-log-export", "Audit log export", "jonas"),
                Task("rotterdam", "Answers under 200 ms from Rotterdam", "priya"),
                Task("rollback-rehearsal", "Rollback rehearsal", "mei", done=True),
                Task("success-criteria", "Success criteria signed", "ife"),
            ],
        ),
        Pov(
            "brindle-freight",
            "Brindle Freight",
            day=3,
            days=15,
            phase=1,
            tasks=[
                Task("customs-feed", "Customs feed connected", "mei", done=True),
                Task("depot-accounts", "Accounts for three depots", "sam"),
                Task("label-printing", "Label printing at peak", "ana"),
            ],
        ),
        Pov(
            "quillon-air",
            "Quillon Air",
            day=8,
            days=20,
            phase=2,
            tasks=[
                Task("nightly-sync", "Nightly sync", "priya", done=True),
                Task("crew-rosters", "Crew rosters imported", "ife", done=True),
                Task("delay-alerts", "Delay alerts within a minute", "jonas"),
            ],
        ),
    ]


_HISTORY = (
    ("rotterdam", "priya", "The first run says 240 ms, most of it before us."),
    ("rotterdam", "sam", "Their proxy keeps no connections. I have asked for that."),
    ("rotterdam", "priya", "It does now: 130 ms."),
    ("", "ana", ""),
    ("rollback-rehearsal", "mei", "Back in four minutes, with nothing to do by hand."),
    ("rollback-rehearsal", "mei", ""),
    ("audit-log-export", "jonas", "Their DBA wants it on before Thursday. I can pair at 15:00."),
    ("audit-log-export", "ife", "Works on my copy. Needs the retention setting, 90 days."),
)
"""What was said about a task; without words it was completed, and without a task there was a move
to the phase that the first proof of value is in."""


def first_activities(begun: str) -> Iterator[NewActivity]:
    """Yield what has happened so far; `begun` names this beginning of the board.

    The ids are always the same ones then: sent twice, they are in the log once.
    """
    pov = first_povs()[0]
    moved = {"title": pov.name, "from": PHASES[1], "to": PHASES[2], "href": link(pov.id)}
    told: list[tuple[str, str, str, dict[str, str]]] = []
    for task_id, who, text in _HISTORY:
        task = pov.find(task_id)
        if task is None:
            told.append(("phase", "changed", who, moved))
            continue
        about = {"title": task.title, "task": task.id, "href": link(pov.id, task.id)}
        if text:
            told.append(("comment", "added", who, about | {"text": text}))
        else:
            told.append(("task", "completed", who, about))
    for number, (kind, action, who, details) in enumerate(told):
        yield NewActivity(
            id=f"demo-{begun}-{number}",
            type=kind,
            action=action,
            pov_id=pov.id,
            user_id=who,
            details=details,
        )


def burst(number: int) -> Iterator[NewActivity]:
    """Yield a load test's results: files that one after the other adds, to each proof of value."""
    turns = [(pov, who) for pov in first_povs() for who in PEOPLE]
    for each in range(number):
        pov, who = turns[each * len(turns) // number]
        yield NewActivity(
            type="file",
            action="added",
            pov_id=pov.id,
            user_id=who,
            details={"title": f"load-run-{each + 1:04}.csv", "href": link(pov.id)},
        )
