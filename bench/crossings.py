"""Counts what one message crosses on its way through a server: functions, files, and ways back up.

`scripts/bench crossings [--show]`. It needs nothing but an installed pov-rt, so that it also counts
another checkout: `CHECKOUT/.venv/bin/python bench/crossings.py`.

A function calls up if its room stands below that of the one it calls in docs/architecture.md;
`runtime`, which only passes calls on, is looked through. A step up is between a call and the next
one of the same thread, whoever calls. An older checkout may have no rooms.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pov_rt.plugins
from pov_rt.auth.grants import Kind
from pov_rt.testing import Client, RunningServer, make_settings

PACKAGE = Path(pov_rt.__file__).parent
PLUGINS = Path(pov_rt.plugins.__file__).parent
ROOMS = re.findall(
    r"^\| `(\w+)` \|", (PACKAGE.resolve().parent / "docs/architecture.md").read_text(), re.MULTILINE
)
if ROOMS:
    ROOMS.insert(ROOMS.index("plugin"), "plugins")  # which import that room alone
SEEN_THROUGH = "runtime"
PARTS = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")
"""What is a function in some versions of Python and none in others."""
NO_PART = ("loop.py", "testing.py")
"""The event loop, in which everything is, and what stands in for a process here."""
WARM_UP, RECORDINGS = 30, 7
IDLE_S, QUIET_S = 3.0, 0.1
POV = "acme"


class Function(NamedTuple):
    """A function of the server, by its file and its name there."""

    file: str
    name: str

    @property
    def room(self) -> str:
        """The folder or file of the package."""
        return self.file.partition("/")[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.file} {self.name}"


class Call(NamedTuple):
    """A call, from which other one, and from which one that nothing recorded called."""

    thread: int
    function: Function
    caller: Function | None
    root: Function


def is_up(lower: Function | None, upper: Function) -> bool:
    """Tell whether a way from one function to the other leads up."""
    return bool(ROOMS) and lower is not None and ROOMS.index(lower.room) > ROOMS.index(upper.room)


class Recorder:
    """Takes note of calls in all threads that begin after it was made."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._functions: dict[CodeType, Function | None] = {}
        self._stacks: dict[int, list[tuple[FrameType, Function]]] = {}
        self._frames: set[FrameType] = set()
        self._is_on = False
        threading.setprofile(self._note)

    def record(self, act: Callable[[], object]) -> list[Call]:
        """Return the calls that something causes until nothing more happens."""
        self.calls, self._stacks, self._frames = [], {}, set()
        self._is_on = True
        act()
        size = -1
        while size != len(self.calls):
            size = len(self.calls)
            time.sleep(QUIET_S)
        self._is_on = False
        return self.calls

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if not self._is_on or event not in ("call", "return"):
            return
        function = self._function(frame.f_code)
        if function is None:
            return
        thread = threading.get_ident()
        stack = self._stacks.setdefault(thread, [])
        if event == "return":
            if stack and stack[-1][0] is frame:
                stack.pop()
            return
        if frame not in self._frames:  # else a coroutine goes on
            callers = [each for _, each in stack if each.room != SEEN_THROUGH]
            caller = callers[-1] if callers else None
            root = stack[0][1] if stack else function
            self._frames.add(frame)
            self.calls.append(Call(thread, function, caller, root))
        stack.append((frame, function))

    def _function(self, code: CodeType) -> Function | None:
        if code not in self._functions:
            path = Path(code.co_filename)
            found = None
            if code.co_name not in PARTS and path.name not in NO_PART:
                if path.is_relative_to(PACKAGE):
                    found = Function(str(path.relative_to(PACKAGE)), code.co_qualname)
                elif path.is_relative_to(PLUGINS):
                    found = Function(f"plugins/{path.relative_to(PLUGINS)}", code.co_qualname)
            self._functions[code] = found
        return self._functions[code]


