"""What grows with what there is: connections, topics, history, plugins; each figure by how much."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count, pairwise
from pathlib import Path

from bench import machine
from bench.durability import BATCH, MISSED, PUBLISHERS, batches, pages, post
from bench.load import Load, Step
from bench.ours import Ours, OursBySocket
from bench.peers import activity, check_published, encode
from bench.probe import CLIENTS, Costs, least, probed
from bench.report import Result
from bench.run import Run

CONNECTIONS = (100, 1000, 10_000, 50_000)
TOPICS = (10, 100, 1000, 10_000, 100_000, 1_000_000)
EACH = 200
"""Topics that a connection subscribes to, which is as many as a message may name."""
WINDOW = 4
"""Connections that subscribe to so many at a time: none waits until its message is given up."""
ENTRIES = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
LOGS = 100
"""Topics that the entries are in; each is in the team's feed, too."""
PAGE, PAGES = 10, 200
"""Entries of a page of history, and how many pages are read at each size."""
SINGLES = 100
"""Publications one by one at each size and in each round, which are few beside the entries."""
BACK_EACH = 10
"""Clients of each topic that come back."""
LAST_BATCHES = 20
"""Of those that fill the log, over which CPU is counted."""
MEASURABLE = 1000
"""Of fewer topics the memory, and a batch, cannot be told from other things."""
PLUGINS = (0, 1, 5, 10, 20, 50)

PLUGIN = '''"""A plugin with a message type of its own, and hooks that a publication passes."""

from pov_rt.plugin import Activity, Context, Host, Message, Plugin, Published

plugin = Plugin("grown_{number}")


class Ask(Message, tag="grown_{number}.ask"):
    """Ask."""


class Answer(Message, tag="grown_{number}.answer"):
    """Answer."""


@plugin.on(Ask)
def ask(message: Ask, context: Context) -> Answer:
    """Answer at once."""
    return Answer()


@plugin.connected
def connected(context: Context) -> None:
    """Do nothing."""


@plugin.subscribed
def subscribed(pov_id: str, context: Context) -> None:
    """Do nothing."""


@plugin.before_publish
def before_publish(activity: Activity, host: Host) -> None:
    """Keep the activity."""


@plugin.published
def published(activity: Activity, place: Published, host: Host) -> None:
    """Do nothing."""
'''
"""The source of a generated plugin."""


class OursWithAll(OursBySocket):
    """pov-rt that keeps all that is begun, and leaves connections alone while it is measured."""

    name = "pov-rt"
    settings = (
        "max_topics = 4000000\ntopics_per_hour = 2000000\nmax_entries = 20000000\n"
        "[ping]\ninterval_s = 3600\n"
    )
    open_publisher = Ours.open_publisher
    publish = Ours.publish


class OursWithAllOnDisk(OursWithAll):
    """The same with its default engine."""

    name = "pov-rt, sqlite"
    engine = "sqlite://"


class OursWithPlugins(OursWithAll):
    """pov-rt with a folder of plugins."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder / f"{number}-plugins")
        self._plugins = self.folder / "plugins"
        self._plugins.mkdir()
        for each in range(number):
            text = PLUGIN.replace("{number}", str(each))
            (self._plugins / f"grown_{each}.py").write_text(text)

    def command(self) -> list[str]:
        """Return what to run."""
        return [*super().command(), "--plugins-dir", str(self._plugins)]


class Lines:
    """Figures by what they are of, and by how much there was."""

    def __init__(self) -> None:
        self.found: dict[str, dict[int, float]] = {}

    def note(self, name: str, size: int, value: float) -> None:
        """Add a figure."""
        self.found.setdefault(name, {})[size] = value

    def note_costs(self, size: int, costs: Costs) -> None:
        """Add what a probe found."""
        self.note("us of CPU, a ping", size, costs.ping)
        self.note("us of CPU, a publication by POST to one", size, costs.publish)
        self.note("us of CPU, a delivery to one of 500", size, costs.delivery)


def growth(run: Run) -> Result:
    """Grow each of four things, and see what a unit of work and of memory costs then."""
    result = Result("growth", "by how much there is", grows=True)
    for grow in (connections, topics, history, plugins):
        if run.wants(grow.__name__):
            server, why, lines = grow(run)
            for name, found in lines.found.items():
                result.add_growth(f"{grow.__name__}: {name}", server, found, why)
    return result


Grown = tuple[str, str, Lines]
"""The server's name, why there was no more, and what was found."""


