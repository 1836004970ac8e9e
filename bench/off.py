"""What things cost that nobody uses: pairs of servers, one with and one without each of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import machine
from bench.against import WORSE
from bench.functions import counted
from bench.growth import OursWithAll
from bench.load import Client, Load, Step
from bench.peers import Peer, encode
from bench.probe import MANY, ONE, least, probed
from bench.report import Check, Result
from bench.run import Run

ASKED = 2
"""How often each of a pair is measured, in turns; the least counts."""
IDLE = 5000
"""Connections whose memory is measured."""
SAME = 3
"""Pairs that do not differ: how far they are apart is noise."""
OFF = "enabled = false"
ON = "enabled = true"
CALLS = ("calls_ping", "calls_post", "calls_publish", "calls_subscribe")
"""How many functions more each way of `bench/crossings.py` calls: this has no noise."""
PLUGINS = ("presence", "typing", "inbox", "history", "ack", "read", "seen", "mute", "amend",
           "connections", "refresh", "revoke")  # fmt: skip
NOTHING = {"trace": OFF, "streams": OFF} | {f"plugins.{name}": OFF for name in PLUGINS}
"""The tables of settings in which all is off that can be."""

HOOK = '''"""A plugin that does nothing, when it is called."""

from pov_rt.plugin import Access, Activity, Context, Host, Plugin, Published

plugin = Plugin("called")


@plugin.{hook}
def called({arguments}) -> None:
    """Do nothing."""
'''
"""The source of a plugin with one hook."""


@dataclass(frozen=True)
class Feature:
    """One thing that is on; `tables` are its settings."""

    name: str
    tables: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    """The source of a plugin that is there."""
    is_filtered: bool = False
    """Whether a subscriber more is there, whose filter nothing fits."""
    is_used: bool = False
    """Whether it has something to do for what is measured, so that it may cost something."""

    @property
    def settings(self) -> str:
        """Return the tables in which it is on, and all else off."""
        tables = {**NOTHING, **self.tables}
        return "".join(f"[{name}]\n{lines}\n" for name, lines in tables.items())

    def plugins_in(self, folder: Path) -> Path:
        """Return the folder of its plugins, which is made in another one."""
        made = folder / "plugins"
        made.mkdir()
        if self.plugin:
            (made / "called.py").write_text(self.plugin)
        return made


def _hook(hook: str, arguments: str) -> str:
    return HOOK.replace("{hook}", hook).replace("{arguments}", arguments)


UNUSED: Sequence[Feature] = (
    Feature("trace", {"trace": "enabled = true\nfile_bytes = 0"}),
    Feature("trace with its file", {"trace": ON}),
    Feature("streams", {"streams": ON}),
    *(
        Feature(f"plugin {name}", {f"plugins.{name}": ON})
        for name in ("presence", "typing", "inbox")
    ),
    Feature("the other plugins", {f"plugins.{name}": ON for name in PLUGINS[3:]}),
    Feature("retention of other PoVs", {'pov."other-*"': "max_entries = 100"}),
    Feature("audit of other PoVs", {'pov."other-*"': "audit = true"}),
    Feature("hook on subscribing", plugin=_hook("subscribed", "pov_id: str, context: Context")),
    Feature("hook on connecting", plugin=_hook("connected", "context: Context")),
    Feature("all of these", {**dict.fromkeys(NOTHING, ON), 'pov."other-*"': "audit = true"}),
)
USED: Sequence[Feature] = (
    Feature(
        "hook before a publication",
        plugin=_hook("before_publish", "activity: Activity, host: Host"),
        is_used=True,
    ),
    Feature(
        "hook after a publication",
        plugin=_hook("published", "activity: Activity, place: Published, host: Host"),
        is_used=True,
    ),
    Feature("authoriser", plugin=_hook("authorise", "access: Access, host: Host"), is_used=True),
    Feature("a filter that nothing fits", is_filtered=True, is_used=True),
    Feature("audit of the PoV", {'pov."*"': "audit = true"}, is_used=True),
)


class Apart(NamedTuple):
    """By what factor units of work are dearer where a feature is on, and how much more memory."""

    ping: float
    publish: float
    delivery: float
    KiB_more: float
    """Of an idle connection."""


class OursWith(OursWithAll):
    """pov-rt with one feature, and with nothing else that can be off."""

    def __init__(self, folder: Path, feature: Feature) -> None:
        super().__init__(folder)
        self.settings += feature.settings
        self._plugins = feature.plugins_in(self.folder)

    def command(self) -> list[str]:
        """Return what to run."""
        return [*super().command(), "--plugins-dir", str(self._plugins)]


def off(run: Run) -> Result:
    """Measure each feature in pairs: a server that has it beside one that has not."""
    result = Result(
        "off", "server CPU, on / off", plots=("ping", "publish", "delivery", "KiB_more")
    )
    same = [Feature(f"nothing, pair {number}") for number in range(1, SAME + 1)]
    features = [feature for feature in (*UNUSED, *USED) if run.wants(feature.name)]
    apart: dict[str, list[Apart]] = {}
    for feature in run.in_rounds([*same, *features]):
        run.progress(feature.name)
        apart.setdefault(feature.name, []).append(_pair(run, feature))
    found = {name: Apart._make(map(statistics.median, zip(*each, strict=True)))
             for name, each in apart.items()}  # fmt: skip
    *ratios, memory = zip(*(found[each.name] for each in same), strict=True)
    noise = Apart._make(
        [*(max(each, key=lambda x: abs(x - 1)) for each in ratios), max(memory, key=abs)]
    )
    result.add("off beside off, the farthest of them", OursWith.name, **noise._asdict())
    bar = 1 + max(WORSE, *(2 * abs(each - 1) for each in noise[:-1]))
    least_calls = _calls(run, Feature("nothing"))
    for feature in features:
        case = f"{feature.name}, used" if feature.is_used else feature.name
        result.add(case, OursWith.name, **found[feature.name]._asdict())
        if not feature.is_filtered:  # the program that counts has no further subscriber
            run.progress(f"{feature.name}, calls")
            more = [b - a for a, b in zip(least_calls, _calls(run, feature), strict=True)]
            result.rows[-1].values.update(zip(CALLS, more, strict=True))
        if not feature.is_used:
            result.checks.append(Check(feature.name, max(found[feature.name][:-1]), bar, 1.0))
    return result


def _calls(run: Run, feature: Feature) -> list[int]:
    """Return how many functions of the server each way calls where the feature is on."""
    with TemporaryDirectory(dir=run.folder) as name:
        settings = Path(name) / "settings.toml"
        settings.write_text(feature.settings)
        plugins = feature.plugins_in(Path(name))
        found = counted("--settings", str(settings), "--plugins", str(plugins))
    return [figures["calls"] for figures in found.values()]


def _pair(run: Run, feature: Feature) -> Apart:
    """Return what is dearer where the feature is on."""
    # Servers of their own each time: two processes of the same code differ by some percent.
    with TemporaryDirectory(dir=run.folder) as folder, ExitStack() as stack:
        probes = []
        for name, each in (("off", Feature("nothing")), ("on", feature)):
            ours = stack.enter_context(OursWith(Path(folder) / name, each))
            if each.is_filtered:
                stack.enter_context(_filtering(ours))
            probes.append(stack.enter_context(probed(run, ours)))
        asked = [[probe.ask() for probe in probes] for _ in range(ASKED)]
        memory = [_memory(run, probe.peer) for probe in probes]
    without, with_it = map(least, zip(*asked, strict=True))
    dearer = (b / a for a, b in zip(without, with_it, strict=True))
    return Apart._make([*dearer, memory[1] - memory[0]])


def _memory(run: Run, peer: Peer) -> float:
    """Return the KiB that an idle connection takes, ten on each PoV."""
    number = run.scaled(IDLE)
    before = machine.resident_bytes(peer.pids)
    with run.clients(peer, number, [f"pov-{each}" for each in range(number // 10)]) as load:
        load.open()
        return (machine.resident_bytes(peer.pids) - before) / number / 1024


def _filtering(ours: OursWith) -> Load:
    """Return a client that follows the probe's PoVs, and whose filter nothing fits."""
    only = {"types": ["none"]}
    subscribe = encode({"type": "subscribe", "povIds": [ONE, MANY], "only": only})
    steps = [Step(0, subscribe), Step(1, "", ours.subscribed)]
    client: Client = ours.client("filtering", "*")._replace(steps=steps)
    load = Load(ours.folder, ours.port, [client], ours.speech("none"), 0)
    load.open()
    return load