class People:
    """Two who are connected, one who publishes over HTTP, and what they can do."""

    def __init__(self, server: RunningServer) -> None:
        self._reader = server.connect("ana")
        self._other = server.connect("ben")
        self._publisher = HTTPConnection(server.address)
        self._token = server.token("app", Kind.SERVICE)
        self._ids = count()
        self._epoch = self._ask(self._reader, "subscribed", type="subscribe", povId=POV)["epoch"]
        self._offset = 0

    def ping(self) -> None:
        """Ping."""
        self._ask(self._reader, "pong", type="ping")

    def post(self) -> None:
        """POST an activity to its one subscriber."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        self._publisher.request("POST", "/api/activities", json.dumps(self._activity()), headers)
        self._published(json.loads(self._publisher.getresponse().read()))

    def publish(self) -> None:
        """Send `publish` over a socket; the one subscriber is another client."""
        self._published(self._ask(self._other, "published", type="publish", data=self._activity()))

    def subscribe(self) -> None:
        """Send `subscribe` with `since`; one activity is replayed."""
        since = {"epoch": self._epoch, "offset": self._offset - 1}
        self._ask(self._other, "subscribed", type="subscribe", povId=POV, since=since)
        assert self._other.receive()["type"] == "activity"

    def unsubscribe(self) -> None:
        """Make `subscribe` possible again."""
        self._ask(self._other, "unsubscribed", type="unsubscribe", povId=POV)

    def _ask(self, client: Client, answer: str, **message: Any) -> dict[str, Any]:
        found = client.request(message)
        assert found["type"] == answer, found
        return found

    def _activity(self) -> dict[str, Any]:
        activity = {"type": "task", "action": "completed", "povId": POV, "userId": "cleo"}
        return {**activity, "id": f"crossing-{next(self._ids)}", "details": {"title": "x"}}

    def _published(self, answer: dict[str, Any]) -> None:
        self._offset = answer["offset"]
        received = self._reader.receive()
        assert received["type"] == "activity", received


@contextmanager
def people(tables: dict[str, Any], plugins: Path | None) -> Iterator[People]:
    """Run a server that keeps everything on disk, with people.

    It has these tables of settings, and plugins of a folder.
    """
    engine = type(make_settings().engine)  # which is elsewhere in an older checkout
    with tempfile.TemporaryDirectory(prefix="crossings-") as folder:
        given = {"server": {"data": folder}} | tables if tables else {}
        settings = make_settings(engine=engine(url=f"sqlite:///{folder}/pov-rt.db"), **given)
        with RunningServer(settings, plugins) as server:
            yield People(server)


def crossings(
    recorder: Recorder, tables: dict[str, Any], plugins: Path | None
) -> dict[str, list[Call]]:
    """Return the calls of each way, by what it says of itself; `tables` and `plugins` as above."""
    with people(tables, plugins) as found:
        ways = (found.ping, found.post, found.publish, found.subscribe)
        for way in WARM_UP * ways:
            way()
            if way == found.subscribe:
                found.unsubscribe()
        time.sleep(IDLE_S)  # until what these left to do is done
        # What timers call, and what the writer looks at between two commits, happens anyway.
        idle = {call.root for call in recorder.record(lambda: time.sleep(IDLE_S))}
        calls = {}
        for way in ways:
            recordings = []
            for _ in range(RECORDINGS):
                made = recorder.record(way)
                recordings.append([call for call in made if call.root not in idle])
                if way == found.subscribe:
                    found.unsubscribe()
            # The middle one has nothing that only happens now and then.
            middle = sorted(recordings, key=len)[RECORDINGS // 2]
            calls[(way.__doc__ or "").rstrip(".")] = middle
    return calls


def steps(calls: list[Call]) -> Iterator[tuple[Function | None, Call]]:
    """Yield each call with the function called before it in its thread."""
    last: dict[int, Function] = {}
    for call in calls:
        yield last.get(call.thread), call
        last[call.thread] = call.function


def figures_of(calls: list[Call]) -> dict[str, int | str]:
    """Return how much a way crosses."""
    functions = {call.function for call in calls}
    up = sum(is_up(call.caller, call.function) for call in calls)
    stepped = sum(is_up(before, call.function) for before, call in steps(calls))
    return {
        "functions": len(functions),
        "files": len({each.file for each in functions}),
        "calls": len(calls),
        "calls_up": up if ROOMS else "",
        "steps_up": stepped if ROOMS else "",
    }


def main() -> None:
    """Print what is crossed."""
    parser = argparse.ArgumentParser(prog="scripts/bench crossings", description=__doc__)
    parser.add_argument("--show", action="store_true", help="name the functions, as they come")
    parser.add_argument("--json", action="store_true", help="print the figures for programs")
    parser.add_argument("--settings", type=Path, help="a file with tables of the server's settings")
    parser.add_argument("--plugins", type=Path, help="a folder of plugins")
    given = parser.parse_args()
    tables = tomllib.loads(given.settings.read_text()) if given.settings else {}
    found = crossings(Recorder(), tables, given.plugins)
    figures = {name: figures_of(calls) for name, calls in found.items()}
    if given.json:
        print(json.dumps(figures))
        return
    print("| way | functions | files | calls | calls up | steps up |\n|---|---|---|---|---|---|")
    for name, each in figures.items():
        print(f"| {name} | {' | '.join(map(str, each.values()))} |")
    for name, calls in found.items():
        print(f"\n{name}" + ("" if given.show else ", calls up") + ":")
        seen: set[Function] = set()
        for before, call in steps(calls):
            if is_up(call.caller, call.function):
                print(f"  up   {call.caller} -> {call.function}")
            if given.show and is_up(before, call.function):
                print(f"  step {before} -> {call.function}")
            if given.show and call.function not in seen:
                seen.add(call.function)
                print(f"       {call.function}")


if __name__ == "__main__":
    main()