def connections(run: Run) -> Grown:
    """Grow connections that are subscribed and do nothing, ten on each PoV."""
    most = machine.most_files() - machine.SPARE_FILES - CLIENTS
    wanted = CONNECTIONS[:-1] if run.quick else CONNECTIONS
    sizes, why = [size for size in wanted if size <= most], ""
    if len(sizes) < len(wanted):
        sizes.append(most // 100 * 100)
        why = f"a process may open {machine.most_files():,} files here"
    lines = Lines()
    with OursWithAll(run.folder) as ours, probed(run, ours) as probe, ExitStack() as stack:
        first = machine.resident_bytes(ours.pids)
        for there, size in pairwise((0, *sizes)):
            run.progress(f"{size:,} connections")
            names = [f"pov-{number // 10}" for number in range(there, size)]
            load = stack.enter_context(run.clients(ours, size - there, names))
            load.open()
            each = (machine.resident_bytes(ours.pids) - first) / size
            lines.note("KiB of memory, a connection", size, each / 1024)
            lines.note("us of CPU, a connect", size, _opened(run, ours, load))
            lines.note_costs(size, least(probe.ask() for _ in range(run.rounds)))
    return ours.name, why, lines


def _opened(run: Run, ours: Ours, load: Load) -> float:
    """Open all clients again, several times; return the least microseconds that one took."""
    took = []
    for _ in range(run.rounds):
        load.ask("close")
        machine.rest(ours.pids)
        before = machine.cpu_s(ours.pids)
        load.open()
        took.append(1e6 * (machine.cpu_s(ours.pids) - before) / load.clients)
    return min(took)


def topics(run: Run) -> Grown:
    """Grow topics in memory, with an activity and a subscriber each; a connection has 200."""
    lines = Lines()
    with OursWithAll(run.folder) as ours, probed(run, ours) as probe, ExitStack() as stack:
        first = machine.resident_bytes(ours.pids)
        for there, size in pairwise((0, *(TOPICS[:-2] if run.quick else TOPICS))):
            run.progress(f"{size:,} topics")
            names = [f"topic-{number}" for number in range(there, size)]
            load = stack.enter_context(_subscribed(ours, names))
            used_us = _begun(ours, load, names)
            if size >= MEASURABLE:
                lines.note("us of CPU, the first publication on a topic", size, used_us)
                each = (machine.resident_bytes(ours.pids) - first) / size
                lines.note("KiB of memory, a topic", size, each / 1024)
            lines.note_costs(size, least(probe.ask() for _ in range(run.rounds)))
    return ours.name, "", lines


def _subscribed(ours: Ours, names: Sequence[str]) -> Load:
    """Return clients that are subscribed to the topics, 200 each."""
    clients = []
    for start in range(0, len(names), EACH):
        subscribe = encode({"type": "subscribe", "povIds": names[start : start + EACH]})
        steps = [Step(0, subscribe), Step(1, "", ours.subscribed)]
        clients.append(ours.client(f"u-{names[start]}", "*")._replace(steps=steps))
    # Each topic has its own order, and one message only: numbers of 0 are not compared.
    speech = ours.speech("none")._replace(growing='"seq":')
    load = Load(ours.folder, ours.port, clients, speech, 0)
    load.open(window=WINDOW)
    return load


def _begun(ours: Ours, load: Load, names: Sequence[str]) -> float:
    """Publish once on each topic, in batches; return the microseconds that one took."""
    load.reset()
    before = machine.cpu_s(ours.pids)
    for start in range(0, len(names), BATCH):
        some = range(start, min(start + BATCH, len(names)))
        at = time.monotonic_ns()
        ours.publish([activity(names[number], 0, at) for number in some])
        load.expect(some.stop)
    return 1e6 * (machine.cpu_s(ours.pids) - before) / len(names)


def history(run: Run) -> Grown:
    """Grow the log of SQLite: entries on a hundred PoVs and in the team's feed."""
    names, seqs, dice = [f"pov-{number}" for number in range(LOGS)], count(), random.Random(1)  # noqa: S311
    lines = Lines()
    with OursWithAllOnDisk(run.folder) as ours:
        for there, size in pairwise((0, *(ENTRIES[:-2] if run.quick else ENTRIES))):
            run.progress(f"{size:,} entries")
            used_us, epochs = _filled(ours, (size - there) // BATCH, names, seqs)
            lines.note("us of CPU, a publication in batches of 1,000", size, used_us)
            machine.rest(ours.pids)
            each = size // LOGS
            stored = sum(path.stat().st_size for path in ours.folder.glob("pov-rt.db*"))
            lines.note("bytes on disk, an entry", size, stored / size)
            places = [(dice.choice(names), dice.randrange(each - PAGE + 1)) for _ in range(PAGES)]
            with _missing(ours, epochs, each - MISSED) as load:
                for what, act, number in (
                    ("a publication by POST", partial(_posted, ours, seqs), SINGLES),
                    ("a page of 10", partial(pages, ours, places, PAGE), PAGES),
                    ("a client back, 10 missed", partial(_come_back, load), load.clients),
                ):
                    lines.note(f"us of CPU, {what}", size, _least(run, ours, act, number))
    return ours.name, "", lines


def _filled(
    ours: Ours, number: int, names: Sequence[str], seqs: Iterator[int]
) -> tuple[float, dict[str, str]]:
    """Publish so many batches; return the microseconds of an entry in the last, and all epochs."""
    last = min(LAST_BATCHES, number)
    for done in range(0, number - last, LAST_BATCHES):
        size = min(LAST_BATCHES, number - last - done)
        post(ours, batches(ours, size, BATCH, names, seqs), PUBLISHERS)
    ready = batches(ours, last, BATCH, names, seqs)
    before = machine.cpu_s(ours.pids)
    _, _, answers = post(ours, ready, PUBLISHERS)
    used_us = 1e6 * (machine.cpu_s(ours.pids) - before) / (last * BATCH)
    check_published(answers, last * BATCH)
    results = (each for body in answers for each in json.loads(body)["results"])
    return used_us, {each["povId"]: each["epoch"] for each in results}


def _posted(ours: Ours, seqs: Iterator[int]) -> None:
    """Publish one by one."""
    for _ in range(SINGLES):
        ours.publish([activity("elsewhere", next(seqs), time.monotonic_ns())])


def _missing(ours: Ours, epochs: Mapping[str, str], offset: int) -> Load:
    """Return clients that know the logs up to an offset, ten of each."""
    clients = [
        ours.recovering(f"u-{name}-{number}", name, {"epoch": epoch, "offset": offset}, offset)
        for number in range(BACK_EACH)
        for name, epoch in epochs.items()
    ]
    return Load(ours.folder, ours.port, clients, ours.speech("none"), 0)


def _come_back(load: Load) -> None:
    load.ask("close")
    load.reset()
    load.open()
    load.expect(load.clients * MISSED)


def _least(run: Run, ours: Ours, act: Callable[[], object], number: int) -> float:
    """Do something several times; return the least microseconds that each of its parts took."""
    took = []
    for _ in range(run.rounds):
        machine.rest(ours.pids)
        before = machine.cpu_s(ours.pids)
        act()
        took.append(1e6 * (machine.cpu_s(ours.pids) - before) / number)
    return min(took)


def plugins(run: Run) -> Grown:
    """Grow plugins that have a message type and hooks, all of which are called."""
    lines = Lines()
    with ExitStack() as stack:
        probes = {}
        for number in PLUGINS:
            ours = stack.enter_context(OursWithPlugins(run.folder, number))
            probes[number] = stack.enter_context(probed(run, ours))
        found: dict[int, list[Costs]] = {number: [] for number in PLUGINS}
        for number in run.in_rounds(PLUGINS, "plugins, "):
            found[number].append(probes[number].ask())
    for number, rounds in found.items():
        lines.note_costs(number, least(rounds))
    return OursWithPlugins.name, "", lines
