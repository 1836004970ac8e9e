"""For operators, on a port of its own: is it alive, is it ready, how is it doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pov_rt.engine.base import State, Survives
from pov_rt.runtime.clock import rfc3339
from pov_rt.runtime.measure.histogram import Histogram
from pov_rt.server.server import Server
from pov_rt.version import VERSION
from pov_rt.web.http import JsonHandler

LAG_TICK_S = 0.25
LAG_MEMORY_S = 30.0


class LoopLag:
    """How late the event loop does what is due. Owner: the web server, from `start` to `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worst = self._worst_before = 0.0
        self._since = self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worst_s(self) -> float:
        """The longest delay of the last 30 to 60 seconds, in which somebody will have asked."""
        return max(self._worst, self._worst_before)

    def start(self) -> None:
        """Begin to look, four times a second."""
        self._since = self._loop.time()
        self._wait()

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._due = self._loop.time() + LAG_TICK_S
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._worst = max(self._worst, now - self._due)
        if now - self._since >= LAG_MEMORY_S:
            self._worst_before, self._worst, self._since = self._worst, 0.0, now
        self._wait()


class Counters(Collector):
    """Reads a server's own counters when asked, so that counting costs the hot path nothing.

    `others` yields those that the server does not know of.
    """

    def __init__(self, server: Server, others: Callable[[], Iterable[Metric]]) -> None:
        self._server = server
        self._others = others
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        server, hub = self._server, self._server.hub
        yield gauge("ready", "1 if clients are welcome", int(server.not_welcome() is None))
        publishes = int(server.not_publishing() is None)
        yield gauge("ready_to_publish", "1 if activities can be published", publishes)
        yield from self._engine()
        info = GaugeMetricFamily("pov_rt_build_info", "The version", labels=["version", "node"])
        info.add_metric([VERSION, server.node], 1)
        yield info
        connections = GaugeMetricFamily(
            "pov_rt_connections", "Open connections", labels=["transport"]
        )
        for transport, count in server.directory.by_transport().items():
            connections.add_metric([transport], count)
        yield connections
        yield gauge("users", "Users with a connection", len(server.directory.users()))
        present = GaugeMetricFamily("pov_rt_present", "Members under leases", labels=["plugin"])
        held = server.engine.leases.held
        for plugin in server.hooks.hosts:
            present.add_metric([plugin], held.get(plugin, 0))
        yield present
        yield gauge("subscriptions", "Subscriptions of all sockets", hub.subscriptions)
        yield gauge("answers_standing", "Asked for again in time", server.permissions.standing)
        yield gauge("topics", "Topics followed", hub.topics)
        yield gauge("answers_expected", "Publications to be answered in the stream", hub.expected)
        yield gauge("tokens_remembered", "Tokens not verified anew", server.tokens.remembered)
        yield gauge("log_waiting_bytes", "What waits to be written", server.engine.waiting_bytes)
        size = GaugeMetricFamily("pov_rt_log_bytes", "Size of the log's files", labels=["file"])
        for name, count in server.engine.log_bytes.items():
            size.add_metric([name], count)
        yield size
        opened, closes = server.arrivals.opened, server.arrivals.closes
        yield by_label("connections_opened", "Connections opened", "transport", opened)
        yield counter("activities_published", "Activities published", server.publishing.published)
        others = hub.others.positions
        yield counter("other_log_positions", "Positions of another server's log", others)
        yield by_label("messages_delivered", "Handed to clients", "transport", hub.delivered)
        timings = server.timings
        yield histogram("publish_seconds", "From arrival until it is stored", timings.publish)
        yield histogram("commit_seconds", "What the engine took to store it", timings.commit)
        yield histogram(
            "delivery_seconds", "From the log to subscribers' sockets", timings.delivery
        )
        yield histogram("handler_seconds", "Handlers of messages", timings.handler)
        yield histogram("replay_seconds", "Until who missed something is live", timings.replay)
        recoveries = timings.recoveries
        yield by_label("recoveries", "Subscriptions from a position", "recovered", recoveries)
        yield by_label("messages", "Messages handled", "type", server.dispatcher.counts)
        yield by_label("errors", "Errors answered", "code", server.dispatcher.errors)
        yield by_labels("closes", "Connections closed", ("transport", "reason"), closes)
        used = GaugeMetricFamily("pov_rt_bound_used", "What of a bound is in use", labels=["bound"])
        limit = GaugeMetricFamily("pov_rt_bound_limit", "How much there is", labels=["bound"])
        refused = CounterMetricFamily(
            "pov_rt_bound_refused", "Refused at a bound or a share of it", labels=["bound"]
        )
        for bound in server.bounds:
            used.add_metric([bound.name], bound.used())
            limit.add_metric([bound.name], bound.limit)
            refused.add_metric([bound.name], bound.refused)
        yield from (used, limit, refused)
        plugins = CounterMetricFamily(
            "pov_rt_plugin", "What plugins count", labels=["plugin", "name"]
        )
        for host in server.hooks.hosts.values():
            for name, count in host.counts.items():
                plugins.add_metric([host.name, name], count)
        yield plugins
        conduct = server.hooks.conduct
        failures = by_labels(
            "plugin_failures", "What plugins did wrong", ("plugin", "kind"), conduct.counts
        )
        off = GaugeMetricFamily(
            "pov_rt_plugin_off", "Plugins that are off for their failures", labels=["plugin"]
        )
        for name in server.hooks.hosts:
            off.add_metric([name], int(name in conduct.off))
        yield from (failures, off)
        yield from self._others()
        yield from self._process.collect()

    def _engine(self) -> Iterable[Metric]:
        """Yield what is known of the engine alone."""
        engine = self._server.engine
        state = GaugeMetricFamily(
            "pov_rt_engine_state", "1 for the state it is in", labels=["state"]
        )
        for name in get_args(State):
            state.add_metric([name], int(name == engine.health().state))
        yield state
        survives = GaugeMetricFamily(
            "pov_rt_engine_survives", "1 for what an activity survives", labels=["survives"]
        )
        for name in get_args(Survives):
            survives.add_metric([name], int(name == engine.guarantee))
        yield survives
        measure = GaugeMetricFamily("pov_rt_engine", "What it measures", labels=["measure"])
        for name, value in engine.measures.items():
            measure.add_metric([name], value)
        yield measure
        for name, counts in engine.counters.items():
            yield by_label(f"engine_{name}", "What the engine counts", "outcome", counts)
        for name, values in engine.histograms.items():
            yield histogram(f"engine_{name}", "What the engine measures", values)


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a number that goes up and down."""
    return GaugeMetricFamily(f"pov_rt_{name}", text, value)


def counter(name: str, text: str, value: float) -> Metric:
    """Return a number that only goes up."""
    return CounterMetricFamily(f"pov_rt_{name}", text, value)


def histogram(name: str, text: str, values: Histogram) -> Metric:
    """Return how long something took, or how much it was."""
    return HistogramMetricFamily(f"pov_rt_{name}", text, values.buckets(), values.sum)


def by_label(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    """Return a counter for each value of a label."""
    return by_labels(name, text, (label,), {(value,): count for value, count in counts.items()})


def by_labels(name: str, text: str, labels: Sequence[str], counts: Mapping[Any, int]) -> Metric:
    """Return a counter for the values of several labels, which are tuples."""
    family = CounterMetricFamily(f"pov_rt_{name}", text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


class ProbeHandler(JsonHandler):
    """The base of what load balancers and uptime checkers ask, by GET, HEAD or OPTIONS."""

    ANSWERS_OPTIONS = True

    def options(self) -> None:
        """Say by which methods it may be asked."""
        self.set_status(204)
        self.set_header("Allow", ", ".join(self._methods()))


class HealthHandler(ProbeHandler):
    """`GET /healthz`: the loop runs."""

    def get(self) -> None:
        """Answer 200."""
        self.answer({"status": "ok"})


class ReadyHandler(ProbeHandler):
    """`GET /readyz`: clients are welcome (200), or not (503); what goes, and what does not.

    Where publishing alone does not go, it is 200: what there is can be read, and a load balancer
    that sent nobody here any more would take that away, too. So it is with all that degrades the
    engine. A deaf one is 503: its clients are better off on other nodes.
    """

    def get(self) -> None:
        """Answer the state."""
        not_welcome, not_publishing = self.server.not_welcome(), self.server.not_publishing()
        refused = self._refused(not_welcome, not_publishing)
        state: dict[str, Any] = {
            "status": "ready" if refused is None else "not ready",
            "welcome": not_welcome is None,
            "publish": not_publishing is None,
        }
        if (reason := not_welcome or not_publishing) is not None:
            state["reason"] = reason
        health = self.server.engine.health()
        if health.state != "ok":
            state |= {"engine": health.state, "since": rfc3339(health.since)}
        if (warning := self.server.hub.others.warning) is not None:
            state["warning"] = warning
        if off := self.server.hooks.conduct.off:
            state["plugins"] = {name: f"off: {why}" for name, why in off.items()}
        self.answer(state, 200 if refused is None else 503)

    def _refused(self, not_welcome: str | None, _not_publishing: str | None) -> str | None:
        return not_welcome


class ReadyToPublishHandler(ReadyHandler):
    """`GET /readyz/publish`: the same, and 503 also while nothing can be published."""

    def _refused(self, not_welcome: str | None, not_publishing: str | None) -> str | None:
        return not_welcome or not_publishing


class MetricsHandler(JsonHandler):
    """`GET /metrics` in Prometheus' text format."""

    metrics: Collector

    def get(self) -> None:
        """Answer all metrics."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(generate_latest(self.metrics))
