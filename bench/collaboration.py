"""What presence and typing cost a server, and those who have nothing to do with it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence

from bench.load import LoadError, text_frame
from bench.machine import LOAD_CORE
from bench.ours import Ours, OursBySocket
from bench.peers import encode, token
from bench.report import Check, Result
from bench.run import Flow, Run, delays_ms, flow, median_difference

READERS, RATE = 100, 100.0
SECONDS = 12.0
PEOPLE = 10_000
"""Who come and go within CROWD_S."""
CROWD_S = 10.0
"""How long a crowd comes, or types; with its start and the last one's going the others' time."""
MAX_CROWD_S = 12.0
"""A crowd that takes longer was not the load that it was to be."""


class OursWithoutGrace(OursBySocket):
    """pov-rt where nobody has time to come back: who goes has left before the measuring ends."""

    settings = "[plugins.presence]\ngrace_s = 1\n"


def opening(topic: str, number: int) -> str:
    """Return what a person sends to be there and to see who else is."""
    given = token(f"person-{number}", [topic], can=["subscribe", "collaborate"])
    request = (
        f"GET /ws/?token={given} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    frames = [
        text_frame(encode({"type": kind, "povId": topic})) for kind in ("subscribe", "presence")
    ]
    return (request + b"".join(frames)).hex()


def visits(people: int) -> list[str]:
    """Return what so many people send, ten on each PoV."""
    return [opening(f"pov-{n % max(1, people // 10)}", n) for n in range(people)]


def presence(run: Run) -> Result:
    """Come and go: ten thousand people on a thousand PoVs within ten seconds."""
    people = run.scaled(PEOPLE)
    return _beside(run, "presence", visits(people), f"{people:,} come and go in 10 s", ["come"])


def typing(run: Run) -> Result:
    """Type: a thousand people on one PoV, each once a second."""
    people = run.scaled(1000)
    openings = [opening("busy", n) for n in range(people)]
    typing = {"type": "typing", "povId": "busy", "active": True}
    # Elsewhere each second: the list is another at each tick, and all are told twice a second.
    frames = [text_frame(encode({**typing, "where": where})).hex() for where in ("a", "b")]
    case = f"{people:,} type once a second"
    return _beside(run, "typing", openings, case, ["typing", *frames])


def check_crowd(said: str, people: int, progress: Callable[[str], None]) -> None:
    """Raise `LoadError` unless a crowd says that all were served, and came in time."""
    served, _, seconds = said.strip().partition(" ")
    if served != str(people):
        raise LoadError(f"{served or 'none'} of {people} people were served")
    progress(f"the crowd took {seconds} s")
    if float(seconds) > MAX_CROWD_S:
        raise LoadError(f"the crowd took {seconds} s instead of {CROWD_S:g} s")


def _beside(run: Run, name: str, openings: Sequence[str], case: str, what: Sequence[str]) -> Result:
    result = Result(name, "delay of subscribers of another PoV", plots=("p99_ms",))
    alone, beside = zip(
        *beside_crowd(run, (OursWithoutGrace,), openings, what)[OursWithoutGrace], strict=True
    )
    for what_beside, flows in (("nobody", alone), (case, beside)):
        result.add(
            f"beside {what_beside}",
            OursBySocket.name,
            **delays_ms(each.delays for each in flows),
            **{"server_%": statistics.median(each.server_percent for each in flows)},
        )
    more = median_difference(
        [each.delays.p99 / 1000 for each in beside], [each.delays.p99 / 1000 for each in alone]
    )
    result.checks.append(Check("p99 of the others, more by", more, 2, 1, unit="ms"))
    return result


def beside_crowd(
    run: Run, kinds: Sequence[type[Ours]], openings: Sequence[str], what: Sequence[str]
) -> dict[type[Ours], list[tuple[Flow, Flow]]]:
    """Measure subscribers of another PoV alone and beside a crowd."""
    found: dict[type[Ours], list[tuple[Flow, Flow]]] = {kind: [] for kind in kinds}
    for kind in run.in_rounds(kinds):
        # A server of its own each time: the people of the one before are not forgotten at once.
        with kind(run.folder) as peer:
            with run.clients(peer, READERS, ["acme"], publishers=1) as load:
                load.open()
                flow(peer, load, READERS, 200, RATE)  # warm
                number = int(RATE * SECONDS)
                alone = flow(peer, load, READERS, number, RATE)
                # Nice: the crowd must not keep the core from those who measure.
                command = ["nice", "-n", "19", "taskset", "-c", str(LOAD_CORE)]
                command += [sys.executable, "-m", "bench.crowd"]
                with subprocess.Popen(
                    [*command, str(peer.port), what[0], str(CROWD_S), *what[1:]],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                ) as crowd:
                    assert crowd.stdin is not None
                    assert crowd.stdout is not None
                    json.dump(list(openings), crowd.stdin)
                    crowd.stdin.close()
                    if what[0] == "typing":
                        crowd.stdout.readline()
                    beside = flow(peer, load, READERS, number, RATE)
                    said = crowd.stdout.read()
                check_crowd(said, len(openings), run.progress)
        found[kind].append((alone, beside))
    return found
